"""One closed surface around all parts of a mesh: eyes, horns or fins that were modelled apart grow together
with what they touch.

A point is inside where the surfaces wind around it (generalised winding numbers, Jacobson et al. 2013) or are
nearer than a margin, so that sheets without a thickness get one. The surface between inside and outside is
found by marching cubes.
"""

# The kernel below is in Warp's language, whose types are not those of Python.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportAssignmentType=false
# pyright: reportGeneralTypeIssues=false, reportInvalidTypeForm=false

from __future__ import annotations

import logging

import numpy as np
import torch
import warp as wp
import warp.geometry
from scipy.spatial import KDTree

from shic_cli.surface.mesh import Mesh, part_areas, say_dropped, wound
from shic_cli.surface.warp_kernels import prepared

log = logging.getLogger("shic")

CELLS = 128  # along the longest side
REACH = 0.75  # cells by which the surface grows outward; parts up to twice as far from each other become one


@wp.kernel
def signed_distance(mesh: wp.uint64, distance: wp.array3d(dtype=float)):
    """The distance of each corner of the grid from the mesh, negative inside."""
    i, j, k = wp.tid()
    point = wp.vec3(float(i), float(j), float(k))
    found = wp.mesh_query_point_sign_winding_number(mesh, point, 1.0e3)
    distance[i, j, k] = found.sign * wp.length(
        wp.mesh_eval_position(mesh, found.face, found.u, found.v) - point
    )


def remeshed(mesh: Mesh, name: str = "mesh") -> Mesh:
    """The surface around all parts of `mesh` that the largest one touches, directly or by others, without
    texture coordinates.

    It has up to tens of thousands of vertices, to be simplified. `mesh` has no degenerate faces; how they are
    wound does not matter. What touches nothing is dropped, which is logged.
    """
    kept = mesh
    while not (near := _near_largest(kept, found := _around(kept))).all():
        kept = kept.chosen(near)  # again at its own scale
    if len(kept.faces) < len(mesh.faces):
        say_dropped(mesh, kept, name)
    log.info("%s: remeshed, so that parts that touch are one", name)
    return found


def _around(mesh: Mesh) -> Mesh:
    """The surface REACH cells around `mesh`; tiny parts may fall between the corners of the grid."""
    cell = mesh.side / CELLS
    low = mesh.verts.min(0) - 2 * cell
    points, size = (mesh.verts - low) / cell, np.ceil((mesh.verts.max(0) - low) / cell).astype(int) + 3
    where = prepared(signed_distance, torch.device("cpu"))
    corners, faces = (
        wp.array(points, dtype=wp.vec3, device=where),
        wp.array(wound(mesh).faces.ravel(), dtype=wp.int32, device=where),
    )
    held = wp.Mesh(corners, faces, support_winding_number=True)
    distance = wp.zeros(tuple(map(int, size)), dtype=float, device=where)
    wp.launch(signed_distance, dim=distance.shape, inputs=[held.id], outputs=[distance], device=where)
    verts, faces = wp.geometry.IsoSurfaceMarchingCubes.extract(distance, REACH)
    return Mesh(verts.numpy() * cell + low, faces.numpy().reshape(-1, 3).astype(np.int64), None, mesh.source)


def _near_largest(mesh: Mesh, found: Mesh) -> np.ndarray:
    """`(F,)`: the face is of a part of `mesh` that lies, for the most, at the largest part of the surface
    `found` around it.
    """
    label, area = part_areas(mesh)
    if not len(found.faces):
        return label == area.argmax()
    label_found, area_found = part_areas(found)
    of_vertex = np.zeros(len(found.verts), bool)
    of_vertex[found.faces[label_found == area_found.argmax()]] = True
    middle = mesh.verts[mesh.faces].mean(1)
    share = np.bincount(label, of_vertex[KDTree(found.verts).query(middle)[1]]) / np.maximum(
        np.bincount(label), 1
    )
    return share[label] >= min(0.5, share.max())
