"""Filters of pseudo-labels: a match is kept only if it returns to its pixel, or if its neighbours agree."""

from __future__ import annotations

import numpy as np
import torch

from shic_cli.learning.label_filters import agrees, returns

SIDE = 6


def sheet() -> tuple[np.ndarray, np.ndarray]:
    """Cells `(36, 2)` of a square grid, and the distances `(36, 36)` of a vertex at each of them."""
    cells = np.stack(np.meshgrid(range(SIDE), range(SIDE), indexing="ij"), -1).reshape(-1, 2)
    return cells, np.linalg.norm(cells[:, None] - cells[None], axis=2).astype(np.float32)


def test_a_match_is_kept_if_the_vertex_likes_the_pixel_best() -> None:
    """Pixel 0 takes vertex 20, which is more similar to pixel 20, five rows away."""
    cells, distance = sheet()
    sigma = -torch.from_numpy(distance)  # (K, P)
    sigma[20, 0] = -0.5
    sigma[0, 0] = -1.0
    vertex, yx = sigma.argmax(0), torch.from_numpy(cells).float()
    assert vertex[0] == 20
    kept = returns(sigma, vertex, yx, 1.0)
    assert not kept[0] and kept[1:].all()
    apart = float((yx[0] - yx[20]).norm())
    assert returns(sigma, vertex, yx, apart + 0.01).all() and not returns(sigma, vertex, yx, apart - 0.01)[0]


def test_a_match_far_from_those_of_its_neighbours_is_dropped() -> None:
    cells, distance = sheet()
    vertex = np.arange(len(cells))
    assert agrees(vertex, cells, distance, 1.5).all()
    vertex[14] = 35
    kept = agrees(vertex, cells, distance, 1.5)
    assert not kept[14] and kept.sum() == len(cells) - 1  # the outlier does not carry its neighbours away
    assert agrees(vertex, cells, distance, float(distance[35, 14]) + 1.5).all()


def test_a_cell_alone_is_not_kept() -> None:
    cells, distance = sheet()
    chosen = [0, 1, 35]
    assert agrees(np.array(chosen), cells[chosen], distance, 1.5).tolist() == [True, True, False]
