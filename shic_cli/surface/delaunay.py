"""Intrinsic Delaunay triangulations: edges are flipped until the Laplacian has no negative weight.

The surface stays the same; only its division into triangles changes. A side is a number 3 f + s: side s of
face f runs from the face's corner s to the next corner. `tail` is the vertex where a side starts, `twin` is
the side of the neighbouring face along the same edge, and `length` is the side's length; all are `(3 F,)`.
Edges with one face, or with more than two, get the tufted cover of Sharp and Crane, A Laplacian for
Nonmanifold Triangle Meshes, SGP 2020, sec. 3: each side of the surface gets its own sheet, and the sheets are
glued around every edge.
"""

from __future__ import annotations

from math import sqrt
from typing import Any, TypeVar

import numpy as np
from scipy import sparse

# Two sides of a face together are longer than the third by at least this share of the mean edge length.
MOLLIFY = 1e-6
LEAST = 1e-60  # the least value of 16 area^2 of a face; rounding can bring it to 0 or below
SLACK = 1e-10  # an edge is flipped if the sum of its two cotangents is below -SLACK

Numbers = TypeVar("Numbers", float, np.ndarray)


def operators(
    verts: np.ndarray, faces: np.ndarray
) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray, float]:
    """Gradient `(2 F', K)`, face areas `(F',)`, vertex areas `(K,)` and the mean edge length.

    All belong to the intrinsic Delaunay triangulation. The first F' rows of the gradient hold the first
    component in each face's own plane, the other F' rows the second. With A as the faces' areas, listed
    twice, the Laplacian is gradient^T A gradient.
    """
    tail, length = delaunay(verts, faces)
    corner, (a, b, c) = tail.reshape(-1, 3), length.reshape(-1, 3).T
    x, y = (a * a + c * c - b * b) / (2 * a), 2 * _area(a, b, c) / a  # corners at (0, 0), (a, 0) and (x, y)
    areas, zero = a * y / 2, np.zeros_like(a)
    values = (
        np.concatenate([np.stack([-y, y, zero], 1), np.stack([x - a, -x, a], 1)]) / np.tile(a * y, 2)[:, None]
    )
    rows = np.repeat(np.arange(2 * len(a)), 3)
    gradient = sparse.csr_matrix(
        (values.ravel(), (rows, np.tile(corner, (2, 1)).ravel())), (2 * len(a), len(verts))
    )
    return (
        gradient,
        areas,
        np.bincount(corner.ravel(), np.repeat(areas / 3, 3), len(verts)),
        float(length.mean()),
    )


def delaunay(verts: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`tail` and `length` `(3 F',)` of the sides of the intrinsic Delaunay triangulation.

    `verts` `(K, 3)` and `faces` `(F, 3)` are the mesh.
    """
    edge, forth = _edges(faces)
    if not np.array_equal(np.unique(edge[forth]), np.sort(edge[~forth])) or 2 * forth.sum() != len(edge):
        faces = np.stack([faces, faces[:, ::-1]], 1).reshape(
            -1, 3
        )  # each face is followed by its back, so both directions come in the same order
    tail, head = faces.reshape(-1), np.roll(faces, -1, 1).reshape(-1)
    length = np.linalg.norm(verts[tail] - verts[head], axis=1)
    sides = length.reshape(-1, 3)
    length = length + max(0.0, (2 * sides.max(1) - sides.sum(1)).max() + MOLLIFY * length.mean())
    lists = tail.tolist(), _glued(faces).tolist(), length.tolist()
    _flip_all(*lists)
    return np.array(lists[0]), np.array(lists[2])


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """An edge number `(3 F,)` that the sides of one edge share, and the side's direction bool `(3 F,)`.

    The direction is True where the side goes from the lower vertex number to the higher.
    """
    tail, head = faces.reshape(-1).astype(np.int64), np.roll(faces, -1, 1).reshape(-1).astype(np.int64)
    return np.minimum(tail, head) * (faces.max() + 1) + np.maximum(tail, head), tail < head


def _glued(faces: np.ndarray) -> np.ndarray:
    """`twin` `(3 F,)`: each side is glued to the next side of its edge in the other direction.

    Each edge has as many sides in one direction as in the other; both are taken in the order of their faces.
    So the front of a face that has no neighbour is glued to its own back.
    """
    edge, forth = _edges(faces)
    forward, backward = (
        chosen[np.argsort(edge[chosen], kind="stable")]
        for chosen in (np.flatnonzero(forth), np.flatnonzero(~forth))
    )
    _, start, count = np.unique(edge[forward], return_index=True, return_counts=True)
    start, count = np.repeat(start, count), np.repeat(count, count)
    backward = backward[start + (np.arange(len(forward)) - start + 1) % count]
    twin = np.empty(len(edge), np.int64)
    twin[forward], twin[backward] = backward, forward
    return twin


def _flip_all(tail: list[int], twin: list[int], length: list[float]) -> None:
    """Flip edges in place until every edge is Delaunay.

    The order is fixed, so the same mesh gives the same triangulation.
    """
    waiting, queued = list(range(len(tail))), [True] * len(tail)
    while waiting:
        h = waiting.pop()
        queued[h] = False
        g = twin[h]
        if h // 3 == g // 3 or _cotangent(h, length) + _cotangent(g, length) >= -SLACK:
            continue
        _flip(h, g, tail, twin, length)
        for side in (*_others(h), *_others(g)):
            if not queued[side]:
                queued[side] = True
                waiting.append(side)


def _others(h: int) -> tuple[int, int]:
    """The two sides that follow side `h` in its face."""
    start = h - h % 3
    return start + (h + 1) % 3, start + (h + 2) % 3


def _area(a: Numbers, b: Numbers, c: Numbers) -> Numbers:
    """The area of triangles with sides `a`, `b` and `c` (Heron's formula); it is never 0.

    Rounding can make the longest side longer than the other two together, so LEAST bounds the product.
    """
    product: Any = np.maximum((a + b + c) * (b + c - a) * (a - b + c) * (a + b - c), LEAST)
    return product**0.5 / 4


def _cotangent(h: int, length: list[float]) -> float:
    """The cotangent of the angle opposite side `h` in its face."""
    n, p = _others(h)
    a, b, c = length[h], length[n], length[p]
    return (b * b + c * c - a * a) / (4 * _area(a, b, c))


def _flip(h: int, g: int, tail: list[int], twin: list[int], length: list[float]) -> None:
    """Replace the edge of the sides `h` and `g` by the other diagonal of its quadrilateral, in place."""
    (hn, hp), (gn, gp) = _others(h), _others(g)
    (cx, cy), (dx, dy) = _apex(length[h], length[hn], length[hp]), _apex(length[h], length[gp], length[gn])
    moved = {hp: hn, gn: hp, gp: gn, hn: gp}  # outer side -> its new number
    outer = {old: (tail[old], length[old], twin[old]) for old in moved}
    c, d = tail[hp], tail[gp]
    for old, new in moved.items():
        tail[new], length[new], partner = outer[old]
        twin[new] = moved.get(partner, partner)
        twin[twin[new]] = new
    tail[h], tail[g] = d, c
    length[h] = length[g] = sqrt((cx - dx) ** 2 + (cy + dy) ** 2)


def _apex(base: float, right: float, left: float) -> tuple[float, float]:
    """The third corner (x, y) of a triangle whose base runs from (0, 0) to (`base`, 0).

    `right` and `left` are the lengths of the other two sides.
    """
    return (base * base + left * left - right * right) / (2 * base), 2 * _area(base, right, left) / base
