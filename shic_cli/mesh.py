"""Meshes: reading, cleaning, resampling and orienting them, and what a template needs to know about a surface.

K vertices, F faces, M vertices of the mesh file. Everything is numpy and deterministic.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from shic_cli.config import GEODESIC_MAXIMUM
from shic_cli.errors import InputError, SettingError
from shic_cli.progress import Track, plain_track

log = logging.getLogger("shic")

MERGE = 1e-6  # vertices nearer than this share of the longest side are one: exporters round
FLAT = 1e-10  # a face with less area than this share of the longest side squared has no usable angles
ASYMMETRIC = 0.02  # share of the bounding box's diagonal between a vertex and its mirror image


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: `verts` (K, 3), `faces` (F, 3), texture coordinates of each face corner `corner_uv` (F, 3, 2) or None,
    and the mesh file's own vertices `source` (M, 3), which move along."""

    verts: np.ndarray
    faces: np.ndarray
    corner_uv: np.ndarray | None
    source: np.ndarray

    @property
    def side(self) -> float:
        """The longest side of the bounding box."""
        return float(np.ptp(self.verts, axis=0).max())

    def moved(self, matrix: np.ndarray, offset: np.ndarray | float = 0.0) -> Mesh:
        """The mesh with every position p at `matrix` (3, 3) p + `offset` (3,)."""
        return replace(self, verts=self.verts @ matrix.T + offset, source=self.source @ matrix.T + offset)

    def chosen(self, keep: np.ndarray) -> Mesh:
        """The mesh with only the faces where `keep` (F,), and the vertices that they use in their old order."""
        faces = self.faces[keep]
        used = np.zeros(len(self.verts), bool)
        used[faces] = True
        uv = None if self.corner_uv is None else self.corner_uv[keep]
        return replace(self, verts=self.verts[used], faces=(np.cumsum(used) - 1)[faces], corner_uv=uv)


def read_mesh(path: Path) -> Mesh:
    """The mesh in `path` as it is there, all parts of a scene in one; InputError if it is no mesh.

    Only geometry is read: materials and pictures that the file names are not opened.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file", "check the path")
    import trimesh

    kinds = ("obj", "ply", "off", "stl", "glb", "gltf")
    if path.suffix.lower()[1:] not in kinds:
        raise InputError(f"{path}: is not a kind of mesh file that is read", f"known endings: {' '.join('.' + kind for kind in kinds)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scene = trimesh.load_scene(path, process=False, skip_materials=True)
            parts = [(*scene.graph[node], node) for node in scene.graph.nodes_geometry]
            meshes = [
                scene.geometry[name].copy().apply_transform(matrix) for matrix, name, _ in parts if hasattr(scene.geometry[name], "faces")
            ]
            source = _obj_vertices(path) if path.suffix.lower() == ".obj" else None
    except Exception as error:  # trimesh's readers raise whatever their parsing stumbles over
        raise InputError(
            f"{path}: can't be read as a mesh ({str(error) or type(error).__name__})", "check that the file is whole"
        ) from error
    mesh = _joined(meshes, source)
    if not len(mesh.faces):
        raise InputError(f"{path}: holds no faces", "give a surface mesh; a point cloud has to be meshed first")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.verts):
        raise InputError(f"{path}: a face names a vertex that is not there", "check that the file is whole")
    if not (np.isfinite(mesh.verts).all() and np.isfinite(mesh.source).all()):
        raise InputError(f"{path}: has vertices that are not finite numbers", "export it again")
    return mesh


def _joined(meshes: list, source: np.ndarray | None) -> Mesh:
    """One Mesh of trimesh's `meshes`; `source` are the file's own vertices where trimesh splits them, else None."""
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    verts = np.concatenate([np.zeros((0, 3)), *(mesh.vertices for mesh in meshes)])
    faces = np.concatenate([np.zeros((0, 3), np.int64), *(mesh.faces + start for mesh, start in zip(meshes, starts, strict=False))])
    uvs = [getattr(mesh.visual, "uv", None) for mesh in meshes]
    whole = bool(uvs) and all(uv is not None and len(uv) == len(mesh.vertices) for uv, mesh in zip(uvs, meshes, strict=True))
    uv = np.concatenate(uvs)[faces] if whole and faces.size and faces.max() < len(verts) else None
    if uv is not None and not (np.isfinite(uv).all() and uv.min() >= -1e-4 and uv.max() <= 1 + 1e-4):
        log.info("the mesh's texture coordinates leave the unit square and are not used")
        uv = None
    if source is None:
        return Mesh(verts, faces, uv, verts)
    # the file's own vertices come first, so that merging gives its order back
    return Mesh(np.concatenate([source, verts]), faces + len(source), uv, source)


def _obj_vertices(path: Path) -> np.ndarray:
    """The `v` lines `(M, 3)` of an OBJ file in order: trimesh repeats vertices at seams and drops those without a face."""
    lines = (line.split() for line in path.read_text(errors="replace").splitlines())
    return np.array([line[1:4] for line in lines if line and line[0] == "v"], float).reshape(-1, 3)


def clean(mesh: Mesh, name: str = "mesh") -> Mesh:
    """The largest connected component with identical vertices merged, no degenerate or double faces and one winding, outward.

    What is dropped is logged. InputError if nothing is left.
    """
    merged = _merged(mesh)
    kept = merged.chosen(_sound_faces(merged))
    if len(kept.faces) < len(mesh.faces):
        log.info("%s: dropped %d degenerate or double faces", name, len(mesh.faces) - len(kept.faces))
    if not len(kept.faces):
        raise InputError(f"{name}: has no face with an area", "give a surface mesh")
    largest = kept.chosen(_largest_component(kept, name))
    return _wound(largest)


def _merged(mesh: Mesh) -> Mesh:
    """The mesh with vertices that are the same to MERGE made one, in the order of their first."""
    cells = np.round((mesh.verts - mesh.verts.min(0)) / max(mesh.side * MERGE, 1e-300)).astype(np.int64)
    _, first, inverse = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    return replace(mesh, verts=mesh.verts[first[order]], faces=place[inverse.reshape(-1)][mesh.faces])


def _sound_faces(mesh: Mesh) -> np.ndarray:
    """`(F,)`: the face has three corners and an area, and is the first with these corners."""
    faces = np.sort(mesh.faces, axis=1)
    first = np.zeros(len(faces), bool)
    first[np.unique(faces, axis=0, return_index=True)[1]] = True
    return first & (face_areas(mesh.verts, mesh.faces) > FLAT * mesh.side**2)


def _largest_component(mesh: Mesh, name: str) -> np.ndarray:
    """`(F,)`: the face belongs to the connected component with the most area."""
    f, size = mesh.faces, len(mesh.verts)
    links = sparse.coo_matrix((np.ones(2 * len(f)), (np.r_[f[:, 0], f[:, 1]], np.r_[f[:, 1], f[:, 2]])), shape=(size, size))
    count, label = connected_components(links, directed=False)
    area = np.bincount(label[f[:, 0]], face_areas(mesh.verts, f), minlength=count)
    keep = label[f[:, 0]] == area.argmax()
    if not keep.all():
        share = 1 - area.max() / area.sum()
        parts = len(np.unique(label[f[:, 0]])) - 1
        log.log(
            logging.WARNING if share > 0.1 else logging.INFO,
            "%s: kept the largest connected component; dropped %d others with %d faces, %.1f %% of the surface",
            name, parts, (~keep).sum(), 100 * share,
        )  # fmt: skip
    return keep


def _wound(mesh: Mesh) -> Mesh:
    """The mesh with neighbouring faces wound alike, counter-clockwise seen from outside."""
    import trimesh

    shell = trimesh.Trimesh(mesh.verts, mesh.faces, process=False)
    trimesh.repair.fix_winding(shell)
    flip = (shell.faces != mesh.faces).any(1)
    corners = (mesh.verts - mesh.verts.mean(0))[shell.faces]
    if np.linalg.det(corners).sum() < -1e-9 * mesh.side**3:  # six times the volume around the middle; open meshes too
        flip = ~flip
    uv = None if mesh.corner_uv is None else np.where(flip[:, None, None], mesh.corner_uv[:, ::-1], mesh.corner_uv)
    return replace(mesh, faces=np.where(flip[:, None], mesh.faces[:, ::-1], mesh.faces), corner_uv=uv)


def face_areas(verts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """`(F,)` areas of the faces."""
    a, b, c = verts[faces].swapaxes(0, 1)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def vertex_normals(verts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """`(K, 3)` unit normals of the vertices, the faces around each weighted by area; 0 where there is none."""
    a, b, c = verts[faces].swapaxes(0, 1)
    normals = np.zeros(verts.shape)
    for corner in faces.T:
        np.add.at(normals, corner, np.cross(b - a, c - a))
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return normals / np.where(length > 0, length, 1)


def resample(mesh: Mesh, target: int, name: str = "mesh") -> Mesh:
    """The mesh with about `target` vertices: as it is from half of it to 1.2 times, else simplified or its longest edges split."""
    count = len(mesh.verts)
    if target == 0 or target / 2 <= count <= 1.2 * target:
        return mesh
    if count < target:
        found = _split_longest(mesh, target)
    else:
        import fast_simplification

        faces = round(len(mesh.faces) * target / count)
        verts, faces = fast_simplification.simplify(mesh.verts, mesh.faces.astype(np.int32), target_count=max(faces, 4))
        found = clean(Mesh(np.asarray(verts, float), np.asarray(faces, np.int64), None, mesh.source), f"{name}, simplified")
    log.info("%s: %s from %d to %d vertices", name, "subdivided" if count < target else "simplified", count, len(found.verts))
    return found


def _split_longest(mesh: Mesh, target: int) -> Mesh:
    """The mesh with its longest edges halved, round after round, until it has `target` vertices: even triangles on any surface.

    An edge is halved when it is the longest of every face at it, so that no face is cut twice in a round.
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
        free = np.bincount(longest, minlength=len(edges)) == np.bincount(of_face.ravel(), minlength=len(edges))
        free &= length > length.max() / np.sqrt(2)
        cut = np.flatnonzero(free)
        cut = cut[np.argsort(-rank[cut])][: target - len(verts)]
        middle = np.full(len(edges), -1)
        middle[cut] = len(verts) + np.arange(len(cut))
        verts = np.concatenate([verts, verts[edges[cut]].mean(1)])
        faces, uv = _halved(faces, uv, side, middle[longest])
    return replace(mesh, verts=verts, faces=faces, corner_uv=uv)


def _halved(faces: np.ndarray, uv: np.ndarray | None, side: np.ndarray, middle: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Faces and corner coordinates with every face whose `middle` (F,) is not -1 cut from there to the corner across `side`."""
    cut = middle >= 0
    order = (side[cut, None] + np.arange(3)) % 3  # the side's two ends, then the corner across
    a, b, c = np.take_along_axis(faces[cut], order, 1).T
    new = middle[cut]
    faces = np.concatenate([faces[~cut], np.stack([a, new, c], 1), np.stack([new, b, c], 1)])
    if uv is not None:
        p, q, r = np.take_along_axis(uv[cut], order[:, :, None], 1).swapaxes(0, 1)
        half = (p + q) / 2
        uv = np.concatenate([uv[~cut], np.stack([p, half, r], 1), np.stack([half, q, r], 1)])
    return faces, uv


def mirror_plane(verts: np.ndarray) -> tuple[int, float]:
    """The axis 0, 1 or 2 that the best mirror plane of `verts` (K, 3) is normal to, and its place on it (appendix 7.1).

    Each axis is tried with the plane through the bounding box's middle and through the mean. Of planes that are equally good,
    as for a box, x comes before z and y.
    """
    tree = cKDTree(verts)
    probes = verts[:: max(1, len(verts) // 20_000)]
    diagonal = np.linalg.norm(np.ptp(verts, axis=0))
    found = []
    for axis in (0, 2, 1):
        for place in ((verts[:, axis].min() + verts[:, axis].max()) / 2, verts[:, axis].mean()):
            found.append((tree.query(reflected(probes, axis, place))[0].mean(), axis, float(place)))
    best = min(residual for residual, _, _ in found)
    _, axis, _ = next(each for each in found if each[0] <= best + 1e-3 * diagonal)
    return axis, min(each for each in found if each[1] == axis)[2]


def reflected(verts: np.ndarray, axis: int, place: float) -> np.ndarray:
    """`verts` (K, 3) mirrored at the plane where the coordinate `axis` is `place`."""
    out = verts.copy()
    out[:, axis] = 2 * place - out[:, axis]
    return out


def mirror_map(verts: np.ndarray, axis: int, place: float) -> np.ndarray:
    """`(K,)`: the vertex nearest to each vertex's mirror image, x_F in sec. 3.6.

    Vertices are paired, nearest pairs first, so that the map is its own inverse wherever the shape is symmetric to 2 % of its
    bounding box's diagonal; elsewhere it is the nearest vertex. A warning is logged if the mean distance is over 2 %.
    """
    images = reflected(verts, axis, place)
    diagonal = np.linalg.norm(np.ptp(verts, axis=0))
    distance, nearest = cKDTree(verts).query(images)
    if distance.mean() > ASYMMETRIC * diagonal:
        log.warning(
            "the mesh is not symmetric: mirrored at its best plane (%s) it is %.1f %% of its size away on average;"
            " train with --equivariance 0", "xyz"[axis], 100 * distance.mean() / diagonal,
        )  # fmt: skip
    pair, rest = nearest.copy(), np.arange(len(verts))
    while len(rest):
        near = cKDTree(verts[rest]).query(images[rest])[1]
        mutual = near[near] == np.arange(len(rest))
        if not mutual.any():  # only when distances are exactly equal
            break
        pair[rest[mutual]] = rest[near[mutual]]
        rest = rest[~mutual]
    good = np.linalg.norm(verts[pair] - images, axis=1) <= ASYMMETRIC * diagonal
    return np.where(good, pair, nearest)


def orientation(verts: np.ndarray, up: str = "auto", front: str = "auto") -> np.ndarray:
    """The rotation `(3, 3)` that takes the file's `up` axis to +y and its `front` axis to +z; SettingError if they contradict.

    `auto`: up is the first of +y, +z, +x that is neither the mirror plane's normal nor the front; the front is the remaining
    axis in the mirror plane, in its positive direction.
    """
    if "auto" not in (up, front) and up[1] == front[1]:
        raise SettingError(f"--up {up} and --front {front}: are one axis", "give two different axes")
    taken = {"xyz"[mirror_plane(verts)[0]]}
    if up == "auto":
        up = next("+" + axis for axis in "yzx" if axis not in taken | {front[1]})
    if front == "auto":
        front = next("+" + axis for axis in "zxy" if axis not in {*taken, up[1]})
    log.info("axes of the mesh file: %s is up, %s is the front%s", up, front, "" if front == "+z" else "; --up and --front change it")
    rows = np.zeros((3, 3))
    for row, axis in ((1, up), (2, front)):
        rows[row, "xyz".index(axis[1])] = 1 if axis[0] == "+" else -1
    rows[0] = np.cross(rows[1], rows[2])
    return rows


def normalised(mesh: Mesh) -> Mesh:
    """The mesh with its bounding box's middle at the origin and a longest side of 1."""
    middle = (mesh.verts.min(0) + mesh.verts.max(0)) / 2
    return mesh.moved(np.eye(3) / mesh.side, -middle / mesh.side)


def laplacian_basis(verts: np.ndarray, faces: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first Laplace-Beltrami eigenvectors `(K, Q)` without the constant one, eigenvalues `(Q,)`, and vertex areas `(K,)`.

    Cotangent Laplacian with lumped masses, total area 1; U^T M U = I; the largest entry of each eigenvector is positive.
    Q is `number`, or K - 2 if that is less.
    """
    import potpourri3d
    from scipy.sparse.linalg import eigsh

    count = min(number, len(verts) - 2)
    if count < number:
        log.info("eigenvectors: %d instead of %d, the mesh has only %d vertices", count, number, len(verts))
    mass = potpourri3d.vertex_areas(verts, faces)
    mass = np.maximum(mass / mass.sum(), 1e-12)
    stiffness = potpourri3d.cotan_laplacian(verts, faces).tocsc()
    start = np.random.default_rng(0).standard_normal(len(verts))  # fixed, so that the basis is the same every time
    values, vectors = eigsh(stiffness, count + 1, sparse.diags(mass).tocsc(), sigma=-1e-2, v0=start)
    order = np.argsort(values)[1:]
    values, vectors = values[order], vectors[:, order]
    vectors *= np.sign(vectors[np.abs(vectors).argmax(0), np.arange(count)])
    return vectors, values, mass


def geodesics(verts: np.ndarray, faces: np.ndarray, track: Track = plain_track) -> np.ndarray:
    """`(K, K)` f4 distances along the surface: symmetric, zero on the diagonal, the largest 228 (sec. 4.3); by the heat method."""
    import potpourri3d

    solver = potpourri3d.MeshHeatMethodDistanceSolver(verts, faces)
    table = np.empty((len(verts), len(verts)), np.float32)
    for i in track(range(len(verts)), len(verts), "geodesics"):
        table[i] = solver.compute_distance(i)
    table = (table + table.T) / 2
    np.fill_diagonal(table, 0)
    np.maximum(table, 0, out=table)
    table *= np.float32(GEODESIC_MAXIMUM / table.max())
    return np.minimum(table, np.float32(GEODESIC_MAXIMUM), out=table)


def texture_coordinates(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates `(T, 2)` in 0..1 with (0, 0) at the bottom left, and each face corner's row of them `(F, 3)`.

    The mesh's own if it has them, else an automatic unwrap.
    """
    if mesh.corner_uv is not None:
        # corners of one vertex with one position in the texture share a row
        rows = np.concatenate([mesh.faces.reshape(-1, 1), mesh.corner_uv.reshape(-1, 2)], axis=1)
        rows, inverse = np.unique(rows, axis=0, return_inverse=True)
        return np.clip(rows[:, 1:], 0, 1), inverse.reshape(-1, 3)
    import xatlas

    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.verts.astype(np.float32), mesh.faces.astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.padding, packing.resolution = 4, 1024
    atlas.generate(xatlas.ChartOptions(), packing)
    _, face_uv, uv = atlas[0]
    return np.clip(uv, 0, 1), face_uv.astype(np.int64)
