"""One closed surface around all parts of a mesh that touch.

Eyes, horns or fins that were modelled apart grow together with the parts that they touch. A point is inside
if the surfaces wind around it (generalised winding numbers, Jacobson et al. 2013). A point nearer to a
surface than a margin is inside too, so that sheets without a thickness get one. Marching cubes finds the
surface between inside and outside.
"""

# The kernel below is written in Warp's language, whose types differ from Python's.
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

CELLS = 128  # number of grid cells along the longest side
REACH = 0.75  # cells by which the surface grows outward; parts within twice this distance grow together


@wp.kernel
def signed_distance(mesh: wp.uint64, distance: wp.array3d(dtype=float)):
    """Write the distance of each grid corner from the mesh to `distance`; it is negative inside."""
    i, j, k = wp.tid()
    point = wp.vec3(float(i), float(j), float(k))
    found = wp.mesh_query_point_sign_winding_number(mesh, point, 1.0e3)
    distance[i, j, k] = found.sign * wp.length(
        wp.mesh_eval_position(mesh, found.face, found.u, found.v) - point
    )


def remeshed(mesh: Mesh, name: str = "mesh") -> Mesh:
    """Return one surface around the largest part of `mesh` and all parts that it touches.

    A part counts too if it touches the largest part through other parts. Parts that do not touch are dropped,
    which is logged. The result has no texture coordinates and up to tens of thousands of vertices, so
    simplify it afterwards. `mesh` must have no degenerate faces; the winding of its faces does not matter.
    """
    kept = mesh
    while not (near := _near_largest(kept, found := _around(kept))).all():
        kept = kept.chosen(near)  # repeat with a grid scaled to what is kept
    if len(kept.faces) < len(mesh.faces):
        say_dropped(mesh, kept, name)
    log.info("%s: remeshed, so that parts that touch are one", name)
    return found


def _around(mesh: Mesh) -> Mesh:
    """Return the surface that lies REACH cells outside `mesh`.

    Tiny parts may fall between the corners of the grid and get no surface.
    """
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
    """Return `(F,)`: true for faces of parts that lie mostly at the largest part of `found`.

    `found` is the surface around `mesh`.
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
