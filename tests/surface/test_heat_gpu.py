"""The dense, torch way to a surface's basis and distances against the sparse one, on a CPU and, where there
is one, on a GPU.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import potpourri3d
import pytest
import torch
import trimesh
from conftest import animal_verts
from scipy.spatial import Delaunay

from shic_cli.base.settings import TemplateConfig
from shic_cli.stages import template
from shic_cli.stages.template import prepare
from shic_cli.surface import geometry, heat_gpu

DEVICES = [torch.device("cpu"), pytest.param(torch.device("cuda"), marks=pytest.mark.cuda)]


def fin() -> tuple[np.ndarray, np.ndarray]:
    """Three rough sheets that share an edge."""
    grid, cells = (
        np.stack(np.meshgrid(np.arange(9), np.arange(9)), -1).reshape(-1, 2) / 8,
        np.arange(81).reshape(9, 9),
    )
    quads = np.stack([cells[:-1, :-1], cells[:-1, 1:], cells[1:, 1:], cells[1:, :-1]], -1).reshape(-1, 4)
    flat = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]])
    sheets = [
        np.c_[grid[:, 0], np.outer(grid[:, 1], [np.cos(angle), np.sin(angle)])] for angle in (0, 2.1, 4.0)
    ]
    faces = np.concatenate(
        [np.where(flat < 9, flat, flat + 81 * i) for i in range(3)]
    )  # the first row is the first sheet's
    used, faces = np.unique(faces, return_inverse=True)
    return (np.concatenate(sheets) + np.random.default_rng(0).normal(size=(243, 3)) * 0.01)[
        used
    ], faces.reshape(-1, 3)


def shapes() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A closed surface with stretched triangles, one with a boundary, a flat one with slivers at it, one that
    is no manifold.
    """
    ball = trimesh.creation.icosphere(3)
    verts, faces = animal_verts(np.asarray(ball.vertices)).astype(float), np.asarray(ball.faces)
    kept, half = np.unique(faces[(verts[faces][:, :, 2] > 0).all(1)], return_inverse=True)
    points = np.random.default_rng(0).random((200, 2)) * [1, 0.5]
    sheet = np.c_[points, np.zeros(200)], Delaunay(points).simplices
    return {
        "animal": (verts, faces),
        "half": (verts[kept], half.reshape(-1, 3)),
        "sheet": sheet,
        "fin": fin(),
    }


@pytest.mark.parametrize("device", [None, *DEVICES], ids=str)
@pytest.mark.parametrize("name", shapes())
def test_distances_are_those_of_the_reference(name: str, device: torch.device | None) -> None:
    """The reference is geometry-central's, which solves for one source after the other."""
    verts, faces = shapes()[name]
    reference = potpourri3d.MeshHeatMethodDistanceSolver(verts, faces)
    expected = np.stack([reference.compute_distance(i) for i in range(len(verts))])
    expected = (expected + expected.T) / 2
    expected *= 228 / expected.max()
    found = geometry.geodesics(verts, faces, device=device)
    assert found.dtype == np.float32
    assert np.abs(found - expected).mean() < 1e-4 * 228
    assert np.abs(found - expected).max() < 1e-2 * 228


def test_distances_are_the_same_on_any_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for number in ("1", "3"):
        monkeypatch.setenv("OMP_NUM_THREADS", number)
        found.append(geometry.geodesics(*shapes()["animal"]))
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_the_basis_is_that_of_the_reference(device: torch.device) -> None:
    verts, faces = shapes()["animal"]
    (expected, values, mass), (found, other, _) = (
        geometry.laplacian_basis(verts, faces, 24, where) for where in (None, device)
    )
    np.testing.assert_allclose(other, values, rtol=1e-8)
    # an eigenvector's sign is a matter of rounding where its two ends are equally far from 0
    np.testing.assert_allclose(np.abs(np.diag(expected.T @ (mass[:, None] * found))), 1, atol=1e-8)


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_far_from_its_source_heat_is_still_measured(device: torch.device) -> None:
    """Along a thin tube heat falls below 1e-50, of which single precision knows nothing."""
    rings, turn = np.linspace(-2, 2, 130), np.arange(6) * np.pi / 3
    verts = np.stack(
        np.broadcast_arrays(0.02 * np.cos(turn), 0.02 * np.sin(turn), rings[:, None]), -1
    ).reshape(-1, 3)
    a = np.arange(129 * 6).reshape(-1, 6)
    b, c, d = np.roll(a, -1, 1), a + 6, np.roll(a, -1, 1) + 6
    faces = np.concatenate([np.stack([a, b, d], -1).reshape(-1, 3), np.stack([a, d, c], -1).reshape(-1, 3)])
    low, high = verts[:, 2].argmin(), verts[:, 2].argmax()
    table = heat_gpu.heat_distances(verts, faces, device)
    assert table[low, high] == pytest.approx(4.0, rel=0.05)
    middle = np.abs(verts[:, 2]).argmin()
    assert table[low, middle] == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("fault", ["CUDA out of memory", "CUSOLVER_STATUS_ALLOC_FAILED, when calling create"])
def test_a_device_with_too_little_memory_leaves_the_work_to_the_cpu(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    trimesh.creation.icosphere(2).export(tmp_path / "ball.obj")
    config, used = TemplateConfig(vertices=0, eigenvectors=4), []
    expected = prepare(tmp_path / "ball.obj", config, device=torch.device("cpu"))

    def full(operator: object, device: torch.device) -> None:
        used.append(device)
        raise RuntimeError(fault)

    monkeypatch.setattr(heat_gpu, "inverse", full)
    monkeypatch.setattr(template, "free_memory", lambda device: 1 << 40)
    with caplog.at_level(logging.WARNING, "shic"):
        found = prepare(tmp_path / "ball.obj", config, device=torch.device("cuda"))
    assert used == [torch.device("cuda")] and "measured on the CPU instead" in caplog.text
    np.testing.assert_array_equal(found.geodesic, expected.geodesic)
    np.testing.assert_array_equal(found.eigenvectors, expected.eigenvectors)


def test_dense_matrices_are_made_only_where_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """30,000 vertices need 25 GB of the GPU and 14 GB here; what does not fit is not even tried."""
    free = {"cuda": 24e9, "cpu": 64e9}
    monkeypatch.setattr(template, "free_memory", lambda device: free[device.type])
    gpu = torch.device("cuda")
    assert not template.has_room(30_000, gpu) and template.has_room(25_000, gpu)
    free["cuda"] = 80e9
    assert template.has_room(30_000, gpu)
    free["cpu"] = 12e9
    assert not template.has_room(30_000, gpu)
    free["cpu"] = 1e3
    trimesh.creation.icosphere(1).export(tmp_path / "ball.obj")
    monkeypatch.setattr(heat_gpu, "inverse", lambda *given: pytest.fail("was tried"))
    with caplog.at_level(logging.WARNING, "shic"):
        prepare(tmp_path / "ball.obj", TemplateConfig(vertices=0, eigenvectors=4), device=gpu)
    assert "measured on the CPU instead" in caplog.text
