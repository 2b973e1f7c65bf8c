"""The generator without weights: every picture gets a random coat, light and background (sec. 3.5)."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

from shic_cli.base.settings import SynthConfig
from shic_cli.parts.generators.backgrounds import Photos
from shic_cli.parts.generators.contract import GeneratorDefaults, Scene

COATS = ("plain", "patches", "spots", "stripes", "bands")
SHARES = (0.4, 0.2, 0.1, 0.1, 0.2)  # how often each of COATS is drawn
EVEN = 0.85  # share of pictures in which far legs are as bright as near ones, as in most photos
LATTICE = 16  # nodes a side of the periodic lattice from which solid noise is interpolated


class Plain(GeneratorDefaults):
    """Paints the object with solid noise under one or two soft lights, before noise, shapes or photos."""

    small = True

    def __init__(
        self, argument: str = "", *, device: object = "cpu", config: SynthConfig | None = None
    ) -> None:
        folder = config.backgrounds if config else ""
        self.photos = Photos(folder) if folder else None

    def side(self, size: int) -> int:
        """The picture's own side: training crops it and shrinks it, which smooths the edges."""
        return size

    def __call__(self, scene: Scene, rng: np.random.Generator) -> np.ndarray:
        """The picture `(S, S, 3)` uint8 of `scene`."""
        size = len(scene.mask)
        # The background needs no smooth edges: at half the side it costs a quarter of the time.
        behind = photo(self.photos, size // 2, rng) if self.photos else background(size // 2, rng)
        behind = behind * np.float32(rng.uniform(0.7, 1.2))
        picture = cv2.resize(behind, (size, size), interpolation=cv2.INTER_LINEAR)
        points, normals = scene.point[scene.mask], scene.normal[scene.mask]
        if scene.coat is None:
            colors = coat(points, normals @ scene.up, rng)
        else:
            colors = worn(scene.coat[scene.mask], points, rng)
        hidden = occlusion(scene)
        if scene.limbs is not None and scene.inner is not None:
            if scene.coat is None:
                colors = markings(colors, scene.limbs[scene.mask], scene.kinds, points, rng)
            hidden = np.maximum(hidden, rng.uniform(0.1, 1) * scene.inner[scene.mask])
        if rng.random() < EVEN:
            hidden = np.zeros_like(hidden)
        picture[scene.mask] = illuminate(colors, normals, scene.up, hidden, rng)
        picture += rng.standard_normal((size, size, 1), dtype=np.float32) * np.float32(rng.uniform(0, 0.05))
        picture *= 255
        return picture.clip(0, 255, out=picture).astype(np.uint8)


def photo(photos: Photos, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random square f4 `(S, S, 3)` in 0..1 of a random photo."""
    return cv2.resize(photos.crop(rng), (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


def random_color(rng: np.random.Generator, vivid: float = 0.6) -> np.ndarray:
    """A random colour f4 `(3,)` in 0..1 of any hue, with a saturation up to `vivid`."""
    hue, saturation, value = rng.uniform(0, 6), rng.uniform(0, vivid), rng.uniform(0.15, 0.95)
    pure = np.abs((hue + np.array([0.0, 4.0, 2.0])) % 6 - 3).clip(1, 2) - 1
    return (value * (1 - saturation * (1 - pure))).astype(np.float32)


def solid_noise(points: np.ndarray, cells: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise `(P,)` in about -1..1 at `points` `(P, 3)`, with `cells` bumps in each unit of length.

    The lattice is turned and shifted at random, so that it does not show.
    """
    lattice = rng.uniform(-1, 1, (LATTICE,) * 3).astype(np.float32)
    turn = Rotation.random(None, rng).as_matrix().astype(np.float32)
    where = points @ turn * cells + rng.uniform(0, LATTICE, 3).astype(np.float32)
    whole = np.floor(where)
    share = where - whole
    where = whole + share * share * (3 - 2 * share)  # smoothstep: no creases at the lattice's planes
    return map_coordinates(lattice, where.T, order=1, mode="grid-wrap")


def step(values: np.ndarray, threshold: float, softness: float) -> np.ndarray:
    """A soft step `(P, 1)` of `values` `(P,)`: 0 below `threshold`, 1 above, over a width of `softness`."""
    return ((values - threshold) / softness + 0.5).clip(0, 1)[:, None]


def coat(points: np.ndarray, upward: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colours `(P, 3)` in about 0..1 at surface `points` `(P, 3)`: one of five patterns, shade and grain.

    `upward` `(P,)` is how far the surface faces up, -1..1: half of the coats have another colour below.
    """
    base, second, belly = (coat_color(rng) for _ in range(3))
    colors = np.broadcast_to(base, points.shape)
    kind = rng.choice(COATS, p=SHARES)
    if kind == "patches":
        large = solid_noise(points, rng.uniform(3, 7), rng)
        pattern = large + 0.3 * solid_noise(points, rng.uniform(12, 20), rng)
        colors = colors + step(pattern, rng.uniform(-0.2, 0.3), rng.uniform(0.05, 0.4)) * (second - base)
    elif kind == "spots":
        pattern = solid_noise(points, rng.uniform(12, 28), rng)
        colors = colors + step(pattern, rng.uniform(0.1, 0.35), rng.uniform(0.05, 0.3)) * (second - base)
    elif kind == "stripes":
        axis = np.array([0, 0, 1], np.float32) + rng.normal(0, 0.4, 3).astype(np.float32)
        phase = points @ axis * rng.uniform(25, 70)
        phase = phase + rng.uniform(1, 3) * solid_noise(points, rng.uniform(4, 9), rng)
        colors = colors + step(np.sin(phase), rng.uniform(-0.5, 0.5), rng.uniform(0.2, 1)) * (second - base)
    elif kind == "bands":  # one colour turns into the other along some direction
        along = points @ rng.normal(0, 1, 3).astype(np.float32) + 0.1 * solid_noise(points, 6, rng)
        colors = colors + step(along, rng.uniform(-0.2, 0.2), rng.uniform(0.1, 0.6)) * (second - base)
    if rng.random() < 0.5:
        shade = step(-upward + 0.3 * solid_noise(points, 8, rng), rng.uniform(0, 0.5), rng.uniform(0.3, 1))
        colors = colors + shade * rng.uniform(0.4, 1) * (belly - colors)
    return grained(colors, points, rng)


def worn(colors: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The `colors` `(P, 3)` of a photo's coat, in 0..1, lighter or darker and of another tint, with grain.

    They hold the light that the photo was taken in, so they are lighter on the whole than what they become.
    """
    tint = 1 + 0.1 * rng.normal(size=3).astype(np.float32)
    return grained(colors * tint * np.float32(rng.uniform(0.9, 1.6)), points, rng)


def grained(colors: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`colors` `(P, 3)` with the unevenness of fur."""
    grain = solid_noise(points, rng.uniform(40, 80), rng) + solid_noise(points, rng.uniform(10, 30), rng)
    return colors * (1 + rng.uniform(0.02, 0.2) * grain[:, None])


def markings(
    colors: np.ndarray,
    limbs: np.ndarray,
    kinds: tuple[str, ...],
    points: np.ndarray,
    rng: np.random.Generator,
) -> np.ndarray:
    """`colors` `(P, 3)` with legs, tail or head of another colour from their tips up, such as white socks.

    `limbs` `(P, L)` is 1 at the tip of a limb and 0 where it ends. `kinds` are the kinds of the limbs.
    """
    legs = [i for i, kind in enumerate(kinds) if kind in ("fore", "hind")]
    groups = [legs] if rng.random() < 0.4 else [[i] for i in legs if rng.random() < 0.3]
    groups += [
        [i for i, kind in enumerate(kinds) if kind == name] for name in ("tail", "head") if rng.random() < 0.3
    ]
    color = extreme_color(rng)
    for group in filter(None, groups):
        if rng.random() < 0.3:
            color = extreme_color(rng)
        far = limbs[:, group].max(1) + 0.05 * solid_noise(points, 12, rng)
        colors = colors + step(far, rng.uniform(0.02, 0.8), rng.uniform(0.05, 0.4)) * (color - colors)
    return colors


def extreme_color(rng: np.random.Generator) -> np.ndarray:
    """A random colour `(3,)` in 0..1 that is mostly nearly black or nearly white."""
    kind = rng.random()
    if kind < 0.8:
        return (rng.uniform(0.03, 0.15) if kind < 0.5 else rng.uniform(0.75, 0.95)) * (
            1 + 0.1 * rng.normal(size=3)
        ).astype(np.float32)
    return random_color(rng)


def coat_color(rng: np.random.Generator) -> np.ndarray:
    """A random colour `(3,)` in 0..1, mostly one that animals have: black, brown, grey or white."""
    if rng.random() < 0.35:
        return random_color(rng)
    value, saturation, hue = rng.uniform(0.04, 0.95), rng.uniform(0, 0.75), rng.uniform(0.2, 0.85)
    return (value * np.array([1, 1 - saturation * (1 - hue), 1 - saturation])).astype(np.float32)


def occlusion(scene: Scene) -> np.ndarray:
    """How far each object pixel lies behind its surroundings, `(P,)` in 0..1: soft shadow between limbs."""
    x, y, width, height = cv2.boundingRect(scene.mask.astype(np.uint8))
    box = np.s_[y : y + height, x : x + width]
    mask, depth = scene.mask[box], scene.depth[box]
    inside, own, sigma = mask.astype(np.float32), depth[mask], 0.03 * len(scene.mask)
    around, weight = (
        cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)[mask]
        for image in (depth * inside, inside)
    )
    return (8 * (own - around / weight) / max(own.max() - own.min(), 1e-6)).clip(0, 1)


def illuminate(
    colors: np.ndarray, normals: np.ndarray, up: np.ndarray, hidden: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """`colors` `(P, 3)` under ambient light and one or two lamps, darker by `hidden` `(P,)` in 0..1.

    `normals` `(P, 3)` and `up` `(3,)` are unit vectors in view space.
    """
    light = np.full(colors.shape, rng.uniform(0.25, 0.55), np.float32)
    gloss, lamps = np.zeros(len(colors), np.float32), rng.integers(1, 3)
    for _ in range(lamps):
        direction = rng.normal(0, 1, 3) + [0, 0, -0.7] + up * rng.uniform(0, 1.5)  # -z is towards the camera
        direction = (direction / np.linalg.norm(direction)).astype(np.float32)
        wrap = rng.uniform(0, 0.6)  # a large light reaches round the edge of its shadow
        tint = 1 + 0.25 * (random_color(rng) - 0.5)
        share = ((normals @ direction + wrap) / (1 + wrap)).clip(0)[:, None]
        light += share * tint * rng.uniform(0.4, 0.9) / lamps
        half = direction + np.array([0, 0, -1], np.float32)
        gloss += (normals @ half / max(np.linalg.norm(half), 1e-6)).clip(0) ** rng.uniform(8, 60)
    light *= (1 - rng.uniform(0.2, 0.8) * hidden)[:, None]
    light *= (1 - rng.uniform(0, 0.35) * (1 - normals @ up))[:, None]  # less of the sky is seen from below
    shine = rng.uniform(0, 0.3) if rng.random() < 0.4 else 0.0
    return colors * light + shine * gloss[:, None]


def color_noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """Cloudy colour f4 `(S, S, 3)` in about 0..1: two colours mixed by noise of several scales.

    Each scale is weaker than the coarser one before it, by a random factor.
    """
    fall, mix, hue = rng.uniform(0.4, 0.9), np.zeros((size, size), np.float32), rng.uniform(0, 0.4)
    for i, cells in enumerate((3, 6, 12, 24, 48, 96)):
        noise = rng.standard_normal((cells, cells), dtype=np.float32)
        mix += cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC) * fall**i
    first, second = random_color(rng), random_color(rng)
    noise = rng.standard_normal((5, 5, 3), dtype=np.float32)
    tint = cv2.resize(noise, (size, size), interpolation=cv2.INTER_CUBIC)
    return first + (0.5 + 0.35 * mix)[..., None] * (second - first) + 0.3 * hue * tint


def background(size: int, rng: np.random.Generator) -> np.ndarray:
    """A background f4 `(S, S, 3)` in about 0..1: clouds, a gradient or a horizon; often shapes; blurred."""
    kind = rng.choice(["noise", "gradient", "horizon"])
    picture = color_noise(size, rng)
    if kind == "gradient":
        slope = rng.normal(0, 1, 2).astype(np.float32)
        ramp = np.linspace(-1, 1, size, dtype=np.float32)
        share = (0.5 + 0.5 * (ramp[:, None] * slope[0] + ramp[None] * slope[1])).clip(0, 1)[..., None]
        first, second = random_color(rng), random_color(rng)
        picture = rng.uniform(0, 0.5) * (picture - 0.5) + first + share * (second - first)
    elif kind == "horizon":
        sky = random_color(rng) + np.linspace(0, rng.uniform(0, 0.3), size, dtype=np.float32)[:, None, None]
        noise = rng.standard_normal((1, 9), dtype=np.float32)
        line = cv2.resize(noise, (size, 1), interpolation=cv2.INTER_CUBIC)[0]
        height = size * (rng.uniform(0.2, 0.8) + rng.uniform(0, 0.1) * line)
        picture = np.where((np.arange(size)[:, None] < height)[..., None], sky, picture)
    picture = np.ascontiguousarray(picture, np.float32)
    if rng.random() < 0.6:
        draw_shapes(picture, rng)
    return cv2.GaussianBlur(picture, (0, 0), size / 224 * rng.uniform(0.3, 2.5))


def draw_shapes(picture: np.ndarray, rng: np.random.Generator) -> None:
    """Draw some ellipses, polygons and bars of random colours into `picture` f4 `(S, S, 3)`, in place."""
    size = len(picture)
    for _ in range(rng.integers(3, 25)):
        center, color = rng.uniform(0, size, 2), [float(channel) for channel in random_color(rng)]
        reach = size * rng.uniform(0.03, 0.25)
        kind = rng.integers(3)
        if kind == 0:
            axes = [int(reach), int(reach * rng.uniform(0.2, 1))]
            cv2.ellipse(picture, center.astype(int).tolist(), axes, rng.uniform(0, 180), 0, 360, color, -1)
        elif kind == 1:
            corners = center + rng.uniform(-reach, reach, (rng.integers(3, 7), 2))
            cv2.fillPoly(picture, [cv2.convexHull(corners.astype(np.int32))], color)
        else:
            end = center + rng.normal(0, 2 * reach, 2)
            width = int(1 + reach * rng.uniform(0.02, 0.3))
            cv2.line(picture, center.astype(int).tolist(), end.astype(int).tolist(), color, width)
