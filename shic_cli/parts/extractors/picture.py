"""The embedded encoder: the mask and the colours inside it, for a decoder that learns to see by itself. It
needs no weights.
"""

from __future__ import annotations

from typing import Any

import torch

FLAT = 0.02  # of full brightness; colours that vary less than this are not stretched further


class Picture:
    """Pixels `(B, 4, side, side)`: the mask in -1..1, and R, G and B inside it with mean 0 and a standard
    deviation of 1, 0 outside.

    Not unit vectors, and nothing to match pixels by: an encoder for the decoder `unet`, which is trained from
    scratch. What no outline shows (near and far legs, head and rump from straight ahead) is there to be
    learned from synthetic pictures.
    """

    name = "picture"
    needs_mask = True
    sees_whole_object = False
    unit = False  # contrast is in the features' length
    decoder = "unet"  # what `auto` takes
    side = 128
    dim = 4

    def __init__(self, argument: str = "", *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on, for the files made with them."""
        return {"name": self.name, "side": self.side}

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints mean comparable features; this part has no weights."""
        return f"picture-{self.side}"

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Pixels `(B, 4, S, S)` of `images` `(B, 3, S, S)` RGB in 0..1 and `masks` `(B, 1, S, S)` in 0..1."""
        images, masks = images.to(self.device, torch.float32), masks.to(self.device, torch.float32)
        weight = masks / masks.sum((2, 3), keepdim=True).clamp_min(1)
        centred = images - (images * weight).sum((2, 3), keepdim=True)
        spread = (centred.square() * weight).sum((1, 2, 3), keepdim=True).div(3).sqrt().clamp_min(FLAT)
        return torch.cat([2 * masks - 1, centred / spread * masks], 1)
