"""Polygons of more than three corners, with and without a notch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from shic_cli.surface.mesh_file import read_mesh
from shic_cli.surface.polygons import has_notch, triangles

L = np.array([(0, 0), (3, 0), (3, 1), (1, 1), (1, 3), (0, 3)], float)  # its area is 5, its hull's 7
STAR = np.array(
    [((2 - i % 2) * np.cos(np.pi * i / 5), (2 - i % 2) * np.sin(np.pi * i / 5)) for i in range(10)]
)
DART = np.array([(0, 0), (2, 2), (0, 1), (-2, 2)], float)


def area(points: np.ndarray) -> float:
    """The area of a polygon `(n, 2)` by Gauss's formula."""
    x, y = points.T
    return abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2


@pytest.mark.parametrize("turn", range(10))
@pytest.mark.parametrize("shape", [L, STAR, DART], ids=["L", "star", "dart"])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_triangles_fill_the_polygon_and_not_its_notches(shape: np.ndarray, axis: int, turn: int) -> None:
    ring = np.roll(shape, turn, 0)[:: 1 if turn % 2 else -1]
    corners = np.insert(ring, axis, 0.5, 1)
    assert has_notch(corners[None]).all() and not has_notch(
        np.array([[[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]])
    )
    found = corners[np.array(triangles(corners))]
    normals = np.cross(found[:, 1] - found[:, 0], found[:, 2] - found[:, 0])
    whole = np.cross(corners, np.roll(corners, -1, 0)).sum(0)
    assert len(found) == len(shape) - 2 and np.allclose(normals.sum(0), whole)  # all face the same way
    assert np.linalg.norm(normals, axis=1).sum() / 2 == pytest.approx(area(shape))


@pytest.mark.parametrize("counts_back", [False, True])
def test_a_prism_with_a_notch_keeps_it(tmp_path: Path, counts_back: bool) -> None:
    bottom, top = [[6, 5, 4, 3, 2, 1]], [[7, 8, 9, 10, 11, 12]]
    faces = bottom + top + [[i + 1, (i + 1) % 6 + 1, (i + 1) % 6 + 7, i + 7] for i in range(6)]
    lines = [f"v {x} {y} {z}" for z in (0, 1) for x, y in L]
    lines += ["f " + " ".join(str(i - 13 if counts_back else i) for i in face) for face in faces]
    (tmp_path / "l.obj").write_text("\n".join(lines))
    mesh = read_mesh(tmp_path / "l.obj")
    solid = trimesh.Trimesh(mesh.verts, mesh.faces)
    assert solid.is_watertight and abs(solid.volume) == pytest.approx(5)
