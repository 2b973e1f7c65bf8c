"""Several extractors as one: `a+b` gives the features of both, with the same share in a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F

from shic_cli.parts.extractors.contract import Extractor, ExtractorDefaults


class Joined(ExtractorDefaults):
    """Unit features `(B, D, h, w)` of several `parts`; D is the sum of theirs, h and w are the finest grid's.

    Each part gets the pictures at its own side. Its features are made unit vectors, resampled to the finest
    grid (bilinear) and made unit vectors again; then those of all parts are concatenated. So the cosine of
    two features is the mean of the parts' cosines.
    """

    def __init__(self, parts: Sequence[Extractor], name: str = "") -> None:
        self.parts = tuple(parts)
        self.name = name or "+".join(part.name for part in self.parts)
        self.needs_mask = any(part.needs_mask for part in self.parts)
        self.sees_whole_object = any(part.sees_whole_object for part in self.parts)
        # what was measured for one of the parts is not known to be best for all of them
        self.agreement = max(part.agreement for part in self.parts)
        self.matching = "transport" if all(part.matching == "transport" for part in self.parts) else "maximum"
        self.side, self.dim = max(part.side for part in self.parts), sum(part.dim for part in self.parts)
        self.device = self.parts[0].device

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on: the settings of every part."""
        return {"name": self.name, "parts": [part.settings for part in self.parts]}

    @property
    def fingerprint(self) -> str:
        """Equal where the fingerprints of every part are."""
        return "+".join(part.fingerprint for part in self.parts)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Unit features `(B, D, h, w)` of `images` `(B, 3, side, side)` and `masks` `(B, 1, side, side)`."""
        features = [
            F.normalize(part(resample(images, part.side), resample(masks, part.side)).float(), dim=1)
            for part in self.parts
        ]
        finest = max(feature.shape[-1] for feature in features)
        return torch.cat([self._refine(feature, finest) for feature in features], 1) / len(features) ** 0.5

    @staticmethod
    def _refine(feature: torch.Tensor, cells: int) -> torch.Tensor:
        if feature.shape[-1] == cells:
            return feature
        return F.normalize(F.interpolate(feature, (cells, cells), mode="bilinear"), dim=1)


def resample(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """`pictures` `(B, C, H, H)` resampled to `(B, C, side, side)`, bilinear and without aliasing."""
    if pictures.shape[-1] == side:
        return pictures
    return F.interpolate(pictures.float(), (side, side), mode="bilinear", antialias=True)
