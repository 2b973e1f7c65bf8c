"""Find the parts of a scene that are not the object: a ground under it and a backdrop around it.

A part is a connected component. F is the number of faces and K the number of vertices.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from shic_cli.surface.mesh import Mesh, face_areas, part_areas

log = logging.getLogger("shic")

TRIED = 6  # number of the largest parts to try: a ground or a backdrop is larger than the object
MOST = 2000  # number of points to look at, of a part and of the rest
SHEET, SLAB = 0.005, 0.05  # largest thickness of a thin and of a solid ground, as shares of its longest side
FILLED = 0.75  # share of its box that a block or a cylinder fills
CLOSE = 0.02  # share of the longest side; a point nearer to a plane than this lies on it


def without_surroundings(mesh: Mesh, name: str) -> Mesh:
    """Return the mesh without parts that lie flat under the rest or enclose it.

    A warning says what is left out. The last part always stays, so that a plate or a ball alone is an object.
    """
    label = _parts(mesh)
    kept, left_out = np.ones(len(mesh.faces), bool), []
    while (found := _surrounding(mesh, np.where(kept, label, -1))) is not None:
        number, kind = found
        kept &= label != number
        left_out.append(kind)
    if not left_out:
        return mesh
    area = face_areas(mesh.verts, mesh.faces)
    log.warning(
        "%s: left out %s around the object, %.1f %% of the faces, %.1f %% of the surface; --keep takes all",
        name, " and ".join(left_out), 100 * (~kept).mean(), 100 * area[~kept].sum() / area.sum(),
    )  # fmt: skip
    return mesh.chosen(kept)


def _parts(mesh: Mesh) -> np.ndarray:
    """Return the part number `(F,)` of each face; vertices at exactly the same place count as one."""
    verts, same = np.unique(mesh.verts, axis=0, return_inverse=True)
    return part_areas(replace(mesh, verts=verts, faces=same.reshape(-1)[mesh.faces]))[0]


def _surrounding(mesh: Mesh, label: np.ndarray) -> tuple[int, str] | None:
    """Return the number and the kind of the first part that surrounds the rest, or None.

    The kind is a ground, a backdrop or a base. The largest parts are tried. Faces with the `label` -1 are
    already left out.
    """
    corners = mesh.verts[mesh.faces]
    numbers = np.unique(label[label >= 0])
    if len(numbers) < 2:
        return None
    low, high = np.full((label.max() + 1, 3), np.inf), np.full((label.max() + 1, 3), -np.inf)
    np.minimum.at(low, label[label >= 0], corners[label >= 0].min(1))
    np.maximum.at(high, label[label >= 0], corners[label >= 0].max(1))
    sides = (high - low)[numbers].max(1)
    for number in numbers[np.argsort(-sides, kind="stable")[:TRIED]]:
        part, rest = corners[label == number], corners[(label >= 0) & (label != number)]
        part, rest = (_some(faces.reshape(-1, 3)) for faces in (part, rest))
        if _is_ground(part, rest):
            return int(number), "a ground"
        middles = corners[label == number].mean(1)
        if _is_backdrop(part, rest, middles):
            return int(number), "a backdrop"
        others = np.bincount(label[(label >= 0) & (label != number)])
        # The object is finer than its base, and mostly one part: a table's legs are several.
        is_finer = others.sum() > len(middles) and others.max() > others.sum() / 2
        if is_finer and _is_base(part, rest, middles):
            return int(number), "a base"
    return None


def _some(points: np.ndarray) -> np.ndarray:
    """Return about MOST of `points` `(P, 3)`, with the extreme points along each axis among them."""
    ends = np.r_[points.argmin(0), points.argmax(0)]
    return points[np.r_[ends, np.arange(0, len(points), -(-len(points) // MOST))]]


def _is_ground(part: np.ndarray, rest: np.ndarray) -> bool:
    """Return whether `part` is flat, reaches as far as `rest` and has `rest` on one side."""
    middle = (part.min(0) + part.max(0)) / 2
    axes = np.linalg.svd(part - part.mean(0), full_matrices=False)[2]
    flat, above = (part - middle) @ axes.T, (rest - middle) @ axes.T
    extent, thickness = np.ptp(flat[:, :2], axis=0), np.ptp(flat[:, 2])
    if thickness > SLAB * extent.max():
        return False
    reach = 1.1 if thickness <= SHEET * extent.max() else 2 / 3  # a table's top is a slab, but not a ground
    wide = np.ptp(above[:, :2], axis=0) <= reach * extent
    inside = (np.abs(above[:, :2] - (flat[:, :2].max(0) + flat[:, :2].min(0)) / 2) <= 0.55 * extent).all(1)
    side = np.sign(np.median(above[:, 2])) or 1.0
    over = side * above[:, 2] >= -thickness / 2 - CLOSE * np.ptp(rest, axis=0).max()
    return bool(wide.all() and inside.mean() > 0.95 and over.mean() > 0.98)


def _is_backdrop(part: np.ndarray, rest: np.ndarray, middles: np.ndarray) -> bool:
    """Return whether `part` is its own convex hull and `rest` is clearly smaller and lies inside.

    A floor with walls, a dome and a sphere are backdrops. `middles` `(F, 3)` are the middles of the part's
    faces.
    """
    side = np.ptp(part, axis=0).max()
    if np.ptp(rest, axis=0).max() > 0.9 * side or (hull := _own_hull(part, middles)) is None:
        return False
    return bool((_depth(rest, hull) / side > -CLOSE / 2).mean() > 0.95)


def _is_base(part: np.ndarray, rest: np.ndarray, middles: np.ndarray) -> bool:
    """Return whether `part` is a block or a cylinder along the axes that carries `rest`, like a statue."""
    extent, reach = np.ptp(part, axis=0), np.ptp(rest, axis=0)
    hull = _own_hull(part, middles)
    if hull is None or hull.volume < FILLED * extent.prod():
        return False
    for axis in range(3):
        others = np.delete(np.arange(3), axis)
        size = reach[others].max() / extent[others].max()
        fits = (np.abs(rest - (part.min(0) + part.max(0)) / 2)[:, others] <= 0.55 * extent[others]).all(1)
        beyond = [rest[:, axis] - part[:, axis].max(), part[:, axis].min() - rest[:, axis]]
        stands = max((over > -CLOSE * reach.max()).mean() for over in beyond) > 0.98
        if size > 0.4 and fits.mean() > 0.95 and stands and reach[axis] > extent[axis]:
            return True
    return False


def _own_hull(part: np.ndarray, middles: np.ndarray) -> ConvexHull | None:
    """Return the convex hull of `part` if its faces, with `middles` `(F, 3)`, lie on it; else None."""
    try:
        hull = ConvexHull(part)
    except (QhullError, ValueError):  # the part is flat
        return None
    depth = _depth(middles[:: -(-len(middles) // MOST)], hull) / np.ptp(part, axis=0).max()
    return hull if (depth < CLOSE).mean() > 0.9 else None


def _depth(points: np.ndarray, hull: ConvexHull) -> np.ndarray:
    """Return how deep each of `points` `(P, 3)` lies in `hull`; less than 0 outside."""
    planes = hull.equations
    return -(points @ planes[:, :3].T + planes[:, 3]).max(1)
