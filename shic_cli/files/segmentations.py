"""Segmentations of COCO and LVIS files as masks: polygons, run lengths as a list or as a text, several parts.

The C code of pycocotools corrupts memory on damaged texts, so that they are decoded here.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from shic_cli.base.errors import InputError
from shic_cli.files.annotations import get, numbers

# a polygon is filled this many times finer, so that the pixels whose middle it holds are marked; an odd
# number
FINE = 5
RUNS = "run lengths are `size` [height, width] and `counts`, a list or COCO's compressed text"


def segmentation_mask(segmentation: Any, shape: tuple[int, int], where: str) -> np.ndarray:
    """The pixels `(H, W)` bool that a segmentation marks: polygons, run lengths, or a list of both.

    Of a polygon these are the pixels whose middle lies in it. InputError names the part that is wrong, and
    when no pixel is marked.
    """
    parts = segmentation if isinstance(segmentation, list) else [segmentation]
    mask = np.zeros(shape, bool)
    for i, part in enumerate(parts):
        here = f"{where}.segmentation" + (f"[{i}]" if isinstance(segmentation, list) else "")
        if isinstance(part, dict):
            mask |= run_lengths_mask(part, shape, here)
        else:
            _fill(mask, part, here)
    if not mask.any():
        raise InputError(
            f"{where}.segmentation: marks no pixel of the image", "check its polygons or run lengths"
        )
    return mask


def _fill(mask: np.ndarray, polygon: Any, where: str) -> None:
    """Mark in `mask` (H, W) the pixels whose middle lies in the polygon x, y, x, y, …"""
    xy = numbers(polygon, (None,), where)
    if len(xy) < 6 or len(xy) % 2:
        raise InputError(f"{where}: is no polygon", "three corners or more, x and y of each in turn")
    corners = xy.reshape(-1, 2).clip(0, mask.shape[::-1])
    low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
    fine = np.zeros((high - low)[::-1] * FINE, np.uint8)
    cv2.fillPoly(fine, [np.round(((corners - low) * FINE - 0.5) * 16).astype(np.int32)], 1, shift=4)
    mask[low[1] : high[1], low[0] : high[0]] |= fine[FINE // 2 :: FINE, FINE // 2 :: FINE] > 0


def run_lengths_mask(part: dict[str, Any], shape: tuple[int, int], where: str) -> np.ndarray:
    """The pixels `(H, W)` bool that run lengths mark, which go down the columns, the background first.

    InputError when their size is not the image's `shape`, or they do not add up to it.
    """
    size = numbers(get(part, "size", list, where), (2,), f"{where}.size")
    if tuple(size) != shape:
        sizes = f"{size[1]:g} by {size[0]:g} pixels, the image {shape[1]} by {shape[0]}"
        raise InputError(f"{where}: is for an image of {sizes}", "give the image that was annotated")
    counts = get(part, "counts", (list, str), where)
    runs = (
        decode_counts(counts, where)
        if isinstance(counts, str)
        else numbers(counts, (None,), f"{where}.counts")
    )
    total = shape[0] * shape[1]
    if (runs < 0).any() or (runs != np.rint(runs)).any() or runs.sum() != total:
        raise InputError(f"{where}: its counts do not add up to the image's {total} pixels", RUNS)
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs.astype(np.int64)).reshape(shape[::-1]).T


def decode_counts(text: str, where: str) -> np.ndarray:
    """The run lengths `(n,)` in COCO's compressed text: five bits a character, lowest first, with a sixth
    where more follow; from the fourth on they are differences to the one before the last.
    """
    runs: list[int] = []
    value = bits = 0
    for character in text:
        chunk = ord(character) - 48
        if not 0 <= chunk < 64 or bits > 40:
            raise InputError(f"{where}: its counts are damaged at {len(runs)}", RUNS)
        value |= (chunk & 31) << bits
        bits += 5
        if chunk & 32:
            continue
        if chunk & 16:
            value -= 1 << bits  # negative
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = bits = 0
    if bits:
        raise InputError(f"{where}: its counts end in the middle of a number", RUNS)
    return np.array(runs, np.float64)


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """The mask `(H, W)` bool as COCO's run lengths, a list that every reader of COCO files takes."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}
