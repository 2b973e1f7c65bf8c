"""The contract of a masker: one photo goes in, the objects in it come out.

A masker is made when the first photo without a mask of its own needs it, as

    Part(argument, device=device, weights=weights, class_name=class_name, OPTION=VALUE, ...)

`argument` is the text after the colon of `--masker name:argument`. `weights` is the folder that the user
keeps weights in, or None, and `class_name` what `--class` says, "" where it says nothing; only a constructor
that has these parameters gets them. Every other keyword parameter is an option, as for every part. After
that it is called once for each photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from shic_cli.parts.contract import Contract, PartDefaults

LEAST = 0.01  # of the largest object's pixels: a piece with a smaller share is a speck


@dataclass(frozen=True)
class Found:
    """An object in a photo: its `mask` bool `(H, W)`, and how sure the masker is of it.

    `score` is in 0..1, or None from a masker that can't say.
    """

    mask: np.ndarray
    score: float | None = None

    @property
    def area(self) -> int:
        """The number of pixels of the object."""
        return int(np.count_nonzero(self.mask))


class MaskerDefaults(PartDefaults, Protocol):
    """What a masker may have, with the value that counts where it does not have it."""

    small: bool = False  # True: quick to make and small, so that each of several processes may have one
    needs_class: bool = False  # True: it is not made without a class's name, and the user is told so

    @classmethod
    def check_class(cls, argument: str, weights: Path | None, class_name: str) -> None:
        """Nothing; SettingError where the part can tell, without its weights, that it knows no such class.

        Called before the first photo is read. `class_name` is "" where the user names none.
        """
        return


class Masker(MaskerDefaults, Protocol):
    """What every masker has once it is made."""

    def __call__(self, rgb: np.ndarray) -> np.ndarray | Sequence[Found]:
        """The objects in `rgb` `(H, W, 3)` uint8 RGB: one mask bool `(H, W)`, or a list of Found.

        A photo has at least 8 pixels a side. A list may have any order. Where there is no object, the mask or
        the list is empty.
        InputError where this photo can't be masked: the run goes on with the next one.
        """
        ...


def _fault_of_masker(part: Masker, name: str) -> str:
    return ""


def _fault_of_objects(part: Masker, objects: object, rgb: np.ndarray) -> str:
    if not isinstance(objects, np.ndarray | Sequence):
        return f"gave {type(objects).__name__}, not a mask or a list of Found"
    for one in [Found(objects)] if isinstance(objects, np.ndarray) else objects:
        if not isinstance(one, Found) or not isinstance(one.mask, np.ndarray):
            return f"gave a list that holds {type(one).__name__}, not Found with an array as its mask"
        if one.mask.dtype != bool or one.mask.shape != rgb.shape[:2]:
            return f"gave a mask that is {one.mask.dtype} {one.mask.shape}, not bool {rgb.shape[:2]}"
    return ""


CONTRACT = Contract("maskers", Masker, MaskerDefaults, _fault_of_masker, _fault_of_objects)


def main_object(objects: Sequence[Found]) -> int:
    """The number of the object that a photo is of (sec. 6).

    It is the largest of those with at least half of the best score; objects without a score take part too.
    """
    best = max((one.score for one in objects if one.score is not None), default=0.0)
    sure = [i for i, one in enumerate(objects) if one.score is None or one.score >= best / 2]
    return max(sure, key=lambda i: objects[i].area)


def pieces(mask: np.ndarray, gap: int = 0, bridge: np.ndarray | None = None) -> list[np.ndarray]:
    """The connected pieces bool `(H, W)` of `mask` bool `(H, W)`, the largest first, without specks.

    Parts up to `gap` pixels apart count as one piece. So do parts that touch the same piece of `bridge` bool
    `(H, W)`; the bridge itself belongs to no piece.
    """
    near = (mask if bridge is None else mask | bridge).astype(np.uint8)
    if gap:
        near = cv2.dilate(near, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (gap + 1, gap + 1)))
    count, labels = cv2.connectedComponents(near)
    areas = np.bincount(labels[mask], minlength=count)
    order = [int(i) for i in (-areas).argsort(kind="stable") if areas[i]]
    return [(labels == i) & mask for i in order if areas[i] >= LEAST * areas[order[0]]]
