"""Geodesic distances and the inverse for the Laplace basis, by dense factorisations in torch, for a GPU.

geometry.py has the sparse way: it is faster on a CPU, and it is the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse

from shic_cli.base.progress import Track, plain_track
from shic_cli.surface.delaunay import operators

BLOCK = 512  # sources solved at a time; this bounds the memory beyond the two factors and the table
ON_DEVICE = 3.5  # matrices (K, K) in f8 that are there at once: two factors, what is factorised, and blocks
ON_HOST = 2.0  # one on its way, and the table and its transpose in f4


def inverse(operator: sparse.csc_matrix, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """A function that solves the symmetric positive definite `operator` `(K, K)` for a right side `(K,)`."""
    factor = torch.linalg.cholesky(_dense(operator, device))
    # a product is far faster than two triangular solves, in which every row waits for the row before
    table = torch.cholesky_inverse(factor)

    def solve(right: np.ndarray) -> np.ndarray:
        return (table @ torch.from_numpy(right.astype(np.float64)).to(device).view(-1)).cpu().numpy()

    return solve


def heat_distances(
    verts: np.ndarray, faces: np.ndarray, device: torch.device, track: Track = plain_track
) -> np.ndarray:
    """`(K, K)` f4: row i holds the distances along the surface from vertex i to all vertices.

    The heat method on the intrinsic Delaunay triangulation, with the squared mean edge length as time: Crane,
    Weischedel and Wardetzky, The Heat Method for Distance Computation, CACM 2017. It computes in f8. Far from
    a source, the heat falls below the rounding error of the heat near it; this does no harm, because without
    negative weights nothing cancels.
    """
    gradient, areas, masses, edge = operators(verts, faces)
    twice = np.tile(areas, 2)
    laplacian = (gradient.T @ gradient.multiply(twice[:, None])).tocsc()
    heat = torch.linalg.cholesky(_dense(sparse.diags(masses) + edge**2 * laplacian, device))
    # the Laplacian of a constant is 0; with this term added it can be factorised, and solutions have mean 0
    share = torch.from_numpy(masses / masses.sum()).to(device)
    flat = _dense(laplacian, device).addr_(share, share, alpha=float(laplacian.diagonal().sum()))
    flat = torch.linalg.cholesky(flat)
    slope, fall = (_sparse(matrix, device) for matrix in (gradient, gradient.multiply(twice[:, None]).T))
    table, starts = np.empty((len(verts), len(verts)), np.float32), range(0, len(verts), BLOCK)
    for start in track(starts, len(starts), "geodesics"):
        sources = torch.arange(start, min(start + BLOCK, len(verts)), device=device)
        right = torch.zeros(len(verts), len(sources), dtype=torch.float64, device=device)
        right[sources, sources - start] = 1
        x, y = (slope @ torch.cholesky_solve(right, heat)).chunk(2)
        norm = torch.hypot(x, y)  # squares of the small values far away would underflow to 0
        unit = torch.where(norm > 0, torch.stack([x, y]) / norm, 0).view(-1, len(sources))
        distance = torch.cholesky_solve(fall @ -unit, flat)
        distance = (distance - distance[sources, sources - start]).T
        table[start : start + len(sources)] = distance.float().cpu().numpy()
    return table


def _dense(matrix: sparse.csc_matrix, device: torch.device) -> torch.Tensor:
    """`matrix` `(K, K)` with all of its zeros, on `device` alone."""
    return torch.from_numpy(matrix.toarray()).to(device)


def _sparse(matrix: sparse.csr_matrix | sparse.coo_matrix, device: torch.device) -> torch.Tensor:
    """`matrix` as a coalesced sparse tensor on `device`."""
    coo = sparse.coo_matrix(matrix)
    index = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    return (
        torch.sparse_coo_tensor(index, torch.from_numpy(coo.data), coo.shape, check_invariants=False)
        .coalesce()
        .to(device)
    )
