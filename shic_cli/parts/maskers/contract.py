"""Maskers: one file a part, imported only when its name is asked for.

A masker is made as `Part(argument, device=device, weights=weights, class_name=class_name)`, of the keywords
those that its constructor has, and finds the objects in one photo:

    __call__(rgb) -> mask or objects     `rgb` `(H, W, 3)` uint8, from 8 pixels a side

The answer is one mask `(H, W)` bool, or a list of `Found`, one an object, in any order; where there is no
object, an empty mask or an empty list. A part that can't do without the class's name says so with
`needs_class = True`: it is not made without one. One that can tell before its weights are loaded that it
does not know a class has a class method `check_class(argument, weights, class_name)` that raises SettingError.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

LEAST = 0.01  # share of the largest object's pixels; what is smaller is a speck


@dataclass(frozen=True)
class Found:
    """An object in a photo: its `mask` `(H, W)` bool and how sure the masker is of it, 0..1, None where it
    can't say.
    """

    mask: np.ndarray
    score: float | None = None

    @property
    def area(self) -> int:
        """The object's pixels."""
        return int(np.count_nonzero(self.mask))


def main_object(found: Sequence[Found]) -> int:
    """The number of the object that a photo is of: the largest of those with at least half of the best score
    (sec. 6).
    """
    best = max((each.score for each in found if each.score is not None), default=0.0)
    sure = [i for i, each in enumerate(found) if each.score is None or each.score >= best / 2]
    return max(sure, key=lambda i: found[i].area)


def pieces(mask: np.ndarray, gap: int = 0, bridge: np.ndarray | None = None) -> list[np.ndarray]:
    """The connected pieces `(H, W)` bool of a mask, the largest first, without specks.

    Parts up to `gap` pixels apart count as one piece, and so do parts that touch one and the same piece of
    `bridge` `(H, W)` bool, which itself is in none.
    """
    near = (mask if bridge is None else mask | bridge).astype(np.uint8)
    if gap:
        near = cv2.dilate(near, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap + 1, gap + 1)))
    count, labels = cv2.connectedComponents(near)
    areas = np.bincount(labels[mask], minlength=count)
    order = [int(i) for i in (-areas).argsort(kind="stable") if areas[i]]
    return [(labels == i) & mask for i in order if areas[i] >= LEAST * areas[order[0]]]
