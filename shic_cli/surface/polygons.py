"""Polygons with a notch as triangles; readers of meshes split every polygon as if it had none."""

from __future__ import annotations

import numpy as np

SLIGHT = 1e-3  # of a polygon's squared area: a smaller bend inwards makes no difference
MOST = 300  # corners; larger polygons are left as they are, for each takes time with the cube of them


def has_notch(corners: np.ndarray) -> np.ndarray:
    """Whether each of the polygons `(P, n, 3)` bends inwards at some corner, `(P,)` bool."""
    edge = np.roll(corners, -1, 1) - corners
    turn = np.cross(np.roll(edge, 1, 1), edge)
    normal = _normal(corners)
    along = (turn * normal[:, None]).sum(-1)
    return (along < -SLIGHT * (normal**2).sum(-1)[:, None]).any(1)


def triangles(corners: np.ndarray) -> list[tuple[int, int, int]]:
    """The triangles of one polygon `(n, 3)` as numbers of its corners, cut off one after the other.

    None of them reaches into a notch. The list is empty if the polygon crosses itself.
    """
    normal = _normal(corners[None])[0]
    axis = int(np.abs(normal).argmax())
    flat = np.delete(corners, axis, 1)
    if (normal[axis] < 0) != (axis == 1):  # so that its corners go round to the left
        flat = flat[:, ::-1]
    left, found = list(range(len(flat))), []
    while len(left) > 3:
        place = next((i for i in range(len(left)) if _is_ear(flat, left, i)), None)
        if place is None:
            return []
        found.append((left[place - 1], left[place], left[(place + 1) % len(left)]))
        del left[place]
    return [*found, (left[0], left[1], left[2])]


def _normal(corners: np.ndarray) -> np.ndarray:
    """The normals `(P, 3)` of polygons `(P, n, 3)`, as long as twice their areas."""
    around = corners - corners[:, :1]
    return np.cross(around, np.roll(around, -1, 1)).sum(1)


def _is_ear(flat: np.ndarray, left: list[int], place: int) -> bool:
    """Whether the corner at `place` of the polygon `left` turns left, and its triangle holds no other."""
    ends = [left[place - 1], left[place], left[(place + 1) % len(left)]]
    a, b, c = flat[ends]
    if _turn(a, b, c) <= 0:
        return False
    others = flat[[number for number in left if number not in ends]]
    inside = (_turn(a, b, others) >= 0) & (_turn(b, c, others) >= 0) & (_turn(c, a, others) >= 0)
    return not inside.any()


def _turn(a: np.ndarray, b: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Twice the area of each triangle of a, b and one of `points` `(..., 2)`; positive on the left."""
    side, to = b - a, points - a
    return side[0] * to[..., 1] - side[1] * to[..., 0]
