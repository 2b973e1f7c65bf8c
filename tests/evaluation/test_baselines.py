"""The baselines do what they say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from scoring import four_vertices

from shic_cli.evaluation.baselines import (
    ChanceVertex,
    PositionVertex,
    chance_pixels,
    make_vertices,
    position_pixels,
    side_view,
)
from shic_cli.files.annotations import Points
from shic_cli.files.keypoints import Pair
from shic_cli.files.layouts import Template


def points(inside: list[list[float]]) -> Points:
    number = len(inside)
    return Points(
        "a", None, "", np.zeros((number, 2), int), np.zeros(number, int), np.zeros(4), 0, "", np.array(inside)
    )


def test_chance_draws_every_vertex_alike() -> None:
    template = four_vertices()
    ((found, confidence),) = ChanceVertex(template, 0).look_up("a", [points([[0, 0]] * 4000)])
    assert confidence == 1
    assert np.bincount(found, minlength=4) == pytest.approx([1000] * 4, abs=120)
    again = ChanceVertex(template, 0).look_up("a", [points([[0, 0]] * 4000)])[0][0]
    assert (found == again).all() and (
        found != ChanceVertex(template, 1).look_up("a", [points([[0, 0]] * 4000)])[0][0]
    ).any()


def test_position_sees_the_left_side_with_the_head_to_the_left(small_template: Template) -> None:
    """The animal's head is at +z and up, its left side at +x."""
    view = side_view(small_template)
    rows, columns = (np.flatnonzero((view >= 0).any(axis)) for axis in (1, 0))
    _, height, length = np.ptp(small_template.verts, axis=0)
    assert len(rows) / len(columns) == pytest.approx(height / length, abs=0.008)  # upright, to a degree
    seen = small_template.verts[np.unique(view[view >= 0])]
    assert seen[:, 0].min() > -0.1 and seen[:, 0].max() > 0.15
    ((found, confidence),) = PositionVertex(small_template).look_up(
        "a", [points([[0.1, 0.02], [0.5, 0.98], [0.99, 0.8]])]
    )
    assert confidence == 1
    for name, kind in (("position", PositionVertex), ("chance", ChanceVertex)):
        assert isinstance(make_vertices(name, small_template, 0), kind)
    head, tail, foot = small_template.verts[found]
    assert head[2] > 0.35 and tail[2] < -0.35 and foot[1] < -0.15


def test_position_takes_every_vertex_of_the_view(
    small_template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vertex 0 too, here at a corner of the box."""
    view = np.array([[-1, -1, -1], [-1, 0, 2], [-1, 1, 3]])
    monkeypatch.setattr("shic_cli.evaluation.baselines.side_view", lambda template: view)
    found = PositionVertex(small_template)
    assert sorted(found.vertex.tolist()) == [0, 1, 2, 3]
    assert found.low.tolist() == [1, 1] and found.size.tolist() == [1, 1]


def test_position_looks_from_straight_beside(small_template: Template) -> None:
    """A ball then shows as much above as below its middle, and to the left as to the right, to a degree."""
    ball = np.asarray(trimesh.creation.icosphere(subdivisions=3).vertices, np.float32) / 2
    view = side_view(replace(small_template, verts=ball))
    seen = ball[view[view >= 0]].mean(0)
    assert seen[0] > 0.3 and np.abs(seen[1:]).max() < 0.003


def test_position_in_the_boxes_of_masks() -> None:
    masks = {"a": np.zeros((20, 30), bool), "b": np.zeros((50, 50), bool)}
    masks["a"][5:10, 10:21] = True  # rows 5 to 9, columns 10 to 20
    masks["b"][10:19, 20:41] = True  # twice as far each way
    transfer = position_pixels(masks)
    assert transfer(Pair("a", "b", np.array([[5, 10], [9.9, 20], [7, 15]]), np.zeros((3, 2)))).tolist() == [
        [10, 20],
        [18, 40],
        [14, 30],
    ]
    assert transfer(Pair("a", "c", np.zeros((1, 2)), np.zeros((1, 2)))) is None


def test_a_mask_of_one_pixel_has_one_place() -> None:
    masks = {"a": np.zeros((20, 30), bool), "b": np.ones((8, 9), bool)}
    masks["a"][7, 11] = True
    assert position_pixels(masks)(Pair("a", "b", np.array([[7.0, 11]]), np.zeros((1, 2)))).tolist() == [
        [0, 0]
    ]
    masks["a"][8, 12] = True  # two pixels each way: the second one is the last
    assert position_pixels(masks)(Pair("a", "b", np.array([[8.0, 12]]), np.zeros((1, 2)))).tolist() == [
        [7, 8]
    ]


def test_chance_stays_on_the_mask() -> None:
    mask = np.zeros((20, 30), bool)
    mask[3:5, 4:8] = True
    found = chance_pixels({"b": mask}, 0)(Pair("a", "b", np.zeros((500, 2)), np.zeros((500, 2))))
    assert mask[tuple(found.T)].all() and len(np.unique(found, axis=0)) == 8
    assert chance_pixels({}, 0)(Pair("a", "b", np.zeros((1, 2)), np.zeros((1, 2)))) is None
