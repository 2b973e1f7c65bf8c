"""Filters of pseudo-labels: a match is kept only if other evidence of the same photo agrees with it.

Letters: P pixels (cells of the extractor's grid), K vertices.
"""

from __future__ import annotations

import numpy as np
import torch

AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]


def returns(sigma: torch.Tensor, vertex: torch.Tensor, yx: torch.Tensor, limit: float) -> torch.Tensor:
    """Whether each match returns to its pixel `(P,)`: pixel to vertex to pixel ends within `limit`.

    `sigma` `(K, P)` are the similarities of Eq. 2, `vertex` `(P,)` the matches, and `yx` `(P, 2)` the pixels.
    `limit` is in the unit of `yx`. The vertex goes back to the pixel that it is most similar to. Source:
    relaxed cyclic consistency (Dünkel et al., arXiv 2506.05312).
    """
    used, number = vertex.unique(return_inverse=True)
    back = sigma[used].argmax(1)[number]
    return (yx - yx[back]).norm(dim=1) <= limit


def agrees(vertex: np.ndarray, cells: np.ndarray, geodesic: np.ndarray, limit: float) -> np.ndarray:
    """Whether each match `(P,)` is within `limit`, along the surface, of the median of its neighbours.

    `vertex` `(P,)` are the matches of `cells` `(P, 2)`, and `geodesic` `(K, K)` the distances on the 228
    scale. The neighbours are the up to 8 cells around a cell, and their median is the one of their vertices
    with the smallest sum of distances to the others. A cell without neighbours is not kept. Source: the
    geodesic median (Fletcher et al., NeuroImage 2009), as a filter of pseudo-labels.
    """
    place = np.full(cells.max(0) + 3, -1)
    place[tuple((cells + 1).T)] = np.arange(len(cells))
    around = np.stack([place[tuple((cells + 1 + step).T)] for step in AROUND], 1)  # (P, 8)
    known, beside = around >= 0, vertex[around.clip(0)]
    between = np.where(known[:, None, :], geodesic[beside[:, :, None], beside[:, None, :]], 0).sum(2)
    median = beside[np.arange(len(cells)), np.where(known, between, np.inf).argmin(1)]
    return known.any(1) & (geodesic[vertex, median] <= limit)
