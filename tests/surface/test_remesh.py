"""One surface around all parts of a mesh: it covers them, nothing of their inside is left, and parts that are
far away stay apart.
"""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from shic_cli.base.errors import SettingError
from shic_cli.base.settings import TemplateConfig
from shic_cli.stages.template import prepare
from shic_cli.surface.mesh import Mesh, part_areas, sound
from shic_cli.surface.prepared import surface
from shic_cli.surface.remesh import CELLS, REACH, remeshed

NEXT = np.array([0, 0, 1.5])


def fish() -> trimesh.Trimesh:
    """A body, wound inward, a tail that is a closed part of its own, and a fin that is a sheet without a
    thickness.
    """
    body, tail = (
        trimesh.creation.icosphere(3),
        trimesh.creation.icosphere(3, radius=0.8).apply_translation(-NEXT),
    )
    body.invert()
    fin = trimesh.Trimesh([[0, 0.9, 0.5], [0, 0.9, -0.5], [0, 1.6, -0.5]], [[0, 1, 2]])
    return trimesh.util.concatenate([body, tail, fin.subdivide().subdivide()])


def mesh_of(shape: trimesh.Trimesh) -> Mesh:
    return sound(Mesh(np.array(shape.vertices), np.array(shape.faces), None, np.array(shape.vertices)))


def test_parts_that_touch_become_one_closed_surface_around_them() -> None:
    start = mesh_of(fish())
    found = remeshed(start)
    after, cell = trimesh.Trimesh(found.verts, found.faces, process=False), start.side / CELLS
    assert len(part_areas(start)[1]) == 3 and len(part_areas(found)[1]) == 1
    assert after.is_watertight and after.is_winding_consistent and after.volume > 0
    from_body = np.linalg.norm(found.verts, axis=1) - 1
    from_tail = np.linalg.norm(found.verts + NEXT, axis=1) - 0.8
    # the sheet reaches a little beyond the balls, so every vertex is near one of the three, and none is
    # inside of a ball
    from_fin = np.where(
        (abs(found.verts[:, 1] - 1.25) < 0.4) & (abs(found.verts[:, 2]) < 0.55),
        abs(found.verts[:, 0]),
        np.inf,
    )
    nearest = np.minimum(np.minimum(from_body, from_tail), from_fin)
    assert nearest.min() > 0 and nearest.max() < 1.5 * cell
    assert np.percentile(nearest, 5) > 0.5 * REACH * cell
    outer = (np.linalg.norm(start.verts, axis=1) > 0.999) & (
        np.linalg.norm(start.verts + NEXT, axis=1) > 0.799
    )
    assert cKDTree(found.verts).query(start.verts[outer])[0].max() < 2 * cell  # nothing of a part is lost
    assert found.verts[:, 1].max() == pytest.approx(1.6, abs=2 * cell)
    np.testing.assert_array_equal(found.source, start.source)


@pytest.mark.parametrize("away", [3, 60])
def test_what_touches_nothing_is_dropped_and_the_rest_is_as_fine_as_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, away: int
) -> None:
    other = trimesh.creation.icosphere(2, radius=0.7).apply_translation([0, 0, away])
    trimesh.util.concatenate([fish(), other]).export(tmp_path / "two.ply")
    with caplog.at_level(logging.INFO, "shic"):
        found, _ = surface(tmp_path / "two.ply", TemplateConfig(vertices=2000, up="+y", front="+z"))
    assert (
        "two.ply: kept 3 connected components that touch; dropped 1 others with 320 faces, 11.0 %"
        in caplog.text
    )
    assert "two.ply: remeshed" in caplog.text
    fish().export(tmp_path / "alone.ply")
    alone, _ = surface(tmp_path / "alone.ply", TemplateConfig(vertices=2000, up="+y", front="+z"))
    np.testing.assert_array_equal(found.verts, alone.verts)


def test_specks_far_apart_are_not_lost_between_the_corners_of_the_grid(tmp_path: Path) -> None:
    specks = [
        trimesh.creation.icosphere(1, radius=radius).apply_translation([0, 0, 40 * i + 0.3])
        for i, radius in enumerate((0.011, 0.01))
    ]
    trimesh.util.concatenate(specks).export(tmp_path / "specks.ply")
    found, _ = surface(tmp_path / "specks.ply", TemplateConfig(vertices=500, up="+y", front="+z"))
    np.testing.assert_allclose(np.ptp(found.verts, axis=0), 1, atol=0.1)  # one ball


def test_a_mesh_of_parts_is_remeshed_unless_it_is_not_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fish().export(tmp_path / "fish.ply")
    axes = {"up": "+y", "front": "+z", "eigenvectors": 4}
    whole = prepare(tmp_path / "fish.ply", TemplateConfig(vertices=800, **axes))
    assert np.ptp(whole.verts[:, 0]) == pytest.approx(2 / 3.3, abs=0.03)  # 2 wide, 3.3 long
    source = fish().vertices
    tip = source[:, 1].argmax()
    at = whole.verts[whole.source_to_vertex[tip]]
    assert at[1] == pytest.approx(whole.verts[:, 1].max(), abs=0.02)  # the fin's tip is where it was
    with caplog.at_level(logging.WARNING, "shic"):
        largest, _ = surface(tmp_path / "fish.ply", TemplateConfig(vertices=800, remesh="off", **axes))
    assert "dropped 2 others" in caplog.text
    np.testing.assert_allclose(np.ptp(largest.verts, axis=0), 1, atol=0.03)  # the body alone
    assert len(surface(tmp_path / "fish.ply", TemplateConfig(vertices=0, **axes))[0].verts) == 642


def test_a_mesh_of_one_part_stays_as_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ball, eye = (
        trimesh.creation.icosphere(3),
        trimesh.creation.icosphere(2, radius=0.25).apply_translation([0, 0, 1.1]),
    )
    trimesh.util.concatenate([ball, eye]).export(tmp_path / "ball.ply")
    configs = [
        TemplateConfig(vertices=2000, remesh=remesh, up="+y", front="+z") for remesh in ("auto", "off", "on")
    ]
    with caplog.at_level(logging.INFO, "shic"):
        auto, off, on = (surface(tmp_path / "ball.ply", config)[0].verts for config in configs)
    assert caplog.text.count("--remesh on makes one surface") == 1
    np.testing.assert_array_equal(auto, off)
    assert np.ptp(off[:, 0]) == pytest.approx(1, abs=0.01) and np.ptp(on[:, 0]) == pytest.approx(
        2 / 2.35, abs=0.01
    )  # with its eye


def test_a_new_surface_can_not_keep_the_old_vertices(tmp_path: Path) -> None:
    fish().export(tmp_path / "fish.ply")
    with pytest.raises(SettingError, match="--remesh on --vertices 0"):
        surface(tmp_path / "fish.ply", TemplateConfig(vertices=0, remesh="on"))


def test_warp_prints_nothing_where_data_may_go() -> None:
    """Its banner would stand before the answer of `--json`."""
    program = "import shic_cli.surface.remesh, warp; warp.init()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
