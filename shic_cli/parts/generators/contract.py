"""The contract of a generator: one rendered scene goes in, one painted picture comes out.

A generator is made once for a run of `shic synth`, as

    Part(argument, device=device, weights=weights, config=config, OPTION=VALUE, ...)

`argument` is the text after the colon of `--generator name:argument`. `weights` is the folder that the user
keeps weights in, or None, and `config` the run's SynthConfig (shic_cli.base.settings); only a constructor
that has these parameters gets them. Every other keyword parameter is an option, as for every part. After
that it is called once for each picture.

The labels come from the projection of the mesh, not from the picture. So the outline of the object must stay
where `scene.mask` has it, but for `erode` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from shic_cli.parts.contract import Contract, PartDefaults


@dataclass(frozen=True)
class Scene:
    """What a generator gets of a picture, S pixels a side. View space: +x left, +y up, +z into the scene."""

    mask: np.ndarray  # (S, S) bool, the object
    depth: np.ndarray  # (S, S) f4, depth in view space, in units of the mesh; -1 where there is no surface
    normal: np.ndarray  # (S, S, 3) f4, unit vectors in view space; 0 where there is no surface
    point: np.ndarray  # (S, S, 3) f4, the place on the mesh at rest: a coat painted by it moves with the skin
    up: np.ndarray  # (3,) f4, the world's up in view space
    azimuth: float  # degrees; 0 sees the front, 90 the left side of the animal
    elevation: float  # degrees above the horizon
    limbs: np.ndarray | None = None  # (S, S, L) f4, of each limb: 1 at its tip, 0 where it ends and elsewhere
    kinds: tuple[str, ...] = ()  # what each of the L limbs is: fore, hind, tail, head, other
    inner: np.ndarray | None = None  # (S, S) f4, 0..1: faces the body's middle, as the inside of a leg
    coat: np.ndarray | None = None  # (S, S, 3) f4, 0..1: colours that a photo of the class gives the surface


class GeneratorDefaults(PartDefaults, Protocol):
    """What a generator may have, with the value that counts where it does not have it."""

    views: str = "any"  # what `--views auto` means: from where the objects are seen
    erode: int = 0  # what `--erode` means by default: pixels at the outline that get no label
    small: bool = False  # True: it takes little memory and no GPU, so each core may have one
    saves_memory: str = "give --device cpu, or a smaller --size"  # the hint where a GPU's memory is too small

    def side(self, size: int) -> int:
        """The side S, in pixels, of the picture that it paints where one of `size` pixels is wanted: `size`.

        The picture is shrunk to `size` afterwards, so that a larger side smooths the edges.
        """
        return size


class Generator(GeneratorDefaults, Protocol):
    """What every generator has once it is made."""

    def __call__(self, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        """The picture `(S, S, 3)` uint8 RGB of `scene`; every random choice comes from `rng`.

        PictureError where it has no picture of this scene: the run goes on with the next one.
        """
        ...


def _fault_of_generator(part: Generator, name: str) -> str:
    side = part.side(64)
    return (
        "" if type(side) is int and side >= 64 else f"its side(64) is {side!r}, not a whole number from 64 up"
    )


def _fault_of_picture(part: Generator, rgb: object, scene: Scene, *_: object) -> str:
    wanted = (*scene.mask.shape, 3)
    if not isinstance(rgb, np.ndarray) or rgb.dtype != np.uint8 or rgb.shape != wanted:
        kind = f"{rgb.dtype} {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        return f"gave a picture that is {kind}, not uint8 {wanted}"
    return ""


CONTRACT = Contract("generators", Generator, GeneratorDefaults, _fault_of_generator, _fault_of_picture)
