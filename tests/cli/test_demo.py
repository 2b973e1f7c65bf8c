"""`shic demo`: the printed lines are the pipeline, and they run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2

from shic_cli.files.items import ItemReader

Run = Callable[..., tuple[int, str, str]]
TINY = (
    "--photos",
    "3",
    "--tests",
    "2",
    "--synthetic",
    "3",
    "--size",
    "64",
    "--vertices",
    "300",
    "--epochs",
    "1",
    "--device",
    "cpu",
)


def test_every_line_runs_and_the_figures_are_those_of_eval(shic: Run, tmp_path: Path) -> None:
    status, out, err = shic("demo", "here", *TINY, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert list(found) == ["written", "chance", "zero_shot", "trained", "failed", "seconds"]
    assert found["written"] == ["here", "here/summary.png", "here/view.html"] and found["failed"] == []
    assert (
        40 < found["chance"]["mean"] < 228 and found["trained"]["images"] == found["zero_shot"]["images"] == 2
    )
    lines = [line[2:] for line in err.splitlines() if line.startswith("$ ")]
    assert lines[0] == "cd here" and all(line.startswith("shic ") for line in lines[1:])
    for name in (
        "template prep",
        "render",
        "pseudo-gt",
        "synth",
        "train",
        "predict",
        "eval geodesic",
        "remap",
        "match",
        "info",
        "view",
    ):
        assert any(line.startswith(f"shic {name} ") for line in lines)
    folder = tmp_path / "here"
    for name in (
        "views.png",
        "synth.png",
        "match.png",
        "model.losses.png",
        "remap/trex_0001.remap.png",
        "summary.png",
    ):
        assert cv2.imread(str(folder / name)) is not None
    assert cv2.imread(str(folder / "summary.png")).shape[1] > 1000
    assert "zero_shot.maps.h5" in (folder / "view.html").read_text("utf-8") and "view.html" in err
    for name, labels in (
        ("pgt", "pseudo"),
        ("synth", "synthetic"),
        ("predictions.maps", "predicted"),
        ("zero_shot.maps", "pseudo"),
    ):
        assert ItemReader(folder / f"{name}.h5", "shic/maps").header.attrs["labels"] == labels
    assert Path.cwd() == tmp_path and not (folder / ".demo-begun").exists()
    # A line that is typed by hand, in the folder, says what the demo said.
    scored = next(line for line in lines if "eval geodesic predictions" in line).split()[1:]
    scored = [str(folder / word) if word.endswith((".h5", "annotations.json")) else word for word in scored]
    status, out, _ = shic(*scored, "--template", folder / "template.h5")
    assert status == 0 and json.loads(out) == found["trained"]


def test_a_folder_that_is_not_empty_is_refused(shic: Run, tmp_path: Path) -> None:
    (tmp_path / "shic-demo").mkdir()
    (tmp_path / "shic-demo" / "notes.txt").write_text("mine")
    status, out, err = shic("demo", *TINY)
    assert (status, out) == (1, "") and "shic-demo: exists and is not empty" in err and "--overwrite" in err
    assert [path.name for path in (tmp_path / "shic-demo").iterdir()] == ["notes.txt"]
