"""Generators: one file a part, imported only when its name is asked for.

A generator is made as `Part(argument, device=device, config=config)` with a SynthConfig, and paints one
picture from one render:

    side(size) -> int                  the side S that it paints in, for a picture of `size` pixels a side
    __call__(scene, rng) -> rgb        `(S, S, 3)` uint8 RGB; every choice comes from the numpy Generator
    `rng`

One that takes `weights` gets the folder that the user keeps weights in. It may have `views` and `erode`, what
`--views` and `--erode` mean by default, and `saves_memory`, what to do when the GPU's memory does not
suffice; PictureError says that it has no picture of a scene.

The object's outline must stay where `scene.mask` has it, but for `erode` pixels: the labels come from the
projection. The picture is shrunk to `size` afterwards, so that a side above it smooths the edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Scene:
    """What a generator sees of one picture, at its side S. View space: +x left, +y up, +z into the scene."""

    mask: np.ndarray  # (S, S) bool, the object
    depth: np.ndarray  # (S, S) f4, view-space depth, -1 where there is no surface
    normal: np.ndarray  # (S, S, 3) f4, unit, in view space; 0 where there is no surface
    point: (
        np.ndarray
    )  # (S, S, 3) f4, the place on the resting template: a coat painted by it moves with the skin
    up: np.ndarray  # (3,) f4, the world's up in view space
    azimuth: float  # degrees; 0 sees the front, 90 the animal's left side
    elevation: float  # degrees above the horizon
    limbs: np.ndarray | None = None  # (S, S, L) f4, of each limb: 1 at its tip, 0 where it ends and elsewhere
    kinds: tuple[str, ...] = ()  # what each of the L limbs is: fore, hind, tail, head, other
    inner: np.ndarray | None = None  # (S, S) f4, 0..1: faces the body's middle, as the inside of a leg
