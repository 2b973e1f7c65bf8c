"""One fixed basis for a template: the principal components of its views' features, and their mean.

SD-DINO's published pipeline fits a basis to every pair of images, so features of different pairs can't be
compared. In one fixed basis they can.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from shic_cli.base.devices import with_double
from shic_cli.base.errors import InputError, SettingError
from shic_cli.parts.extractors.contract import Extractor, ExtractorDefaults


class Projected(ExtractorDefaults):
    """An extractor whose unit features `(B, D, h, w)` are projected to `(B, N, h, w)`.

    They are first centred by `mean` `(D,)`, then projected by `basis` `(D, N)`.
    """

    def __init__(self, extractor: Extractor, mean: np.ndarray, basis: np.ndarray) -> None:
        if basis.shape[0] != extractor.dim:
            raise InputError(
                f"the basis is for features of length {len(basis)}, {extractor.name} gives {extractor.dim}",
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
        """The extractor's fingerprint and the basis' hash; features in different bases can't be compared."""
        return f"{self.extractor.fingerprint}-pca-{self._digest}"

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The basis in the form in which a features file stores it."""
        return {"pca_mean": self.mean, "pca_basis": self.basis}

    def project(self, features: torch.Tensor) -> torch.Tensor:
        """`(B, N, h, w)`: unit features `(B, D, h, w)` in the basis, not normalised."""
        mean, basis = (torch.from_numpy(array).to(features) for array in (self.mean, self.basis))
        return ((features.movedim(1, -1) - mean) @ basis).movedim(-1, 1)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Features `(B, N, h, w)` of `images` `(B, 3, side, side)` and `masks` `(B, 1, side, side)`."""
        return self.project(F.normalize(self.extractor(images, masks).float(), dim=1))


def fit(
    features: Sequence[torch.Tensor], masks: torch.Tensor, components: int
) -> tuple[np.ndarray, np.ndarray]:
    """The mean f4 `(D,)` and the basis f4 `(D, components)` of N unit `features` `(D, h, w)`.

    Only cells that `masks` `(N, H, W)` fill at least half count. The components are ordered by variance,
    largest first. The largest entry of each is positive, so that the basis does not depend on the machine.
    SettingError if there are too few cells or channels for that many components.
    """
    inside = F.adaptive_avg_pool2d(masks[:, None].float(), features[0].shape[-1])[:, 0] >= 0.5
    count, dim = int(inside.sum()), len(features[0])
    if components > dim or components >= count:
        raise SettingError(
            f"--pca {components}: there are features of length {dim} at {count} cells",
            "give a smaller number",
        )
    exact = with_double(features[0].device)
    total = torch.zeros(dim, dtype=torch.float64, device=exact)
    square = torch.zeros(dim, dim, dtype=torch.float64, device=exact)
    for feature, here in zip(features, inside.to(features[0].device), strict=True):
        rows = feature[:, here].T.to(exact).double()
        total, square = total + rows.sum(0), square + rows.T @ rows
    mean = (total / count).cpu()
    covariance = (square / count).cpu() - mean.outer(mean)
    basis = torch.linalg.eigh(covariance).eigenvectors.flip(1)[:, :components]
    largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
    return mean.float().numpy(), (basis * largest.sign()).float().numpy()
