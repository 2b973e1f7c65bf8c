"""`shic synth` as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.stages import synth, synth_writing

Run = Callable[..., tuple[int, str, str]]
PLAIN = ("--size", "64", "--device", "cpu", "--renderer", "warp", "--generator", "plain", "--poses", "0")
FEW = ("--number", "3", "--size", "64", "--device", "cpu", "--renderer", "warp")


def items(path: Path) -> dict[str, dict[str, np.ndarray]]:
    return {item.name: item.arrays for item in ItemReader(path, "shic/maps")}


def assert_equal(one: Path, other: Path) -> None:
    a, b = items(one), items(other)
    assert list(a) == list(b)
    assert all(np.array_equal(a[name][field], b[name][field]) for name in a for field in a[name])


def test_the_folders_template_gives_synth_h5_and_a_contact_sheet(
    shic: Run, small_template_file: Path, small_template: Template
) -> None:
    status, out, err = shic("synth", *FEW, "--contact-sheet", "sheet.png", "--seed", "7")
    assert (status, out) == (0, "") and "generator: auto took plain" in err
    folder = small_template_file.parent
    reader = ItemReader(folder / "synth.h5", "shic/maps")
    assert reader.header.attrs == {"labels": "synthetic", "template": small_template.fingerprint}
    assert reader.header.params["seed"] == 7 and reader.header.params["number"] == 3
    assert len(reader.header.sources["template"]["sha256"]) == 64
    for item in reader:
        assert item.vertex.shape == (64, 64) and item.vertex.max() < 642
        assert 0.005 < item.mask.mean() < 0.9
    sheet = cv2.imread(str(folder / "sheet.png"))
    assert sheet.shape[1] > 6 * 128 and sheet.std() > 10
    status, out, _ = shic("info", "synth.h5", "--json")
    assert status == 0 and json.loads(out)["fields"]["items"]["count"] == 3


def test_a_killed_run_goes_on_and_ends_like_an_uninterrupted_one(
    shic: Run, small_template_file: Path
) -> None:
    words = ["synth", "--number", "40", "--size", "48", "--device", "cpu", "--renderer", "warp"]
    folder = small_template_file.parent
    started = subprocess.Popen(
        [sys.executable, "-m", "shic_cli", *words], cwd=folder, stderr=subprocess.DEVNULL
    )
    journal, end = folder / "synth.h5.journal", time.monotonic() + 60
    while not (journal.exists() and journal.stat().st_size > 60_000) and time.monotonic() < end:
        time.sleep(0.01)
    started.kill()
    started.wait()
    assert journal.exists() and not (folder / "synth.h5").exists()
    status, _, err = shic(*words[:2], "41", *words[3:])
    assert status == 1 and "number: 40, now 41" in err  # other settings do not go on
    assert shic(*words)[0] == 0 and not journal.exists()
    assert shic(*words, "-o", "whole.h5")[0] == 0
    assert_equal(folder / "synth.h5", folder / "whole.h5")


def test_what_is_there_is_kept_unless_overwrite(shic: Run, small_template_file: Path) -> None:
    (small_template_file.parent / "synth.h5").write_text("mine")
    status, _, err = shic("synth", *FEW)
    assert status == 1 and "--overwrite" in err and Path("synth.h5").read_text() == "mine"
    Path("sheet.png").write_text("mine")
    status, _, err = shic("synth", *FEW, "-o", "other.h5", "--contact-sheet", "sheet.png")
    assert status == 1 and "sheet.png" in err and not Path("other.h5").exists()
    assert shic("synth", *FEW, "--overwrite")[0] == 0 and len(items(Path("synth.h5"))) == 3


def test_a_generator_that_gives_nothing_is_stopped_soon(shic: Run, small_template_file: Path, monkeypatch):
    monkeypatch.setattr(
        "shic_cli.parts.generators.plain.Plain.__call__",
        lambda self, scene, rng: np.zeros((*scene.mask.shape, 3), np.uint8),
    )
    status, _, err = shic("synth", *PLAIN, "--number", "2")
    assert status == 1 and "synth_00000.jpg: the picture is black" in err
    status, _, err = shic("synth", *PLAIN, "--number", "50")
    assert status == 1 and err.count("left out") == synth_writing.GIVE_UP and not Path("synth.h5").exists()


def test_the_check_drops_what_its_masker_does_not_find_once_for_good(
    shic: Run, small_template_file: Path, monkeypatch
):
    asked, make = [], synth.Synthesizer.make

    def masker(*_):
        def find(rgb):
            asked.append(0)
            return truth[len(asked) % len(truth)]

        find.name = "truth"
        return find

    assert shic("synth", *PLAIN, "--number", "4", "-o", "all.h5")[0] == 0
    truth = [item["mask"] for item in items(Path("all.h5")).values()]
    truth = [truth[3], truth[0], ~truth[1], truth[2]]  # the second asked for is wrong
    monkeypatch.setattr(synth_writing, "make_masker", masker)

    def stop(self, *args):
        if len(asked) == 3 and not Path("again").exists():
            raise KeyboardInterrupt
        return make(self, *args)

    monkeypatch.setattr(synth.Synthesizer, "make", stop)
    assert shic("synth", *PLAIN, "--number", "4", "--check", "0.9")[0] == 130
    Path("again").touch()
    status, _, err = shic("synth", *PLAIN, "--number", "4", "--check", "0.9")
    assert (
        status == 0 and len(asked) == 4 and "1 of 4 pictures dropped" in err
    )  # what was dropped is not painted again
    assert list(items(Path("synth.h5"))) == ["synth_00000.jpg", "synth_00002.jpg", "synth_00003.jpg"]
    assert ItemReader("synth.h5", "shic/maps").header.params["dropped"] == 1
    assert not list(Path().glob("*.journal"))
    truth[:] = [~each for each in truth]
    status, _, err = shic("synth", *PLAIN, "--number", "1", "--check", "0.9", "-o", "none.h5")
    assert status == 1 and "all 1 pictures were dropped" in err and not list(Path().glob("none.h5*"))


def test_plain_takes_views_and_erosion_too(shic: Run, small_template_file: Path):
    assert shic("synth", *PLAIN, "--number", "2", "-o", "whole.h5")[0] == 0
    assert shic("synth", *PLAIN, "--number", "2", "--erode", "1", "-o", "thin.h5")[0] == 0
    whole, thin = items(Path("whole.h5")), items(Path("thin.h5"))
    for name, each in whole.items():
        inner = cv2.erode(each["mask"].astype(np.uint8), np.uint8([[0, 1, 0], [1, 1, 1], [0, 1, 0]])) > 0
        assert np.array_equal(thin[name]["vertex"], np.where(inner, each["vertex"], -1))
        assert np.array_equal(thin[name]["mask"], each["mask"]) and np.array_equal(
            thin[name]["encoded"], each["encoded"]
        )
    assert shic("synth", *PLAIN, "--number", "2", "--views", "back", "-o", "back.h5")[0] == 0
    assert not np.array_equal(
        items(Path("back.h5"))["synth_00000.jpg"]["mask"], whole["synth_00000.jpg"]["mask"]
    )


BAD = {
    "--fill 0.9,0.4": (2, "--fill"),
    "--fov 30": (2, "--fov"),
    "--fill 0.5,1.5": (2, "out of range"),
    "--number 0": (2, "out of range"),
    "--generator paint": (2, "no generator 'paint'"),
    "--backgrounds nowhere": (1, "nowhere"),
    "--device cuda:99": (1, "cuda:99"),
    "missing.h5": (1, "missing.h5"),
    "template.obj": (1, "template.obj"),
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_ends_in_an_error_that_names_it(shic: Run, small_template_file: Path, words: str) -> None:
    (small_template_file.parent / "template.obj").write_text("v 0 0 0\n")
    status, said = BAD[words]
    found, out, err = shic("synth", *words.split())
    assert (found, out) == (status, "") and said in err and "Traceback" not in err
    assert not Path("synth.h5").exists()


def test_any_number_of_workers_gives_the_same_bytes(shic: Run, small_template_file: Path) -> None:
    """With the posed template; a worker's faults are told like those of one process."""
    words = ["synth", "--number", "6", "--size", "48", "--device", "cpu", "--generator", "plain"]
    for number in ("1", "2"):
        assert shic(*words, "-o", f"{number}.h5", "--workers", number)[0] == 0
    assert Path("1.h5").read_bytes() == Path("2.h5").read_bytes()
    status, _, err = shic(*words, "-o", "3.h5", "--workers", "2", "--erode", "40")
    assert status == 1 and "leaves no label" in err and "give a smaller one" in err


@pytest.mark.parametrize("given", ["0", "-1", "two", ""])
def test_workers_are_a_number_or_auto(shic: Run, small_template_file: Path, given: str) -> None:
    status, _, err = shic("synth", *PLAIN, "--workers", given)
    assert status == 2 and "give auto, or 1 and up" in err
