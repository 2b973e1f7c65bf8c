"""Texture coordinates without the package xatlas: the mesh as it is seen from its six sides.

F faces, T texture coordinates. Every face belongs to the side that it faces most, connected faces of one side
are a chart, and the charts are packed into a square. There are more seams than xatlas makes. Places of one
chart that lie behind each other share their place in the texture; on two animals this was 0.05 % of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from shic_cli.surface.mesh import Mesh

# For each side: the texture's direction to the right, its direction up, and the side's normal. The first two
# turn like the third, so that no chart is mirrored; on the four upright sides up is up.
SIDES = np.array(
    [
        [[0, 0, -1], [0, 1, 0], [1, 0, 0]],
        [[0, 0, 1], [0, 1, 0], [-1, 0, 0]],
        [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        [[-1, 0, 0], [0, 1, 0], [0, 0, -1]],
    ],
    float,
)
ROUNDS = 4  # how often normals are averaged with their neighbours', which joins small charts to larger ones
STEEPEST = 0.2  # the least cosine between a face's own normal and its side's
CELLS = 200  # the charts are packed on a grid with about as many columns, and a cell between two of them


def box_unwrap(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates `(T, 2)` in 0..1, and the row of them `(F, 3)` that each face corner uses."""
    corners = mesh.verts[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    near = _neighbours(mesh.faces)
    side = _sides(normals, near)
    same = near.tocoo()
    kept = side[same.row] == side[same.col]
    graph = sparse.coo_array((np.ones(kept.sum()), (same.row[kept], same.col[kept])), shape=near.shape)
    _, chart = connected_components(graph, directed=False)
    # a corner's row: one for each vertex in each chart
    keys, face_uv = np.unique(chart[:, None] * len(mesh.verts) + mesh.faces, return_inverse=True)
    chart_of_row, vertex = np.divmod(keys, len(mesh.verts))
    side_of_chart = np.zeros(chart.max() + 1, int)
    side_of_chart[chart] = side
    flat = np.einsum("tij,tj->ti", SIDES[side_of_chart[chart_of_row], :2], mesh.verts[vertex])
    face_uv = face_uv.reshape(mesh.faces.shape)
    return _packed(flat, face_uv, chart), face_uv


def _neighbours(faces: np.ndarray) -> sparse.csr_array:
    """`(F, F)`: which faces share an edge, themselves among them."""
    ends = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    _, edge = np.unique(ends, axis=0, return_inverse=True)
    rows = np.repeat(np.arange(len(faces)), 3)
    has = sparse.csr_array((np.ones(len(rows)), (rows, edge.ravel())), shape=(len(faces), edge.max() + 1))
    return (has @ has.T).tocsr()


def _sides(normals: np.ndarray, near: sparse.csr_array) -> np.ndarray:
    """The row of SIDES `(F,)` for each face, from its normal `(F, 3)`, as long as its area."""
    own = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    smooth = normals
    for _ in range(ROUNDS):
        smooth = near @ smooth
    faces_it = own @ SIDES[:, 2].T
    allowed = (faces_it > STEEPEST) | (faces_it == faces_it.max(1, keepdims=True))
    return np.where(allowed, smooth @ SIDES[:, 2].T, -np.inf).argmax(1)


def _packed(flat: np.ndarray, face_uv: np.ndarray, chart: np.ndarray) -> np.ndarray:
    """The positions `flat` `(T, 2)`, scaled alike into 0..1 so that no charts overlap; `chart` `(F,)` is the
    faces'.

    Of several widths the one is taken that gives the smallest square.
    """
    area = np.ptp(flat, axis=0).prod() + 1e-30
    outlines = [_Outline.of(flat, face_uv[chart == i], np.sqrt(area) / CELLS) for i in range(chart.max() + 1)]
    order = sorted(outlines, key=lambda each: -each.upper.max())
    least = max(len(each.lower) for each in outlines)
    widths = [int(max(least, CELLS * share)) for share in (1.0, 1.2, 1.4, 1.7, 2.0)]
    width, height = min(((width, _fill(order, width)) for width in widths), key=max)
    _fill(order, width)
    moved = np.empty_like(flat)
    for each in outlines:
        moved[each.rows] = each.flat + each.place
    return np.clip(moved / max(width, height), 0, 1)


@dataclass
class _Outline:
    """A chart in cells: the `rows` of its positions, those positions `flat` from its own bottom left, and for
    each column the first and the last row that it needs. `place` is where it was put.
    """

    rows: np.ndarray
    flat: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, flat: np.ndarray, faces: np.ndarray, cell: float) -> _Outline:
        """The outline of some `faces` `(F, 3)` of `flat`, with half a cell left free around it."""
        rows, corners = np.unique(faces), flat[faces] / cell
        corner = corners.reshape(-1, 2).min(0) - 0.5
        corners = corners - corner
        first, last = corners.min(1) - 0.5, corners.max(1) + 0.5
        width = int(last[:, 0].max()) + 1
        lower, upper = np.full(width, np.inf), np.full(width, -np.inf)
        for low, high in zip(first, last, strict=True):
            columns = slice(int(low[0]), int(high[0]) + 1)
            lower[columns] = np.minimum(lower[columns], low[1])
            upper[columns] = np.maximum(upper[columns], high[1])
        return cls(rows, flat[rows] / cell - corner, lower, upper, np.zeros(2))


def _fill(outlines: list[_Outline], width: int) -> float:
    """How high a texture of `width` columns becomes; each chart falls to where its top is lowest."""
    horizon = np.zeros(width)
    for each in outlines:
        windows = np.lib.stride_tricks.sliding_window_view(horizon, len(each.lower))
        heights = (windows - each.lower).max(1)
        x = int(heights.argmin())
        each.place = np.array([x, heights[x]])
        horizon[x : x + len(each.lower)] = heights[x] + each.upper
    return float(horizon.max())
