"""Turn a mesh file into the surface of a template: clean, orient, resample and colour it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np

from shic_cli.base.errors import InputError, SettingError
from shic_cli.base.settings import TemplateConfig
from shic_cli.surface import geometry
from shic_cli.surface.colors import vertex_colors
from shic_cli.surface.mesh import MUCH, Mesh, largest_part, normalised, part_areas, resample, sound
from shic_cli.surface.mesh_file import read_mesh
from shic_cli.surface.orient import orientation
from shic_cli.surface.scene import without_surroundings

log = logging.getLogger("shic")


LARGEST = 30_000  # vertices; the table of the distances between so many takes 3.6 GB


def surface(path: Path, config: TemplateConfig) -> tuple[Mesh, dict[str, Any]]:
    """Return the mesh in `path`, cleaned, oriented and resampled, and some fields of its Template.

    The fields are those that need neither a spectrum nor distances. Raises the same errors as `prepare`.
    """
    if config.remesh == "on" and not config.vertices:
        raise SettingError(
            "--remesh on --vertices 0: a new surface has other vertices", "give their number with --vertices"
        )
    path = Path(path)
    mesh = read_mesh(path)
    if not config.keep:
        mesh = without_surroundings(mesh, path.name)
    parts = sound(mesh, path.name)
    whole = _whole(parts, config, path.name)
    mesh = largest_part(whole, path.name)
    # A new surface is equally fine everywhere. The parts it was made from show better where the head is.
    shape = mesh if whole is parts else parts
    mesh = normalised(mesh.moved(orientation(shape, path.suffix.lower(), config.up, config.front)))
    axis, _ = geometry.mirror_plane(mesh.verts)
    mesh = normalised(resample(mesh, config.vertices, path.name))
    if len(mesh.verts) > LARGEST:
        raise InputError(
            f"{path}: has {len(mesh.verts)} vertices, at most {LARGEST} are used",
            "give fewer with --vertices",
        )
    # All values are computed from the vertices with the precision of the template file, so that the file
    # alone gives the same values again.
    verts = mesh.verts.astype(np.float32)
    points = verts.astype(float)
    _, place = geometry.mirror_plane(points, (axis,))
    uv, face_uv = geometry.texture_coordinates(mesh)
    fields = {
        "verts": verts,
        "faces": mesh.faces.astype(np.int32),
        "mirror": geometry.mirror_map(points, axis, place).astype(np.int32),
        "colors": vertex_colors(points),
        "uv": uv.astype(np.float32),
        "face_uv": face_uv.astype(np.int32),
        "mirror_axis": "xyz"[axis],
    }
    return mesh, fields


def _whole(mesh: Mesh, config: TemplateConfig, name: str) -> Mesh:
    """Return the mesh with its parts grown together, as `config` says.

    With `remesh` "auto", a mesh whose largest part is nearly all of it is returned unchanged.
    """
    if config.remesh == "off" or not config.vertices:
        return mesh
    area = part_areas(mesh)[1]
    if config.remesh == "auto" and area.max() >= (1 - MUCH) * area.sum():
        if np.count_nonzero(area) > 1:
            log.info(
                "%s: its small parts are left out; --remesh on makes one surface of those that touch", name
            )
        return mesh
    from shic_cli.surface.remesh import remeshed

    return remeshed(mesh, name)
