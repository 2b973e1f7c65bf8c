"""One closed surface around all parts of a mesh: eyes, horns or fins that were modelled apart grow together with what they touch.

A point is inside where the surfaces wind around it (generalised winding numbers, Jacobson et al. 2013) or are nearer than a margin, so
that sheets without a thickness get one. The surface between inside and outside is found by marching cubes.
"""

from __future__ import annotations

import logging

import numpy as np
import torch
import warp as wp
import warp.geometry

from shic_cli.mesh import Mesh, wound
from shic_cli.renderers.warp import prepared

log = logging.getLogger("shic")

CELLS = 128  # along the longest side
REACH = 0.75  # cells by which the surface grows outward; parts up to twice as far from each other become one


@wp.kernel
def signed_distance(mesh: wp.uint64, distance: wp.array3d(dtype=float)):
    """The distance of each corner of the grid from the mesh, negative inside."""
    i, j, k = wp.tid()
    point = wp.vec3(float(i), float(j), float(k))
    found = wp.mesh_query_point_sign_winding_number(mesh, point, 1.0e3)
    distance[i, j, k] = found.sign * wp.length(wp.mesh_eval_position(mesh, found.face, found.u, found.v) - point)


def remeshed(mesh: Mesh, name: str = "mesh") -> Mesh:
    """The surface around all parts of `mesh`, without texture coordinates; parts that touch nothing stay apart.

    It has up to tens of thousands of vertices, to be simplified. `mesh` has no degenerate faces; how they are wound does not matter.
    """
    cell = mesh.side / CELLS
    low = mesh.verts.min(0) - 2 * cell
    points, size = (mesh.verts - low) / cell, np.ceil((mesh.verts.max(0) - low) / cell).astype(int) + 3
    where = prepared(signed_distance, torch.device("cpu"))
    corners, faces = wp.array(points, dtype=wp.vec3, device=where), wp.array(wound(mesh).faces.ravel(), dtype=wp.int32, device=where)
    held = wp.Mesh(corners, faces, support_winding_number=True)
    distance = wp.zeros(tuple(map(int, size)), dtype=float, device=where)
    wp.launch(signed_distance, dim=distance.shape, inputs=[held.id], outputs=[distance], device=where)
    verts, faces = wp.geometry.IsoSurfaceMarchingCubes.extract(distance, REACH)
    log.info("%s: remeshed, so that parts that touch are one", name)
    return Mesh(verts.numpy() * cell + low, faces.numpy().reshape(-1, 3).astype(np.int64), None, mesh.source)
