"""Lays a texture over a photo, so that it follows the surface that the photo's map gives."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import torch

from shic_cli.base.errors import Failures, InputError, PartialError, ShicError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import BUILTIN_TEXTURES
from shic_cli.base.workers import number_of, spread, threads_for
from shic_cli.files.arrays import source
from shic_cli.files.atomic import Journal, atomic, check_target
from shic_cli.files.checks import check_indices
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Surface
from shic_cli.files.names import check_template, picture_path
from shic_cli.files.photos import decode, encode
from shic_cli.surface.mesh import vertex_normals
from shic_cli.surface.surface_points import SurfacePoints

CELL = 0.1  # width of a checker's field and of a cell of the grid, as a share of the template's longest side
OPACITY = 0.9  # opacity of the texture over the photo
LEAST_PHOTOS = 20  # for which a process pays
SHADE = 0.35  # exponent of the photo's luminance: how much of its light and dark stays


@dataclass(frozen=True)
class Points:
    """Points of the surface, one for each of P pixels; `spacing` is the distance between neighbours.

    `face` is `(P,)`, `bary` `(P, 3)` are barycentric coordinates, and `position` and `normal` are `(P, 3)`.
    """

    face: np.ndarray
    bary: np.ndarray
    position: np.ndarray
    normal: np.ndarray
    spacing: float


Texture = Callable[[Points], np.ndarray]  # colours (P, 3), 0 to 255


def load_texture(name: str, surface: Surface) -> Texture:
    """The texture `name`: a built-in one (checker, colors, grid) or a picture file.

    A picture is laid on by the surface's texture coordinates.
    """
    if name in BUILTIN_TEXTURES:
        return {
            "checker": checker(surface),
            "grid": grid,
            "colors": partial(_corners, surface.faces, surface.colors),
        }[name]
    path = Path(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(
            f"{name}: can't be read ({error.strerror})",
            f"name a picture file, or one of {', '.join(BUILTIN_TEXTURES)}",
        ) from error
    return Painted(decode(data, name)[0], surface)


def _corners(faces: np.ndarray, values: np.ndarray, points: Points) -> np.ndarray:
    """`values` of the vertices, interpolated at the points."""
    return np.einsum("pi,pij->pj", points.bary, values[faces[points.face]].astype(np.float32))


def _share(x: np.ndarray) -> np.ndarray:
    """`x` `(P,)` limited to 0..1, as a column `(P, 1)`."""
    return x.clip(0, 1)[:, None]


def checker(surface: Surface) -> Texture:
    """A checkerboard of cubes that the surface cuts, without seams.

    The animal's left is dark blue and its right dark red.
    """
    # on a narrow animal a border of cubes beside the mirror plane would run along the flanks
    return partial(_checkered, bool(np.ptp(surface.verts[:, 0]) < 5 * CELL))


def _checkered(narrow: bool, points: Points) -> np.ndarray:
    """The colours `(P, 3)` of the checkerboard on an animal that is `narrow`, or not."""
    wave = np.sin(np.pi * (points.position / CELL + 0.5))
    wave[:, 0] = (
        points.position[:, 0] * np.pi / CELL if narrow else np.sin(np.pi * points.position[:, 0] / CELL)
    )
    soft = (wave / (np.pi * points.spacing / CELL)).clip(-1, 1)  # edges are one pixel wide
    light = _share(0.5 + 0.5 * soft.prod(1))
    left = _share(0.5 + points.position[:, 0] / points.spacing)
    dark = left * np.array([25.0, 45, 120]) + (1 - left) * np.array([130.0, 30, 35])
    return light * np.array([250.0, 245, 230]) + (1 - light) * dark


def grid(points: Points) -> np.ndarray:
    """Lines where the surface crosses planes, one colour for each axis, on a light ground, without seams."""
    colors = np.full((len(points.face), 3), 240.0)
    for axis, line in enumerate(((60.0, 130, 60), (40.0, 70, 170), (190.0, 50, 40))):
        # how fast the distance from the plane grows along the surface
        across = np.sqrt(np.maximum(1 - points.normal[:, axis] ** 2, 1e-4))
        place = points.position[:, axis] / CELL
        distance = np.abs(place - np.rint(place)) * CELL / across
        visible = (across - 0.35) / 0.3  # no line where the surface is parallel to the plane
        colors += (
            _share(0.5 + (0.07 * CELL - distance) / points.spacing)
            * _share(visible)
            * (np.array(line) - colors)
        )
    return colors


class Painted:
    """A picture `(h, w, 3)` that texture coordinates lay on, with (0, 0) at its bottom left.

    Texels that no face covers take the nearest covered colour, so that the ground between charts doesn't
    show.
    """

    def __init__(self, picture: np.ndarray, surface: Surface) -> None:
        self.uv, self.face_uv = surface.uv, surface.face_uv
        height, width = picture.shape[:2]
        corners = (self._texels(self.uv, height, width)[self.face_uv] * 16).round().astype(np.int32)
        covered = np.zeros((height, width), np.uint8)
        for triangle in corners:
            cv2.fillConvexPoly(covered, triangle, 1, shift=4)
        covered = cv2.erode(
            covered, np.ones((3, 3), np.uint8)
        )  # the fill marks texels that a face only touches
        if covered.any() and not covered.all():
            _, labels = cv2.distanceTransformWithLabels(
                1 - covered, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
            )
            label = labels.astype(np.int64)
            nearest = np.zeros((label.max() + 1, 3), np.uint8)
            nearest[label[covered > 0]] = picture[covered > 0]
            picture = nearest[label]
        self.picture = picture
        edges = surface.verts[surface.faces]
        solid = np.linalg.norm(np.cross(edges[:, 1] - edges[:, 0], edges[:, 2] - edges[:, 0]), axis=1).sum()
        (ax, ay), (bx, by) = ((corners[:, i] - corners[:, 0]).T / 16 for i in (1, 2))
        flat = np.abs(ax * by - ay * bx).sum()
        self.density = float(np.sqrt(flat / max(solid, 1e-12)))  # texels in a unit of length

    @staticmethod
    def _texels(uv: np.ndarray, height: int, width: int) -> np.ndarray:
        """Positions (x, y) in the picture, with texel centres at integers."""
        return np.stack([uv[..., 0] * width - 0.5, (1 - uv[..., 1]) * height - 0.5], -1).astype(np.float32)

    def __call__(self, points: Points) -> np.ndarray:
        """Colours `(P, 3)` of the points."""
        picture, shrink = self.picture, self.density * points.spacing
        if shrink > 1.5:  # a pixel covers several texels
            size = tuple(max(round(side / shrink), 1) for side in picture.shape[1::-1])
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        uv = np.einsum("pi,pij->pj", points.bary, self.uv[self.face_uv[points.face]])
        x, y = self._texels(uv, *picture.shape[:2]).astype(np.float32).T
        return sample_bilinear(picture, y, x)


def sample_bilinear(picture: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Colours `(P, 3)` of `picture` `(h, w, 3)` at positions `(P,)`; the border continues outwards."""
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = (y - top)[:, None], (x - left)[:, None]
    rows, columns = (
        [np.clip(at + i, 0, size - 1) for i in (0, 1)]
        for at, size in ((top, picture.shape[0]), (left, picture.shape[1]))
    )
    upper, lower = ((1 - fx) * picture[row, columns[0]] + fx * picture[row, columns[1]] for row in rows)
    return (1 - fy) * upper + fy * lower


def lay(
    rgb: np.ndarray, vertex: np.ndarray, finder: SurfacePoints, texture: Texture, opacity: float = OPACITY
) -> np.ndarray:
    """The photo `(H, W, 3)` uint8 with the texture over the pixels that have a vertex.

    `vertex` is `(H, W)`, -1 for none. Some of the photo's light and dark stays.
    """
    inside = vertex >= 0
    if not inside.any():
        return rgb.copy()
    surface, (face, bary) = finder.surface, finder(vertex)
    position = np.einsum("pi,pij->pj", bary, surface.verts[surface.faces[face]])
    normals = vertex_normals(surface.verts, surface.faces)
    normal = np.einsum("pi,pij->pj", bary, normals[surface.faces[face]])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    colors = texture(Points(face, bary, position, normal, _spacing(position, inside)))
    shaded = (colors * _shade(rgb, inside)[:, None]).clip(0, 255)
    soft = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 0.7)  # the outline is soft
    cover = opacity * soft[inside][:, None]
    out = rgb.copy()
    out[inside] = np.rint(cover * shaded + (1 - cover) * rgb[inside]).astype(np.uint8)
    return out


def remap(
    maps: ItemReader,
    surface: Surface,
    texture: Texture,
    write: Callable[[str, np.ndarray], None],
    opacity: float,
    device: torch.device,
    track: Track = plain_track,
    done: Container[str] = (),
    workers: int | None = 1,
) -> None:
    """Call `write(name, picture)` with each image of a maps file, covered by the texture.

    Images in `done` are left out. InputError if the maps belong to another template. An image that fails is
    left out and named; PartialError at the end says how many failed. On a CPU so many processes as `workers`
    paint, or as many as pay if it is None; this makes no difference to the pictures.
    """
    check_template(maps, surface.fingerprint)
    failures = Failures(len(maps))
    left = [name for name in maps.names if name not in done]
    alone = "" if device.type == "cpu" else "only --device cpu takes more"
    given = (maps, SurfacePoints(surface, device), texture, opacity)
    with threads_for(workers, len(maps), LEAST_PHOTOS):
        laid = spread(_layer, given, left, number_of(workers, len(left), LEAST_PHOTOS, alone))
        for name, picture in zip(left, track(laid, len(left), "remap"), strict=True):
            with failures.catch(name):
                if isinstance(picture, ShicError):
                    raise picture
                write(name, picture)
    failures.check(len(maps))
    failures.report(len(maps))


def _layer(
    maps: ItemReader, finder: SurfacePoints, texture: Texture, opacity: float
) -> Callable[[str], np.ndarray | ShicError]:
    """A function that covers the photo of a name, and returns the error where it can't."""
    return partial(_attempt, maps, finder, texture, opacity)


def _attempt(
    maps: ItemReader, finder: SurfacePoints, texture: Texture, opacity: float, name: str
) -> np.ndarray | ShicError:
    try:
        item = maps[name]
        rgb, _ = decode(item.encoded.tobytes(), name)
        check_indices(item.vertex, len(finder.surface.verts), f"{maps.path}: {name}: vertex", lowest=-1)
        if item.vertex.shape != rgb.shape[:2]:
            raise InputError(
                f"{maps.path}: {name}: the map and the image differ in size", "make the maps file again"
            )
        return lay(rgb, item.vertex, finder, texture, opacity)
    except ShicError as error:
        return error


def remap_into(
    folder: Path,
    maps: ItemReader,
    surface: Surface,
    texture: str,
    opacity: float,
    device: torch.device,
    *,
    overwrite: bool = False,
    track: Track = plain_track,
    workers: int | None = 1,
) -> None:
    """Write `STEM.remap.png` of every image of a maps file below `folder`.

    An interrupted run continues when it is given again. Existing pictures are kept: ShicError names the first
    one before any is made, unless `overwrite`.
    """
    paint = load_texture(texture, surface)
    check_template(maps, surface.fingerprint)
    paths = {name: picture_path(folder, name, ".remap.png") for name in maps.names}
    made_by = {"maps": source(maps.path)["sha256"], "template": surface.fingerprint, "opacity": opacity}
    made_by["texture"] = texture if texture in BUILTIN_TEXTURES else source(texture)["sha256"]
    folder.mkdir(parents=True, exist_ok=True)
    journal, complete = Journal(folder / ".remap", made_by, replace=overwrite), False
    try:
        if not journal.continued and not overwrite:
            for path in filter(Path.exists, paths.values()):
                check_target(path, overwrite=False)
        done = {record.decode() for record in journal.records()}
        owner = {paths[name]: name for name in reversed(maps.names)}

        def write(name: str, picture: np.ndarray) -> None:
            if owner[paths[name]] != name:
                raise InputError(
                    f"{name}: its picture would replace that of {owner[paths[name]]}", "rename one"
                )
            paths[name].parent.mkdir(parents=True, exist_ok=True)
            with atomic(paths[name]) as unfinished:
                unfinished.write_bytes(encode(picture))
            journal.append(name.encode())

        remap(maps, surface, paint, write, opacity, device, track, done, workers)
        complete = True
    except PartialError:
        complete = True
        raise
    finally:
        journal.close(remove=complete or not next(journal.records(), None))


def _spacing(position: np.ndarray, inside: np.ndarray) -> float:
    """The median distance on the template between neighbouring pixels."""
    image = np.full((*inside.shape, 3), np.nan, np.float32)
    image[inside] = position
    steps = np.linalg.norm(np.diff(image, axis=1), axis=-1)
    steps = steps[np.isfinite(steps)]
    return max(float(np.median(steps)), 1e-4) if len(steps) else 1e-2


def _shade(rgb: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A factor `(P,)` for each pixel inside: its luminance relative to the object's median, softened."""
    light = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[inside].astype(np.float32) + 16
    return ((light / np.median(light)) ** SHADE).clip(0.6, 1.25)
