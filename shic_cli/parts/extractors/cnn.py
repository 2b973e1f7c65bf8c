"""Convolutional networks as extractors: any classifier or segmenter of the transformers library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from shic_cli.base.errors import InputError, SettingError
from shic_cli.parts import registry
from shic_cli.parts.checkpoints import fingerprint_of, load
from shic_cli.parts.extractors.pretrained import Pretrained, number_format
from shic_cli.parts.extractors.vit import read_normalisation
from shic_cli.parts.weights import full_name, locate

STRIDES = (8, 16, 32)  # pixels of the picture in a cell of the levels that are taken
UNUSED = (
    "pooler",
    "classifier",
    "conv_1x1",
)  # no level depends on these tensors, and some checkpoints lack them


class Cnn(Pretrained):
    """Features `(B, D, side / 16, side / 16)`: the last outputs at strides 8, 16 and 32, concatenated.

    The level at stride 8 gives four vectors for a cell, that at stride 32 one for four cells. Every level is
    normalised in each cell to mean 0 and variance 1. The object is on the mean colour of the network's
    training pictures. `side` is a multiple of 32. The folder holds a model of transformers such as
    MobileNetV2, ResNet or ConvNeXt, or a segmenter that is built on one.
    """

    name = kind = "cnn"
    packages: tuple[str, ...] = ("transformers",)
    needs_mask = True

    def __init__(
        self,
        argument: str = "",
        *,
        device: torch.device | str = "cpu",
        weights: Path | None = None,
        side: int = 256,
        precision: str = "auto",
    ) -> None:
        self.name = registry.spell(type(self), full_name(argument), {"side": side, "precision": precision})
        if side < 32 or side % 32:
            near = max(side // 32, 1) * 32
            raise SettingError(
                f"{self.name}: side {side} is not a multiple of 32", f"give side={near} or side={near + 32}"
            )
        self.device, self.side = torch.device(device), side
        self.dtype = number_format(self.name, precision, self.device, torch.bfloat16)
        folder = locate(argument or self.model, weights)
        self._load(folder)
        self.mean, self.std = read_normalisation(folder)
        self._weights = fingerprint_of(folder)
        with torch.no_grad():
            self.dim = self._levels(torch.zeros(1, 3, side, side, device=self.device)).shape[1]

    def _load(self, folder: Path) -> None:
        from transformers import AutoConfig, AutoModel

        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        own = (
            {"output_stride": 32} if hasattr(config, "output_stride") else {}
        )  # a segmenter may have dilated it
        self._model = load(
            AutoModel, folder, dtype=self.dtype, device=self.device, ignore_missing=UNUSED, **own
        )
        self._model.to(memory_format=torch.channels_last)  # takes two fifths off the time on a CPU
        if self._model.config.num_channels != 3:
            raise InputError(
                f"{folder}: its pictures do not have 3 channels", "give a network for RGB images"
            )

    def _identity(self) -> dict[str, Any]:
        return {"weights": self._weights, "side": self.side, "mean": self.mean, "std": self.std}

    def _levels(self, pixels: torch.Tensor) -> torch.Tensor:
        """The features f4 of normalised `pixels` `(B, 3, side, side)`."""
        pixels = pixels.to(self.dtype, memory_format=torch.channels_last)
        states = self._model(pixels, output_hidden_states=True).hidden_states
        cells, found = self.side // 16, []
        for stride in STRIDES:
            here = [state for state in states if state.ndim == 4 and state.shape[-1] == self.side // stride]
            if not here:
                raise InputError(
                    f"{self.name}: the model has no level at stride {stride}",
                    "give a network such as MobileNetV2, ResNet or ConvNeXt",
                )
            level = here[-1].float()
            level = F.layer_norm(level.movedim(1, -1), level.shape[1:2]).movedim(-1, 1)
            if stride < 16:
                level = F.pixel_unshuffle(level, 16 // stride)
            found.append(F.interpolate(level, (cells, cells), mode="bilinear") if stride > 16 else level)
        return torch.cat(found, 1)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Features f4 `(B, D, side / 16, side / 16)` of `images` `(B, 3, side, side)` RGB in 0..1.

        `masks` `(B, 1, side, side)` in 0..1 show the object.
        """
        images = images.to(self.device, torch.float32)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return self._levels((images - mean) / std * masks.to(images))


class Mobilenet(Cnn):
    """`Cnn` with MobileNetV2, trained to label the 21 classes of PASCAL VOC; small enough for a CPU."""

    name, model = "mobilenet", "mobilenet"
