"""Meshes for other programs: the template with its colours, and with a texture that photos give."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from scipy.spatial import KDTree

from shic_cli.base.errors import InputError
from shic_cli.files.layouts import Surface
from shic_cli.stages.match import Paths
from shic_cli.surface.surface_points import SurfacePoints

if TYPE_CHECKING:
    import trimesh

NEIGHBOURS = 4  # pixels whose colours a point of the surface takes
REACH = 2.5  # usual steps between pixels on the surface; a point farther from all of them is not seen


@dataclass(frozen=True)
class Atlas:
    """The texels of a texture that lie on a face: their `row` and `column`, `face` and `bary` `(P, 3)`."""

    size: int
    row: np.ndarray
    column: np.ndarray
    face: np.ndarray
    bary: np.ndarray


def make_atlas(surface: Surface, size: int) -> Atlas:
    """Which point of the surface each texel of a square texture of `size` pixels is; uv (0, 0) is its bottom
    left.
    """
    corners = np.stack([surface.uv[..., 0], 1 - surface.uv[..., 1]], -1)[surface.face_uv] * size - 0.5
    faces = np.full((size, size), -1, np.int32)
    for number, triangle in enumerate((corners * 16).round().astype(np.int32)):
        cv2.fillConvexPoly(faces, triangle, number, shift=4)
    row, column = np.nonzero(faces >= 0)
    face = faces[row, column]
    a, b, c = corners[face].swapaxes(0, 1)
    at, ab, ac = np.stack([column, row], 1) - a, b - a, c - a
    area = ab[:, 0] * ac[:, 1] - ab[:, 1] * ac[:, 0]
    area = np.where(np.abs(area) > 1e-9, area, 1)
    second = (at[:, 0] * ac[:, 1] - at[:, 1] * ac[:, 0]) / area
    third = (ab[:, 0] * at[:, 1] - ab[:, 1] * at[:, 0]) / area
    bary = np.stack([1 - second - third, second, third], 1).clip(
        0, 1
    )  # the fill takes texels beside a face too
    return Atlas(size, row, column, face, bary / bary.sum(1, keepdims=True))


Photos = Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]  # rgb (H, W, 3), vertex and score (H, W)


def bake(surface: Surface, photos: Photos, size: int) -> np.ndarray:
    """The texture `(size, size, 3)` uint8 that photos give; a point that several photos show has their mean,
    weighted by score.

    What no photo shows has the colour of the nearest vertex along the surface that one shows. InputError if
    there is none.
    """
    atlas = make_atlas(surface, size)
    corners = surface.faces[atlas.face]
    places = np.einsum("pi,pij->pj", atlas.bary, surface.verts[corners])
    vertices, texels = Mean(surface.verts), Mean(places)
    for looker in lookers(surface, photos):
        seen = vertices.add(looker)
        texels.add(looker, np.any(seen[corners], axis=1))
    filled = fill(surface, *vertices.result())
    colors, weights = texels.result()
    beside = np.einsum("pi,pij->pj", atlas.bary, filled[corners])
    picture = np.zeros((size, size, 3), np.uint8)
    picture[atlas.row, atlas.column] = np.rint(np.where(weights[:, None] > 0, colors, beside))
    return _bleed(picture, atlas)


def vertex_colors(surface: Surface, photos: Photos) -> tuple[np.ndarray, float]:
    """The colours `(K, 3)` uint8 that photos give the vertices, and the share of these that a photo shows."""
    mean = Mean(surface.verts)
    for looker in lookers(surface, photos):
        mean.add(looker)
    colors, weights = mean.result()
    return np.rint(fill(surface, colors, weights)).astype(np.uint8), float((weights > 0).mean())


@dataclass(frozen=True)
class Looker:
    """Finds colours in one photo: its pixels by their points of the surface, `colors` `(P, 3)` and `sure`
    `(P,)`; points farther than `reach` from all of them are not in it.
    """

    tree: KDTree
    colors: np.ndarray
    sure: np.ndarray
    reach: float

    def __call__(self, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted sums of colours `(P, 3)` at places `(P, 3)`, and the weights `(P,)`."""
        nearest = list(range(1, min(NEIGHBOURS, len(self.sure)) + 1))
        found = self.tree.query(places, k=nearest, distance_upper_bound=self.reach, workers=-1)  # type: ignore[arg-type]
        distance, index = (np.asarray(array) for array in found)
        near = np.isfinite(distance)
        index = np.where(near, index, 0).astype(int)
        weight = np.where(near, self.sure[index] / (np.where(near, distance, 1) / self.reach + 0.05), 0)
        return np.einsum("pk,pkc->pc", weight, self.colors[index]), weight.sum(1)


def lookers(surface: Surface, photos: Photos) -> Iterator[Looker]:
    """What finds the colours of each photo that has vertices."""
    finder = SurfacePoints(surface)
    for rgb, vertex, score in photos:
        inside = vertex >= 0
        if inside.any():
            face, bary = finder(vertex)
            position = np.einsum("pi,pij->pj", bary, surface.verts[surface.faces[face]])
            reach = REACH * max(_step(position, inside), finder.edge / 2)
            sure = score[inside].astype(np.float64).clip(1e-3)
            yield Looker(KDTree(position), rgb[inside].astype(np.float64), sure, reach)


class Mean:
    """The mean colours of places `(P, 3)` over photos."""

    def __init__(self, places: np.ndarray) -> None:
        self.places, self.sums, self.weights = places, np.zeros((len(places), 3)), np.zeros(len(places))

    def add(self, looker: Looker, where: np.ndarray | None = None) -> np.ndarray:
        """Take a photo in, for the places `where` `(P,)`; which of all places `(P,)` it shows."""
        chosen = np.arange(len(self.places)) if where is None else np.flatnonzero(where)
        sums, weights = looker(self.places[chosen])
        self.sums[chosen] += sums
        self.weights[chosen] += weights
        seen = np.zeros(len(self.places), bool)
        seen[chosen] = weights > 0
        return seen

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """The colours `(P, 3)` and the weights `(P,)`, 0 where no photo shows the place. InputError if none
        shows any.
        """
        if not self.weights.any():
            raise InputError("no photo shows a point of the template", "give maps that have vertices")
        return self.sums / np.where(self.weights > 0, self.weights, 1)[:, None], self.weights


def _step(position: np.ndarray, inside: np.ndarray) -> float:
    """The median distance on the template between pixels side by side."""
    image = np.full((*inside.shape, 3), np.nan)
    image[inside] = position
    steps = np.linalg.norm(np.diff(image, axis=1), axis=-1)
    steps = steps[np.isfinite(steps)]
    return float(np.median(steps)) if len(steps) else 0.0


def fill(surface: Surface, colors: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Vertex colours `(K, 3)` where those that no photo shows (weight 0) have the nearest shown one's."""
    return colors[Paths(surface.verts, surface.faces).nearest(np.flatnonzero(weights > 0))[0]]


def _bleed(picture: np.ndarray, atlas: Atlas) -> np.ndarray:
    """The texture with the nearest covered colour where no face is, so that seams don't show."""
    empty = np.ones(picture.shape[:2], np.uint8)
    empty[atlas.row, atlas.column] = 0
    labels = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    label = np.asarray(labels, np.int64)
    nearest = np.zeros((label.max() + 1, 3), np.uint8)
    nearest[label[empty == 0]] = picture[empty == 0]
    return nearest[label]


def colored(surface: Surface, colors: np.ndarray) -> trimesh.Trimesh:
    """The mesh with a colour `(K, 3)` uint8 for each vertex, in the template's order."""
    import trimesh

    return trimesh.Trimesh(surface.verts, surface.faces, vertex_colors=colors, process=False)


def textured(surface: Surface, picture: np.ndarray) -> trimesh.Trimesh:
    """The mesh with a texture; a vertex on a seam is there once for each of its texture coordinates."""
    import trimesh
    from PIL import Image
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    corners = np.stack([surface.faces.ravel(), surface.face_uv.ravel()], 1)
    pairs, corner = np.unique(corners, axis=0, return_inverse=True)
    material = PBRMaterial(baseColorTexture=Image.fromarray(picture), metallicFactor=0.0, roughnessFactor=1.0)
    visual = TextureVisuals(uv=surface.uv[pairs[:, 1]], material=material)
    return trimesh.Trimesh(surface.verts[pairs[:, 0]], corner.reshape(-1, 3), visual=visual, process=False)


def mesh_bytes(mesh: trimesh.Trimesh, suffix: str) -> bytes:
    """The mesh as the bytes of a .glb or .ply file."""
    data: Any = mesh.export(file_type=suffix.removeprefix("."))
    return data if isinstance(data, bytes) else str(data).encode()
