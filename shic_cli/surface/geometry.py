"""The geometry of a template: mirror map, Laplace-Beltrami basis, geodesics, texture coordinates.

K vertices, F faces, T texture coordinates, Q eigenvectors. Everything is numpy and deterministic. The slow
steps use sparse factorisations on a CPU, or the dense ones of heat_gpu.py if a torch.device is given as
`device`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.spatial import KDTree

from shic_cli.base.errors import InputError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import GEODESIC_MAXIMUM
from shic_cli.surface.mesh import Mesh
from shic_cli.surface.unwrap import box_unwrap

if TYPE_CHECKING:
    import torch

log = logging.getLogger("shic")

SHIFT = -1e-2  # the eigenvalues nearest to this are computed; just below 0 the operator can be inverted
ASYMMETRIC = 0.02  # the largest distance of a vertex from its mirror image, of the diagonal


def mirror_plane(verts: np.ndarray, axes: tuple[int, ...] = (0, 2, 1)) -> tuple[int, float]:
    """The axis that the best mirror plane is normal to, one of `axes`, and its place on it (appendix 7.1).

    Each axis is tried with two planes: through the middle of the bounding box of `verts` `(K, 3)` and through
    their mean. If several planes are equally good, as for a box, the axis that comes first in `axes` is
    taken.
    """
    tree = KDTree(verts)
    probes = verts[:: max(1, len(verts) // 5_000)]
    diagonal = np.linalg.norm(np.ptp(verts, axis=0))
    candidates = []
    for axis in axes:
        for place in ((verts[:, axis].min() + verts[:, axis].max()) / 2, verts[:, axis].mean()):
            candidates.append((tree.query(reflected(probes, axis, place))[0].mean(), axis, float(place)))
    best = min(residual for residual, _, _ in candidates)
    _, axis, _ = next(candidate for candidate in candidates if candidate[0] <= best + 1e-3 * diagonal)
    return axis, min(candidate for candidate in candidates if candidate[1] == axis)[2]


def reflected(verts: np.ndarray, axis: int, place: float) -> np.ndarray:
    """`verts` (K, 3) mirrored at the plane where the coordinate `axis` is `place`."""
    out = verts.copy()
    out[:, axis] = 2 * place - out[:, axis]
    return out


def mirror_map(verts: np.ndarray, axis: int, place: float) -> np.ndarray:
    """`(K,)`: the vertex nearest to each vertex's mirror image, x_F in sec. 3.6.

    Vertices are paired, nearest pairs first. So the map is its own inverse wherever the shape is symmetric to
    2 % of its bounding box's diagonal; elsewhere it gives the nearest vertex. A warning is logged if the mean
    distance is over 2 %.
    """
    images = reflected(verts, axis, place)
    diagonal = np.linalg.norm(np.ptp(verts, axis=0))
    distance, nearest = KDTree(verts).query(images)
    if distance.mean() > ASYMMETRIC * diagonal:
        log.warning(
            "the mesh is not symmetric: mirrored at its best plane (%s) it is %.1f %% of its size away "
            "on average; train with --equivariance 0",
            "xyz"[axis],
            100 * distance.mean() / diagonal,
        )
    pair, rest = np.array(nearest), np.arange(len(verts))
    while len(rest):
        near = np.asarray(KDTree(verts[rest]).query(images[rest])[1])
        mutual = near[near] == np.arange(len(rest))
        if not mutual.any():  # this happens only if distances are exactly equal
            break
        pair[rest[mutual]] = rest[near[mutual]]
        rest = rest[~mutual]
    good = np.linalg.norm(verts[pair] - images, axis=1) <= ASYMMETRIC * diagonal
    return np.where(good, pair, nearest)


def laplacian_basis(
    verts: np.ndarray, faces: np.ndarray, number: int, device: torch.device | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Laplace-Beltrami eigenvectors `(K, Q)`, eigenvalues `(Q,)` and vertex areas `(K,)`.

    The constant eigenvector is left out. Cotangent Laplacian with lumped masses; the total area is 1; U^T M U
    = I; the largest entry of each eigenvector is positive. Q is `number`, or K - 2 if that is less.
    """
    import potpourri3d
    from scipy.sparse.linalg import LinearOperator, eigsh

    count = min(number, len(verts) - 2)
    if count < number:
        log.info(
            "eigenvectors: %d instead of %d, because the mesh has only %d vertices", count, number, len(verts)
        )
    mass = potpourri3d.vertex_areas(verts, faces)
    mass = np.maximum(mass / mass.sum(), 1e-12)
    # L u = l M u becomes the symmetric problem of M^-1/2 L M^-1/2: without pivoting, a tenth of the time
    scale = sparse.diags(mass**-0.5)
    operator = (scale @ potpourri3d.cotan_laplacian(verts, faces, denom_eps=1e-12) @ scale).tocsc()
    shifted = operator - SHIFT * sparse.eye(len(verts), format="csc")
    # a fixed start gives the same basis every time
    start = np.random.default_rng(0).standard_normal(len(verts))
    inverse = LinearOperator(operator.shape, _solver(shifted, device))
    values, vectors = eigsh(operator, count + 1, sigma=SHIFT, OPinv=inverse, v0=start)
    vectors = scale @ vectors
    order = np.argsort(values)[1:]
    values, vectors = values[order], vectors[:, order]
    vectors *= np.sign(vectors[np.abs(vectors).argmax(0), np.arange(count)])
    return vectors, values, mass


def _solver(operator: sparse.csc_matrix, device: torch.device | None) -> Callable[[np.ndarray], np.ndarray]:
    """A function that solves the symmetric positive definite `operator` `(K, K)` for a right side `(K,)`."""
    if device is not None:
        from shic_cli.surface import heat_gpu

        return heat_gpu.inverse(operator, device)
    from shic_cli.surface.heat import solver

    return solver(operator)


def geodesics(
    verts: np.ndarray, faces: np.ndarray, track: Track = plain_track, device: torch.device | None = None
) -> np.ndarray:
    """`(K, K)` f4 distances along the surface by the heat method, the largest scaled to 228 (sec. 4.3).

    The table is symmetric, with zeros on the diagonal. InputError if the surface is too degenerate to
    measure.
    """
    if device is not None:
        from shic_cli.surface import heat_gpu

        table = heat_gpu.heat_distances(verts, faces, device, track)
    else:
        from shic_cli.surface import heat

        try:
            table = heat.heat_distances(verts, faces, track)
        except RuntimeError:  # a matrix is singular
            table = np.full(1, np.nan)
    if not np.isfinite(table).all():
        raise InputError(
            "the surface has parts too thin to measure distances on",
            "repair the mesh, or give another --vertices",
        )
    table = (table + table.T) / 2
    np.fill_diagonal(table, 0)
    np.maximum(table, 0, out=table)
    table /= table.max()
    table *= np.float32(GEODESIC_MAXIMUM)
    return table


def texture_coordinates(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates `(T, 2)` in 0..1, and the row of them `(F, 3)` that each face corner uses.

    (0, 0) is at the bottom left. They are the mesh's own if it has them, else those of an automatic unwrap.
    """
    if mesh.corner_uv is not None:
        # corners share a row if they have the same vertex and the same place in the texture
        rows = np.concatenate([mesh.faces.reshape(-1, 1), mesh.corner_uv.reshape(-1, 2)], axis=1)
        rows, inverse = np.unique(rows, axis=0, return_inverse=True)
        return np.clip(rows[:, 1:], 0, 1), inverse.reshape(-1, 3)
    try:
        import xatlas
    except ImportError:
        log.info("the texture is unwrapped by the mesh's six sides, because the package xatlas is not here")
        return box_unwrap(mesh)
    atlas = xatlas.Atlas()
    atlas.add_mesh(mesh.verts.astype(np.float32), mesh.faces.astype(np.uint32))
    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    packing.padding, packing.resolution = 4, 1024
    # without this, some charts would be mirrored, and any writing in them too
    charts.fix_winding, packing.rotate_charts = True, False
    atlas.generate(charts, packing)
    _, face_uv, uv = atlas[0]
    return np.clip(uv, 0, 1), face_uv.astype(np.int64)
