"""Image-to-image correspondences, through the template or by pixel embeddings (sec. 4.3, Fig. 7).

Each photo is a *side*. `describe` gives a description of its pixels, and `find` gives the pixels of a side
that a description fits. So `b.find(a.describe(yx))` takes positions of A to positions of B, in both ways.
Positions are (y, x) with pixel centres at integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import dijkstra
from scipy.spatial import KDTree

from shic_cli.base.errors import InputError
from shic_cli.base.settings import GEODESIC_MAXIMUM, GPS_KAPPA
from shic_cli.files.mask_sources import Photo
from shic_cli.files.pictures import fit_height

if TYPE_CHECKING:
    from shic_cli.stages.predict import Embedded, Predictor

GRID = 256  # embeddings of a photo are compared on a grid of at most this many pixels a side
CHUNK = 1 << 22  # similarities that are computed at a time
CANDIDATES = 2000  # positions from which the well-spread points of a picture are chosen
PANEL = 560  # pixels; the height of a photo in the picture


class Side(Protocol):
    """One photo of a pair; `mask` `(H, W)` is the object in it."""

    @property
    def mask(self) -> np.ndarray: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    def describe(self, yx: np.ndarray) -> Any:
        """A description of the positions `yx` `(P, 2)` that `find` of another side takes."""
        ...

    def find(self, described: Any) -> tuple[np.ndarray, np.ndarray]:
        """The pixels `(P, 2)` int that fit `described` best, and how sure each is `(P,)`, at most 1."""
        ...


class Distances(Protocol):
    """Distances between the vertices of a surface."""

    def nearest(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each of the K vertices the nearest of `vertices` `(K,)`, and the distance to it `(K,)`."""
        ...


class Paths:
    """Distances along the edges of a surface, on the 228 scale.

    They need no `(K, K)` array, so a model file is enough.
    """

    def __init__(self, verts: np.ndarray, faces: np.ndarray) -> None:
        edges = np.unique(np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1), axis=0)
        lengths = np.linalg.norm(verts[edges[:, 0]] - verts[edges[:, 1]], axis=1)
        self.verts = verts
        self.graph = coo_array((lengths, edges.T), shape=(len(verts), len(verts))).tocsr()
        directions = np.stack(np.meshgrid(*[[-1, 0, 1]] * 3), -1).reshape(-1, 3)
        tips = np.unique(
            (verts @ directions.T).argmax(0)
        )  # the longest path starts at a vertex that sticks out
        lengths = dijkstra(self.graph, directed=False, indices=tips)
        self.scale = GEODESIC_MAXIMUM / lengths[np.isfinite(lengths)].max()

    def nearest(self, vertices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For each of the K vertices the nearest of `vertices` `(K,)`, and the distance to it `(K,)`."""
        distance, _, seed = dijkstra(
            self.graph, directed=False, indices=vertices, min_only=True, return_predecessors=True
        )
        cut_off = np.flatnonzero(
            np.isinf(distance)
        )  # in another component; the distance there is straight through space
        if len(cut_off):
            distance[cut_off], index = KDTree(self.verts[vertices]).query(self.verts[cut_off])
            seed[cut_off] = vertices[index]
        return seed, distance * self.scale


@dataclass(frozen=True)
class ThroughTemplate:
    """A side by its map `vertex` `(H, W)`, -1 for none, and `score` `(H, W)`; it is described by vertices."""

    name: str
    vertex: np.ndarray
    score: np.ndarray
    paths: Distances

    def __post_init__(self) -> None:
        if not (self.vertex >= 0).any():
            raise InputError(f"{self.name}: none of its pixels has a vertex", "check its mask")

    @property
    def shape(self) -> tuple[int, int]:
        return self.vertex.shape[0], self.vertex.shape[1]

    @property
    def mask(self) -> np.ndarray:
        return self.vertex >= 0

    @cached_property
    def _pixels(self) -> np.ndarray:
        return np.argwhere(self.vertex >= 0)

    @cached_property
    def _tree(self) -> KDTree:
        return KDTree(self._pixels)

    def describe(self, yx: np.ndarray) -> np.ndarray:
        """The vertex `(P,)` at each position; off the object, that of the nearest pixel that has one."""
        pixel = np.clip(np.rint(yx).astype(int), 0, np.array(self.shape) - 1)
        vertex = self.vertex[tuple(pixel.T)]
        off = (vertex < 0) | (np.abs(pixel - yx) > 0.5).any(1)
        if off.any():
            vertex[off] = self.vertex[tuple(self._pixels[self._tree.query(np.asarray(yx)[off])[1]].T)]
        return vertex

    @cached_property
    def _place(self) -> tuple[np.ndarray, np.ndarray]:
        """For each of the K vertices a pixel `(K, 2)`, and the distance to that pixel's vertex `(K,)`.

        It is the surest pixel of the nearest vertex that the photo shows.
        """
        vertex, score = (
            self.vertex[tuple(self._pixels.T)],
            self.score[tuple(self._pixels.T)].astype(np.float32),
        )
        order = np.lexsort((-score, vertex))  # stable: equal scores stay in reading order
        seen, first = np.unique(vertex[order], return_index=True)
        nearest, distance = self.paths.nearest(seen)
        return self._pixels[order[first]][np.searchsorted(seen, nearest)], distance

    def find(self, described: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pixels `(P, 2)` whose vertex is nearest, and their geodesic point similarity `(P,)`."""
        pixel, distance = self._place
        return pixel[described], np.exp(-(distance[described] ** 2) / (2 * GPS_KAPPA**2))


class ThroughEmbedding:
    """A side by a model's pixel embeddings in `mask` `(H, W)`; it is described by unit vectors `(P, D)`."""

    def __init__(self, embedded: Embedded, mask: np.ndarray) -> None:
        self.embedded, self.mask, self.shape = embedded, mask, (mask.shape[0], mask.shape[1])
        step = -(-max(mask.shape) // GRID)
        grid = np.zeros_like(mask)
        grid[step // 2 :: step, step // 2 :: step] = True
        self.pixels = np.argwhere(mask & grid)
        if not len(self.pixels):
            self.pixels = np.argwhere(mask)

    def describe(self, yx: np.ndarray) -> Any:
        """The unit embeddings `(P, D)` at the positions."""
        from torch.nn.functional import normalize

        return normalize(self.embedded.at(yx).float(), dim=-1)

    @cached_property
    def _vectors(self) -> Any:
        return self.describe(self.pixels)

    def find(self, described: Any) -> tuple[np.ndarray, np.ndarray]:
        """The pixels `(P, 2)` of the mask with the most similar embedding, and their cosine `(P,)`."""
        best = [
            (part @ self._vectors.T).max(1) for part in described.split(max(1, CHUNK // len(self.pixels)))
        ]
        index = np.concatenate([maximum.indices.cpu().numpy() for maximum in best])
        return self.pixels[index], np.concatenate([maximum.values.cpu().numpy() for maximum in best])


class ThroughVertices(ThroughEmbedding):
    """A side by a model's map and pixel embeddings; it is described by vertices, as `ThroughTemplate` is.

    A vertex is found at the pixel where it is likeliest (`target` probability: p(x|u) of Eq. 3), or at the
    pixel whose embedding is most similar to its own (`target` embedding: the cosine). Both look at the photo
    as it is, not at its mirror image too. `vertices` `(K, D)` are the vertices' embeddings.
    """

    def __init__(self, by_map: ThroughTemplate, embedded: Embedded, vertices: Any, target: str) -> None:
        super().__init__(embedded, by_map.mask)
        self.by_map, self.vertices, self.target = by_map, vertices, target

    def describe(self, yx: np.ndarray) -> np.ndarray:
        """The vertex `(P,)` at each position, by the map."""
        return self.by_map.describe(yx)

    def find(self, described: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pixels `(P, 2)` where the vertices are likeliest or most similar, and how much `(P,)`."""
        import torch
        from torch.nn.functional import normalize

        wanted, place = np.unique(described, return_inverse=True)
        vertices = normalize(self.vertices, dim=1) if self.target == "embedding" else self.vertices
        best = torch.full((len(wanted),), -torch.inf)
        index = torch.zeros(len(wanted), dtype=torch.long)
        step = max(1, CHUNK // len(vertices))
        for start in range(0, len(self.pixels), step):
            pixels = self.embedded.at(self.pixels[start : start + step]).float()
            if self.target == "embedding":
                values = normalize(pixels, dim=1) @ vertices[wanted].T
            else:
                values = (pixels @ vertices.T).softmax(1)[:, wanted]
            value, row = (each.cpu() for each in values.max(0))
            index = torch.where(value > best, row + start, index)
            best = torch.maximum(best, value)
        return self.pixels[index.numpy()[place.ravel()]], best.numpy()[place.ravel()]


def make_side(
    predictor: Predictor, photo: Photo, via: str, paths: Distances, target: str = "surface"
) -> Side:
    """A photo as a model sees it: by its map (`via` template) or by its embeddings (`via` embedding).

    `target` says how a pixel is found for a vertex: at the nearest vertex of the map along the surface, or as
    `ThroughVertices` does.
    """
    if via == "embedding":
        return ThroughEmbedding(predictor.embed(photo), photo.mask)
    vertex, score = predictor.predict(photo)[:2]
    by_map = ThroughTemplate(photo.name, vertex, score, paths)
    if target == "surface":
        return by_map
    return ThroughVertices(by_map, predictor.embed(photo), predictor.vertex_embeddings, target)


@dataclass(frozen=True)
class Matches:
    """Matched positions `(P, 2)` in A and in B as (y, x), and how sure each match is `(P,)`."""

    a: np.ndarray
    b: np.ndarray
    score: np.ndarray

    def as_json(self) -> list[list[Any]]:
        """`[[xa, ya], [xb, yb], score]` for each match."""
        return [
            [p[::-1].tolist(), q[::-1].tolist(), round(float(s), 4)]
            for p, q, s in zip(self.a, self.b, self.score, strict=True)
        ]


def correspondences(a: Side, b: Side, mask: np.ndarray, number: int, chance: np.random.Generator) -> Matches:
    """At most `number` matches, spread over the `mask` `(H, W)` of A.

    They are chosen from the positions that return nearest to themselves from B.
    """
    pixels = np.argwhere(mask)
    yx = pixels[chance.permutation(len(pixels))[:CANDIDATES]]
    in_b, score = b.find(a.describe(yx))
    return_error = np.linalg.norm(a.find(b.describe(in_b))[0] - yx, axis=1)
    kept = np.flatnonzero(return_error <= max(np.median(return_error), 0.02 * max(mask.shape)))
    chosen = kept[spread(yx[kept], number)]
    return Matches(yx[chosen], in_b[chosen], score[chosen])


def spread(points: np.ndarray, number: int) -> np.ndarray:
    """Indices of at most `number` of the points `(P, 2)`; each is the farthest from those before it."""
    number = min(number, len(points))
    chosen = [int(np.linalg.norm(points - points.mean(0), axis=1).argmax())] if number else []
    distance = np.full(len(points), np.inf)
    while len(chosen) < number:
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
        chosen.append(int(distance.argmax()))
    return np.array(chosen, int)


def place_colors(yx: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A smooth colour `(P, 3)` uint8 for each position `(P, 2)`, by its place in the box of `mask`.

    The hue changes along x and the brightness along y.
    """
    box = np.argwhere(mask)
    low, high = box.min(0), box.max(0)
    v, u = ((yx - low) / np.maximum(high - low, 1)).clip(0, 1).T
    hsv = np.stack([u * 150, 255 - 110 * v, 110 + 145 * (1 - v)], 1)  # the hue stops before it is red again
    return cv2.cvtColor(hsv.astype(np.uint8)[None], cv2.COLOR_HSV2RGB)[0]


def picture(photos: tuple[Photo, Photo], sides: tuple[Side, Side], matches: Matches) -> np.ndarray:
    """A and B side by side, twice, `(H, W, 3)` uint8: with a line for each match, and with place colours.

    A pixel's colour shows its place in A.
    """
    tops, bottoms, scales = [], [], []
    for i, photo in enumerate(photos):
        small = fit_height(photo.rgb, PANEL)
        inside = (
            cv2.resize(photo.mask.astype(np.uint8), small.shape[1::-1], interpolation=cv2.INTER_NEAREST) > 0
        )
        yx = _rescale(np.argwhere(inside), photo.rgb.shape[0] / PANEL).clip(0, np.array(photo.mask.shape) - 1)
        pixels, of_pixel = np.unique(yx, axis=0, return_inverse=True)
        in_a = pixels if i == 0 else sides[0].find(sides[1].describe(pixels))[0]
        colored = small.copy()
        colored[inside] = 0.25 * small[inside] + 0.75 * place_colors(in_a, photos[0].mask)[of_pixel.ravel()]
        tops.append(small)
        bottoms.append(colored)
        scales.append(PANEL / photo.rgb.shape[0])
    gap = np.full((PANEL, 8, 3), 255, np.uint8)
    top, bottom = (np.concatenate([row[0], gap, row[1]], 1) for row in (tops, bottoms))
    ends = (
        _rescale(matches.a, scales[0]),
        _rescale(matches.b, scales[1]) + np.array([0, tops[0].shape[1] + gap.shape[1]]),
    )
    _draw_lines(top, *ends, place_colors(matches.a, photos[0].mask))
    return np.concatenate([top, np.full((8, top.shape[1], 3), 255, np.uint8), bottom])


def _rescale(yx: np.ndarray, scale: float) -> np.ndarray:
    """Pixels `(P, 2)` of a picture, moved to the same places of the picture at `scale`."""
    return np.floor((yx + 0.5) * scale).astype(int)


def _draw_lines(canvas: np.ndarray, starts: np.ndarray, ends: np.ndarray, colors: np.ndarray) -> None:
    """Draw a line with a dot at each end for each match, in place."""
    for *points, color in zip(starts.tolist(), ends.tolist(), colors.tolist(), strict=True):
        start, end = ((x, y) for y, x in points)
        cv2.line(canvas, start, end, color, 1, cv2.LINE_AA)
        for point in (start, end):
            cv2.circle(canvas, point, 5, (255, 255, 255), -1, cv2.LINE_AA)
            cv2.circle(canvas, point, 4, color, -1, cv2.LINE_AA)
