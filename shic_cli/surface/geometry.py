"""What a template needs to know about its surface: mirror map, Laplace-Beltrami basis, geodesics,
texture coordinates.

K vertices, F faces, T texture coordinates, Q eigenvectors. Everything is numpy and deterministic. What takes
long is done by sparse factorisations on a CPU, and by the dense ones of heat_gpu.py where `device`, a
torch.device, is given.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from shic_cli.base.errors import InputError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import GEODESIC_MAXIMUM
from shic_cli.surface.mesh import Mesh

if TYPE_CHECKING:
    import torch

log = logging.getLogger("shic")

SHIFT = -1e-2  # eigenvalues nearest to this are found; just below 0, where the operator can be inverted
ASYMMETRIC = 0.02  # share of the bounding box's diagonal between a vertex and its mirror image


def mirror_plane(verts: np.ndarray, axes: tuple[int, ...] = (0, 2, 1)) -> tuple[int, float]:
    """Which of `axes` the best mirror plane of `verts` (K, 3) is normal to, and its place on that axis
    (appendix 7.1).

    Each axis is tried with the plane through the bounding box's middle and through the mean. Of planes that
    are equally good, as for a box, the one that comes first in `axes` is taken.
    """
    tree = cKDTree(verts)
    probes = verts[:: max(1, len(verts) // 5_000)]
    diagonal = np.linalg.norm(np.ptp(verts, axis=0))
    found = []
    for axis in axes:
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

    Vertices are paired, nearest pairs first, so that the map is its own inverse wherever the shape is
    symmetric to 2 % of its bounding box's diagonal; elsewhere it is the nearest vertex. A warning is logged
    if the mean distance is over 2 %.
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


def laplacian_basis(
    verts: np.ndarray, faces: np.ndarray, number: int, device: torch.device | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first Laplace-Beltrami eigenvectors `(K, Q)` without the constant one, eigenvalues `(Q,)`, and
    vertex areas `(K,)`.

    Cotangent Laplacian with lumped masses, total area 1; U^T M U = I; the largest entry of each eigenvector
    is positive. Q is `number`, or K - 2 if that is less.
    """
    import potpourri3d
    from scipy.sparse.linalg import LinearOperator, eigsh

    count = min(number, len(verts) - 2)
    if count < number:
        log.info("eigenvectors: %d instead of %d, the mesh has only %d vertices", count, number, len(verts))
    mass = potpourri3d.vertex_areas(verts, faces)
    mass = np.maximum(mass / mass.sum(), 1e-12)
    # L u = l M u as the symmetric problem of M^-1/2 L M^-1/2, which needs no pivoting: a tenth of the time
    scale = sparse.diags(mass**-0.5)
    operator = (scale @ potpourri3d.cotan_laplacian(verts, faces, denom_eps=1e-12) @ scale).tocsc()
    shifted = operator - SHIFT * sparse.eye(len(verts), format="csc")
    start = np.random.default_rng(0).standard_normal(
        len(verts)
    )  # fixed, so that the basis is the same every time
    inverse = LinearOperator(operator.shape, _solver(shifted, device))
    values, vectors = eigsh(operator, count + 1, sigma=SHIFT, OPinv=inverse, v0=start)
    vectors = scale @ vectors
    order = np.argsort(values)[1:]
    values, vectors = values[order], vectors[:, order]
    vectors *= np.sign(vectors[np.abs(vectors).argmax(0), np.arange(count)])
    return vectors, values, mass


def _solver(operator: sparse.csc_matrix, device: torch.device | None) -> Callable[[np.ndarray], np.ndarray]:
    """The function that solves `operator` (K, K), symmetric and positive definite, for a right side `(K,)`."""
    from scipy.sparse.linalg import splu

    if device is not None:
        from shic_cli.surface import heat_gpu

        return heat_gpu.inverse(operator, device)
    return splu(
        operator, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    ).solve


def geodesics(
    verts: np.ndarray, faces: np.ndarray, track: Track = plain_track, device: torch.device | None = None
) -> np.ndarray:
    """`(K, K)` f4 distances along the surface: symmetric, zero on the diagonal, the largest 228 (sec. 4.3);
    by the heat method.

    InputError if the surface is too degenerate for it.
    """
    if device is not None:
        from shic_cli.surface import heat_gpu

        table = heat_gpu.heat_distances(verts, faces, device, track)
    else:
        table = _heat_distances(verts, faces, track)
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


def _heat_distances(verts: np.ndarray, faces: np.ndarray, track: Track) -> np.ndarray:
    """`(K, K)` f4: in row i the distances along the surface of all vertices from vertex i."""
    import potpourri3d

    solver = potpourri3d.MeshHeatMethodDistanceSolver(verts, faces)
    table = np.empty((len(verts), len(verts)), np.float32)
    for i in track(range(len(verts)), len(verts), "geodesics"):
        table[i] = solver.compute_distance(i)
    return table


def texture_coordinates(mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates `(T, 2)` in 0..1 with (0, 0) at the bottom left, and each face corner's row of them
    `(F, 3)`.

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
    charts, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    packing.padding, packing.resolution = 4, 1024
    charts.fix_winding, packing.rotate_charts = (
        True,
        False,
    )  # or some charts are mirrored, and writing in them too
    atlas.generate(charts, packing)
    _, face_uv, uv = atlas[0]
    return np.clip(uv, 0, 1), face_uv.astype(np.int64)
