"""Backgrounds of synthetic pictures: random crops of photos, or built-in scenes whose depth is known."""

from __future__ import annotations

import logging

import cv2
import numpy as np

from shic_cli.base.errors import InputError
from shic_cli.files.photo_lists import list_images
from shic_cli.files.photos import decode

log = logging.getLogger("shic")


class Photos:
    """The photos in `folder`, as backgrounds.

    Photos that can't be read, or have fewer than `smallest` pixels a side, are passed over.
    """

    def __init__(self, folder: str, smallest: int = 0) -> None:
        self.files, self.smallest = list_images([folder]), smallest
        self._unfit: set[int] = set()

    def crop(self, rng: np.random.Generator) -> np.ndarray:
        """A random square `(S, S, 3)` uint8 of a random photo; InputError when none can be used."""
        for i in rng.permutation(len(self.files)):
            try:
                rgb = self._read(i)
            except InputError as error:
                if i not in self._unfit:
                    log.warning("background passed over: %s", error.message)
                self._unfit.add(i)
                continue
            side = int(min(rgb.shape[:2]) * rng.uniform(0.4, 1))
            y, x = (rng.integers(0, length - side + 1) for length in rgb.shape[:2])
            return rgb[y : y + side, x : x + side]
        raise InputError(
            f"{self.files[0].path.parent}: none of its {len(self.files)} photos can be used",
            "give others with --backgrounds",
        )

    def _read(self, i: int) -> np.ndarray:
        path = self.files[i].path
        rgb, _ = decode(self.files[i].read(), str(path))
        if min(rgb.shape[:2]) < self.smallest:
            height, width = rgb.shape[:2]
            raise InputError(
                f"{path}: is {width} by {height} pixels, at least {self.smallest} a side are needed", ""
            )
        return rgb


def built_in(size: int, rng: np.random.Generator) -> np.ndarray:
    """Inverse depth f4 `(S, S)` of one of SCENES, drawn at random: 1 is the nearest, 0 infinitely far."""
    scene = SCENES[rng.choice(sorted(SCENES))](size, rng).clip(0)
    return (scene / scene.max()).astype(np.float32)


# The inverse depth of a plane is linear in the picture, so each scene is a maximum of ramps. x and y are in
# -1..1, y grows downwards, and inverse depth is 1 where the ground meets the lower edge.


def _axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    """y `(S, 1)` and x `(1, S)` of the pixels."""
    along = np.linspace(-1, 1, size, dtype=np.float32)
    return along[:, None], along[None]


def _wave(size: int, cells: int, rng: np.random.Generator) -> np.ndarray:
    """A smooth random line `(S,)` in about -1..1."""
    noise = rng.standard_normal((1, cells), dtype=np.float32)
    return cv2.resize(noise, (size, 1), interpolation=cv2.INTER_CUBIC)[0]


def _ground(size: int, horizon: float, rng: np.random.Generator) -> np.ndarray:
    """Ground below the `horizon`, with soft bumps."""
    y, _ = _axes(size)
    noise = rng.standard_normal((12, 12), dtype=np.float32)
    bumps = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return ((y - horizon) / (1 - horizon)).clip(0) * (1 + 0.04 * bumps)


def _blob(scene: np.ndarray, x: float, y: float, width: float, height: float, inverse: float) -> None:
    """Put a round thing at `inverse` depth into `scene`, in place, where nothing is nearer.

    `x`, `y` is its centre, `width` and `height` are its half-axes.
    """
    rows, columns = _axes(len(scene))
    inside = 1 - ((columns - x) / width) ** 2 - ((rows - y) / height) ** 2
    np.maximum(scene, np.where(inside > 0, inverse * (1 + 0.1 * np.sqrt(inside.clip(0))), 0), out=scene)


def meadow(size: int, rng: np.random.Generator) -> np.ndarray:
    """Ground to the horizon, hills behind it, bushes on it."""
    horizon = rng.uniform(-0.4, 0.2)
    scene, (y, _) = _ground(size, horizon, rng), _axes(size)
    for inverse in np.linspace(0.02, 0.08, rng.integers(1, 4)):
        height = rng.uniform(0.1, 0.4)
        waves = rng.uniform(0.03, 0.12) * _wave(size, int(rng.integers(4, 9)), rng)
        ridge = horizon + 0.08 - height + waves
        np.maximum(scene, np.where(y > ridge, np.float32(inverse), 0), out=scene)
    for _ in range(rng.integers(3, 9)):
        inverse = rng.uniform(0.08, 0.6)
        foot, reach = horizon + inverse * (1 - horizon), inverse * rng.uniform(0.2, 0.5)
        _blob(scene, rng.uniform(-1, 1), foot - 0.7 * reach, 1.3 * reach, reach, inverse)
    return scene


def forest(size: int, rng: np.random.Generator) -> np.ndarray:
    """Ground with trunks and crowns, the far ones close together."""
    horizon = rng.uniform(-0.3, 0.1)
    scene, (y, x) = _ground(size, horizon, rng), _axes(size)
    scene = np.maximum(scene, np.where(y > horizon - 0.5 - 0.1 * _wave(size, 12, rng), np.float32(0.05), 0))
    for inverse in np.sort(rng.uniform(0.1, 0.8, rng.integers(6, 15))):
        place, width = rng.uniform(-1.1, 1.1), inverse * rng.uniform(0.06, 0.14)
        across = (x - place + rng.uniform(-0.1, 0.1) * y) / width
        trunk = inverse * (1 + 0.05 * np.sqrt((1 - across**2).clip(0)))
        np.maximum(
            scene, np.where((abs(across) < 1) & (y < horizon + inverse * (1 - horizon)), trunk, 0), out=scene
        )
        _blob(scene, place, horizon - rng.uniform(1.2, 2.2) * inverse, 0.7 * inverse, 0.5 * inverse, inverse)
    return scene


def street(size: int, rng: np.random.Generator) -> np.ndarray:
    """Ground between rows of houses that run to a vanishing point."""
    horizon, vanishing = rng.uniform(-0.2, 0.2), rng.uniform(-0.4, 0.4)
    scene, (y, x) = _ground(size, horizon, rng), _axes(size)
    scene = np.maximum(scene, np.where(y > horizon - rng.uniform(0.05, 0.2), np.float32(0.08), 0))
    for side in (-1, 1):
        wall = side * (x - vanishing) / rng.uniform(0.7, 1.4)
        height = rng.uniform(0.8, 2.5)
        is_taller = np.floor(rng.uniform(0.5, 1) / wall.clip(0.05)) % 2  # every second house
        height = height * (1 + 0.25 * is_taller)
        base = horizon + wall * (1 - horizon)
        np.maximum(scene, np.where((y > horizon - height * wall) & (y < base), wall, 0), out=scene)
    return scene


def room(size: int, rng: np.random.Generator) -> np.ndarray:
    """The inside of a room: floor, ceiling, walls and boxes on the floor."""
    horizon, vanishing, back = rng.uniform(-0.3, 0.2), rng.uniform(-0.5, 0.5), rng.uniform(0.3, 0.5)
    y, x = _axes(size)
    scene = np.full((size, size), back, np.float32)
    for plane in (
        (y - horizon) / (1 - horizon),
        (horizon - y) / rng.uniform(1.2, 2),
        (x - vanishing) / rng.uniform(0.9, 1.6),
        (vanishing - x) / rng.uniform(0.9, 1.6),
    ):
        np.maximum(scene, plane, out=scene)
    for _ in range(rng.integers(1, 5)):
        inverse, place = rng.uniform(back, 0.9), rng.uniform(-1, 1)
        width, height = inverse * rng.uniform(0.15, 0.5), inverse * rng.uniform(0.3, 1.1)
        foot = horizon + inverse * (1 - horizon)
        is_box = (abs(x - place) < width) & (y < foot) & (y > foot - height)
        np.maximum(scene, np.where(is_box, np.float32(inverse), 0), out=scene)
    return scene


SCENES = {"meadow": meadow, "forest": forest, "street": street, "room": room}
