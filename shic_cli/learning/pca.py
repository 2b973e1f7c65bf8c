"""One fixed basis of features a template: the principal components of its views' features, kept with their
mean.

SD-DINO's published pipeline fits a basis to every pair of images; then the features of two views can't be
compared. A fixed one can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from shic_cli.base.errors import InputError, SettingError


class Projected:
    """An extractor whose unit features `(B, D, h, w)` are centred by `mean` `(D,)` and projected to `(B, N,
    h, w)` by `basis` `(D, N)`.
    """

    def __init__(self, extractor: Any, mean: np.ndarray, basis: np.ndarray) -> None:
        if basis.shape[0] != extractor.dim:
            raise InputError(
                f"the basis is for features of length {basis.shape[0]}, {extractor.name} gives {extractor.dim}",
                "make the basis again",
            )
        self.extractor = extractor
        self.mean, self.basis = (np.ascontiguousarray(array, "<f4") for array in (mean, basis))
        self.name, self.side, self.device = extractor.name, extractor.side, extractor.device
        self.needs_mask, self.sees_whole_object = extractor.needs_mask, extractor.sees_whole_object
        self.dim = basis.shape[1]
        self._digest = hashlib.sha256(self.mean.tobytes() + self.basis.tobytes()).hexdigest()[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on: the extractor's settings, the basis' length and its hash."""
        return {**self.extractor.settings, "pca": self.dim, "basis": self._digest}

    @property
    def fingerprint(self) -> str:
        """The extractor's, and the basis' hash: features in different bases can't be compared."""
        return f"{self.extractor.fingerprint}-pca-{self._digest}"

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The basis as a features file keeps it."""
        return {"pca_mean": self.mean, "pca_basis": self.basis}

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """Unit features `(B, D, h, w)` in the basis: `(B, N, h, w)`, not normalised."""
        mean, basis = (torch.from_numpy(array).to(features) for array in (self.mean, self.basis))
        return ((features.movedim(1, -1) - mean) @ basis).movedim(-1, 1)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Features `(B, N, h, w)` of `images` `(B, 3, side, side)` and `masks` `(B, 1, side, side)`."""
        return self.project(F.normalize(self.extractor(images, masks).float(), dim=1))


def fit(
    features: Sequence[torch.Tensor], masks: torch.Tensor, components: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean f4 `(D,)` and basis f4 `(D, components)` of the cells of N unit `features` `(D, h, w)` that
    `masks` `(N, H, W)` half fill.

    The components are ordered by their variance, largest first; the largest entry of each is positive, so
    that a basis does not depend on the machine. SettingError when there are not as many.
    """
    inside = F.adaptive_avg_pool2d(masks[:, None].float(), features[0].shape[-1])[:, 0] >= 0.5
    total, square, count = 0.0, 0.0, int(inside.sum())
    dim = len(features[0])
    if components > dim or components >= count:
        raise SettingError(
            f"--pca {components}: there are features of length {dim} at {count} cells",
            "give a smaller number",
        )
    for feature, here in zip(features, inside.to(features[0].device), strict=True):
        rows = feature[:, here].T.double()
        total, square = total + rows.sum(0), square + rows.T @ rows
    mean = (total / count).cpu()
    covariance = (square / count).cpu() - mean.outer(mean)
    basis = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :components]
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
    return mean.float().numpy(), (basis * largest.sign()).float().numpy()
