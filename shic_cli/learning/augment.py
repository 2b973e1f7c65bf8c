"""Augmentation of training crops.

Rotation, zoom and shift move picture, mask and points together. Colours are jittered.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

ROTATION = 30.0  # largest angle in degrees, in both directions
ZOOM = (0.9, 1.4)  # range of the factor for the crop's content; above 1 it cuts off some of the object
SHIFT = 0.1  # largest shift as a share of the side, in both directions
LEAST = 0.5  # smallest share of the object that stays in the frame
JITTER = (0.4, 0.4, 0.4, 0.1)  # largest change of brightness, contrast, saturation and hue


def draw_affine(mask: np.ndarray, rng: np.random.Generator, tries: int = 10) -> np.ndarray:
    """A random similarity transform as a matrix `(2, 3)` on (x, y) pixels of the crop.

    It keeps at least half of `mask` `(S, S)` in the crop. If `tries` draws do not, it is the identity.
    """
    side = mask.shape[0]
    for _ in range(tries):
        angle = rng.uniform(-ROTATION, ROTATION)
        zoom = math.exp(rng.uniform(*np.log(ZOOM)))
        matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), angle, zoom)
        matrix[:, 2] += rng.uniform(-SHIFT, SHIFT, 2) * side
        if warp(mask, matrix).sum() >= LEAST * mask.sum() * zoom**2:
            return matrix
    return np.eye(2, 3)


def warp(array: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """`array` `(S, S)` or `(S, S, C)` moved by `matrix`.

    Pixels that come from outside the array are 0.
    """
    return cv2.warpAffine(array, matrix, array.shape[1::-1], flags=cv2.INTER_LINEAR)


def move(yx: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Points `(P, 2)` as (y, x), moved by `matrix`, which acts on (x, y)."""
    return (yx[:, ::-1] @ matrix[:, :2].T + matrix[:, 2])[:, ::-1]


def jitter(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`rgb` `(S, S, 3)` uint8 with its brightness, contrast, saturation and hue changed at random."""
    brightness, contrast, saturation = (1 + rng.uniform(-limit, limit) for limit in JITTER[:3])
    out = rgb.astype(np.float32) * brightness
    out = (out - out.mean()) * contrast + out.mean()
    grey = out.mean(-1, keepdims=True)
    out = np.clip((out - grey) * saturation + grey, 0, 255).astype(np.uint8)
    hsv = cv2.cvtColor(out, cv2.COLOR_RGB2HSV)
    hsv[..., 0] = ((hsv[..., 0] + 180 * rng.uniform(-JITTER[3], JITTER[3])) % 180).astype(np.uint8)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
