"""Intrinsic Delaunay triangulations: the same surface with edges flipped until its Laplacian has no negative
weight.

A side is a number 3 f + s: side s of face f runs from the face's corner s to the next one. `tail` is the
vertex where a side starts, `twin` the side of the neighbouring face along the same edge, `length` how long it
is; all `(3 F,)`. Edges with one face, or with more than two, get the tufted cover of Sharp and Crane, A
Laplacian for Nonmanifold Triangle Meshes, SGP 2020, sec. 3: a sheet for each side of the surface, glued
around every edge.
"""

from __future__ import annotations

from math import sqrt

import numpy as np
from scipy import sparse

MOLLIFY = (
    1e-6  # of the mean edge length: the least by which two sides of a face together are longer than the third
)
LEAST = 1e-60  # sixteen times a face's area squared, for what rounding leaves nothing of
SLACK = 1e-10  # cotangents' sum below minus this: the edge is flipped


def operators(
    verts: np.ndarray, faces: np.ndarray
) -> tuple[sparse.csr_matrix, np.ndarray, np.ndarray, float]:
    """Gradient `(2 F', K)`, faces' areas `(F',)`, vertices' areas `(K,)` and mean edge length of the
    intrinsic Delaunay triangulation.

    The gradient of a function at the vertices has its first components in each face's own plane in the first
    F' rows, then its second. With A the faces' areas, twice, the Laplacian is the gradient's transpose times
    A times the gradient.
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
    """`tail` and `length` `(3 F',)` of the sides of the intrinsic Delaunay triangulation of `verts` (K, 3),
    `faces` (F, 3).
    """
    edge, forth = _edges(faces)
    if not np.array_equal(np.unique(edge[forth]), np.sort(edge[~forth])) or 2 * forth.sum() != len(edge):
        faces = np.stack([faces, faces[:, ::-1]], 1).reshape(
            -1, 3
        )  # a face's back follows it, so that both directions have one order
    tail, head = faces.reshape(-1), np.roll(faces, -1, 1).reshape(-1)
    length = np.linalg.norm(verts[tail] - verts[head], axis=1)
    sides = length.reshape(-1, 3)
    length = length + max(0.0, (2 * sides.max(1) - sides.sum(1)).max() + MOLLIFY * length.mean())
    lists = tail.tolist(), _glued(faces).tolist(), length.tolist()
    _flip_all(*lists)
    return np.array(lists[0]), np.array(lists[2])


def _edges(faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(3 F,)`: a number that the sides along the same two vertices share, and whether a side goes from the
    lower to the higher one.
    """
    tail, head = faces.reshape(-1).astype(np.int64), np.roll(faces, -1, 1).reshape(-1).astype(np.int64)
    return np.minimum(tail, head) * (faces.max() + 1) + np.maximum(tail, head), tail < head


def _glued(faces: np.ndarray) -> np.ndarray:
    """`twin` `(3 F,)` where each edge has as many sides in one direction as in the other: both in the order
    of their faces, each is glued to the other direction's next. The front of a face that has no neighbour is
    so glued to its own back."""
    edge, forth = _edges(faces)
    one, other = (
        chosen[np.argsort(edge[chosen], kind="stable")]
        for chosen in (np.flatnonzero(forth), np.flatnonzero(~forth))
    )
    _, start, count = np.unique(edge[one], return_index=True, return_counts=True)
    start, count = np.repeat(start, count), np.repeat(count, count)
    other = other[start + (np.arange(len(one)) - start + 1) % count]
    twin = np.empty(len(edge), np.int64)
    twin[one], twin[other] = other, one
    return twin


def _flip_all(tail: list[int], twin: list[int], length: list[float]) -> None:
    """Flip edges in place until each is Delaunay; the order is fixed, so that the same mesh gives the same
    triangulation.
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
    """The two sides after `h` in its face."""
    start = h - h % 3
    return start + (h + 1) % 3, start + (h + 2) % 3


def _area(a: float | np.ndarray, b: float | np.ndarray, c: float | np.ndarray) -> float | np.ndarray:
    """The area of triangles of these side lengths (Heron), never 0: rounding can make the longest side longer
    than the others together.
    """
    return np.maximum((a + b + c) * (b + c - a) * (a - b + c) * (a + b - c), LEAST) ** 0.5 / 4


def _cotangent(h: int, length: list[float]) -> float:
    """The cotangent of the angle across side `h` in its face."""
    n, p = _others(h)
    a, b, c = length[h], length[n], length[p]
    return (b * b + c * c - a * a) / (4 * _area(a, b, c))


def _flip(h: int, g: int, tail: list[int], twin: list[int], length: list[float]) -> None:
    """Give the two faces along the edge `h`, `g` its quadrilateral's other diagonal."""
    (hn, hp), (gn, gp) = _others(h), _others(g)
    (cx, cy), (dx, dy) = _apex(length[h], length[hn], length[hp]), _apex(length[h], length[gp], length[gn])
    moved = {hp: hn, gn: hp, gp: gn, hn: gp}  # where the outer sides go
    outer = {old: (tail[old], length[old], twin[old]) for old in moved}
    c, d = tail[hp], tail[gp]
    for old, new in moved.items():
        tail[new], length[new], partner = outer[old]
        twin[new] = moved.get(partner, partner)
        twin[twin[new]] = new
    tail[h], tail[g] = d, c
    length[h] = length[g] = sqrt((cx - dx) ** 2 + (cy + dy) ** 2)


def _apex(base: float, right: float, left: float) -> tuple[float, float]:
    """Where the third corner lies, of a triangle on `base` from (0, 0) to (base, 0), by its other sides'
    lengths.
    """
    return (base * base + left * left - right * right) / (2 * base), 2 * _area(base, right, left) / base
