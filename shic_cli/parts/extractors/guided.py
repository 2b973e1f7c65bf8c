"""The picture's own pixels beside the features of a network that knows photos: `picture+NAME`."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from shic_cli.parts.extractors.contract import Extractor, ExtractorDefaults
from shic_cli.parts.extractors.joined import resample
from shic_cli.parts.extractors.picture import Picture

CELLS = 16  # a side of the grid that carries both


class Guided(ExtractorDefaults):
    """Pixels and features `(B, D, 16, 16)`, for a decoder `unet`.

    The first channels of a cell are the pixels in it; `pixels_of` takes them out again. The others are the
    features of `guide`, resampled to the grid and normalised in each cell to mean 0 and variance 1.

    A U-Net that is trained on synthetic pictures alone reads outlines. A frozen network that has seen photos
    shows it a face, an ear or a near leg.
    """

    needs_mask = True
    sees_whole_object = False
    unit = False
    decoder = "unet"

    def __init__(self, picture: Picture, guide: Extractor) -> None:
        self.picture, self.guide = picture, guide
        self.name = f"{picture.name}+{guide.name}"
        self.side = max(picture.side, guide.side)
        self.pixels = picture.dim * (picture.side // CELLS) ** 2
        self.dim = self.pixels + guide.dim
        self.device = guide.device

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on: the settings of both."""
        return {"name": self.name, "parts": [self.picture.settings, self.guide.settings]}

    @property
    def fingerprint(self) -> str:
        """Equal where the fingerprints of both are."""
        return f"{self.picture.fingerprint}+{self.guide.fingerprint}"

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Pixels and features `(B, D, 16, 16)` of `images` `(B, 3, S, S)` and `masks` `(B, 1, S, S)`."""
        pixels = self.picture(resample(images, self.picture.side), resample(masks, self.picture.side))
        features = self.guide(resample(images, self.guide.side), resample(masks, self.guide.side)).float()
        if features.shape[-1] != CELLS:
            features = F.interpolate(features, (CELLS, CELLS), mode="bilinear", antialias=True)
        features = F.layer_norm(features.movedim(1, -1), features.shape[1:2]).movedim(-1, 1)
        packed = F.pixel_unshuffle(pixels, self.picture.side // CELLS)
        return torch.cat([packed.to(features.device), features], 1)


def pixels_of(packed: torch.Tensor, channels: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixels `(B, channels, side, side)` and the features `(B, C, 16, 16)` of a `Guided`'s output."""
    count = channels * (side // CELLS) ** 2
    return F.pixel_shuffle(packed[:, :count], side // CELLS), packed[:, count:]
