"""Several extractors as one: `a+b` gives the features of both, each with the same say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F


class Joined:
    """Unit features `(B, D, h, w)`, D the sum over the `parts`, on the finest of their grids; a cosine is the
    mean of the parts' cosines.

    Each part gets the pictures at its own side, its features are made unit vectors, resampled to the finest
    grid (bilinear), made unit vectors again and concatenated.
    """

    def __init__(self, parts: Sequence[Any], name: str = "") -> None:
        self.parts = tuple(parts)
        self.name = name or "+".join(part.name for part in self.parts)
        self.needs_mask = any(part.needs_mask for part in self.parts)
        self.sees_whole_object = any(part.sees_whole_object for part in self.parts)
        self.side, self.dim = max(part.side for part in self.parts), sum(part.dim for part in self.parts)
        self.device = self.parts[0].device

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on: the settings of every part."""
        return {"name": self.name, "parts": [part.settings for part in self.parts]}

    @property
    def fingerprint(self) -> str:
        """Equal when those of every part are."""
        return "+".join(part.fingerprint for part in self.parts)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Unit features `(B, D, h, w)` of `images` `(B, 3, side, side)` and `masks` `(B, 1, side, side)`,
        both in 0..1.
        """
        found = [
            F.normalize(part(resample(images, part.side), resample(masks, part.side)).float(), dim=1)
            for part in self.parts
        ]
        finest = max(feature.shape[-1] for feature in found)
        return torch.cat([self._refine(feature, finest) for feature in found], 1) / len(found) ** 0.5

    @staticmethod
    def _refine(feature: torch.Tensor, cells: int) -> torch.Tensor:
        if feature.shape[-1] == cells:
            return feature
        return F.normalize(F.interpolate(feature, (cells, cells), mode="bilinear"), dim=1)


def resample(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """`pictures` `(B, C, H, H)` at `(B, C, side, side)`, without aliasing."""
    if pictures.shape[-1] == side:
        return pictures
    return F.interpolate(pictures.float(), (side, side), mode="bilinear", antialias=True)
