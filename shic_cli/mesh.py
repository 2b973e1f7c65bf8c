"""Meshes: reading, cleaning, resampling and normalising them. K vertices, F faces, M vertices of the mesh
file.
"""

from __future__ import annotations

import io
import logging
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from shic_cli.errors import InputError

log = logging.getLogger("shic")

CATALOGUE = ".pkl"  # of the DensePose mesh catalogue
KINDS = (".obj", ".ply", ".off", ".stl", ".glb", ".gltf", CATALOGUE)
LARGEST = 20_000_000  # faces
SMALL, LARGE = 1e-30, 1e30  # of the longest side; the cubes of such numbers are still numbers
MERGE = 1e-6  # vertices nearer than this share of the longest side are one: exporters round
MUCH = 0.1  # of the surface: more than debris
# a face with less area than this share of the longest side squared has none; more would tear thin faces out
FLAT = 1e-14


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh: `verts` (K, 3), `faces` (F, 3), texture coordinates of each face corner `corner_uv`
    (F, 3, 2) or None, and the mesh file's own vertices `source` (M, 3), which move along."""

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
    if path.suffix.lower() not in KINDS:
        raise InputError(
            f"{path}: is not a kind of mesh file that is read", f"known endings: {' '.join(KINDS)}"
        )
    try:
        mesh = _of_catalogue(path) if path.suffix.lower() == CATALOGUE else _joined(*_parts(path))
    except InputError:
        raise
    except Exception as error:  # trimesh's readers raise whatever their parsing stumbles over
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{path}: can't be read as a mesh ({reason})", "check that the file is whole, or export it again"
        ) from error
    if not len(mesh.faces):
        raise InputError(
            f"{path}: holds no faces", "give a surface mesh; a point cloud has to be meshed first"
        )
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.verts):
        raise InputError(f"{path}: a face names a vertex that is not there", "check that the file is whole")
    if not (np.isfinite(mesh.verts).all() and np.isfinite(mesh.source).all()):
        raise InputError(f"{path}: has vertices that are not finite numbers", "export it again")
    if not SMALL <= mesh.side <= LARGE or np.abs(mesh.source).max() > LARGE:
        raise InputError(
            f"{path}: its longest side is {mesh.side:g}", f"scale it to between {SMALL:g} and {LARGE:g}"
        )
    return mesh


class _Beside:
    """The files of a mesh's own folder and those below, by the names that it gives them."""

    def __init__(self, path: Path) -> None:
        self.folder = path.parent.resolve()

    def get(self, name: str) -> bytes:
        """The file's bytes; ValueError if it is not below the folder."""
        path = (self.folder / name).resolve()
        if not path.is_relative_to(self.folder):
            raise ValueError(f"it names {name}, which is not below its folder")
        return path.read_bytes()

    __getitem__ = get


def _of_catalogue(path: Path) -> Mesh:
    """The mesh in a file of the DensePose mesh catalogue: a pickled dictionary of `vertices` (K, 3) and
    `faces` (F, 3).
    """
    from shic_cli.pickles import read_arrays

    verts, faces = read_arrays(path, ("vertices", "faces"))
    if (
        any(each.ndim != 2 or each.shape[1] != 3 for each in (verts, faces))
        or (faces != np.rint(faces)).any()
    ):
        raise InputError(
            f"{path}: vertices and faces are {verts.shape} and {faces.shape}",
            "a mesh has three columns of each",
        )
    if len(verts) and not verts.any():
        raise InputError(
            f"{path}: all {len(verts)} vertices are zero, as in the public copies whose shapes are not given away",
            "use the .obj template of the class from the SHIC authors' release: shic template prep CLASS.obj --vertices 0",
        )
    verts = verts.astype(float)
    return Mesh(verts, faces.astype(np.int64), None, verts)


def _parts(path: Path) -> tuple[list, np.ndarray | None]:
    """trimesh's meshes in `path`, each at its place in the scene, and the `v` lines `(M, 3)` of an OBJ file,
    else None.

    An OBJ file's own lines are wanted because trimesh repeats vertices at seams and leaves out those without
    a face.
    """
    import trimesh

    source, data = None, path.read_bytes()
    if path.suffix.lower() == ".obj":
        text = data.decode(errors="replace")  # names and comments may be in any encoding
        lines = (line.split() for line in text.splitlines())
        source = np.array([line[1:4] for line in lines if line and line[0] == "v"], float).reshape(-1, 3)
        data = text.encode()
    beside = (
        _Beside(path) if path.suffix.lower() == ".gltf" else None
    )  # the other kinds have all of their geometry in one file
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scene = trimesh.load_scene(
            io.BytesIO(data),
            file_type=path.suffix.lower()[1:],
            resolver=beside,
            process=False,
            skip_materials=True,
        )
    placed = [scene.graph[node] for node in scene.graph.nodes_geometry]
    surfaces = [
        (matrix, scene.geometry[name])
        for matrix, name in placed
        if isinstance(scene.geometry[name], trimesh.Trimesh)
    ]
    if (
        sum(len(surface.faces) for _, surface in surfaces) > LARGEST
    ):  # a scene of a few kilobytes can show one part a million times
        raise ValueError(f"over {LARGEST} faces")
    return [surface.copy().apply_transform(matrix) for matrix, surface in surfaces], source


def _joined(meshes: list, source: np.ndarray | None) -> Mesh:
    """One Mesh of trimesh's `meshes`; `source` are the file's own vertices where trimesh splits them, else
    None.
    """
    starts = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    verts = np.concatenate([np.zeros((0, 3)), *(mesh.vertices for mesh in meshes)])
    faces = np.concatenate(
        [
            np.zeros((0, 3), np.int64),
            *(mesh.faces + start for mesh, start in zip(meshes, starts, strict=False)),
        ]
    )
    uvs = [getattr(mesh.visual, "uv", None) for mesh in meshes]
    whole = bool(uvs) and all(
        np.shape(uv) == (len(mesh.vertices), 2) for uv, mesh in zip(uvs, meshes, strict=True)
    )
    uv = np.concatenate(uvs)[faces] if whole and faces.size and faces.max() < len(verts) else None
    if uv is not None and not (np.isfinite(uv).all() and uv.min() >= -1e-4 and uv.max() <= 1 + 1e-4):
        log.info("the mesh's texture coordinates leave the unit square and are not used")
        uv = None
    if source is None:
        return Mesh(verts, faces, uv, verts)
    # the file's own vertices come first, so that merging gives its order back
    return Mesh(np.concatenate([source, verts]), faces + len(source), uv, source)


def clean(mesh: Mesh, name: str = "mesh") -> Mesh:
    """The largest connected component with identical vertices merged, no degenerate or double faces and one
    winding, outward.

    What is dropped is logged. InputError if nothing is left.
    """
    return largest_part(sound(mesh, name), name)


def sound(mesh: Mesh, name: str = "mesh") -> Mesh:
    """The mesh with identical vertices merged and no degenerate or double faces; InputError if nothing is
    left.
    """
    merged = _merged(mesh)
    kept = merged.chosen(_sound_faces(merged))
    if len(kept.faces) < len(mesh.faces):
        log.info("%s: dropped %d degenerate or double faces", name, len(mesh.faces) - len(kept.faces))
    if not len(kept.faces):
        raise InputError(f"{name}: has no face with an area", "give a surface mesh")
    return kept


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


def part_areas(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """The number of each face's connected component `(F,)`, and the area of each component `(C,)`."""
    f, size = mesh.faces, len(mesh.verts)
    links = sparse.coo_matrix(
        (np.ones(2 * len(f)), (np.r_[f[:, 0], f[:, 1]], np.r_[f[:, 1], f[:, 2]])), shape=(size, size)
    )
    count, label = connected_components(links, directed=False)
    return label[f[:, 0]], np.bincount(label[f[:, 0]], face_areas(mesh.verts, f), minlength=count)


def largest_part(mesh: Mesh, name: str = "mesh") -> Mesh:
    """The connected component with the most area, wound outward; what is dropped is logged."""
    label, area = part_areas(mesh)
    kept = mesh.chosen(label == area.argmax())
    if len(kept.faces) < len(mesh.faces):
        say_dropped(mesh, kept, name)
    return wound(kept)


def say_dropped(mesh: Mesh, kept: Mesh, name: str) -> None:
    """Log which connected components of `mesh` are not in `kept`; a warning where they are more than debris."""
    parts, before = (len(np.unique(part_areas(each)[0])) for each in (kept, mesh))
    share = 1 - face_areas(kept.verts, kept.faces).sum() / face_areas(mesh.verts, mesh.faces).sum()
    fact = (
        "kept the largest connected component"
        if parts == 1
        else f"kept {parts} connected components that touch"
    )
    log.log(
        logging.WARNING if share > MUCH else logging.INFO,
        "%s: %s; dropped %d others with %d faces, %.1f %% of the surface",
        name, fact, before - parts, len(mesh.faces) - len(kept.faces), 100 * share,
    )  # fmt: skip


def wound(mesh: Mesh) -> Mesh:
    """The mesh with neighbouring faces wound alike, counter-clockwise seen from outside; each connected
    component by itself.
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
    )  # six times that around the middle; open meshes too
    flip ^= (volume < -1e-9 * mesh.side**3)[label]
    uv = (
        None
        if mesh.corner_uv is None
        else np.where(flip[:, None, None], mesh.corner_uv[:, ::-1], mesh.corner_uv)
    )
    return replace(mesh, faces=np.where(flip[:, None], mesh.faces[:, ::-1], mesh.faces), corner_uv=uv)


def face_areas(verts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """`(F,)` areas of the faces."""
    a, b, c = verts[faces].swapaxes(0, 1)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def vertex_normals(verts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """`(K, 3)` unit normals of the vertices, the faces around each weighted by area; 0 where there is none."""
    a, b, c = verts[faces].swapaxes(0, 1)
    weighted = np.repeat(np.cross(b - a, c - a), 3, axis=0)
    normals = np.stack([np.bincount(faces.ravel(), column, len(verts)) for column in weighted.T], 1)
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return normals / np.where(length > 0, length, 1)


def resample(mesh: Mesh, target: int, name: str = "mesh") -> Mesh:
    """The mesh with about `target` vertices: as it is from half of it to 1.2 times, else simplified or its
    longest edges split.
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
    return found


def _simplified(mesh: Mesh, target: int, name: str) -> Mesh:
    """The mesh with at most 0.7 times `target` vertices where that can be: flat parts get few, and splitting
    edges gives some back.
    """
    import fast_simplification

    faces = max(round(0.7 * len(mesh.faces) * target / len(mesh.verts)), 4)
    for haste in (3, 5, 7):  # less haste makes better triangles, but may end early
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
    """The mesh with its longest edges halved, round after round, until it has `target` vertices: even
    triangles on any surface.

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
    """Faces and corner coordinates with every face whose `middle` (F,) is not -1 cut from there to the corner
    across `side`.
    """
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


def normalised(mesh: Mesh) -> Mesh:
    """The mesh with its bounding box's middle at the origin and a longest side of 1."""
    middle = (mesh.verts.min(0) + mesh.verts.max(0)) / 2
    return mesh.moved(np.eye(3) / mesh.side, -middle / mesh.side)
