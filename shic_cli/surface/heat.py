"""Geodesic distances by the heat method, by sparse factorisations on the cores of a CPU.

heat_gpu.py has the same method for a GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from scipy import sparse

from shic_cli.base.cores import cores
from shic_cli.base.progress import Track, plain_track
from shic_cli.surface.delaunay import operators

BLOCK = 32  # sources solved at a time: as many as fit a core's cache
# This share of the Laplacian's trace times the mass is added to it, because the Laplacian of a constant is 0.
# The solution changes by a constant, which is subtracted, and by 1e-8 of itself.
SHIFT = 1e-11


def heat_distances(verts: np.ndarray, faces: np.ndarray, track: Track = plain_track) -> np.ndarray:
    """`(K, K)` f4: row i holds the distances along the surface from vertex i to all vertices.

    The heat method on the intrinsic Delaunay triangulation, with the squared mean edge length as time: Crane,
    Weischedel and Wardetzky, The Heat Method for Distance Computation, CACM 2017. It computes in f8. The
    numbers do not depend on how many cores there are. RuntimeError if a matrix is singular.
    """
    gradient, areas, masses, edge = operators(verts, faces)
    twice = np.tile(areas, 2)
    laplacian = (gradient.T @ gradient.multiply(twice[:, None])).tocsc()
    mass = sparse.diags(masses)
    shift = SHIFT * laplacian.diagonal().sum() / masses.sum()
    heat, flat = solver(mass + edge**2 * laplacian), solver(laplacian + shift * mass)
    slope, fall = gradient.tocsr(), gradient.multiply(twice[:, None]).T.tocsr()
    table = np.empty((len(verts), len(verts)), np.float32)

    def work(start: int) -> None:
        sources = np.arange(start, min(start + BLOCK, len(verts)))
        right = np.zeros((len(verts), len(sources)), order="F")
        right[sources, sources - start] = 1
        field = slope @ heat(right)
        x, y = np.split(field, 2)
        norm = np.hypot(x, y)  # squares of the small values far away would underflow to 0
        norm[norm == 0] = -1
        x /= -norm
        y /= -norm
        distance = flat(np.asfortranarray(fall @ field))
        table[sources] = (distance - distance[sources, sources - start]).T

    starts = range(0, len(verts), BLOCK)
    with ThreadPoolExecutor(cores()) as threads:  # scipy's and numpy's loops run beside each other
        for _ in track(threads.map(work, starts), len(starts), "geodesics"):
            pass
    return table


def solver(operator: sparse.spmatrix) -> Callable[[np.ndarray], np.ndarray]:
    """A function that solves the symmetric positive definite `operator` `(K, K)` for right sides `(K, B)`.

    RuntimeError if the operator is singular.
    """
    from scipy.sparse.linalg import splu

    # without pivoting, which such an operator does not need, it takes a tenth of the time
    options = {"SymmetricMode": True}
    return splu(
        sparse.csc_matrix(operator), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options
    ).solve
