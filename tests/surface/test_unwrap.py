"""The texture coordinates that are made where the package xatlas is missing."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import trimesh

from shic_cli.files.layouts import Template
from shic_cli.surface.geometry import texture_coordinates
from shic_cli.surface.mesh import Mesh
from shic_cli.surface.unwrap import box_unwrap


def covered(uv: np.ndarray, face_uv: np.ndarray, side: int = 256) -> np.ndarray:
    """How many faces hold each pixel's centre `(side, side)`."""
    count = np.zeros((side + 2, side + 2), int)  # a pixel more at each edge, which nothing covers
    for corners in uv[face_uv] * side + 0.5:
        low, high = np.floor(corners.min(0)).astype(int), np.floor(corners.max(0)).astype(int) + 1
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        around = [corners[(i + 1) % 3] - corners[i] for i in range(3)]
        crossed = [
            edge[0] * (y - at[1]) - edge[1] * (x - at[0]) for edge, at in zip(around, corners, strict=True)
        ]
        count[y, x] += np.all([each > 1e-9 for each in crossed], axis=0)
    return count[1:-1, 1:-1]


@pytest.mark.parametrize("shape", ["animal", "box"])
def test_a_box_unwrap_covers_the_texture_without_overlaps(shape: str, small_template: Template) -> None:
    if shape == "animal":
        mesh = Mesh(small_template.verts, small_template.faces, None, small_template.verts)
    else:
        box = trimesh.creation.box((1.0, 2.0, 3.0))
        mesh = Mesh(np.asarray(box.vertices), np.asarray(box.faces), None, np.asarray(box.vertices))
    uv, face_uv = box_unwrap(mesh)
    assert face_uv.shape == mesh.faces.shape and uv.min() >= 0 and uv.max() <= 1
    corners = uv[face_uv]
    turns = np.linalg.det(corners[:, 1:] - corners[:, :1])
    assert (turns > 0).mean() > 0.99  # counterclockwise: no writing is mirrored
    count = covered(uv, face_uv)
    assert (count > 0).mean() > 0.4 and (count > 1).sum() < 0.01 * (count > 0).sum()
    if shape == "box":  # six rectangles with the areas of the sides
        assert len(uv) == 24 and np.allclose(np.sort(turns) / turns.sum(), np.repeat([1, 1.5, 3], 4) / 22)


def test_a_template_without_xatlas_gets_the_box_unwrap(
    small_template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    mesh = Mesh(small_template.verts, small_template.faces, None, small_template.verts)
    monkeypatch.setitem(sys.modules, "xatlas", None)
    assert np.array_equal(texture_coordinates(mesh)[0], box_unwrap(mesh)[0])
