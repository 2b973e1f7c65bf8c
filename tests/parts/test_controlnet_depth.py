"""`shic synth --generator controlnet-depth` on tiny random models, as a user types it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_generator import save_generator

from shic_cli.base.devices import chance
from shic_cli.base.errors import MissingError
from shic_cli.base.settings import CONTROLNET_ERODE, SynthConfig
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.files.photos import decode, encode
from shic_cli.learning.views import vertex_positions
from shic_cli.parts import registry
from shic_cli.stages import synth, synth_frames
from shic_cli.surface.poses import Poser

Run = Callable[..., tuple[int, str, str]]
CPU = torch.device("cpu")
PAINT = ("--generator", "controlnet-depth", "--class", "horse", "--device", "cpu", "--renderer", "warp")
QUICK = ("--size", "64", "--side", "64", "--steps", "1", "--fill", "0.8,0.9", "--fov", "30,30")


@pytest.fixture(scope="session")
def tiny_generator(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weights with everything that the generator needs."""
    return save_generator(tmp_path_factory.mktemp("generator") / "weights", tiny_sd)


@pytest.fixture
def paint(shic: Run, tiny_generator: Path, small_template_file: Path) -> Run:
    """`shic synth` with the tiny models, in a folder with template.h5."""
    return lambda *words: shic("synth", *PAINT, *QUICK, "--weights", tiny_generator, *words)


def arrays(path: str) -> dict[str, dict[str, np.ndarray]]:
    return {item.name: item.arrays for item in ItemReader(path, "shic/maps")}


def same(one: dict, other: dict) -> bool:
    return list(one) == list(other) and all(
        np.array_equal(one[name][key], other[name][key]) for name in one for key in one[name]
    )


def test_labels_lie_on_their_vertices(paint: Run, small_template: Template):
    """The pixel that a visible vertex projects to is labelled with it, or with one that projects within a
    pixel of there.
    """
    status, out, err = paint("--number", "3", "--size", "128", "--contact-sheet", "sheet.png")
    assert (status, out) == (0, "") and "Traceback" not in err
    reader = ItemReader("synth.h5", "shic/maps")
    assert reader.header.attrs == {"labels": "synthetic", "template": small_template.fingerprint}
    params = reader.header.params
    assert (params["generator"], params["views"], params["erode"], params["class_name"]) == (
        "controlnet-depth",
        "side,front",
        2,
        "horse",
    )
    assert "offload" not in params and "slicing" not in params
    config = SynthConfig(
        **{
            key: tuple(value) if isinstance(value, list) else value
            for key, value in params.items()
            if key != "seed"
        }
    )
    framer, poser, away = (
        synth_frames.Framer(small_template.verts, small_template.faces, config, CPU),
        Poser.of(small_template, config.poses),
        [],
    )
    for i, item in enumerate(reader):
        rng = chance(0, "synth", i)
        frame = framer.frame(rng, poser(rng))
        points = torch.from_numpy(frame.verts)
        seen = vertex_positions(
            framer.render(frame, 128), torch.from_numpy(small_template.faces).long(), frame.cameras, points
        )[1][0].numpy()
        yx = frame.cameras.project(points, 128)[0][0].numpy()
        pixels = yx.round().astype(int).clip(0, 127)
        found = item.vertex[tuple(pixels.T)]
        sure = seen & (found >= 0)
        assert sure.sum() > 0.4 * seen.sum()  # the rest is on the rim
        away += np.linalg.norm(yx[found] - pixels, axis=1)[sure].tolist()
        rim = item.mask & (item.vertex < 0)
        distance = cv2.distanceTransform(item.mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        assert np.array_equal(rim, item.mask & (distance <= CONTROLNET_ERODE)) and rim.any()
        assert np.array_equal(item.score, item.vertex >= 0)
        rgb, _ = decode(item.encoded.tobytes(), item.name)
        assert rgb.shape == (128, 128, 3) and rgb.std() > 5
    assert len(away) > 300 and np.mean(np.array(away) <= 1) > 0.97
    assert cv2.imread("sheet.png").std() > 10


def test_the_same_seed_gives_the_same_file_stopped_or_not_and_any_picture_alone(paint: Run, monkeypatch):
    assert paint("--number", "3", "-o", "whole.h5", "--erode", "1")[0] == 0
    made, make = [], synth.Synthesizer.make

    def stop(self, *args):
        made.append(0)
        if len(made) == 2:
            raise KeyboardInterrupt
        return make(self, *args)

    monkeypatch.setattr(synth.Synthesizer, "make", stop)
    assert paint("--number", "3", "--erode", "1")[0] == 130 and not Path("synth.h5").exists()
    assert (
        paint("--number", "3", "--erode", "1", "--slicing")[0] == 0
    )  # what saves memory may change on the way
    assert len(made) == 4  # the second again, and the third
    whole, stopped = arrays("whole.h5"), arrays("synth.h5")
    assert list(whole) == list(stopped)
    assert all(np.array_equal(whole[name]["vertex"], stopped[name]["vertex"]) for name in whole)
    assert np.array_equal(whole["synth_00000.jpg"]["encoded"], stopped["synth_00000.jpg"]["encoded"])
    assert paint("--only", "2", "-o", "alone.h5", "--erode", "1")[0] == 0
    alone = arrays("alone.h5")
    assert same(alone, {"synth_00002.jpg": whole["synth_00002.jpg"]})
    assert paint("--number", "1", "--seed", "1", "-o", "other.h5")[0] == 0
    assert not np.array_equal(
        arrays("other.h5")["synth_00000.jpg"]["encoded"], whole["synth_00000.jpg"]["encoded"]
    )


def test_every_setting_reaches_the_picture(tiny_generator: Path, small_template: Template):
    config = SynthConfig(
        generator="controlnet-depth", class_name="horse", size=64, side=64, steps=2, precision="float32"
    )
    changes = {"steps": 3, "guidance": 1.0, "strength": 0.0, "negative": "zq", "prompt": "{view} {class}"}
    maker = synth.Synthesizer(small_template.verts, small_template.faces, config, CPU, tiny_generator)
    found = [maker.make(chance(0))]
    for name, value in changes.items():
        maker.generator.config = maker.generator.conditioner.config = replace(config, **{name: value})
        found.append(maker.make(chance(0)))
    for change in ({"class_name": "q"}, {"scheduler": "euler"}, {"precision": "bfloat16"}):
        other = replace(config, **change)
        found.append(
            synth.Synthesizer(small_template.verts, small_template.faces, other, CPU, tiny_generator).make(
                chance(0)
            )
        )
    assert len({each.rgb.tobytes() for each in found}) == len(found) == 9
    assert all(np.array_equal(each.vertex, found[0].vertex) for each in found)


def test_the_depth_reaches_the_picture(tiny_generator: Path, small_template: Template):
    config = SynthConfig(generator="controlnet-depth", class_name="horse", size=64, side=64, steps=1)
    maker = synth.Synthesizer(small_template.verts, small_template.faces, config, CPU, tiny_generator)
    scene = maker.scene(maker.frame(chance(0)), 64)
    deeper = replace(
        scene, depth=np.where(scene.mask, scene.depth.max() + scene.depth.min() - scene.depth, -1)
    )  # turned over
    one, again, other = (maker.generator(each, chance(0)) for each in (scene, scene, deeper))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


def test_the_prompt_says_class_and_view(paint: Run, shic: Run, tiny_generator: Path):
    _, _, err = shic(
        "-v", "synth", *PAINT, *QUICK, "--weights", tiny_generator, "--number", "2", "--views", "back"
    )
    assert err.count("a photo of a horse, back view") == 2


def test_photos_behind_and_ten_pixels_are_passed_over(paint: Run, shic: Run, tmp_path: Path):
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    (tmp_path / "photos/small.png").write_bytes(encode(rng.integers(0, 255, (10, 10, 3), np.uint8)))
    (tmp_path / "photos/broken.jpg").write_bytes(b"no picture")
    status, _, err = paint("--number", "2", "--backgrounds", "photos")
    assert (
        status == 1
        and "none of its 2 photos can be used" in err
        and "10 by 10 pixels" in err
        and not Path("synth.h5").exists()
    )
    (tmp_path / "photos/large.png").write_bytes(encode(rng.integers(0, 255, (90, 120, 3), np.uint8)))
    assert paint("--number", "2", "--backgrounds", "photos", "--overwrite")[0] == 0
    assert ItemReader("synth.h5", "shic/maps").header.sources["backgrounds"]["count"] == 3


def fail(monkeypatch: pytest.MonkeyPatch, change: Callable[[np.ndarray, int], np.ndarray]) -> None:
    """Let the pipeline's pictures pass through `change`, with the number of the call."""
    from diffusers import StableDiffusionControlNetPipeline as Pipeline

    call, calls = Pipeline.__call__, []

    def painted(self, *args, **kwargs):
        out = call(self, *args, **kwargs)
        out.images = change(out.images, len(calls))
        calls.append(0)
        return out

    monkeypatch.setattr(Pipeline, "__call__", painted)


@pytest.mark.parametrize(
    ("bad", "words"), [(np.nan, "gave NaNs in float32"), (0.0, "is black or of one colour")]
)
def test_pictures_with_nothing_on_them_are_named_and_left_out(
    paint: Run, monkeypatch, bad: float, words: str
):
    fail(monkeypatch, lambda images, call: images * 0 + bad if call == 1 else images)
    status, _, err = paint("--number", "3")
    assert status == 4 and "synth_00001.jpg" in err and words in err and "1 of 3" in err
    assert list(arrays("synth.h5")) == ["synth_00000.jpg", "synth_00002.jpg"]


def test_nans_in_the_weights(paint: Run, shic: Run, tiny_generator: Path, tmp_path: Path):
    copy = Path(shutil.copytree(tiny_generator, tmp_path / "weights"))
    file = copy / "sd15/unet/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.bias"][:] = torch.nan
    save_file(tensors, file)
    status, _, err = shic("synth", *PAINT, *QUICK, "--weights", copy, "--number", "1")
    assert status == 1 and "synth_00000.jpg: controlnet-depth gave NaNs" in err and "--precision" in err


def test_out_of_memory_says_what_saves_it(paint: Run, monkeypatch):
    def full(self, *args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("diffusers.StableDiffusionControlNetPipeline.__call__", full)
    status, _, err = paint("--number", "1")
    assert (
        status == 1
        and "out of GPU memory in controlnet-depth" in err
        and "--offload" in err
        and "--slicing" in err
    )
    monkeypatch.setattr("diffusers.StableDiffusionControlNetPipeline.to", full)
    status, _, err = paint("--number", "1")
    assert status == 1 and "--offload" in err


def test_auto_takes_it_with_weights_a_class_and_a_gpu(tiny_generator: Path):
    class Cuda:
        def __str__(self) -> str:
            return "cuda:0"

    named = SynthConfig(class_name="horse")
    assert synth.settled(named, Cuda(), tiny_generator).generator == "controlnet-depth"
    for config, device, weights in (
        (SynthConfig(), Cuda(), tiny_generator),
        (named, CPU, tiny_generator),
        (named, Cuda(), None),
    ):
        found = synth.settled(config, device, weights)
        assert (found.generator, found.views, found.erode) == ("plain", "any", 0)


def test_missing_weights_are_named_with_the_line_that_gets_them(
    shic: Run, small_template_file: Path, tiny_generator, tmp_path
):
    status, _, err = shic("synth", *PAINT, *QUICK)
    assert status == 3 and "shic models pull controlnet-depth" in err
    with pytest.raises(MissingError, match="control-depth"):
        (tmp_path / "w").mkdir()
        shutil.copytree(tiny_generator / "sd15", tmp_path / "w/sd15")
        registry.find("generators", "controlnet-depth").check(tmp_path / "w")
    named = f"controlnet-depth:{tiny_generator / 'sd15'},control={tiny_generator / 'control-depth'}"
    assert shic("synth", *PAINT[2:], *QUICK, "--generator", named, "--number", "1")[0] == 0


BAD = {
    "--side 100": (2, "no multiple of 64"),
    "--views left": (2, "'left' is not a view"),
    "--only 1.5": (2, "is not a whole number"),
    "--check 0.5 --masker none": (2, "--check needs a masker"),
    "--offload model": (2, "saves a GPU's memory"),
    "--scheduler odd": (2, "odd"),
    "--erode 64": (1, "leaves no label"),
    "--elevation 70,80": (2, "is a view of the top"),
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_ends_in_an_error_that_names_it(paint: Run, words: str):
    status, said = BAD[words]
    found, _, err = paint("--number", "1", *words.split())
    assert found == status and said in err and "Traceback" not in err and not Path("synth.h5").exists()


def test_a_class_is_needed(shic: Run, tiny_generator: Path, small_template_file: Path):
    for words in (
        ("--generator", "controlnet-depth", "--weights", tiny_generator),
        ("--depth-only", "depth"),
    ):
        status, _, err = shic("synth", *words, "--device", "cpu", "--class", " ")
        assert status == 2 and "needs the name of the class" in err and "--class horse" in err


@pytest.mark.cuda
@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offload_gives_the_same_picture(paint: Run, offload: str):
    pytest.importorskip("accelerate")
    assert paint("--device", "cuda", "--number", "1", "-o", "whole.h5")[0] == 0
    assert paint("--device", "cuda", "--number", "1", "--offload", offload)[0] == 0
    one, other = (
        decode(arrays(name)["synth_00000.jpg"]["encoded"].tobytes(), "")[0].astype(int)
        for name in ("whole.h5", "synth.h5")
    )
    assert abs(one - other).mean() < 2


def test_the_bundle_brings_everything(shic: Run):
    status, out, _ = shic("models", "list", "--json")
    assert status == 0 and json.loads(out)["bundles"]["controlnet-depth"] == [
        "sd15",
        "control-depth",
        "depth-anything",
    ]
