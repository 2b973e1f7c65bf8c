"""`shic template prep` on files like those of the DensePose mesh catalogue."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import trimesh

from shic_cli.files import items
from shic_cli.files.arrays import read_template

Shic = Callable[..., tuple[int, str, str]]
PREP = (
    "template",
    "prep",
    "horse_162.pkl",
    "--vertices",
    "0",
    "--eigenvectors",
    "8",
    "--up",
    "+y",
    "--front",
    "+z",
)


@pytest.fixture
def animal(tmp_path: Path) -> trimesh.Trimesh:
    """162 vertices in no particular order, as horse_162.pkl, with distances and a mirror map that no mesh
    would give.
    """
    ball = trimesh.creation.icosphere(subdivisions=2)
    order = np.random.default_rng(0).permutation(162)
    verts, faces = np.asarray(ball.vertices)[order] * [0.5, 0.7, 1], np.argsort(order)[ball.faces]
    save(
        tmp_path / "horse_162.pkl", {"vertices": verts.astype(np.float32), "faces": faces.astype(np.float32)}
    )
    distances = np.abs(np.arange(162.0)[:, None] - np.arange(162)) * 0.01
    save(tmp_path / "geodists.pkl", distances.astype(np.float32))
    save(tmp_path / "symmetry.pkl", {"vertex_transforms": np.arange(161, -1, -1)})
    return trimesh.Trimesh(verts, faces, process=False)


def save(path: Path, value: object) -> None:
    path.write_bytes(pickle.dumps(value, 2))


def test_vertices_keep_their_order(shic: Shic, animal: trimesh.Trimesh, tmp_path: Path) -> None:
    status, _, err = shic(*PREP)
    assert status == 0, err
    found = read_template(tmp_path / "template.h5")
    assert found.source_to_vertex.tolist() == list(range(162))
    edges = np.linalg.norm(
        np.subtract(*animal.vertices[animal.edges].swapaxes(0, 1)), axis=1
    )  # lengths know the order, not the axes
    assert np.linalg.norm(np.subtract(*found.verts[animal.edges].swapaxes(0, 1)), axis=1) == pytest.approx(
        edges / 2, abs=1e-5
    )


def test_the_catalogues_distances_and_symmetry(shic: Shic, animal: trimesh.Trimesh, tmp_path: Path) -> None:
    status, _, err = shic(*PREP, "--geodesics", "geodists.pkl", "--symmetry", "symmetry.pkl")
    assert status == 0, err
    found = read_template(tmp_path / "template.h5")
    assert found.geodesic[0, 161] == pytest.approx(228) and found.geodesic[3, 10] == pytest.approx(
        228 * 7 / 161
    )
    assert found.mirror.tolist() == list(range(161, -1, -1))
    assert set(items.describe(tmp_path / "template.h5")["sources"]) == {"mesh", "geodesics", "symmetry"}


def test_one_sided_distances_are_made_symmetric(shic: Shic, animal: trimesh.Trimesh, tmp_path: Path) -> None:
    distances = np.zeros((162, 162), np.float32)
    distances[0, 1], distances[1, 0], distances[2, 3] = 3, 1, 2
    save(tmp_path / "geodists.pkl", distances)
    assert shic(*PREP, "--geodesics", "geodists.pkl")[0] == 0
    found = read_template(tmp_path / "template.h5").geodesic
    assert found[0, 1] == found[1, 0] == pytest.approx(228) and found[3, 2] == pytest.approx(114)


def test_a_mesh_of_zeros_names_the_way_out(shic: Shic, animal: trimesh.Trimesh, tmp_path: Path) -> None:
    save(
        tmp_path / "horse_162.pkl",
        {"vertices": np.zeros((162, 3), np.float32), "faces": np.asarray(animal.faces)},
    )
    status, out, err = shic(*PREP)
    assert status == 1 and out == "" and len(err.strip().splitlines()) == 2
    assert (
        "all 162 vertices are zero" in err
        and "authors' release" in err
        and not (tmp_path / "template.h5").exists()
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("horse_162.pkl", {"vertices": np.ones((4, 3))}, "holds no array `faces`"),
        (
            "horse_162.pkl",
            {"vertices": np.ones((4, 2)), "faces": np.zeros((1, 3))},
            "vertices and faces are (4, 2)",
        ),
        (
            "horse_162.pkl",
            {"vertices": np.ones((4, 3)), "faces": np.full((1, 3), 0.5)},
            "vertices and faces are",
        ),
        (
            "horse_162.pkl",
            {"vertices": np.ones((4, 3)), "faces": np.full((1, 3), 4)},
            "a face names a vertex that is not there",
        ),
        ("horse_162.pkl", {"vertices": np.ones((4, 3), object), "faces": np.zeros((1, 3))}, "not of numbers"),
        ("geodists.pkl", np.ones((161, 161)), "the template needs (162, 162)"),
        ("geodists.pkl", np.zeros((162, 162)), "holds no distances"),
        ("geodists.pkl", np.full((162, 162), np.inf), "not finite"),
        ("symmetry.pkl", {"vertex_transforms": np.full(162, 162)}, "outside 0 to 161"),
        ("symmetry.pkl", {"vertex_transforms": np.arange(5)}, "the template needs (162,)"),
        ("symmetry.pkl", np.arange(162), "holds no array `vertex_transforms`"),
    ],
)
def test_files_that_do_not_fit(
    shic: Shic, animal: trimesh.Trimesh, tmp_path: Path, name: str, value: object, said: str
) -> None:
    save(tmp_path / name, value)
    status, out, err = shic(*PREP, "--geodesics", "geodists.pkl", "--symmetry", "symmetry.pkl")
    assert status == 1 and out == "" and len(err.strip().splitlines()) <= 3
    assert f"{name}: " in err and said in err and "Traceback" not in err


def test_other_vertices_than_the_files(shic: Shic, animal: trimesh.Trimesh) -> None:
    status, _, err = shic(
        "template",
        "prep",
        "horse_162.pkl",
        "--vertices",
        "500",
        "--eigenvectors",
        "8",
        "--symmetry",
        "symmetry.pkl",
    )
    assert status == 1 and "--vertices 0" in err
