"""Mirror map, Laplace-Beltrami basis, geodesics and texture coordinates against known answers."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import trimesh

from shic_cli.surface import geometry, mesh


@pytest.fixture(scope="module")
def ball() -> tuple[np.ndarray, np.ndarray]:
    shape = trimesh.creation.icosphere(3)
    return np.array(shape.vertices), np.array(shape.faces)


@pytest.fixture(scope="module")
def animal() -> np.ndarray:
    """Vertices `(642, 3)` with one mirror plane only, x = 0: head up at +z."""
    x, y, z = trimesh.creation.icosphere(3).vertices.T
    return np.stack([0.3 * x, 0.4 * y + 0.5 * np.maximum(z, 0) ** 2, z + 0.2 * y], 1)


def test_geodesics_on_a_sphere(ball: tuple[np.ndarray, np.ndarray]) -> None:
    verts, faces = ball
    table = geometry.geodesics(verts, faces)
    assert table.dtype == np.float32 and table.max() == 228 and table.min() == 0
    np.testing.assert_array_equal(table, table.T)
    assert not table.diagonal().any()
    arcs = np.arccos(np.clip(verts @ verts.T, -1, 1)) * 228 / np.pi
    off = ~np.eye(len(verts), dtype=bool)
    assert (np.abs(table - arcs)[off] / arcs[off]).mean() < 0.02


def test_geodesics_go_around_a_gap() -> None:
    grid = np.stack(np.meshgrid(np.arange(9), np.arange(9)), -1).reshape(-1, 2)
    number = np.arange(81).reshape(9, 9)
    a, b, c, d = number[:-1, :-1], number[:-1, 1:], number[1:, 1:], number[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    middle = grid[faces].mean(1)
    faces = faces[
        ~((np.abs(middle[:, 0] - 4) < 1) & (middle[:, 1] > 2))
    ]  # a slot from the top almost to the bottom
    verts = np.c_[grid, np.zeros(81)].astype(float)
    used = np.unique(faces)
    table = geometry.geodesics(verts[used], np.searchsorted(used, faces))
    across, along = (
        table[tuple(np.searchsorted(used, number[8, [3, 5]]))],
        table[tuple(np.searchsorted(used, number[8, [0, 3]]))],
    )
    assert across > 3 * along  # 2 apart through the air, about 12 on the surface


def test_eigenvectors_of_a_sphere(ball: tuple[np.ndarray, np.ndarray]) -> None:
    vectors, values, mass = geometry.laplacian_basis(*ball, 15)
    np.testing.assert_allclose(vectors.T @ (mass[:, None] * vectors), np.eye(15), atol=1e-8)
    assert mass.sum() == pytest.approx(1)
    expected = 4 * np.pi * np.repeat([2, 6, 12], [3, 5, 7])  # l (l + 1), 2 l + 1 times, on a sphere of area 1
    np.testing.assert_allclose(values, expected, rtol=0.03)
    assert (vectors[np.abs(vectors).argmax(0), np.arange(15)] > 0).all()
    np.testing.assert_allclose(mass @ vectors, 0, atol=1e-8)  # no constant one among them
    np.testing.assert_array_equal(vectors, geometry.laplacian_basis(*ball, 15)[0])


def test_eigenvalues_of_a_rectangle_with_open_boundary() -> None:
    corners = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0]], float)
    sheet = mesh.resample(mesh.Mesh(corners, np.array([[0, 1, 2], [0, 2, 3]]), None, corners), 800)
    _, values, _ = geometry.laplacian_basis(sheet.verts, sheet.faces, 4)
    np.testing.assert_allclose(values, 2 * np.pi**2 * np.array([0.25, 1, 1, 1.25]), rtol=0.02)


def test_small_meshes_have_fewer_eigenvectors(caplog: pytest.LogCaptureFixture) -> None:
    shape = trimesh.creation.icosahedron()
    with caplog.at_level(logging.INFO, "shic"):
        vectors, values, _ = geometry.laplacian_basis(np.array(shape.vertices), np.array(shape.faces), 64)
    assert vectors.shape == (12, 10) and values.shape == (10,)
    assert "10 instead of 64" in caplog.text


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirror_of_a_symmetric_shape_is_exact_and_its_own_inverse(animal: np.ndarray, axis: int) -> None:
    verts = np.roll(animal, axis, axis=1) + 5
    found, place = geometry.mirror_plane(verts)
    assert (found, place) == (axis, pytest.approx(5))
    mirror = geometry.mirror_map(verts, found, place)
    np.testing.assert_allclose(verts[mirror], geometry.reflected(verts, axis, 5.0), atol=1e-9)
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(verts)))


def test_mirror_of_a_nearly_symmetric_shape_is_its_own_inverse(animal: np.ndarray) -> None:
    verts = animal + np.random.default_rng(0).normal(scale=0.006, size=animal.shape)
    mirror = geometry.mirror_map(verts, 0, 0.0)
    plain = np.linalg.norm(verts[None] - geometry.reflected(verts, 0, 0.0)[:, None], axis=2).argmin(1)
    assert (plain[plain] != np.arange(len(verts))).any()  # what the nearest vertex alone would give
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(verts)))


def test_asymmetry_is_warned_about_over_two_percent(
    animal: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    geometry.mirror_map(animal, 0, 0.0)
    assert not caplog.records
    bent = animal.copy()
    bent[:, 0] += 0.8 * np.maximum(animal[:, 2], 0)
    mirror = geometry.mirror_map(bent, *geometry.mirror_plane(bent))
    assert "not symmetric" in caplog.text
    assert mirror.min() >= 0 and mirror.max() < len(bent)


def signed_areas(uv: np.ndarray, face_uv: np.ndarray) -> np.ndarray:
    a, b, c = uv[face_uv].swapaxes(0, 1)
    (ux, uy), (vx, vy) = (b - a).T, (c - a).T
    return (ux * vy - uy * vx) / 2


def test_unwrap_covers_every_face_without_mirroring_or_overlap(ball: tuple[np.ndarray, np.ndarray]) -> None:
    verts, faces = ball
    uv, face_uv = geometry.texture_coordinates(mesh.Mesh(verts, faces, None, verts))
    assert face_uv.shape == faces.shape and face_uv.max() == len(uv) - 1
    assert uv.min() >= 0 and uv.max() <= 1
    areas = signed_areas(uv, face_uv)
    assert (areas > 0).all() and 0.3 < areas.sum() < 1
    owner = np.full(len(uv), -1)
    owner[face_uv] = faces
    np.testing.assert_array_equal(owner[face_uv], faces)  # a row belongs to one vertex
    again = geometry.texture_coordinates(mesh.Mesh(verts, faces, None, verts))
    np.testing.assert_array_equal(uv, again[0])


def test_own_texture_coordinates_are_kept_with_their_seams(ball: tuple[np.ndarray, np.ndarray]) -> None:
    verts, faces = ball
    corners = np.random.default_rng(0).random((len(verts), 2))[faces]
    corners[5, 1] = [0.25, 0.75]
    uv, face_uv = geometry.texture_coordinates(mesh.Mesh(verts, faces, corners, verts))
    np.testing.assert_array_equal(uv[face_uv], corners)
    assert len(uv) == len(verts) + 1
