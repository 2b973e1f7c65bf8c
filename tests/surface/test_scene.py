"""What stands around an object in a scene, and what only looks as if it did."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from shic_cli.base.settings import TemplateConfig
from shic_cli.surface.mesh import Mesh
from shic_cli.surface.prepared import surface
from shic_cli.surface.scene import without_surroundings


def box(size: tuple[float, float, float], middle: tuple[float, float, float]) -> trimesh.Trimesh:
    return trimesh.creation.box(size).apply_translation(middle)


def beast() -> trimesh.Trimesh:
    """A body on four legs, each part by itself, with its feet at the height 0."""
    legs = [box((0.3, 1.5, 0.3), (x, 0.75, z)) for x in (-0.4, 0.4) for z in (-1.5, 1.5)]
    head = trimesh.creation.icosphere(2, radius=0.5).apply_translation([0, 2.8, 2])
    return trimesh.util.concatenate([box((1.2, 1, 4), (0, 2, 0)), head, *legs])


def half_sphere(radius: float) -> trimesh.Trimesh:
    shape = trimesh.creation.icosphere(3, radius=radius)
    shape.update_faces(shape.triangles_center[:, 1] > 0)
    shape.remove_unreferenced_vertices()
    return shape


def cylinder(radius: float, height: float, middle: tuple[float, float, float]) -> trimesh.Trimesh:
    """An upright cylinder."""
    made = trimesh.creation.cylinder(radius, height)
    made.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    return made.apply_translation(middle)


def corner(size: float) -> trimesh.Trimesh:
    """A floor and a wall that are one part, as in a photo studio."""
    verts = [[x, y, z] for x in (-size, size) for y, z in ((0, size), (0, -size), (2 * size, -size))]
    return trimesh.Trimesh(verts, [[0, 1, 4], [0, 4, 3], [1, 2, 5], [1, 5, 4]], process=False)


SURROUNDINGS = {
    "a ground": box((9, 0, 9), (0, 0, 0)),
    "a ground of a thousand times its size": box((4000, 0, 4000), (0, 0, 0)),
    "a ground that is a slab": box((9, 0.2, 9), (0, -0.1, 0)),
    "a ground just under its feet": box((1.5, 0, 5), (0, -0.01, 0)),
    "a plinth": box((3, 2, 6), (0, -0.95, 0)),
    "a round plinth": cylinder(4, 1.5, (0, -0.75, 0)),
    "a wall": box((9, 9, 0), (0, 2, -3)),
    "a sphere around it": trimesh.creation.icosphere(3, radius=50),
    "a dome": half_sphere(20),
    "a studio's corner": corner(8),
    "a dome on a ground": trimesh.util.concatenate([half_sphere(30), box((90, 0, 90), (0, 0, 0))]),
}


def as_mesh(shape: trimesh.Trimesh) -> Mesh:
    return Mesh(np.array(shape.vertices), np.array(shape.faces), None, np.array(shape.vertices))


@pytest.mark.parametrize("turn", [[1, 0, 0], [0, 0, 1]])
@pytest.mark.parametrize("what", SURROUNDINGS)
def test_surroundings_are_left_out_and_said(
    what: str, turn: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    whole = trimesh.util.concatenate([SURROUNDINGS[what], beast()])
    whole.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, turn))
    found = without_surroundings(as_mesh(whole), "scene.glb")
    assert len(found.faces) == len(beast().faces)
    assert "scene.glb: left out a " in caplog.text and "--keep takes all" in caplog.text
    share = 100 * SURROUNDINGS[what].area / whole.area
    assert f"{share:.1f} % of the surface" in caplog.text


def ball(radius: float, middle: tuple[float, float, float] = (0, 0, 0)) -> trimesh.Trimesh:
    return trimesh.creation.icosphere(3, radius=radius).apply_translation(middle)


TABLE_LEGS = [box((0.2, 2, 0.2), (x, 1, z)) for x in (-1.8, 1.8) for z in (-1.8, 1.8)]
EYES = [ball(0.2, (x, 0.4, 0.9)) for x in (-0.3, 0.3)]
WINGS = [box((2, 0, 2.5), (x, 0, 0)) for x in (-1.2, 1.2)]
THEMSELVES = {
    "the beast alone": [beast()],
    "a ball": [ball(1)],
    "a plate": [box((3, 0, 3), (0, 0, 0))],
    "a table": [box((4, 0.12, 4), (0, 2, 0)), *TABLE_LEGS],
    "a table with round legs": [
        box((4, 0.5, 4), (0, 2, 0)),
        *(cylinder(0.2, 3, (x, 0.3, z)) for x in (-1.7, 1.7) for z in (-1.7, 1.7)),
    ],
    "a penguin": [ball(1), ball(0.6, (0, 1.5, 0))],
    "a robot": [box((1.2, 2, 1), (0, 0, 0)), ball(0.5, (0, 1.5, 0))],
    "a mushroom": [cylinder(0.5, 2, (0, 0, 0)), ball(1.2, (0, 1.8, 0))],
    "a ball with eyes": [ball(1), *EYES],
    "a butterfly": [box((0.3, 0.3, 2), (0, 0, 0)), *WINGS],
    "a hollow ball": [ball(1), ball(0.95)],
}


@pytest.mark.parametrize("what", THEMSELVES)
def test_flat_and_large_parts_of_the_object_itself_stay(what: str, caplog: pytest.LogCaptureFixture) -> None:
    whole = as_mesh(trimesh.util.concatenate(THEMSELVES[what]))
    assert without_surroundings(whole, "x.obj") is whole and not caplog.records


def test_keep_takes_the_ground_too(tmp_path: Path) -> None:
    trimesh.util.concatenate([box((9, 0, 9), (0, 0, 0)), beast()]).export(tmp_path / "x.ply")
    settings = {"vertices": 400, "up": "+y", "front": "+z"}
    without, _ = surface(tmp_path / "x.ply", TemplateConfig(**settings))
    kept, _ = surface(tmp_path / "x.ply", TemplateConfig(**settings, keep=True))
    assert np.ptp(without.verts, axis=0)[0] < 0.4 and np.ptp(kept.verts, axis=0)[0] > 0.9
