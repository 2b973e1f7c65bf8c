"""The intrinsic Delaunay triangulation against what is known of it."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from shic_cli.surface import delaunay


def squashed() -> tuple[np.ndarray, np.ndarray]:
    """A closed surface with obtuse triangles."""
    ball = trimesh.creation.icosphere(2)
    return np.asarray(ball.vertices) * [1, 1, 0.2], np.asarray(ball.faces)


def weights(gradient: object, areas: np.ndarray) -> np.ndarray:
    """The Laplacian `(K, K)`."""
    return (gradient.T @ gradient.multiply(np.tile(areas, 2)[:, None])).toarray()


def test_no_edge_has_a_negative_weight_and_some_had_one() -> None:
    verts, faces = squashed()
    gradient, areas, masses, _ = delaunay.operators(verts, faces)
    found = weights(gradient, areas)
    assert found[~np.eye(len(verts), dtype=bool)].max() < 1e-9
    np.testing.assert_allclose(found.sum(1), 0, atol=1e-9)
    tail, length = delaunay.delaunay(verts, faces)
    assert not np.array_equal(np.sort(tail.reshape(-1, 3), 1), np.sort(faces, 1)) and (length > 0).all()
    assert masses.sum() == pytest.approx(areas.sum())


def test_flips_keep_the_surface() -> None:
    verts, faces = squashed()
    _, areas, _, _ = delaunay.operators(verts, faces)
    assert areas.sum() == pytest.approx(
        trimesh.Trimesh(verts, faces).area, rel=1e-5
    )  # sides are lengthened a little


def test_a_flat_quadrilateral_gets_its_shorter_diagonal_on_both_sheets() -> None:
    verts = np.array([[-2.0, 0, 0], [2, 0, 0], [0, 0.5, 0], [0, -0.5, 0]])
    tail, length = delaunay.delaunay(verts, np.array([[0, 1, 2], [0, 3, 1]]))
    assert len(tail) == 12 and length.max() < 3
    assert np.isclose(length, 1, atol=1e-4).sum() >= 2


def test_gradients_of_coordinates_have_length_one() -> None:
    side = np.stack(np.meshgrid(np.arange(5.0), np.arange(4.0)), -1).reshape(-1, 2)
    a = (np.arange(3)[:, None] * 5 + np.arange(4)).reshape(-1)
    faces = np.concatenate([np.stack([a, a + 1, a + 6], 1), np.stack([a, a + 6, a + 5], 1)])
    gradient, areas, _, edge = delaunay.operators(np.c_[side, np.zeros(20)], faces)
    assert areas.sum() == pytest.approx(2 * 12, rel=1e-4)  # both sheets
    for axis in (0, 1):
        np.testing.assert_allclose(np.hypot(*np.split(gradient @ side[:, axis], 2)), 1, rtol=1e-4)
    assert 1 < edge < 2**0.5


def test_the_same_mesh_gives_the_same_triangulation() -> None:
    one, other = delaunay.delaunay(*squashed()), delaunay.delaunay(*squashed())
    assert all(map(np.array_equal, one, other))


def test_faces_without_an_area_are_flipped_away() -> None:
    verts = np.array([[0.0, 0, 0], [1, 0, 0], [0.5, 1e-14, 0], [0.5, -1, 0], [0.5, 1, 0]])
    faces = np.array([[0, 1, 2], [1, 0, 3], [1, 4, 2], [0, 2, 4]])
    gradient, areas, masses, _ = delaunay.operators(verts, faces)
    assert (
        np.isfinite(gradient.data).all() and areas.sum() == pytest.approx(2, rel=1e-3) and (masses > 0).all()
    )
    assert areas.min() > 0.1
