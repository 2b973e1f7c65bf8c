"""DIY-SC: DINOv2 base with an adapter that was trained on pseudo-labels, for matching parts of objects.

Source: Dünkel et al., Do It Yourself: Learning Semantic Correspondence from Pseudo-Labels, arXiv 2506.05312.
The adapter learned from photos of SPair-71k with the side that each object shows, and from no keypoints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from shic_cli.base.errors import InputError
from shic_cli.parts import registry
from shic_cli.parts.checkpoints import fingerprint_of
from shic_cli.parts.extractors.contract import ExtractorDefaults
from shic_cli.parts.extractors.vit import Dinov2Base
from shic_cli.parts.weights import full_name, locate

GROUPS = 32  # of the adapter's group norms
HINT = "get it with `shic models pull diy-sc`"
# Our names of the adapter's layers, and those of its checkpoint. The last is there only where the number of
# channels changes.
LAYERS = {"narrow": "conv1", "look": "conv2", "widen": "conv3", "beside": "shortcut"}
PREFIX = "bottleneck_layers.0.0."
UNUSED = {"logit_scale", "self_logit_scale", "mixing_weights"}  # of the training; the mix of one layer is 1


class Adapter(nn.Module):
    """Features `(B, E, h, w)` of features `(B, D, h, w)`: a bottleneck that looks at 3 by 3 cells.

    It has `width` channels inside, and is added to the features themselves, or to a projection of them if E
    is not D.
    """

    def __init__(self, channels: int, width: int, dim: int) -> None:
        super().__init__()
        self.channels, self.dim = channels, dim
        self.narrow, self.look = _layer(channels, width, 1), _layer(width, width, 3)
        self.widen = _layer(width, dim, 1)
        self.beside = nn.Identity() if dim == channels else _layer(channels, dim, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.look(F.relu(self.narrow(features))))
        return F.relu(self.widen(inner) + self.beside(features))

    @classmethod
    def of(cls, tensors: dict[str, torch.Tensor], where: Path) -> Adapter:
        """The frozen adapter with these `tensors`; InputError if they are not those of one."""
        try:
            width, channels = tensors["narrow.0.weight"].shape[:2]
            with torch.device("meta"):
                adapter = cls(channels, width, tensors["widen.0.weight"].shape[0])
            adapter.load_state_dict(tensors, assign=True)
        except (KeyError, ValueError, RuntimeError) as error:
            fact = f"{where}: is no adapter of DIY-SC ({str(error).splitlines()[0]})"
            raise InputError(fact, HINT) from error
        return adapter.eval().requires_grad_(False)


def _layer(channels: int, dim: int, size: int) -> nn.Sequential:
    convolution = nn.Conv2d(channels, dim, size, padding=size // 2, bias=False)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, dim))


def convert(state: dict[str, torch.Tensor], where: Path) -> dict[str, torch.Tensor]:
    """The tensors of `Adapter` from those of the authors' checkpoint; InputError if one is unknown."""
    ours = {
        f"{theirs}.{kind}": f"{name}.{number}.{value}"
        for name, theirs in LAYERS.items()
        for kind, number, value in (
            ("weight", 0, "weight"),
            ("norm.weight", 1, "weight"),
            ("norm.bias", 1, "bias"),
        )
    }
    converted = {}
    for name, value in state.items():
        if name in UNUSED:
            continue
        if name.removeprefix(PREFIX) not in ours or not isinstance(value, torch.Tensor):
            raise InputError(f"{where}: is no checkpoint of DIY-SC: it has {name}", HINT)
        converted[ours[name.removeprefix(PREFIX)]] = value.detach().float().contiguous()
    Adapter.of(converted, where)
    return converted


class DiySc(ExtractorDefaults):
    """Features `(B, 768, 60, 60)` of DIY-SC, for pictures of 840 pixels a side.

    They are DINOv2 base's, of block 11 before the last norm, refined by the adapter. The argument names
    another folder of an adapter. `precision` is as in `dinov2`; the adapter computes in float32.
    """

    name = "diy-sc"
    packages: tuple[str, ...] = ("transformers",)
    model = "diy-sc-adapter"
    slow_on = ("cpu",)  # a picture has 3,600 patches
    needs_mask = False

    def __init__(
        self,
        argument: str = "",
        *,
        device: torch.device | str = "cpu",
        weights: Path | None = None,
        side: int = 840,
        precision: str = "auto",
    ) -> None:
        from safetensors.torch import load_file

        options = {"side": side, "precision": precision}
        self.name = registry.spell(type(self), full_name(argument), options)
        folder = locate(argument or self.model, weights)
        self._dino = Dinov2Base(device=device, weights=weights, layer=11, **options)
        self._adapter = Adapter.of(load_file(folder / "model.safetensors"), folder).to(self._dino.device)
        channels = self._adapter.channels
        if channels != self._dino.dim:
            fact = f"{folder}: its adapter takes {channels} channels, DINOv2 has {self._dino.dim}"
            raise InputError(fact, "give the adapter for DINOv2 base")
        self._weights = fingerprint_of(folder)
        self.side, self.device = self._dino.side, self._dino.device
        self.dim: int = self._adapter.dim

    @classmethod
    def check(cls, weights: Path | None = None) -> None:
        """MissingError when the adapter or DINOv2 base is not on this machine."""
        locate(cls.model, weights)
        Dinov2Base.check(weights)

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on, for the files that are made with them."""
        return {"name": self.name, "adapter": self._weights, "dinov2": self._dino.settings}

    @property
    def fingerprint(self) -> str:
        """Equal where features can be compared."""
        return f"diy-sc-{self._weights}-{self._dino.fingerprint}"

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Features f4 `(B, 768, h, w)` of `images` `(B, 3, side, side)` in 0..1; `masks` are not used."""
        return self._adapter(self._dino(images, masks))
