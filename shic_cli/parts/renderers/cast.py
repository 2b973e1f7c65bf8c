"""The kernel that casts a ray for each pixel. Warp compiles it; it never runs as Python."""

# pyright: reportArgumentType=false, reportAssignmentType=false, reportAttributeAccessIssue=false
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false
# pyright: reportInvalidTypeForm=false, reportOperatorIssue=false
# The types in a kernel are Warp's own, which pyright takes for Python's.

from __future__ import annotations

import warp as wp


@wp.kernel
def cast(
    mesh: wp.uint64,
    rotation: wp.array(dtype=wp.mat33),
    translation: wp.array(dtype=wp.vec3),
    focal: wp.array(dtype=wp.float32),
    principal: wp.array(dtype=wp.vec2),
    face: wp.array(dtype=wp.int64, ndim=3),
    bary: wp.array(dtype=wp.vec3, ndim=3),
    zbuf: wp.array(dtype=wp.float32, ndim=3),
):
    """Casts the ray of one pixel, through the point (x, y, 1) in view space."""
    n, i, j = wp.tid()
    height, width = face.shape[1], face.shape[2]
    one, two = wp.float64(1.0), wp.float64(2.0)
    x = one - (two * wp.float64(j) + one) / wp.float64(width) - wp.float64(principal[n][0])
    y = one - (two * wp.float64(i) + one) / wp.float64(height) - wp.float64(principal[n][1])
    d = wp.vec3d(x, y, wp.float64(focal[n])) / wp.float64(focal[n])
    hit = wp.mesh_query_ray(mesh, rotation[n] * (-translation[n]), rotation[n] * wp.vec3(d), 1.0e6)
    if hit.result:
        # Warp's own u, v and t are off by up to 1e-3 where a ray grazes a face. So z and bary are solved for
        # in double precision: z d is the sum of bary_k corner_k over the three corners.
        turn, shift = wp.transpose(wp.mat33d(rotation[n])), wp.vec3d(translation[n])
        a = turn * wp.vec3d(wp.mesh_eval_position(mesh, hit.face, 1.0, 0.0)) + shift
        b = turn * wp.vec3d(wp.mesh_eval_position(mesh, hit.face, 0.0, 1.0)) + shift
        c = turn * wp.vec3d(wp.mesh_eval_position(mesh, hit.face, 0.0, 0.0)) + shift
        weights = wp.vec3d(wp.dot(d, wp.cross(b, c)), wp.dot(d, wp.cross(c, a)), wp.dot(d, wp.cross(a, b)))
        total = weights[0] + weights[1] + weights[2]
        face[n, i, j] = wp.int64(hit.face)
        bary[n, i, j] = wp.vec3(weights / total)
        zbuf[n, i, j] = float(wp.dot(a, wp.cross(b, c)) / total)
