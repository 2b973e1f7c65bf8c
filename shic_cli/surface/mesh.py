"""Meshes: clean, resample and normalise them.

K is the number of vertices, F the number of faces and M the number of vertices in the mesh file.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from shic_cli.base.errors import InputError

log = logging.getLogger("shic")

MERGE = 1e-6  # share of the longest side; nearer vertices are merged, because exporters round
MUCH = 0.1  # share of the surface; if the largest part lacks more, the parts are grown together
SAID = 0.05  # share of the faces or of the surface; a larger loss is a warning
NEAR = 0.03  # share of the longest side; a point farther from the new surface than this is lost
# Share of the squared longest side. A face with a smaller area counts as degenerate. A larger value would
# remove thin faces.
FLAT = 1e-14


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: `verts` `(K, 3)`, `faces` `(F, 3)`, `corner_uv` `(F, 3, 2)` and `source` `(M, 3)`.

    `corner_uv` holds the texture coordinates of each face corner, or is None. `source` holds the vertices of
    the mesh file itself; they move together with the mesh.
    """

    verts: np.ndarray
    faces: np.ndarray
    corner_uv: np.ndarray | None
    source: np.ndarray

    @property
    def side(self) -> float:
        """The longest side of the bounding box."""
        return float(np.ptp(self.verts, axis=0).max())

    def moved(self, matrix: np.ndarray, offset: np.ndarray | float = 0.0) -> Mesh:
        """Return the mesh with every position p moved to `matrix` `(3, 3)` p + `offset` `(3,)`."""
        return replace(self, verts=self.verts @ matrix.T + offset, source=self.source @ matrix.T + offset)

    def chosen(self, keep: np.ndarray) -> Mesh:
        """Return the mesh with only the faces where `keep` `(F,)` is true.

        The vertices of these faces stay in their old order; all others are removed.
        """
        faces = self.faces[keep]
        used = np.zeros(len(self.verts), bool)
        used[faces] = True
        uv = None if self.corner_uv is None else self.corner_uv[keep]
        return replace(self, verts=self.verts[used], faces=(np.cumsum(used) - 1)[faces], corner_uv=uv)


def clean(mesh: Mesh, name: str = "mesh") -> Mesh:
    """Return the largest connected component of the mesh, cleaned and wound outward.

    Identical vertices are merged, degenerate and double faces are dropped, and all faces are wound alike.
    What is dropped is logged. Raises InputError if nothing is left.
    """
    return largest_part(sound(mesh, name), name)


def sound(mesh: Mesh, name: str = "mesh") -> Mesh:
    """Return the mesh with identical vertices merged and without degenerate or double faces.

    Raises InputError if no face is left.
    """
    merged = _merged(mesh)
    kept = merged.chosen(_sound_faces(merged))
    lost = 1 - len(kept.faces) / len(mesh.faces)
    if lost:
        log.log(
            logging.WARNING if lost > SAID else logging.INFO,
            "%s: dropped %d degenerate or double faces, %.1f %% of the faces",
            name, len(mesh.faces) - len(kept.faces), 100 * lost,
        )  # fmt: skip
    if not len(kept.faces):
        raise InputError(f"{name}: has no face with an area", "give a surface mesh")
    return kept


def _merged(mesh: Mesh) -> Mesh:
    """Return the mesh with vertices merged that agree up to MERGE, in the order of the first of each."""
    cells = np.round((mesh.verts - mesh.verts.min(0)) / max(mesh.side * MERGE, 1e-300)).astype(np.int64)
    _, first, inverse = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return replace(mesh, verts=mesh.verts[first[order]], faces=place[inverse.reshape(-1)][mesh.faces])


def _sound_faces(mesh: Mesh) -> np.ndarray:
    """Return `(F,)`: true for faces to keep.

    A face is kept if it has three corners and an area, and if no earlier face has the same corners.
    """
    faces = np.sort(mesh.faces, axis=1)
    first = np.zeros(len(faces), bool)
    first[np.unique(faces, axis=0, return_index=True)[1]] = True
    return first & (face_areas(mesh.verts, mesh.faces) > FLAT * mesh.side**2)


def part_areas(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Return the component number of each face `(F,)` and the area of each component `(C,)`.

    A component is a connected component of the mesh.
    """
    f, size = mesh.faces, len(mesh.verts)
    links = sparse.coo_matrix(
        (np.ones(2 * len(f)), (np.r_[f[:, 0], f[:, 1]], np.r_[f[:, 1], f[:, 2]])), shape=(size, size)
    )
    count, label = connected_components(links, directed=False)
    return label[f[:, 0]], np.bincount(label[f[:, 0]], face_areas(mesh.verts, f), minlength=count)


def largest_part(mesh: Mesh, name: str = "mesh") -> Mesh:
    """Return the connected component with the largest area, wound outward; log what is dropped."""
    label, area = part_areas(mesh)
    kept = mesh.chosen(label == area.argmax())
    if len(kept.faces) < len(mesh.faces):
        say_dropped(mesh, kept, name)
    return wound(kept)


def say_dropped(mesh: Mesh, kept: Mesh, name: str) -> None:
    """Log which connected components of `mesh` are not in `kept`.

    The message is a warning if they have more than SAID of the faces or of the surface.
    """
    parts, before = (len(np.unique(part_areas(shape)[0])) for shape in (kept, mesh))
    of_faces = 1 - len(kept.faces) / len(mesh.faces)
    share = 1 - face_areas(kept.verts, kept.faces).sum() / face_areas(mesh.verts, mesh.faces).sum()
    fact = (
        "kept the largest connected component"
        if parts == 1
        else f"kept {parts} connected components that touch"
    )
    log.log(
        logging.WARNING if max(share, of_faces) > SAID else logging.INFO,
        "%s: %s; dropped %d others with %d faces, %.1f %% of the faces, %.1f %% of the surface",
        name, fact, before - parts, len(mesh.faces) - len(kept.faces), 100 * of_faces, 100 * share,
    )  # fmt: skip


def wound(mesh: Mesh) -> Mesh:
    """Return the mesh with all faces wound counter-clockwise as seen from outside.

    Neighbouring faces are wound alike. Each connected component is treated by itself.
    """
    import trimesh

    shell = trimesh.Trimesh(mesh.verts, mesh.faces, process=False)
    trimesh.repair.fix_winding(shell)
    flip, label = (shell.faces != mesh.faces).any(1), part_areas(mesh)[0]
    corners = mesh.verts[shell.faces]
    number = np.maximum(np.bincount(label), 1)[:, None]
    middle = np.stack([np.bincount(label, axis) for axis in corners.mean(1).T], 1) / number
    volume = np.bincount(
        label, np.linalg.det(corners - middle[label][:, None])
    )  # six times the volume around the middle; it is defined for open meshes too
    flip ^= (volume < -1e-9 * mesh.side**3)[label]
    uv = (
        None
        if mesh.corner_uv is None
        else np.where(flip[:, None, None], mesh.corner_uv[:, ::-1], mesh.corner_uv)
    )
    return replace(mesh, faces=np.where(flip[:, None], mesh.faces[:, ::-1], mesh.faces), corner_uv=uv)


def face_areas(verts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return the areas `(F,)` of the faces."""
    a, b, c = verts[faces].swapaxes(0, 1)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def surface_points(mesh: Mesh, count: int) -> np.ndarray:
    """Return points `(count, 3)` spread evenly over the surface; they are the same in every call."""
    rng = np.random.default_rng(0)
    total = np.cumsum(face_areas(mesh.verts, mesh.faces))
    face = np.searchsorted(total, (np.arange(count) + rng.random(count)) / count * total[-1])
    p, q, r = mesh.verts[mesh.faces[np.minimum(face, len(total) - 1)]].swapaxes(0, 1)
    a, b = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    return (1 - a) * p + a * (1 - b) * q + a * b * r


def vertex_normals(verts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return unit normals `(K, 3)` of the vertices.

    A normal is the mean over the faces around the vertex, weighted by area. It is 0 for a vertex without
    faces.
    """
    a, b, c = verts[faces].swapaxes(0, 1)
    corner, area = faces.T.ravel(), np.tile(np.cross(b - a, c - a).T, 3)
    normals = np.stack([np.bincount(corner, each, len(verts)) for each in area], 1)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return normals / np.where(length > 0, length, 1)


def resample(mesh: Mesh, target: int, name: str = "mesh") -> Mesh:
    """Return the mesh with about `target` vertices.

    A mesh with 0.5 to 1.2 times `target` vertices, or a `target` of 0, is returned as it is. A larger mesh is
    simplified. The longest edges of a smaller mesh are split.
    """
    count = len(mesh.verts)
    if target == 0 or target / 2 <= count <= 1.2 * target:
        return mesh
    found = _split_longest(mesh if count < target else _simplified(mesh, target, name), target)
    log.info(
        "%s: %s from %d to %d vertices",
        name,
        "subdivided" if count < target else "simplified",
        count,
        len(found.verts),
    )
    if len(found.verts) > 1.2 * target:
        log.warning("%s: can't be simplified to %d vertices without folding over", name, target)
    lost = lost_share(mesh, found)
    if lost > SAID:
        log.warning(
            "%s: %.1f %% of the surface is lost in %d vertices; look at the picture, and give more"
            " --vertices",
            name,
            100 * lost,
            len(found.verts),
        )
    return found


def lost_share(before: Mesh, after: Mesh) -> float:
    """Return the share of the surface of `before` that is farther than NEAR from that of `after`."""
    distance = KDTree(surface_points(after, 20_000)).query(surface_points(before, 4000))[0]
    return float((distance > NEAR * before.side).mean())


def _simplified(mesh: Mesh, target: int, name: str) -> Mesh:
    """Return the mesh with at most 0.7 times `target` vertices where that is possible.

    Simplification leaves few vertices in flat parts. Splitting edges later gives some of them back.
    """
    import fast_simplification

    faces = max(round(0.7 * len(mesh.faces) * target / len(mesh.verts)), 4)
    for haste in (3, 5, 7):  # a lower value makes better triangles, but the simplification may stop early
        small = fast_simplification.simplify(
            mesh.verts, mesh.faces.astype(np.int32), target_count=faces, agg=haste
        )
        if len(small[1]) <= 1.2 * faces:
            break
    return clean(
        Mesh(np.asarray(small[0], float), np.asarray(small[1], np.int64), None, mesh.source),
        f"{name}, simplified",
    )


def _split_longest(mesh: Mesh, target: int) -> Mesh:
    """Return the mesh with its longest edges halved in rounds until it has `target` vertices.

    This makes even triangles on any surface. An edge is halved only when it is the longest edge of every face
    beside it, so that no face is cut twice in a round.
    """
    verts, faces, uv = mesh.verts, mesh.faces, mesh.corner_uv
    while len(verts) < target:
        ends = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]], axis=2).reshape(-1, 2)
        edges, of_face = np.unique(ends, axis=0, return_inverse=True)
        of_face = of_face.reshape(-1, 3)
        length = np.linalg.norm(np.subtract(*verts[edges].swapaxes(0, 1)), axis=1)
        rank = np.empty(len(edges), np.int64)
        rank[np.argsort(length, kind="stable")] = np.arange(len(edges))
        side = rank[of_face].argmax(1)
        longest = of_face[np.arange(len(faces)), side]
        free = np.bincount(longest, minlength=len(edges)) == np.bincount(
            of_face.ravel(), minlength=len(edges)
        )
        free &= length > length.max() / np.sqrt(2)
        cut = np.flatnonzero(free)
        cut = cut[np.argsort(-rank[cut])][: target - len(verts)]
        middle = np.full(len(edges), -1)
        middle[cut] = len(verts) + np.arange(len(cut))
        verts = np.concatenate([verts, verts[edges[cut]].mean(1)])
        faces, uv = _halved(faces, uv, side, middle[longest])
    return replace(mesh, verts=verts, faces=faces, corner_uv=uv)


def _halved(
    faces: np.ndarray, uv: np.ndarray | None, side: np.ndarray, middle: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the faces and the corner coordinates with each chosen face cut in two.

    A face is cut if its `middle` `(F,)` is not -1. The cut runs from the vertex `middle` on the edge `side`
    to the opposite corner.
    """
    cut = middle >= 0
    order = (side[cut, None] + np.arange(3)) % 3  # the two ends of the edge, then the opposite corner
    a, b, c = np.take_along_axis(faces[cut], order, 1).T
    new = middle[cut]
    faces = np.concatenate([faces[~cut], np.stack([a, new, c], 1), np.stack([new, b, c], 1)])
    if uv is not None:
        p, q, r = np.take_along_axis(uv[cut], order[:, :, None], 1).swapaxes(0, 1)
        half = (p + q) / 2
        uv = np.concatenate([uv[~cut], np.stack([p, half, r], 1), np.stack([half, q, r], 1)])
    return faces, uv


def normalised(mesh: Mesh) -> Mesh:
    """Return the mesh with the middle of its bounding box at the origin and a longest side of 1."""
    middle = (mesh.verts.min(0) + mesh.verts.max(0)) / 2
    return mesh.moved(np.eye(3) / mesh.side, -middle / mesh.side)
