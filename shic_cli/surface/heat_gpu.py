"""A surface's distances and the inverse that its basis needs, by dense factorisations in torch: what a GPU is
quick at.

geometry.py has the sparse way, which is quicker on a CPU, and the reference.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import sparse

from shic_cli.base.progress import Track, plain_track
from shic_cli.surface.delaunay import operators

BLOCK = 512  # sources at a time; bounds the memory beside the two factors and the table


def inverse(operator: sparse.spmatrix, device: torch.device) -> Callable[[np.ndarray], np.ndarray]:
    """The function that solves `operator` (K, K), symmetric and positive definite, for a right side `(K,)`."""
    factor = torch.linalg.cholesky(torch.from_numpy(operator.toarray()).to(device))
    table = torch.cholesky_inverse(
        factor
    )  # a product is far quicker than two triangular solves, of which each waits for the last row

    def solve(right: np.ndarray) -> np.ndarray:
        return (table @ torch.from_numpy(right.astype(np.float64)).to(device).view(-1)).cpu().numpy()

    return solve


def heat_distances(
    verts: np.ndarray, faces: np.ndarray, device: torch.device, track: Track = plain_track
) -> np.ndarray:
    """`(K, K)` f4: in row i the distances along the surface of all vertices from vertex i.

    The heat method on the intrinsic Delaunay triangulation, for the mean edge length's square as time: Crane,
    Weischedel and Wardetzky, The Heat Method for Distance Computation, CACM 2017. In f8, and as stable as
    that: away from a source heat falls below the rounding error of what is near it, but with no negative
    weight there is nothing to cancel.
    """
    gradient, areas, masses, edge = operators(verts, faces)
    twice = np.tile(areas, 2)
    laplacian = (gradient.T @ gradient.multiply(twice[:, None])).toarray()
    heat = torch.linalg.cholesky(torch.from_numpy(np.diag(masses) + edge**2 * laplacian).to(device))
    # constants are what the Laplacian takes to 0: with this added it can be factorised, and the solution's
    # mean is 0
    share = masses / masses.sum()
    flat = torch.linalg.cholesky(
        torch.from_numpy(laplacian + np.trace(laplacian) * np.outer(share, share)).to(device)
    )
    slope, fall = (_sparse(each, device) for each in (gradient, gradient.multiply(twice[:, None]).T))
    table, starts = np.empty((len(verts), len(verts)), np.float32), range(0, len(verts), BLOCK)
    for start in track(starts, len(starts), "geodesics"):
        some = torch.arange(start, min(start + BLOCK, len(verts)), device=device)
        right = torch.zeros(len(verts), len(some), dtype=torch.float64, device=device)
        right[some, some - start] = 1
        x, y = (slope @ torch.cholesky_solve(right, heat)).chunk(2)
        norm = torch.hypot(x, y)  # squares of what is far away would be 0
        unit = torch.where(norm > 0, torch.stack([x, y]) / norm, 0).view(-1, len(some))
        found = torch.cholesky_solve(fall @ -unit, flat)
        found = (found - found[some, some - start]).T
        table[start : start + len(some)] = found.float().cpu().numpy()
    return table


def _sparse(matrix: sparse.spmatrix, device: torch.device) -> torch.Tensor:
    found = matrix.tocoo()
    index = torch.from_numpy(np.stack([found.row, found.col]).astype(np.int64))
    return (
        torch.sparse_coo_tensor(index, torch.from_numpy(found.data), found.shape, check_invariants=False)
        .coalesce()
        .to(device)
    )
