"""What a photo's alpha channel cuts out: an object, or only corners or a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEAST_HIDDEN = 0.03  # of the picture; an alpha channel that hides less cuts out nothing
CORNER = 0.34  # of each side: what is hidden within this of a corner is a rounded corner


@dataclass(frozen=True)
class CutOut:
    """What an alpha channel says: the object's `mask` `(H, W)` bool, or None and why it is none (`reason`,
    empty where nothing is hidden).
    """

    mask: np.ndarray | None = None
    reason: str = ""


def cut_out(alpha: np.ndarray | None) -> CutOut:
    """The object that an alpha channel `(H, W)` uint8 cuts out; nothing where it hides very little, only
    corners or a frame.
    """
    if alpha is None or alpha.min() >= 128:
        return CutOut()
    mask = alpha >= 128
    hidden = 1 - mask.mean()
    if not mask.any():
        return CutOut(None, "hides everything")
    if hidden < LEAST_HIDDEN:
        return CutOut(None, f"hides only {hidden:.2%} of it")
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    inner = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    spans = inner.shape[0] == mask.shape[0] or inner.shape[1] == mask.shape[1]
    if inner.mean() > 1 - LEAST_HIDDEN and (spans or mask.mean() > 0.5):
        return CutOut(None, "hides only a frame")
    height, width = inner.shape
    middle = inner.copy()
    y, x = max(1, round(height * CORNER)), max(1, round(width * CORNER))
    for top in (slice(None, y), slice(-y, None)):
        for left in (slice(None, x), slice(-x, None)):
            middle[top, left] = True
    fill = min(part.mean() for part in (inner[:y, :x], inner[:y, -x:], inner[-y:, :x], inner[-y:, -x:]))
    if middle.all() and fill > 0.5 and (spans or mask.mean() > 0.5):
        return CutOut(None, "hides only its corners")
    return CutOut(mask)
