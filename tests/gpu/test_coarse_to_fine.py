"""The medians of a grid on a pretended GPU: the CPU's answer, no devices mixed, and few waits."""

from __future__ import annotations

import numpy as np
import torch
from gpu.pretend import waits

from shic_cli.files.layouts import Template
from shic_cli.learning.coarse_to_fine import medians
from shic_cli.surface.geodesic_median import Median


def found(template: Template, device: str) -> list[np.ndarray]:
    """Vertices and probabilities of a picture in two halves, and blocks with an edge between them."""
    table = 9 * torch.from_numpy(template.verts)
    places = np.argwhere(np.ones((24, 24), bool))
    pixels = table[torch.from_numpy(np.where(places[:, 1] < 11, 3, 300))][:, None]
    median = Median.of(template.verts, template.faces, device, number=60)
    waits.clear()
    both = medians(
        pixels.to(device),
        [table.to(device)],
        places,
        4,
        median,
        lambda work, items: [work(part) for part in items.split(50)],
    )
    return [each.cpu().numpy() for each in both]


def test_the_grid_on_a_gpu(gpu: str, small_template: Template) -> None:
    there = found(small_template, gpu)
    # the edges, the cells' sizes and those of the pixels in them, and three results
    assert sum(waits.values()) <= 8, waits
    for mine, wanted in zip(there, found(small_template, "cpu"), strict=True):
        np.testing.assert_array_equal(mine, wanted)
