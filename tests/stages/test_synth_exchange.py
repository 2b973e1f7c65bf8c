"""Depth pictures out, pictures made elsewhere in, as a user types it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_generator import save_depth_anything

from shic_cli.files.items import ItemReader
from shic_cli.files.photos import decode, encode
from shic_cli.stages import synth_exchange

Run = Callable[..., tuple[int, str, str]]
COMMON = ("synth", "--device", "cpu", "--renderer", "warp")
OUT = (*COMMON, "--class", "horse", "--side", "128", "--seed", "3", "--depth-only", "depth")


def items(path: str) -> dict:
    return {item.name: item for item in ItemReader(path, "shic/maps")}


@pytest.fixture
def written(shic: Run, small_template_file: Path) -> Path:
    """The folder `depth` of four depth pictures; beside it `painted` has what a painter made of them, three
    of the four.
    """
    assert shic(*OUT, "--number", "4", "--size", "64")[0] == 0
    Path("painted").mkdir()
    for i in (0, 1, 3):
        grey = cv2.imread(f"depth/synth_{i:05d}.png")
        cv2.imwrite(f"painted/synth_{i:05d}.jpg", np.where(grey > 80, 255 - grey // 3, grey))  # a pale object
    shutil.copy("depth/conditions.json", "painted")
    return Path("depth")


def test_depth_pictures_come_with_all_that_a_painter_needs(written: Path):
    said = json.loads((written / "conditions.json").read_text())
    assert said["side"] == 128 and said["seed"] == 3 and len(said["pictures"]) == 4
    assert sorted(each.name for each in written.iterdir()) == [
        "conditions.json",
        *(each["name"] for each in said["pictures"]),
    ]
    for each in said["pictures"]:
        picture = cv2.imread(str(written / each["name"]))
        assert picture.shape == (128, 128, 3) and picture.max() == 255 and picture.min() == 0
        assert (
            each["view"] in ("side", "front") and f"a photo of a horse, {each['view']} view" in each["prompt"]
        )
        assert 0 <= each["seed"] < 2**32 and each["negative"]
    assert len({each["seed"] for each in said["pictures"]}) == 4


def test_pictures_are_read_back_with_exact_labels(shic: Run, written: Path):
    status, _, err = shic(
        *COMMON, "--images", "painted", "--size", "96", "--erode", "0", "--contact-sheet", "sheet.png"
    )
    assert status == 4 and "painted: lacks 1 of 4 pictures" in err and "synth_00002.jpg" in err
    found = items("synth.h5")
    assert (
        list(found) == ["synth_00000.jpg", "synth_00001.jpg", "synth_00003.jpg"]
        and Path("sheet.png").exists()
    )
    for name, item in found.items():
        rgb, _ = decode(item.encoded.tobytes(), name)
        grey = cv2.imread(str(written / name.replace("jpg", "png")))[..., 0]
        object_there = (
            cv2.resize((grey > 80).astype(np.float32), (96, 96), interpolation=cv2.INTER_AREA) > 0.5
        )
        assert (
            rgb.shape == (96, 96, 3)
            and (object_there & item.mask).sum() / (object_there | item.mask).sum() > 0.9
        )
        assert np.array_equal(item.mask, item.vertex >= 0)
    params = ItemReader("synth.h5", "shic/maps").header.params
    assert (params["seed"], params["size"], params["class_name"], params["views"]) == (
        3,
        96,
        "horse",
        "side,front",
    )
    assert shic(*COMMON, "--images", "painted", "--size", "96", "--only", "1,3", "-o", "some.h5")[0] == 0
    some = items("some.h5")
    assert list(some) == ["synth_00001.jpg", "synth_00003.jpg"]
    inner = some["synth_00001.jpg"].vertex >= 0  # without --erode, that of the generator
    assert np.array_equal(some["synth_00001.jpg"].vertex[inner], found["synth_00001.jpg"].vertex[inner])
    assert 0 < inner.sum() < found["synth_00001.jpg"].mask.sum()


def test_the_labels_are_those_that_a_generator_here_would_have(shic: Run, written: Path):
    """The geometry of picture i is the same whoever paints it: `plain` draws it from the same seed."""
    assert shic(*COMMON, "--images", "painted", "--size", "64", "--erode", "0", "--only", "0,1,3")[0] == 0
    assert (
        shic(
            *COMMON,
            "--generator",
            "plain",
            "--views",
            "side,front",
            "--size",
            "64",
            "--seed",
            "3",
            "--number",
            "4",
            "-o",
            "plain.h5",
        )[0]
        == 0
    )
    drawn = items("plain.h5")
    assert all(np.array_equal(item.vertex, drawn[name].vertex) for name, item in items("synth.h5").items())


def test_an_unfinished_run_goes_on(shic: Run, written: Path, monkeypatch):
    whole = {path.name: path.read_bytes() for path in written.iterdir()}
    calls, make = [], synth_exchange.Conditioner.__call__

    def stop(self, scene, rng):
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return make(self, scene, rng)

    monkeypatch.setattr(synth_exchange.Conditioner, "__call__", stop)
    words = [*OUT[:-1], "again", "--number", "4", "--size", "64"]
    assert shic(*words)[0] == 130 and not Path("again/conditions.json").exists()
    assert shic(*words)[0] == 0 and len(calls) == 5
    assert {path.name: path.read_bytes() for path in Path("again").iterdir()} == whole
    status, _, err = shic(*words)
    assert status == 1 and "is there already" in err


def test_photos_behind_need_depth_anything(shic: Run, small_template_file: Path, tmp_path: Path):
    Path("photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(
        encode(np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8))
    )
    status, _, err = shic(*OUT, "--number", "1", "--backgrounds", "photos")
    assert status == 3 and "shic models pull depth-anything" in err
    save_depth_anything(tmp_path / "da")
    generator = ("--generator", f"controlnet-depth,depth={tmp_path / 'da'}")
    assert shic(*OUT, "--number", "1", "--backgrounds", "photos", *generator)[0] == 0
    assert json.loads(Path("depth/conditions.json").read_text())["backgrounds"]["count"] == 1


def edit(**changes: object) -> None:
    path = Path("painted/conditions.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def spoil(what: str) -> None:
    """Spoil the folder `painted` in one way."""
    if what == "no list":
        Path("painted/conditions.json").unlink()
    elif what == "torn list":
        Path("painted/conditions.json").write_text("{")
    elif what == "odd list":
        edit(pictures=[{"name": "odd"}])
    elif what == "other template":
        edit(template="0" * 64)
    elif what == "odd setting":
        edit(params={"size": "large"})
    elif what == "other names":
        for path in Path("painted").glob("*.jpg"):
            path.rename(path.with_name("a" + path.name))
    elif what == "the depth itself":
        for path in Path("painted").glob("*.jpg"):
            path.unlink()
        for path in Path("depth").glob("*.png"):
            shutil.copy(path, "painted")
    elif what == "other size":
        for path in Path("painted").glob("*.jpg"):
            cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (100, 128)))
    elif what == "black":
        for path in Path("painted").glob("*.jpg"):
            cv2.imwrite(str(path), np.zeros((128, 128, 3), np.uint8))
    elif what == "broken":
        for path in Path("painted").glob("*.jpg"):
            path.write_bytes(b"no picture")


BAD = {
    "no list": "copy the one that `shic synth --depth-only` wrote",
    "torn list": "conditions.json: can't be read",
    "odd list": "conditions.json: can't be read",
    "other template": "show another template",
    "odd setting": "conditions.json: its setting",
    "other names": "holds none of the 4 pictures",
    "the depth itself": "is the depth picture itself",
    "other size": "is 100 by 128 pixels, its depth picture 128 by 128",
    "black": "is black",
    "broken": "synth_00000.jpg: can't be read as an image",
}


@pytest.mark.parametrize("what", BAD)
def test_a_folder_that_can_not_be_read_back_is_an_error_that_says_why(shic: Run, written: Path, what: str):
    spoil(what)
    status, _, err = shic(*COMMON, "--images", "painted")
    assert status == 1 and BAD[what] in err and "Traceback" not in err and not Path("synth.h5").exists()


def test_options_that_do_not_go_together(shic: Run, written: Path):
    assert shic(*COMMON, "--images", "painted", "--depth-only", "x")[0] == 2
    status, _, err = shic(*OUT, "--generator", "plain")
    assert status == 2 and "takes no depth pictures" in err
    status, _, err = shic(*COMMON, "--images", "painted", "--only", "9")
    assert status == 1 and "lists no synth_00009" in err
