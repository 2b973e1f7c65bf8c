"""Inverse depth: of the object, of photos by Depth Anything, and both in one picture for a ControlNet (sec.
3.5). White is near.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch

from shic_cli.base.errors import InputError
from shic_cli.parts.extractors.vit import read_normalisation
from shic_cli.parts.weights import AGAIN, load, locate

OBJECT = (0.35, 1.0)  # of white, for the object's farthest and nearest point
BEHIND = 0.3  # the brightest that a background gets: the object is always in front
SIDE = 518  # pixels; what Depth Anything was trained at


def blend(depth: np.ndarray, mask: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Inverse depth `(S, S)` f4 in 0..1 of the object in front of a background, larger is nearer.

    `depth` (S, S) is the object's distance in `mask`, in any unit; `background` (S, S) is inverse depth on
    any scale.
    """
    low, high = float(background.min()), float(background.max())
    out = (BEHIND * (background - low) / max(high - low, 1e-9)).astype(np.float32)
    inverse = 1 / depth[mask]
    low, high = float(inverse.min()), float(inverse.max())
    share = (inverse - low) / (high - low) if high > low else np.ones_like(inverse)
    out[mask] = OBJECT[0] + (OBJECT[1] - OBJECT[0]) * share
    return out


def as_picture(inverse: np.ndarray) -> np.ndarray:
    """Inverse depth `(S, S)` in 0..1 as a grey picture `(S, S, 3)` uint8."""
    return np.repeat((inverse.clip(0, 1) * 255).round().astype(np.uint8)[..., None], 3, axis=-1)


class DepthAnything:
    """Predicts inverse depth `(S, S)` f4 of square photos `(S, S, 3)` uint8: larger is nearer, without a
    scale.

    `name` is a model's name or its folder. Made for the relative kind; a metric one's metres are inverted.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu", weights: Path | None = None) -> None:
        from transformers import DepthAnythingForDepthEstimation

        self.folder, self.device = locate(name, weights), torch.device(device)
        self._model = load(DepthAnythingForDepthEstimation, self.folder, device=self.device)
        self._metric = self._model.config.depth_estimation_type == "metric"
        self._mean, self._std = (np.float32(each) for each in read_normalisation(self.folder))

    @torch.no_grad()
    def __call__(self, rgb: np.ndarray) -> np.ndarray:
        """Inverse depth of `rgb`; InputError when the prediction is no number."""
        side = SIDE // self._model.config.patch_size * self._model.config.patch_size
        small = cv2.resize(
            rgb, (side, side), interpolation=cv2.INTER_AREA if side < len(rgb) else cv2.INTER_CUBIC
        )
        values = torch.from_numpy((small / np.float32(255) - self._mean) / self._std).permute(2, 0, 1)[None]
        found = self._model(values.to(self.device)).predicted_depth[0].float().cpu().numpy()
        if not np.isfinite(found).all():
            raise InputError(f"{self.folder}: predicts no numbers (NaN)", AGAIN)
        found = 1 / found.clip(1e-3) if self._metric else found
        return cv2.resize(found, (len(rgb), len(rgb)), interpolation=cv2.INTER_LINEAR)
