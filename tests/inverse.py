"""The ways back from pixels, which only tests go: to the world, and from a crop to its photo."""

from __future__ import annotations

import numpy as np
import torch

from shic_cli.files.photos import Crop
from shic_cli.surface.cameras import Cameras


def unproject(cameras: Cameras, yx: torch.Tensor, z: torch.Tensor, size: int) -> torch.Tensor:
    """World positions `(N, P, 3)` of pixel positions `yx` (N, P, 2) at view depths `z` (N, P)."""
    ndc = 1 - (2 * yx.flip(-1) + 1) / size
    xy = (ndc - cameras.principal[:, None]) / cameras.focal[:, None, None] * z[..., None]
    view = torch.cat([xy, z[..., None]], -1)
    return (view - cameras.translation[:, None]) @ cameras.rotation.transpose(1, 2)


def to_photo(crop: Crop, yx: np.ndarray, size: int) -> np.ndarray:
    """Photo positions `(..., 2)` of positions in a crop of `size` pixels a side."""
    return (yx + 0.5) * (crop.side / size) - 0.5 + np.array([crop.top, crop.left])
