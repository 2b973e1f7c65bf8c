"""Matching by transport: a map that keeps distances is found where single pixels are ambiguous."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shic_cli.learning.transport import Transport, spread_vertices

SIDE = 12


def sheet() -> tuple[np.ndarray, torch.Tensor]:
    """Distances `(K, K)` on a flat sheet of SIDE by SIDE vertices, the largest 228; and pixels over it."""
    yx = np.stack(np.meshgrid(range(SIDE), range(SIDE), indexing="ij"), -1).reshape(-1, 2).astype(np.float32)
    distance = np.linalg.norm(yx[:, None] - yx[None], axis=2)
    return (distance * 228 / distance.max()).astype(np.float32), torch.from_numpy(yx / 40)


def test_pixels_agree_on_one_of_two_places_that_look_alike() -> None:
    """Every pixel is as similar to its vertex as to the one across the middle, but for some noise. Alone,
    half of them go wrong; together they all take the same side.
    """
    geodesic, yx = sheet()
    number = len(geodesic)
    mirrored = torch.arange(number).view(SIDE, SIDE).flip(1).reshape(-1)
    near = -torch.from_numpy(geodesic) / 100
    random = torch.rand(number, number, generator=torch.Generator().manual_seed(0))
    sigma = (torch.maximum(near, near[mirrored] - 0.005) + 0.05 * random).T.contiguous()  # (K, P)
    right = torch.arange(number)
    alone, (together, score) = sigma.argmax(0), Transport.of(geodesic, torch.device("cpu")).match(sigma, yx)
    errors = [float(geodesic[found, right].mean()) for found in (alone, together)]
    other = float(geodesic[together, mirrored].mean())
    assert errors[0] > 30 and min(errors[1], other) < 15
    assert torch.equal(score, sigma[together, right])


def test_vertices_that_no_view_shows_are_never_matched() -> None:
    geodesic, yx = sheet()
    sigma = -torch.from_numpy(geodesic) / 100
    hidden = torch.arange(0, len(geodesic), 3)
    sigma[hidden] = -torch.inf
    vertex, score = Transport.of(geodesic, torch.device("cpu")).match(sigma, yx)
    assert score.isfinite().all() and not torch.isin(vertex, hidden).any()


@pytest.mark.parametrize("scale", [1.0, 0.01])
def test_the_scale_of_similarities_does_not_count(scale: float) -> None:
    geodesic, yx = sheet()
    sigma = torch.rand(len(geodesic), len(yx), generator=torch.Generator().manual_seed(1))
    found = [
        Transport.of(geodesic, torch.device("cpu")).match(each, yx)[0] for each in (sigma, sigma * scale)
    ]
    assert (found[0] == found[1]).float().mean() > 0.99


def test_one_pixel_takes_the_vertex_it_is_most_similar_to() -> None:
    geodesic, yx = sheet()
    sigma = -torch.from_numpy(geodesic[:, 40:41]) / 10
    assert Transport.of(geodesic, torch.device("cpu")).match(sigma, yx[40:41])[0].tolist() == [40]


def test_vertices_are_spread() -> None:
    geodesic, _ = sheet()
    chosen = spread_vertices(geodesic, 5)
    assert len(set(chosen.tolist())) == 5 and {0, SIDE - 1, SIDE * (SIDE - 1), SIDE**2 - 1} < set(
        chosen.tolist()
    )
    assert len(spread_vertices(geodesic[:4, :4], 300)) == 4
