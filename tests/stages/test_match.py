"""Transfer between photos, by maps and by embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import shortest_path

from shic_cli.base.errors import InputError
from shic_cli.files.layouts import Template
from shic_cli.files.mask_sources import Photo
from shic_cli.stages.match import (
    Matches,
    Paths,
    Side,
    ThroughEmbedding,
    ThroughTemplate,
    correspondences,
    make_side,
    picture,
    spread,
)


@pytest.fixture(scope="module")
def paths(small_template: Template) -> Paths:
    return Paths(small_template.verts, small_template.faces)


def flat_map(
    template: Template, size: int = 64, scale: float = 1.0, shift: tuple[int, int] = (0, 0)
) -> np.ndarray:
    """The animal's left side seen flat: each pixel (y, x) has the vertex of the left half with the nearest y
    and z, in a disc.
    """
    y, x = np.mgrid[:size, :size]
    up, front = 0.5 - (y - shift[0]) / (size * scale), (x - shift[1]) / (size * scale) - 0.5
    left = np.flatnonzero(template.verts[:, 0] > 0.02)
    places = template.verts[left][:, [1, 2]]
    distance = np.linalg.norm(np.stack([up, front], -1)[:, :, None] - places, axis=-1)
    return np.where(distance.min(-1) < 0.03, left[distance.argmin(-1)], -1).astype(np.int32)


class FakeEmbedded:
    """Embeddings that are the photo's position: 2 circles, so that a dot product falls with the distance."""

    def __init__(self, shift: float) -> None:
        self.shift = shift

    def at(self, yx: np.ndarray) -> torch.Tensor:
        angle = torch.as_tensor(np.asarray(yx) - self.shift, dtype=torch.float32) / 40
        return 3 * torch.cat([angle.cos(), angle.sin()], -1)


class FakePredictor:
    """Has the interface of predict.Predictor and gives the same map for every photo."""

    def __init__(self, vertex: np.ndarray) -> None:
        self.vertex = vertex

    def embed(self, photo: Photo) -> FakeEmbedded:
        return FakeEmbedded(5.0 if photo.name == "b" else 0.0)

    def predict(self, photo: Photo) -> tuple[np.ndarray, np.ndarray]:
        return self.vertex, np.ones(self.vertex.shape, np.float32)


def test_paths_equal_shortest_paths(small_template: Template, paths: Paths) -> None:
    chosen = np.array([5, 99, 300])
    lengths = np.zeros((642, 642))
    a, b = small_template.faces[:, [0, 1, 2]].ravel(), small_template.faces[:, [1, 2, 0]].ravel()
    lengths[a, b] = np.linalg.norm(small_template.verts[a] - small_template.verts[b], axis=1)
    every = shortest_path(lengths, directed=False)
    nearest, distance = paths.nearest(chosen)
    np.testing.assert_allclose(distance / paths.scale, every[chosen].min(0), rtol=1e-5)
    assert (nearest[chosen] == chosen).all()
    assert every[nearest, np.arange(642)] == pytest.approx(every[chosen].min(0), rel=1e-5)
    assert every.max() * paths.scale == pytest.approx(228, rel=0.02)  # from what sticks out


def test_paths_between_parts_that_hang_apart() -> None:
    verts = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 0, 0], [10, 0, 0], [9, 1, 0]], np.float32)
    nearest, distance = Paths(verts, np.array([[0, 1, 2], [3, 4, 5]])).nearest(np.array([0, 1]))
    assert nearest.tolist() == [0, 1, 0, 1, 1, 1] and np.isfinite(distance).all()


def test_to_itself_and_back(small_template: Template, paths: Paths) -> None:
    vertex = flat_map(small_template)
    side = ThroughTemplate("a", vertex, np.ones(vertex.shape), paths)
    pixels = np.argwhere(vertex >= 0)
    there, score = side.find(side.describe(pixels))
    assert (vertex[tuple(there.T)] == vertex[tuple(pixels.T)]).all()
    assert (score == 1).all()


def test_surest_pixel_of_a_vertex_then_the_first(small_template: Template, paths: Paths) -> None:
    vertex, score = np.full((4, 4), -1), np.zeros((4, 4))
    vertex[1, 1] = vertex[2, 2] = vertex[3, 3] = 7
    score[2, 2] = score[3, 3] = 0.5
    found, _ = ThroughTemplate("a", vertex, score, paths).find(np.array([7, 200]))
    assert found.tolist() == [[2, 2], [2, 2]]


def test_off_the_object_is_the_nearest_pixel(small_template: Template, paths: Paths) -> None:
    vertex = np.full((10, 10), -1)
    vertex[2, 2], vertex[8, 8] = 3, 4
    side = ThroughTemplate("a", vertex, np.ones((10, 10)), paths)
    assert side.describe(np.array([[0, 0], [9, 6], [-5, 40], [2, 2]])).tolist() == [3, 4, 4, 3]
    with pytest.raises(InputError, match="a: none of its pixels"):
        ThroughTemplate("a", np.full((3, 3), -1), np.ones((3, 3)), paths)


def test_embeddings_find_the_shifted_place() -> None:
    mask = np.zeros((40, 50), bool)
    mask[5:35, 5:45] = True
    a, b = ThroughEmbedding(FakeEmbedded(0), mask), ThroughEmbedding(FakeEmbedded(5), mask)
    found, score = b.find(a.describe(np.array([[10, 10], [20, 30]])))
    assert found.tolist() == [[15, 15], [25, 35]]
    assert score == pytest.approx([1, 1])
    outside, _ = b.find(a.describe(np.array([[34, 44]])))
    assert mask[tuple(outside[0])]  # what would lie off the mask goes to a pixel of it


def test_large_photos_are_compared_on_a_grid() -> None:
    side = ThroughEmbedding(FakeEmbedded(0), np.ones((30, 2000), bool))
    assert len(side.pixels) <= 256 * 4
    thin = np.zeros((30, 2000), bool)
    thin[0, 0] = True
    assert ThroughEmbedding(FakeEmbedded(0), thin).pixels.tolist() == [[0, 0]]


def test_spread_covers_the_square() -> None:
    points = np.stack(np.meshgrid(np.arange(21), np.arange(21)), -1).reshape(-1, 2)
    corners = points[spread(points, 4)]
    assert sorted(map(tuple, corners.tolist())) == [(0, 0), (0, 20), (20, 0), (20, 20)]
    assert len(spread(points[:3], 10)) == 3 and len(spread(points[:0], 10)) == 0


def photos(template: Template) -> tuple[tuple[Photo, Photo], tuple[np.ndarray, np.ndarray]]:
    maps = flat_map(template), flat_map(template, scale=0.7, shift=(12, 8))
    rgb = np.full((64, 64, 3), 128, np.uint8)
    return (Photo("a", b"", rgb, maps[0] >= 0), Photo("b", b"", rgb, maps[1] >= 0)), maps


def test_correspondences_of_a_moved_animal(small_template: Template, paths: Paths) -> None:
    (a, _), maps = photos(small_template)
    sides = [
        ThroughTemplate(name, vertex, np.ones(vertex.shape), paths)
        for name, vertex in zip("ab", maps, strict=True)
    ]
    matches = correspondences(*sides, a.mask, 12, np.random.default_rng(0))
    assert len(matches.a) == 12
    assert (
        np.linalg.norm(matches.a * 0.7 + [12, 8] - matches.b, axis=1).max() < 4
    )  # patches of a vertex are about that wide
    assert np.ptp(matches.a, axis=0).min() > 25
    again = correspondences(*sides, a.mask, 12, np.random.default_rng(0))
    assert (again.a == matches.a).all()


@pytest.mark.parametrize("via", ["template", "embedding"])
def test_picture_of_a_pair(small_template: Template, paths: Paths, via: str) -> None:
    pair, maps = photos(small_template)
    sides: tuple[Side, ...] = tuple(
        make_side(FakePredictor(vertex), photo, via, paths) for photo, vertex in zip(pair, maps, strict=True)
    )
    matches = correspondences(*sides, pair[0].mask, 5, np.random.default_rng(0))
    out = picture(pair, sides, matches)
    assert out.dtype == np.uint8 and out.shape == (2 * 560 + 8, 2 * 560 + 8, 3)
    top, bottom = out[:560], out[568:]
    assert (top != 128).any(-1)[:, :560].any() and (bottom[:, :560][0, 0] == 128).all()
    # The same part of the animal has the same colour in both.
    colors = [
        bottom[y * 560 // 64 + 4, x * 560 // 64 + 4 + left].astype(int)
        for (y, x), left in ((matches.a[0], 0), (matches.b[0], 568))
    ]
    assert np.abs(colors[0] - colors[1]).max() < 60


def test_json_is_x_before_y() -> None:
    matches = Matches(np.array([[1, 2]]), np.array([[3, 4]]), np.array([0.25]))
    assert matches.as_json() == [[[2, 1], [4, 3], 0.25]]
