"""The embedded encoder: the mask and the colours inside it. It needs no weights."""

from __future__ import annotations

from typing import Any

import torch

from shic_cli.parts.extractors.contract import ExtractorDefaults

FLAT = 0.02  # of full brightness: colours that vary less than this are stretched as if they varied by it


class Picture(ExtractorDefaults):
    """Pixels `(B, 4, side, side)`: the mask in -1..1, and the colours inside it.

    R, G and B have mean 0 and standard deviation 1 inside the mask, and are 0 outside. These features are no
    unit vectors, and pixels can't be matched by them. They are for the decoder `unet`, which is trained from
    scratch. It can learn from synthetic pictures what no outline shows: near and far legs, head and rump
    from straight ahead.
    """

    name = "picture"
    needs_mask = small = True
    sees_whole_object = False
    unit = False  # the length of a feature is its contrast
    decoder = "unet"
    side = 128
    dim = 4

    def __init__(self, argument: str = "", *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on, for the files that are made with them."""
        return {"name": self.name, "side": self.side}

    @property
    def fingerprint(self) -> str:
        """Equal where features can be compared; there are no weights, so that only the side counts."""
        return f"picture-{self.side}"

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Pixels `(B, 4, S, S)` of `images` `(B, 3, S, S)` RGB in 0..1 and `masks` `(B, 1, S, S)` in 0..1."""
        images, masks = images.to(self.device, torch.float32), masks.to(self.device, torch.float32)
        weight = masks / masks.sum((2, 3), keepdim=True).clamp_min(1)
        centred = images - (images * weight).sum((2, 3), keepdim=True)
        spread = (centred.square() * weight).sum((1, 2, 3), keepdim=True).div(3).sqrt().clamp_min(FLAT)
        return torch.cat([2 * masks - 1, centred / spread * masks], 1)
