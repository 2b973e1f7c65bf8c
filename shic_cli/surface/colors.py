"""A distinct, smooth colour for each vertex."""

from __future__ import annotations

from itertools import chain

import numpy as np


def vertex_colors(verts: np.ndarray) -> np.ndarray:
    """`(K, 3)` u1 RGB: colours that are smooth over the surface of oriented `verts` `(K, 3)`, no two alike.

    The animal's left is warm and its right is cool. The hue runs along the longer of length and height, from
    violet at the head to green at the tail; the lightness runs along the other.
    """
    extent = np.maximum(np.ptp(verts, axis=0), 1e-9)
    x, y, z = ((verts - (verts.min(0) + verts.max(0)) / 2) / extent).T
    along, across = (z, y) if extent[2] >= extent[1] else (y, z)
    left = (1 + np.tanh(x / 0.08)) / 2
    hues = np.deg2rad(np.stack([50 - 150 * along, 230 + 150 * along]))
    red_green, yellow_blue = 0.15 * (
        left * [np.cos(hues[0]), np.sin(hues[0])] + (1 - left) * [np.cos(hues[1]), np.sin(hues[1])]
    )
    rgb = oklab_to_rgb(np.stack([0.69 + 0.28 * across, red_green, yellow_blue], axis=1))
    return _distinct(np.round(255 * rgb).astype(np.uint8))


def oklab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """sRGB `(P, 3)` in 0..1 of OKLab colours `(P, 3)`; equal steps in OKLab look equally large."""
    to_cones = np.array(
        [
            [1, 0.3963377774, 0.2158037573],
            [1, -0.1055613458, -0.0638541728],
            [1, -0.0894841775, -1.2914855480],
        ]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_cones.T) ** 3 @ to_linear.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _distinct(colors: np.ndarray) -> np.ndarray:
    """`colors` `(K, 3)`, in which a colour that an earlier vertex has is moved to the nearest free colour."""
    steps = np.stack(np.meshgrid(*[np.arange(-8, 9)] * 3, indexing="ij"), -1).reshape(-1, 3)
    steps = steps[np.argsort((steps**2).sum(1), kind="stable")]
    place = np.array([1 << 16, 1 << 8, 1])
    codes, taken = [], set()
    for color in colors.astype(int):
        code = int(color @ place)
        if code in taken:
            near = color + steps
            near = near[((near >= 0) & (near <= 255)).all(1)] @ place
            code = next(
                candidate for candidate in chain(near.tolist(), range(1 << 24)) if candidate not in taken
            )
        codes.append(code)
        taken.add(code)
    return (np.array(codes)[:, None] >> [16, 8, 0] & 255).astype(np.uint8)
