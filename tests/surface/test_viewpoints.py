"""Viewpoints: words for what a camera sees, and cameras drawn from them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import trimesh
from conftest import animal_verts
from scoring import write_maps

from shic_cli.base.devices import chance
from shic_cli.base.errors import SettingError
from shic_cli.base.settings import SynthConfig, TemplateConfig
from shic_cli.parts import registry
from shic_cli.stages.synth_frames import Framer, random_camera
from shic_cli.surface.cameras import look_at
from shic_cli.surface.prepared import surface
from shic_cli.surface.viewpoints import parse_views, photo_azimuths, random_viewpoint, seen_from, view_of

COMPASS = {
    0: "front",
    45: "side",
    90: "side",
    135: "side",
    180: "back",
    225: "side",
    270: "side",
    315: "side",
}


def nearest_side(verts: np.ndarray, azimuth: float, head: np.ndarray) -> str:
    """The word that geometry gives: whether the head, the tail or neither is much nearer to the camera than
    the body's middle.
    """
    cameras = look_at(*(torch.tensor([value], dtype=torch.float32) for value in (azimuth, 0.0, 0.0, 30.0)))
    depth = cameras.to_view(torch.from_numpy(verts))[0, :, 2].numpy()
    length = np.linalg.norm(verts[head].mean(0) - verts[~head].mean(0))
    lean = (
        depth[~head].mean() - depth[head].mean()
    ) / length  # the cosine between the view and the body's axis
    return (
        "front"
        if lean > math.cos(math.radians(30))
        else "back"
        if lean < -math.cos(math.radians(30))
        else "side"
    )


@pytest.mark.parametrize("axis", ["+z", "+x", "-x"])
def test_words_are_right_in_all_compass_directions_of_a_template_whose_front_was_given(tmp_path, axis):
    ball = trimesh.creation.icosphere(subdivisions=2)
    verts = animal_verts(np.asarray(ball.vertices))
    turn = {"+z": 0, "+x": 90, "-x": -90}[axis]
    matrix = trimesh.transformations.rotation_matrix(math.radians(turn), [0, 1, 0])
    mesh = trimesh.Trimesh(trimesh.transform_points(verts, matrix), ball.faces, process=False)
    mesh.export(tmp_path / "animal.obj")
    _, fields = surface(tmp_path / "animal.obj", TemplateConfig(vertices=0, up="+y", front=axis))
    # The head is known from the mesh as it was modelled, whatever `template prep` made of its axes.
    order = np.linalg.norm(fields["verts"][:, None] - verts[None], axis=2).argmin(1)
    head = verts[order, 2] > 0.35
    assert 5 < head.sum() < len(head) / 4
    for azimuth, word in COMPASS.items():
        assert view_of(azimuth, 0.0) == word == view_of(azimuth - 360, 15.0)
        assert nearest_side(fields["verts"], azimuth, head) == word


@pytest.mark.parametrize(
    ("azimuth", "elevation", "word"),
    [
        (29, 0, "front"),
        (31, 0, "side"),
        (149, 0, "side"),
        (151, 0, "back"),
        (331, 59, "front"),
        (0, 60, "top"),
    ],
)
def test_where_words_change(azimuth, elevation, word):
    assert view_of(azimuth, elevation) == word


@pytest.mark.parametrize("views", [("side", "front"), ("back",), ("top",), ("front", "side", "back", "top")])
def test_drawn_viewpoints_show_the_views_that_were_asked_for(views):
    rng = np.random.default_rng(0)
    drawn = [random_viewpoint(views, (-10.0, 70.0), rng) for _ in range(600)]
    words = [view_of(*each) for each in drawn]
    assert set(words) == set(views)
    assert all(0 <= azimuth < 360 and -10 <= elevation <= 70 for azimuth, elevation in drawn)
    if views == ("side", "front"):
        assert 0.75 < words.count("side") / 600 < 0.85  # 240 of 300 degrees
        quarters = np.histogram([azimuth for azimuth, _ in drawn], [0, 90, 180, 270, 360])[0]
        assert quarters.min() > 600 / 4 * 0.6  # both sides, before and behind
    if "top" in views:
        assert words.count("top") > 600 / len(views) * 0.7


def test_the_top_is_seen_from_above_whatever_the_elevations_are():
    assert all(
        60 <= random_viewpoint(("top",), (-10.0, 40.0), np.random.default_rng(i))[1] <= 90 for i in range(20)
    )


def test_any_view_draws_as_ever():
    one, other = np.random.default_rng(5), np.random.default_rng(5)
    assert random_viewpoint((), (-10.0, 40.0), one) == (other.uniform(0, 360), other.uniform(-10, 40))


@pytest.mark.parametrize(
    ("text", "elevation"), [("left", (0.0, 1.0)), ("side,", (0.0, 1.0)), ("side,top", (60.0, 80.0))]
)
def test_views_that_are_none(text, elevation):
    with pytest.raises(SettingError, match="--views"):
        parse_views(text, elevation)


def test_frames_have_the_camera_that_their_words_speak_of(small_template):
    framer = Framer(
        small_template.verts,
        small_template.faces,
        SynthConfig(views="side,back", renderer="warp"),
        torch.device("cpu"),
    )
    for i in range(30):
        frame = framer.frame(np.random.default_rng(i))
        centre = -(frame.cameras.translation @ frame.cameras.rotation[0].T)[0].numpy()
        azimuth = math.degrees(math.atan2(centre[0], centre[2]))
        assert abs((azimuth - frame.azimuth + 180) % 360 - 180) < 0.1 and view_of(azimuth, 0) in (
            "side",
            "back",
        )


@pytest.mark.parametrize("azimuth", [0, 20, 45, 90, 160, 200])
def test_photos_tell_where_they_are_taken_from(small_template, tmp_path, azimuth):
    """A body shows more of its flank than of its front, and is not taken to be seen from the side for it."""
    cameras = look_at(*(torch.tensor([value], dtype=torch.float32) for value in (azimuth, 5.0, 0.0, 20.0)))
    verts, faces = torch.from_numpy(small_template.verts), torch.from_numpy(small_template.faces).long()
    fragments = registry.make("renderers", "warp")(verts, faces, cameras.fit(verts, 0.8), 100)
    nearest = fragments.bary[0].argmax(-1, keepdim=True)
    vertex = faces[fragments.face[0].clamp(0)].gather(-1, nearest)[..., 0].int().numpy()
    vertex[~fragments.mask[0].numpy()] = -1
    maps = write_maps(tmp_path / "pgt.h5", {"a.jpg": vertex}, small_template.fingerprint)
    off = photo_azimuths(maps.path, small_template)[0] - azimuth
    assert abs((off + 180) % 360 - 180) < 12


def test_pictures_are_taken_from_where_photos_are(small_template):
    views = SynthConfig(like_photos=1.0)
    drawn = [random_camera(small_template.verts, views, chance(i), np.array([200.0]))[1] for i in range(20)]
    assert max(abs((each - 200 + 180) % 360 - 180) for each in drawn) < 60


def test_what_photos_see_is_said_in_words():
    assert seen_from(np.array([90.0, 80, 100, 270])) == "left side 75%, right side 25%"
    assert seen_from(np.array([0.0, 359, 180])) == "front 67%, back 33%"
    assert seen_from(np.zeros(0)) == "template nowhere"
