"""Checks of a photo's mask: its size, the border of the picture, an outline that was not filled."""

from __future__ import annotations

import cv2
import numpy as np

from shic_cli.base.errors import InputError

LINE = 0.015  # of the longer side: the largest thickness of a line


def check_mask(mask: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return `mask` itself if it can serve for a photo of `shape`.

    InputError if its size differs from the photo's, or if it is empty or full.
    """
    if mask.shape != tuple(shape[:2]):
        sizes = f"{mask.shape[1]} by {mask.shape[0]} pixels, the photo {shape[1]} by {shape[0]}"
        raise InputError(f"{name}: its mask is {sizes}", "make the mask from the photo at its own size")
    if not mask.any() or mask.all():
        raise InputError(
            f"{name}: its mask is {'full' if mask.any() else 'empty'}",
            "a mask marks the object's pixels and leaves the rest black",
        )
    return mask


def on_border(mask: np.ndarray, void: np.ndarray | None = None) -> float:
    """Return the share of the picture's border that the mask `(H, W)` covers; `void` pixels do not count."""
    edges = (
        np.concatenate([each[0], each[-1], each[1:-1, 0], each[1:-1, -1]])
        for each in (mask, np.zeros_like(mask) if void is None else void)
    )
    marked, unknown = edges
    return float(marked.sum() / max((~unknown).sum(), 1))


def is_outline(mask: np.ndarray) -> bool:
    """Return whether the mask `(H, W)` is only a line around an area that is several times as large."""
    levels = mask.astype(np.uint8)
    reach = cv2.distanceTransform(np.pad(levels, 1), cv2.DIST_L2, 3).max()
    if 2 * reach > max(4.0, LINE * max(mask.shape)):
        return False
    outer, _ = cv2.findContours(levels, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = cv2.drawContours(np.zeros_like(levels), outer, -1, 1, cv2.FILLED)
    return bool(filled.sum() > 3 * mask.sum())
