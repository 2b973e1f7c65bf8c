"""Inverse depth for a ControlNet: white is near, and the object is in front."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from tiny_generator import save_depth_anything

from shic_cli.base.errors import InputError, MissingError
from shic_cli.parts import registry
from shic_cli.parts.generators import backgrounds
from shic_cli.parts.generators.depth import BEHIND, OBJECT, DepthAnything, as_picture, blend
from shic_cli.surface.cameras import look_at


def test_two_balls_at_known_depths_before_a_ramp():
    balls = [
        trimesh.creation.icosphere(subdivisions=3, radius=0.15).apply_translation([x, 0, z])
        for x, z in ((-0.3, 0.4), (0.3, -0.4))
    ]
    mesh = trimesh.util.concatenate(balls)
    cameras = look_at(
        *(torch.tensor([value]) for value in (0.0, 0.0, 0.0, 45.0))
    )  # on +z: the ball at z = 0.4 is nearer
    found = registry.make("renderers", "warp")(
        torch.from_numpy(mesh.vertices).float(), torch.from_numpy(mesh.faces).long(), cameras, 128
    )
    depth, mask = found.zbuf[0].numpy(), found.mask[0].numpy()
    ramp = np.linspace(5, 9, 128, dtype=np.float32)[:, None].repeat(128, 1)  # nearer at the bottom
    inverse = blend(depth, mask, ramp)
    distance = float(cameras.translation[0, 2])
    centres = cameras.project(torch.tensor([[-0.3, 0.0, 0.4], [0.3, 0.0, -0.4]]), 128)[0][0].round().int()
    (row, near), (_, far) = centres.tolist()
    # The balls' fronts are 0.15 before their centres; the farthest point that is seen is on the far ball's
    # rim.
    assert depth[row, near] == pytest.approx(distance - 0.55, abs=0.01) and depth[row, far] == pytest.approx(
        distance + 0.25, abs=0.01
    )
    assert inverse[mask].max() == pytest.approx(OBJECT[1]) and inverse[mask].min() == pytest.approx(OBJECT[0])
    assert inverse[row, near] > 0.95 and inverse[row, near] > inverse[row, far] > OBJECT[0]
    low, high = 1 / depth[mask].max(), 1 / depth[mask].min()
    exact = OBJECT[0] + (OBJECT[1] - OBJECT[0]) * (1 / depth[row, far] - low) / (high - low)
    assert inverse[row, far] == pytest.approx(exact, abs=1e-5)
    assert inverse[~mask].max() <= BEHIND < inverse[mask].min()
    assert inverse[0, 0] == 0 and inverse[-1, 0] == pytest.approx(
        BEHIND
    )  # the photo's nearest is the brightest behind
    picture = as_picture(inverse)
    assert (
        picture.shape == (128, 128, 3) and picture.dtype == np.uint8 and (picture == picture[..., :1]).all()
    )
    assert picture[row, near, 0] > picture[row, far, 0] > picture[-1, 0, 0] > picture[0, 0, 0] == 0


def test_a_flat_object_is_white_before_a_flat_background():
    mask = np.eye(8, dtype=bool)
    inverse = blend(np.full((8, 8), 3.0, np.float32), mask, np.zeros((8, 8), np.float32))
    assert (inverse[mask] == 1).all() and (inverse[~mask] == 0).all()


@pytest.mark.parametrize("name", backgrounds.SCENES)
def test_built_in_scenes_have_ground_that_comes_nearer_downwards_and_differ_by_chance(name):
    one, other = (backgrounds.SCENES[name](64, np.random.default_rng(seed)).clip(0) for seed in (0, 1))
    assert one.shape == (64, 64) and np.isfinite(one).all() and abs(one - other).mean() > 0.02
    rows = one.mean(1)
    assert rows[-1] > 1.5 * rows[32] and one.max() > 3 * one.min()


def test_a_built_in_scene_is_any_of_the_four_on_one_scale():
    found = [backgrounds.built_in(32, np.random.default_rng(seed)) for seed in range(40)]
    assert all(each.max() == 1 and each.min() >= 0 and each.dtype == np.float32 for each in found)
    assert len({each[0, 16] == 0 for each in found}) == 2  # sky, and ceilings or crowns


def test_depth_anything_predicts_at_its_own_side_and_gives_the_photo_s(tmp_path):
    model = DepthAnything(str(save_depth_anything(tmp_path / "relative")))
    photo = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    found = model(photo)
    assert (
        found.shape == (40, 40)
        and found.dtype == np.float32
        and np.ptp(found) > 0
        and np.array_equal(found, model(photo))
    )
    sizes = []
    model._model.register_forward_pre_hook(lambda _module, args: sizes.append(args[0].shape))
    model(photo)
    assert sizes == [(1, 3, 518, 518)]


def test_metric_depth_is_turned_over(tmp_path):
    relative = DepthAnything(str(save_depth_anything(tmp_path / "relative")))
    metric = DepthAnything(
        str(save_depth_anything(tmp_path / "metric", depth_estimation_type="metric", max_depth=20))
    )
    photo = np.random.default_rng(0).integers(0, 255, (518, 518, 3), np.uint8)
    a, b = (
        relative(photo),
        metric(photo),
    )  # the same weights: larger output is nearer for one, farther for the other
    order = np.argsort(a[a > 0])
    assert np.diff(b[a > 0][order]).max() < 1e-5 and np.ptp(b) > 0


def test_weights_that_are_missing_or_spoilt_are_named(tmp_path):
    with pytest.raises(MissingError, match="depth-anything"):
        DepthAnything("depth-anything")
    model = DepthAnything(str(save_depth_anything(tmp_path / "da")))
    model._model.head.conv3.bias.fill_(torch.nan)
    with pytest.raises(InputError, match="NaN"):
        model(np.zeros((32, 32, 3), np.uint8))
