"""Synthetic pictures: labels lie where the projection says, and chance is that of the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh

from shic_cli.base.devices import chance
from shic_cli.base.errors import SettingError
from shic_cli.base.settings import SynthConfig
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.files.photos import decode, encode
from shic_cli.learning.views import interpolate
from shic_cli.stages import synth, synth_frames, synth_writing

CPU = torch.device("cpu")
CONFIG = SynthConfig(number=4, size=96, poses=0)


@pytest.fixture(scope="module")
def template() -> Template:
    """A smooth body with a bump on one side and one above, so that no turn or reflection maps it to
    itself.
    """
    ball = trimesh.creation.icosphere(subdivisions=3)
    verts = ball.vertices * [0.18, 0.28, 0.45]
    for center, height in (((0.18, 0, 0.1), 0.12), ((0, 0.28, 0.3), 0.1)):
        verts += ball.vertices * (height * np.exp(-((verts - center) ** 2).sum(1) / 0.01))[:, None]
    verts = (verts - (verts.max(0) + verts.min(0)) / 2) / np.ptp(verts, axis=0).max()
    k, nothing = len(verts), np.zeros(0)
    colors = np.zeros((k, 3), np.uint8)
    return Template(
        verts.astype(np.float32),
        ball.faces.astype(np.int32),
        nothing,
        nothing,
        nothing,
        np.arange(k),
        colors,
        nothing,
        nothing,
        nothing,
    )


@pytest.fixture(scope="module")
def maker(template: Template) -> synth.Synthesizer:
    return synth.Synthesizer(template.verts, template.faces, CONFIG, CPU)


@pytest.mark.parametrize("posed", [False, True])
def test_labels_lie_on_their_vertices(template: Template, maker: synth.Synthesizer, posed: bool) -> None:
    bent = template.verts + np.float32([[0, 0.3, 0]]) * template.verts[:, 2:] ** 2
    for i in range(3):
        picture = maker.make(chance(0, i), bent if posed else None)
        verts = torch.from_numpy(bent if posed else template.verts)
        rows, columns = np.nonzero(picture.mask)
        pixels = np.stack([rows, columns], 1)
        seen = interpolate(picture.fragments, torch.from_numpy(template.faces).long(), verts)[0][
            rows, columns
        ]
        exact = picture.cameras.project(seen, CONFIG.size)[0][0].numpy()
        assert (
            np.abs(exact - pixels).max() < 0.05
        )  # the surface point that the pixel sees projects to the pixel's centre
        labelled = picture.cameras.project(verts, CONFIG.size)[0][0].numpy()[picture.vertex[rows, columns]]
        away = np.linalg.norm(labelled - pixels, axis=1)
        assert (
            np.median(away) < 3 and away.max() < 8
        )  # no farther than half of an edge, or the whole of one at a slant
        corners = template.faces[picture.fragments.face[0].numpy()[rows, columns]]
        assert (corners == picture.vertex[rows, columns][:, None]).any(1).all()


def test_the_object_fills_its_share_inside_the_frame(template: Template) -> None:
    config = SynthConfig(number=1, size=64, fill=(0.5, 0.5), roll=0)
    corners = []
    for i in range(20):
        cameras, azimuth, elevation = synth_frames.random_camera(template.verts, config, chance(1, i))
        yx = cameras.project(torch.from_numpy(template.verts), 64)[0][0].numpy()
        assert np.ptp(yx, axis=0).max() == pytest.approx(32, abs=0.01)
        assert yx.min() >= -0.5 and yx.max() <= 63.5
        assert 0 <= azimuth < 360 and config.elevation[0] <= elevation <= config.elevation[1]
        corners.append(yx.min(0))
    assert (np.ptp(corners, axis=0) > 10).all()  # off-centre, in both directions


def test_azimuth_zero_sees_the_front(template: Template) -> None:
    config = SynthConfig(elevation=(0, 0), roll=0)
    for i in range(50):
        cameras, azimuth, _ = synth_frames.random_camera(template.verts, config, chance(2, i))
        toward = -(cameras.translation @ cameras.rotation[0].T)[0].numpy()  # the camera's centre
        assert np.allclose(
            toward / np.linalg.norm(toward),
            [np.sin(np.deg2rad(azimuth)), 0, np.cos(np.deg2rad(azimuth))],
            atol=1e-4,
        )


def test_pictures_differ_and_the_object_can_be_seen(maker: synth.Synthesizer) -> None:
    first, second = (maker.make(chance(0, i)) for i in range(2))
    assert np.abs(first.rgb.astype(int) - second.rgb).mean() > 10
    for picture in (first, second):
        assert picture.rgb.shape == (96, 96, 3) and picture.rgb.dtype == np.uint8
        assert picture.rgb[picture.mask].std() > 2  # shaded and patterned, not flat


def test_same_seed_same_bytes_and_any_picture_alone(
    template: Template, maker: synth.Synthesizer, tmp_path
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        synth.synthesize(template, tmp_path / f"{name}.h5", CONFIG, CPU, seed)
    a, b, c = (ItemReader(tmp_path / f"{name}.h5", "shic/maps") for name in "abc")
    assert a.names == [synth_writing.picture_name(i) for i in range(4)]
    assert a.header.attrs == {"labels": "synthetic", "template": template.fingerprint}
    for name in a.names:
        for field in ("encoded", "mask", "vertex", "score"):
            assert np.array_equal(a[name].arrays[field], b[name].arrays[field])
        assert not np.array_equal(a[name].encoded, c[name].encoded)
        assert np.array_equal(a[name].mask, a[name].vertex >= 0)
        assert np.array_equal(a[name].score, a[name].mask)
    alone = maker.make(chance(0, "synth", 2))
    assert encode(alone.rgb, ".jpg") == a[synth_writing.picture_name(2)].encoded.tobytes()
    assert decode(a[synth_writing.picture_name(2)].encoded.tobytes(), "")[0].shape == (96, 96, 3)


def test_a_stopped_run_goes_on_to_the_same_file(template: Template, tmp_path) -> None:
    def stop(items, total, description):
        for i, item in enumerate(items):
            if i == 2:
                raise KeyboardInterrupt
            yield item

    made = []

    def count(items, total, description):
        for item in items:
            made.append(item)
            yield item

    with pytest.raises(KeyboardInterrupt):
        synth.synthesize(template, tmp_path / "stopped.h5", CONFIG, CPU, track=stop)
    assert not (tmp_path / "stopped.h5").exists()
    synth.synthesize(template, tmp_path / "stopped.h5", CONFIG, CPU, track=count)
    assert len(made) == 2
    synth.synthesize(template, tmp_path / "whole.h5", CONFIG, CPU)
    stopped, whole = (ItemReader(tmp_path / f"{name}.h5", "shic/maps") for name in ("stopped", "whole"))
    assert stopped.names == whole.names and stopped.header == whole.header
    for name in whole.names:
        assert all(
            np.array_equal(stopped[name].arrays[field], array) for field, array in whole[name].arrays.items()
        )


def test_poses_move_the_labels(small_template: Template, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(
        synth.Poser, "__call__", lambda self, rng: self.template.verts * np.float32([1, 0.5 + self.amount, 1])
    )
    for amount in (0.0, 1.0, 2.0):
        config = SynthConfig(number=1, size=64, fov=(20, 20), elevation=(0, 0), poses=amount)
        synth.synthesize(small_template, tmp_path / f"{amount}.h5", config, CPU)
    labels = [
        ItemReader(tmp_path / f"{amount}.h5", "shic/maps")["synth_00000.jpg"].vertex
        for amount in (0.0, 1.0, 2.0)
    ]
    assert not np.array_equal(labels[0], labels[1]) and not np.array_equal(labels[1], labels[2])


def test_photos_as_backgrounds(template: Template, tmp_path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "red.png").write_bytes(encode(np.full((50, 80, 3), [200, 0, 0], np.uint8)))
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    config = SynthConfig(number=2, size=64, poses=0, backgrounds=str(tmp_path / "photos"))
    synth.synthesize(template, tmp_path / "out.h5", config, CPU)
    for item in ItemReader(tmp_path / "out.h5", "shic/maps"):
        around = decode(item.encoded.tobytes(), item.name)[0][~item.mask].astype(float).mean(0)
        assert around[0] > 3 * around[1:].max()


@pytest.mark.parametrize(
    "name, value", [("fill", (0.8, 0.4)), ("fov", (30.0,)), ("elevation", (0.0, 1.0, 2.0))]
)
def test_a_range_that_is_none(template: Template, name: str, value: tuple) -> None:
    with pytest.raises(SettingError, match=f"--{name}"):
        synth.Synthesizer(template.verts, template.faces, SynthConfig(**{name: value}), CPU)
