"""Augmentation of training crops.

Rotation, zoom and shift move picture, mask and points together. Colours are jittered.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from shic_cli.files.photos import decode, encode

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


# Limits, either way, of the affine map of a picture whose whole object is kept.
TURN = 3.0  # degrees
SCALE = 0.08  # of each axis
MOVE = 0.04  # of the side
SHEAR = 0.04


def draw_mild(side: int, room: float, rng: np.random.Generator) -> np.ndarray:
    """A random affine map as a matrix `(2, 3)` on (x, y) pixels that keeps the crop almost whole.

    It maps a picture that is `room` times as wide as the crop to the crop; both are `side` pixels across.
    """
    angle = np.radians(rng.uniform(-TURN, TURN))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    bend = np.diag(room * (1 + rng.uniform(-SCALE, SCALE, 2)))
    bend[0, 1] = rng.uniform(-SHEAR, SHEAR)
    linear = turn @ bend
    middle = np.full(2, (side - 1) / 2)
    return np.concatenate(
        [linear, (middle - linear @ middle + rng.uniform(-MOVE, MOVE, 2) * side)[:, None]], 1
    )


def inner(side: int, room: float) -> np.ndarray:
    """The matrix `(2, 3)` of `draw_mild` without its random part."""
    move = (1 - room) * (side - 1) / 2
    return np.array([[room, 0, move], [0, room, move]])


def cloud(side: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise `(side, side)` f4 with a standard deviation of about 1 and `cells` bumps a side."""
    return cv2.resize(
        rng.standard_normal((cells, cells), dtype=np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )


def roughen_mask(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`mask` `(S, S)` f4 in 0..1 with the random errors that masks of photos have.

    Edges wobble or are drawn too wide or too narrow, grass hides the feet, a piece is missing or too much.
    """
    side = len(mask)
    out = mask
    if rng.random() < 0.8:
        soft = cv2.GaussianBlur(mask, (0, 0), side / 128 * rng.uniform(0.4, 1.6))
        field = rng.uniform(0, 0.25) * cloud(side, int(rng.integers(8, 40)), rng) + rng.uniform(-0.3, 0.25)
        out = ((soft - 0.5 + 4 * soft * (1 - soft) * field) * rng.uniform(2, 5) + 0.5).clip(0, 1)
    rows = np.flatnonzero(mask.max(1) > 0.5)
    if rng.random() < 0.15 and len(rows):
        low = rows[-1] - rng.uniform(0, 0.08) * (rows[-1] - rows[0])
        edge = low + side / 128 * rng.uniform(0, 3) * cloud(side, 16, rng)[:1]
        out = out * (np.arange(side)[:, None] < edge)
    if rng.random() < 0.2:
        edge = np.argwhere((out > 0.2) & (out < 0.8))
        if len(edge):
            y, x = edge[rng.integers(len(edge))].tolist()
            axes = [max(1, int(side * rng.uniform(0.01, 0.07))) for _ in range(2)]
            out = np.ascontiguousarray(out, np.float32)
            cv2.ellipse(out, (x, y), axes, rng.uniform(0, 180), 0, 360, float(rng.random() < 0.5), -1)
    return out.astype(np.float32) if out.max() > 0.5 else mask


def roughen_picture(rgb: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`rgb` `(S, S, 3)` uint8 with random light, colours, shadows, blur, noise and JPEG artefacts."""
    side = len(rgb)
    out = rgb.astype(np.float32) / 255
    out = out ** rng.uniform(0.6, 1.6) * (1 + rng.uniform(-0.15, 0.15, 3).astype(np.float32))
    if rng.random() < 0.15:
        out = np.repeat(out.mean(-1, keepdims=True), 3, -1)
    if rng.random() < 0.4:
        out = out * (1 + rng.uniform(0, 0.3) * cloud(side, int(rng.integers(3, 20)), rng))[..., None]
    if rng.random() < 0.5:
        out = cv2.GaussianBlur(out, (0, 0), side / 128 * rng.uniform(0.3, 1.3))
    if rng.random() < 0.5:
        out = out + rng.uniform(0, 0.06) * rng.standard_normal(out.shape, dtype=np.float32)
    out = (out.clip(0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.2:
        quality = int(rng.integers(25, 85))
        out = decode(encode(out, ".jpg", quality), "picture")[0].copy()
    return out
