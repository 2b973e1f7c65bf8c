"""Vision transformers as extractors: any of the transformers library, DINOv2 and DINOv3 by their names."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shic_cli.base.errors import InputError, SettingError
from shic_cli.parts import registry
from shic_cli.parts.checkpoints import fingerprint_of, load
from shic_cli.parts.extractors.positions import resized_positions
from shic_cli.parts.extractors.pretrained import Pretrained, number_format
from shic_cli.parts.weights import full_name, locate

FACETS = ("token", "query", "key", "value")
BACKGROUNDS = ("keep", "black")
# Mean and standard deviation of ImageNet's pixels, RGB in 0..1.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNUSED = (
    "pooler",
    "embeddings.mask_token",
)  # no feature depends on these tensors, and some checkpoints lack them


class Vit(Pretrained):
    """Features `(B, D, h, w)` of the patches of a vision transformer, h = w = side / patch.

    CLS and register tokens are dropped. `layer` -1 is the final output, after the last norm; 0 and up is the
    output of that block, before any norm. `facet` query, key or value is what the attention of that block
    projects its input to, all heads together, before DINOv3 rotates it by position. `side` 0 is the size
    that the model was made for; at another side its position embeddings are interpolated. `precision` auto
    is bfloat16 on CUDA, which has the range of float32, and float32 elsewhere. `background` black puts the
    object on black, as renders do, and then needs a mask. The default, keep, leaves the photo as it is: the
    model was trained on whole photos, and a trained map must tell the object from its background.
    """

    name = kind = "vit"
    packages: tuple[str, ...] = ("transformers",)
    usual_side = 0  # the side that `side` 0 stands for; 0: the size that the model was made for

    def __init__(
        self,
        argument: str = "",
        *,
        device: torch.device | str = "cpu",
        weights: Path | None = None,
        layer: int = -1,
        facet: str = "token",
        side: int = 0,
        precision: str = "auto",
        background: str = "keep",
    ) -> None:
        own = {"layer": layer, "facet": facet, "side": side, "precision": precision, "background": background}
        self.name = registry.spell(type(self), full_name(argument), own)
        for option, choices in (("facet", FACETS), ("background", BACKGROUNDS)):
            if own[option] not in choices:
                fact = f"{self.name}: there is no {option} {own[option]!r}"
                raise SettingError(fact, f"there are: {', '.join(choices)}")
        self.device, self.facet, self.background = torch.device(device), facet, background
        self.needs_mask = background == "black"
        self.dtype = number_format(self.name, precision, self.device, torch.bfloat16)
        folder = locate(argument or self.model, weights)
        self._load(folder)
        self._tap_block(folder, layer)
        self.side = self._checked_side(side or self.usual_side or _square(self._model.config.image_size))
        self._positions = self._fit_positions()
        self.mean, self.std = read_normalisation(folder)
        self._weights = fingerprint_of(folder)

    def _load(self, folder: Path) -> None:
        from transformers import AutoModel

        self._model = load(AutoModel, folder, dtype=self.dtype, device=self.device, ignore_missing=UNUSED)
        config = self._model.config
        sizes = [
            _square(getattr(config, key, 0))
            for key in ("patch_size", "image_size", "hidden_size", "num_hidden_layers")
        ]
        if not all(sizes) or config.num_channels != 3 or not self._lists():
            raise InputError(
                f"{folder}: is a model of type {config.model_type}, not a vision transformer for RGB images",
                "give a checkpoint of a ViT, DeiT, DINO, DINOv2 or DINOv3",
            )
        self.patch = sizes[0]

    def _lists(self) -> list[nn.ModuleList]:
        count = self._model.config.num_hidden_layers
        return [
            module
            for module in self._model.modules()
            if isinstance(module, nn.ModuleList) and len(module) == count
        ]

    def _tap_block(self, folder: Path, layer: int) -> None:
        """Choose the module whose output is the feature, None for the model's own; drop the later blocks."""
        blocks = self._lists()[0]
        if not -1 <= layer < len(blocks):
            raise SettingError(
                f"{self.name}: there is no layer {layer}",
                f"give 0 to {len(blocks) - 1}, or -1 for the final output",
            )
        self.layer = layer if self.facet == "token" else layer % len(blocks)
        tap = None if self.layer < 0 else blocks[self.layer]
        self.dim: int = self._model.config.hidden_size
        if self.facet != "token":
            tap = _projection(blocks[self.layer], self.facet)
            if tap is None:
                fact = f"{folder}: its blocks have no {self.facet} projection of their own"
                raise InputError(fact, "give facet=token")
            self.dim = tap.out_features
        self._tap = tap
        if tap is not None:
            del blocks[self.layer + 1 :]

    def _checked_side(self, side: int) -> int:
        """`side`; SettingError with the nearest sides unless it is a multiple of the patch."""
        below = max(side, 0) // self.patch * self.patch
        if side == below > 0:
            return side
        near = " or ".join(f"side={size}" for size in (below, below + self.patch) if size > 0)
        raise SettingError(
            f"{self.name}: side {side} is not a multiple of the patch, {self.patch} pixels", f"give {near}"
        )

    def _fit_positions(self) -> dict[str, str]:
        """Give DINOv2 the position embeddings that the hub's model has at `side`; what to record of it.

        transformers, which finds a table of the right size then, would interpolate by another rule.
        """
        config = self._model.config
        if config.model_type != "dinov2" or self.side == _square(config.image_size):
            return {}
        embeddings = self._model.embeddings
        table = resized_positions(embeddings.position_embeddings.detach(), self.side // self.patch)
        embeddings.position_embeddings = nn.Parameter(table, requires_grad=False)
        return {"positions": "hub"}

    def _identity(self) -> dict[str, Any]:
        names = ("layer", "facet", "side", "background", "mean", "std")
        return {"weights": self._weights, **self._positions, **{name: getattr(self, name) for name in names}}

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Features f4 `(B, D, h, w)`, no unit vectors, of `images` `(B, 3, side, side)` RGB in 0..1.

        `masks` `(B, 1, side, side)` in 0..1 count only where the background is black.
        """
        images = images.to(self.device, torch.float32)
        if self.background == "black":
            images = images * masks.to(images)
        mean, std = (images.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        tokens = self._tokens(((images - mean) / std).to(self.dtype))
        cells = self.side // self.patch
        extra = tokens.shape[1] - cells**2  # CLS, distillation and register tokens come before the patches
        if tokens.ndim != 3 or extra < 0:
            raise InputError(
                f"{self.name}: the model does not give one token for each patch",
                "it is no plain vision transformer; give another model",
            )
        return tokens[:, extra:].float().transpose(1, 2).unflatten(2, (cells, cells))

    def _tokens(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the chosen module gives of `pixels`, `(B, T, D)`, CLS and register tokens first."""
        options = {}
        resized = self.side != _square(self._model.config.image_size)
        if resized and "interpolate_pos_encoding" in inspect.signature(self._model.forward).parameters:
            # DINOv2 has no such parameter, as it always does; DINOv3 has no table of positions.
            options["interpolate_pos_encoding"] = True
        if self._tap is None:
            return self._model(pixels, **options).last_hidden_state
        caught: list[torch.Tensor] = []

        def catch(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            caught.append(output)

        hook = self._tap.register_forward_hook(catch)
        try:
            self._model(pixels, **options)
        finally:
            hook.remove()
        return caught[0]


class Dinov2Small(Vit):
    """`Vit` with DINOv2 small at 224 pixels: the paper's encoder (sec. 4.1), 16 by 16 patch tokens."""

    name, model, usual_side = "dinov2-small", "dinov2-small", 224


class Dinov2Base(Vit):
    """`Vit` with DINOv2 base, one of the two models of the paper's pseudo-labels (sec. 3.3)."""

    name, model = "dinov2-base", "dinov2-base"


class Dinov2(Dinov2Base):
    """`Dinov2Base`, by its short name."""

    name = "dinov2"


class Dinov2Large(Vit):
    """`Vit` with DINOv2 large."""

    name, model = "dinov2-large", "dinov2-large"


class Dinov3(Vit):
    """`Vit` with DINOv3 base."""

    name, model = "dinov3", "dinov3-base"


class Dinov3Small(Vit):
    """`Vit` with DINOv3 small."""

    name, model = "dinov3-small", "dinov3-small"


def _square(size: Any) -> int:
    """A side in pixels from a number or a pair of a configuration; 0 when the pair is no square."""
    if isinstance(size, Sequence):
        return size[0] if len(set(size)) == 1 else 0
    return size


def _projection(block: nn.Module, facet: str) -> nn.Linear | None:
    """The layer of a block's attention that makes `facet`; None unless there is exactly one."""
    names = (f"{facet[0]}_proj", facet)  # transformers has two names for it
    layers = [
        module
        for name, module in block.named_modules()
        if name.rpartition(".")[2] in names and isinstance(module, nn.Linear)
    ]
    return layers[0] if len(layers) == 1 else None


def read_normalisation(folder: Path) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of R, G and B in 0..1, from preprocessor_config.json, else ImageNet's."""
    path = folder / "preprocessor_config.json"
    if not path.exists():
        return IMAGENET
    try:
        settings = json.loads(path.read_text("utf-8"))
        if not settings.get("do_normalize", True):
            return (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
        mean, std = (
            tuple(map(float, settings.get(key, usual)))
            for key, usual in zip(("image_mean", "image_std"), IMAGENET, strict=True)
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: can't be read ({error})", "get the model's files again") from error
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise InputError(
            f"{path}: image_mean {mean} and image_std {std} are not three numbers each",
            "get the model's files again",
        )
    return mean, std
