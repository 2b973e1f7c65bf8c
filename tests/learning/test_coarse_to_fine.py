"""Medians of a picture's pixels from a grid of blocks, against comparing every pixel with all vertices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from shic_cli.files.layouts import Template
from shic_cli.learning.coarse_to_fine import Blocks, medians
from shic_cli.surface.geodesic_median import Median

CPU = torch.device("cpu")
SIDE = 64


def each(work, items):
    """`work` on parts of `items`, as the predictor's batches are."""
    return [work(part) for part in items.split(100)]


def scene(template: Template, field: np.ndarray) -> tuple[torch.Tensor, list[torch.Tensor], np.ndarray]:
    """Embeddings of pixels, two pictures of them, two tables and the places; each pixel's embedding is the
    position on the template that `field` `(SIDE, SIDE, 3)` holds.
    """
    table = 8 * torch.from_numpy(template.verts)
    places = np.argwhere(np.isfinite(field[..., 0]))
    at = torch.from_numpy(field[tuple(places.T)]).float()
    pixels = torch.stack([8 * at, 7 * at + 0.1], 1)
    return pixels, [table, table], places


def exactly(pixels: torch.Tensor, tables: list[torch.Tensor], median: Median) -> tuple[torch.Tensor, ...]:
    share = sum((pixels[:, i] @ table.T).softmax(1) for i, table in enumerate(tables)) / len(tables)
    vertex, cells = median(share), median.cells(share)
    return vertex, share.gather(1, vertex[:, None])[:, 0], median.expected(cells, vertex)


def smooth(shift: float = 0.0) -> np.ndarray:
    """A field that runs slowly over the template, in a disc."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE - 0.5
    field = np.stack([0.2 * np.sin(3 * x), y + shift, x], -1)
    return np.where((x**2 + y**2 < 0.2)[..., None], field, np.nan)


@pytest.fixture
def median(small_template: Template) -> Median:
    return Median.of(small_template.verts, small_template.faces, number=100)


def test_a_smooth_field_is_nearly_what_all_comparisons_give(small_template: Template, median: Median) -> None:
    pixels, tables, places = scene(small_template, smooth())
    vertex, score, distance = medians(pixels, tables, places, 3, median, each)
    wanted, probability, expected = exactly(pixels, tables, median)
    apart = small_template.geodesic[vertex, wanted]
    assert apart.mean() < 1 and (apart == 0).mean() > 0.9
    same = (vertex == wanted).numpy()
    np.testing.assert_allclose(score[same], probability[same], rtol=0.1)
    assert (distance - expected).abs().mean() < 0.1 * expected.mean()


def test_blocks_of_one_pixel_give_the_same(small_template: Template, median: Median) -> None:
    pixels, tables, places = scene(small_template, smooth())
    vertex, score, distance = medians(pixels, tables, places, 1, median, each)
    wanted, probability, expected = exactly(pixels, tables, median)
    assert (vertex == wanted).all()
    torch.testing.assert_close(score, probability)
    torch.testing.assert_close(distance, expected, atol=1e-3, rtol=1e-3)


def test_pixels_at_an_edge_are_compared_with_all(small_template: Template, median: Median) -> None:
    """Two parts of the surface that touch in the picture: interpolated, a pixel between them would be on
    neither.
    """
    field = np.broadcast_to(small_template.verts[small_template.verts[:, 2].argmax()], (SIDE, SIDE, 3)).copy()
    field[:, SIDE // 2 + 1 :] = small_template.verts[small_template.verts[:, 2].argmin()]
    pixels, tables, places = scene(small_template, field)
    vertex, score, _ = medians(pixels, tables, places, 4, median, each)
    wanted, probability, _ = exactly(pixels, tables, median)
    assert len(wanted.unique()) == 2 and (vertex == wanted).all()
    torch.testing.assert_close(score, probability)


def test_a_pixel_alone_is_its_own_block(small_template: Template, median: Median) -> None:
    field = np.full((SIDE, SIDE, 3), np.nan)
    field[3, 5], field[30, 33] = small_template.verts[[10, 400]]
    pixels, tables, places = scene(small_template, field)
    vertex, _, _ = medians(pixels, tables, places, 4, median, each)
    assert (vertex == exactly(pixels, tables, median)[0]).all()


@pytest.mark.parametrize("side, last", [(3, [10, 13]), (4, [9, 13])])
def test_between_the_centres_of_full_blocks_values_run_straight(side: int, last: list[int]) -> None:
    places = np.argwhere(np.pad(np.ones((12, 15), bool), ((7, 0), (2, 0))))
    blocks = Blocks.of(places, side, CPU)
    assert torch.allclose(blocks.weights.sum(1), torch.ones(len(places)))
    values = torch.from_numpy(places[blocks.central]).float()[blocks.corners]
    found, places = blocks.between(values).numpy(), places - [7, 2]
    inner = ((places >= 1) & (places <= last)).all(1)
    np.testing.assert_allclose(found[inner], places[inner] + [7, 2], atol=1e-5)
