"""Axes: what a kind of file says, what a shape says, and what is said where they leave it open."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import pytest
import trimesh

from shic_cli.base.errors import SettingError
from shic_cli.surface.mesh import Mesh
from shic_cli.surface.orient import AXES, READINGS, orientation, reading_chances, rotation


def as_mesh(*shapes: trimesh.Trimesh) -> Mesh:
    whole = trimesh.util.concatenate(shapes)
    return Mesh(np.array(whole.vertices), np.array(whole.faces), None, np.array(whole.vertices))


def box(size: tuple[float, float, float], middle: tuple[float, float, float]) -> trimesh.Trimesh:
    return trimesh.creation.box(size).apply_translation(middle)


def horse() -> Mesh:
    """Four legs, a neck with a head that is modelled finer, a thin tail that hangs; y up, z front."""
    legs = [box((0.25, 1.6, 0.25), (x, 0.8, z)) for x in (-0.4, 0.4) for z in (-1.3, 1.3)]
    neck = box((0.4, 1.4, 0.6), (0, 2.9, 1.7))
    head = trimesh.creation.icosphere(2).apply_scale((0.3, 0.35, 0.7)).apply_translation([0, 3.6, 2.2])
    return as_mesh(box((1.1, 1.1, 3.4), (0, 2.1, 0)), neck, head, box((0.12, 1, 0.12), (0, 2, -1.9)), *legs)


def person() -> Mesh:
    """Upright on two legs with feet that point to the front, arms at the sides."""
    legs = [box((0.16, 0.9, 0.2), (x, 0.5, 0)) for x in (-0.12, 0.12)]
    feet = [box((0.12, 0.08, 0.3), (x, 0.04, 0.08)) for x in (-0.12, 0.12)]
    arms = [box((0.1, 0.7, 0.12), (x, 1.1, 0)) for x in (-0.28, 0.28)]
    hands = [trimesh.creation.icosphere(1, radius=0.07).apply_translation([x, 0.7, 0]) for x in (-0.28, 0.28)]
    head = trimesh.creation.icosphere(1, radius=0.13).apply_translation([0, 1.68, 0.02])
    nose = box((0.03, 0.06, 0.08), (0, 1.68, 0.15))
    return as_mesh(box((0.4, 0.6, 0.25), (0, 1.2, 0)), head, nose, *legs, *feet, *arms, *hands)


SHAPES = {"horse": horse(), "person": person()}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("up, front", [("+y", "+z"), ("+z", "-y"), ("+z", "+x"), ("-x", "+y")])
def test_stl_and_ply_have_no_convention_so_the_shape_tells(name: str, up: str, front: str) -> None:
    turned = SHAPES[name].moved(rotation(up, front).T)
    np.testing.assert_array_equal(orientation(turned, ".stl"), rotation(up, front))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("up, front", [("+y", "+z"), ("+y", "-x"), ("+z", "-y")])
def test_obj_may_have_z_up(name: str, up: str, front: str) -> None:
    turned = SHAPES[name].moved(rotation(up, front).T)
    np.testing.assert_array_equal(orientation(turned, ".obj"), rotation(up, front))


def test_gltf_prescribes_its_axes_and_only_a_clear_shape_speaks_against_them() -> None:
    fish = as_mesh(trimesh.creation.icosphere(3).apply_scale((0.4, 1, 2)))  # no side of it tells anything
    np.testing.assert_array_equal(orientation(fish, ".glb"), np.eye(3))
    sideways = horse().moved(rotation("+y", "+x").T)
    np.testing.assert_array_equal(orientation(sideways, ".glb"), rotation("+y", "+x"))


def test_close_readings_are_warned_of_with_both_and_the_options(caplog: pytest.LogCaptureFixture) -> None:
    def warned() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.levelno >= logging.WARNING]

    orientation(horse(), ".obj")
    assert not warned()
    ball = as_mesh(trimesh.creation.icosphere(3))
    orientation(ball, ".stl")
    (said,) = warned()
    assert "leaves it open" in said.message and "--up and --front" in said.message
    assert said.message.count("+z") + said.message.count("+y") + said.message.count("-y") >= 3


def test_what_is_given_is_taken_and_the_rest_guessed() -> None:
    np.testing.assert_array_equal(orientation(horse(), ".stl", up="-y") @ [0, -1, 0], [0, 1, 0])
    np.testing.assert_array_equal(orientation(horse(), ".stl", front="-z"), rotation("+y", "-z"))


@pytest.mark.parametrize(
    "up, front", [pair for pair in itertools.product(AXES, AXES) if pair[0][1] != pair[1][1]]
)
def test_given_axes_become_up_and_front_by_a_rotation(up: str, front: str) -> None:
    found = orientation(horse(), ".obj", up, front)
    unit = {
        sign + axis: (1 if sign == "+" else -1) * np.eye(3)["xyz".index(axis)]
        for sign in "+-"
        for axis in "xyz"
    }
    np.testing.assert_array_equal(found @ unit[up], [0, 1, 0])
    np.testing.assert_array_equal(found @ unit[front], [0, 0, 1])
    assert np.linalg.det(found) == pytest.approx(1)


@pytest.mark.parametrize("up, front", [("+y", "-y"), ("+z", "+z")])
def test_contradicting_axes_are_a_setting_error(up: str, front: str) -> None:
    with pytest.raises(SettingError, match="one axis"):
        orientation(horse(), ".obj", up, front)


@pytest.mark.parametrize("size", [1e-20, 1e20])
def test_chances_are_shares_whatever_the_size(size: float) -> None:
    small = horse().moved(size * np.eye(3))
    chances = reading_chances(small, ".obj")
    assert chances.shape == (len(READINGS),) == (24,) and chances.sum() == pytest.approx(1)
    np.testing.assert_allclose(chances, reading_chances(horse(), ".obj"), atol=1e-6)


@pytest.mark.parametrize(
    "shape", [trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 1, 0]], [[0, 1, 2]]), box((1, 0, 1), (0, 0, 0))]
)
def test_flat_shapes_have_chances_too(shape: trimesh.Trimesh) -> None:
    assert np.isfinite(reading_chances(as_mesh(shape), ".stl")).all()
