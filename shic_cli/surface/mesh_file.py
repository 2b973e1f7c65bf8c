"""Read mesh files of every supported kind.

K is the number of vertices, F the number of faces and M the number of vertices in the file.
"""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shic_cli.base.errors import InputError
from shic_cli.surface.allowance import Allowance
from shic_cli.surface.gltf import read_gltf, strip_faces
from shic_cli.surface.mesh import Mesh
from shic_cli.surface.obj import plain_obj

if TYPE_CHECKING:
    import trimesh

log = logging.getLogger("shic")

CATALOGUE = ".pkl"  # files of the DensePose mesh catalogue
GLTF = (".glb", ".gltf")
KINDS = (".obj", ".ply", ".off", ".stl", *GLTF, CATALOGUE)
SMALL, LARGE = 1e-30, 1e30  # limits of the longest side; the cubes of such numbers are still finite


def read_mesh(path: Path) -> Mesh:
    """Return the mesh in `path` unchanged, with all parts of a scene in one mesh.

    Only geometry is read; materials and pictures that the file names are not opened. Raises InputError if the
    file is not a mesh.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file", "check the path")
    kind = path.suffix.lower()
    if kind not in KINDS:
        raise InputError(
            f"{path}: is not a kind of mesh file that is read", f"known endings: {' '.join(KINDS)}"
        )
    try:
        with np.errstate(all="ignore"):  # `_check` finds numbers that overflow
            mesh = _of_kind(path, kind)
    except InputError:
        raise
    except Exception as error:  # readers may raise any exception on a broken file
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(
            f"{path}: can't be read as a mesh ({reason})", "check that the file is whole, or export it again"
        ) from error
    _check(mesh, path)
    return mesh


def _of_kind(path: Path, kind: str) -> Mesh:
    if kind == CATALOGUE:
        return _of_catalogue(path)
    if kind in GLTF:
        parts = read_gltf(path)
        starts = np.cumsum([0, *(len(verts) for verts, _ in parts)])
        verts = np.concatenate([np.zeros((0, 3)), *(verts for verts, _ in parts)])
        faces = [faces + start for (_, faces), start in zip(parts, starts, strict=False)]
        if any(len(part) and part.max() >= len(verts) for verts, part in parts):
            raise ValueError("a face names a vertex that is not there")
        return Mesh(verts, np.concatenate([np.zeros((0, 3), np.int64), *faces]), None, verts)
    return _of_trimesh(path, kind)


def _check(mesh: Mesh, path: Path) -> None:
    """Raise InputError if `mesh`, as it was read from `path`, is not a surface."""
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


def _of_catalogue(path: Path) -> Mesh:
    """Return the mesh in a file of the DensePose mesh catalogue.

    The file is a pickled dictionary of `vertices` `(K, 3)` and `faces` `(F, 3)`.
    """
    from shic_cli.files.catalogue import read_arrays

    verts, faces = read_arrays(path, ("vertices", "faces"))
    if (
        any(array.ndim != 2 or array.shape[1] != 3 for array in (verts, faces))
        or (faces != np.rint(faces)).any()
    ):
        raise InputError(
            f"{path}: vertices and faces are {verts.shape} and {faces.shape}",
            "a mesh has three columns of each",
        )
    if len(verts) and not verts.any():
        raise InputError(
            f"{path}: all {len(verts)} vertices are zero, as in the public copies whose shapes are not"
            " given away",
            "use the .obj template of the class from the SHIC authors' release: shic template prep"
            " CLASS.obj --vertices 0",
        )
    verts = verts.astype(float)
    return Mesh(verts, faces.astype(np.int64), None, verts)


def _of_trimesh(path: Path, kind: str) -> Mesh:
    """Return the mesh in a file that trimesh reads: OBJ, PLY, STL or OFF.

    The vertices of the `v` lines of an OBJ file are kept too, because trimesh repeats vertices at seams and
    leaves out vertices without a face. They come first, so that merging restores their order.
    """
    import trimesh

    source, data = None, path.read_bytes()
    allowance = Allowance(len(data))
    if kind == ".obj":
        text, source = plain_obj(data)
        data = text.encode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scene = trimesh.load_scene(
            io.BytesIO(data), file_type=kind[1:], resolver=None, process=False, skip_materials=True
        )
    shapes = list(scene.geometry.values())
    if kind == ".ply":
        shapes = [_with_strips(shape) for shape in shapes]
    shape = next((shape for shape in shapes if isinstance(shape, trimesh.Trimesh)), None)
    if shape is None:
        return Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64), None, np.zeros((0, 3)))
    verts, faces = np.asarray(shape.vertices, float), np.asarray(shape.faces, np.int64)
    allowance.take(len(verts))
    allowance.take(len(faces), "faces")
    uv = _corner_uv(shape, faces)
    if source is None:
        return Mesh(verts, faces, uv, verts)
    return Mesh(np.concatenate([source, verts]), faces + len(source), uv, source)


def _corner_uv(shape: trimesh.Trimesh, faces: np.ndarray) -> np.ndarray | None:
    """Return texture coordinates `(F, 3, 2)` of the face corners, or None if none are usable."""
    uv = getattr(shape.visual, "uv", None)
    if uv is None or np.shape(uv) != (len(shape.vertices), 2):
        return None
    if not faces.size or faces.max() >= len(shape.vertices):
        return None
    corners = np.asarray(uv)[faces]
    if not (np.isfinite(corners).all() and corners.min() >= -1e-4 and corners.max() <= 1 + 1e-4):
        log.info("the mesh's texture coordinates leave the unit square and are not used")
        return None
    return corners


def _with_strips(shape: trimesh.Trimesh | trimesh.PointCloud) -> trimesh.Trimesh | trimesh.PointCloud:
    """Return the contents of a PLY file with its triangle strips turned into faces.

    trimesh does not convert the strips. A strip ends at -1.
    """
    import trimesh

    rows = shape.metadata.get("_ply_raw", {}).get("tristrips", {}).get("data")
    if rows is None or getattr(shape, "faces", None) is not None:
        return shape
    names = rows.dtype.names if isinstance(rows, np.ndarray) else tuple(rows)
    lists = rows[names[0]]
    if getattr(lists, "dtype", None) is not None and lists.dtype.names:  # binary: length and list
        lists = lists["f1"]
    faces = [np.zeros((0, 3), np.int64)]
    for strip in lists:
        strip = np.asarray(strip, np.int64)
        faces += [strip_faces(run[run >= 0]) for run in np.split(strip, np.flatnonzero(strip < 0))]
    return trimesh.Trimesh(shape.vertices, np.concatenate(faces), process=False)
