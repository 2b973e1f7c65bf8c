"""The geodesic median of distributions over the vertices."""

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import shortest_path

from shic_cli.files.layouts import Template
from shic_cli.surface.geodesic_median import Median


def distances(template: Template) -> np.ndarray:
    """Lengths of paths along edges, all of them at once."""
    a, b = np.concatenate([template.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])]).T
    lengths = np.linalg.norm(template.verts[a] - template.verts[b], axis=1)
    dense = np.zeros((len(template.verts),) * 2)
    dense[a, b] = dense[b, a] = lengths
    return shortest_path(dense, directed=False)


def test_with_a_cell_a_vertex_it_is_the_least_expected_distance(small_template):
    median = Median.of(small_template.verts, small_template.faces, number=len(small_template.verts))
    share = (
        3 * torch.randn(20, len(small_template.verts), generator=torch.Generator().manual_seed(0))
    ).softmax(1)
    expected = share.double().numpy() @ distances(small_template)
    np.testing.assert_allclose(expected[np.arange(20), median(share)], expected.min(1), rtol=1e-6)
    assert (share.argmax(1) != median(share)).any()


def test_cells_come_near_to_the_least_expected_distance(small_template):
    median = Median.of(small_template.verts, small_template.faces, number=100)
    share = (
        3 * torch.randn(20, len(small_template.verts), generator=torch.Generator().manual_seed(0))
    ).softmax(1)
    expected = share.double().numpy() @ distances(small_template)
    found, least, likeliest = (
        expected[np.arange(20), each] for each in (median(share), expected.argmin(1), share.argmax(1))
    )
    assert (found.mean() - least.mean()) < 0.2 * (likeliest.mean() - least.mean())


def test_what_is_sure_keeps_its_place_and_many_near_ones_outweigh_one_far(small_template):
    median = Median.of(small_template.verts, small_template.faces, number=50)
    count = len(small_template.verts)
    assert torch.equal(median(torch.eye(count)), torch.arange(count))
    far = int(distances(small_template)[0].argmax())
    near = np.argsort(distances(small_template)[0])[:6]
    share = torch.zeros(1, count)
    share[0, near], share[0, far] = 0.1, 0.4
    assert share.argmax() == far and int(median(share)) in near


def test_parts_without_a_path_are_as_far_apart_as_it_goes(small_template):
    count = len(small_template.verts)
    verts = np.concatenate([small_template.verts, small_template.verts + np.float32([3, 0, 0])])
    faces = np.concatenate([small_template.faces, small_template.faces + count])
    median = Median.of(verts, faces, number=64)
    assert median.between.isfinite().all()
    assert torch.equal(median(torch.eye(2 * count)), torch.arange(2 * count))
    share = torch.full((1, 2 * count), 0.4 / count)
    share[:, :count] *= 1.5
    assert int(median(share)) < count


@pytest.mark.parametrize("number", [1, 3])
def test_a_mesh_of_one_face_has_a_median(number):
    median = Median.of(np.eye(3, dtype=np.float32), np.array([[0, 1, 2]], np.int32), number=number)
    assert median(torch.tensor([[0.2, 0.5, 0.3]])).tolist() == [1]
