"""`shic demo`: the printed lines are the pipeline, and they run."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest

from shic_cli.files.items import ItemReader
from shic_cli.learning.trainer import Trainer

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
    assert Path.cwd() == tmp_path and not list(folder.glob("*.journal"))
    rows = list(csv.DictReader((folder / "model.log.csv").read_text("utf-8").splitlines()))
    assert float(rows[0]["near"]) > 0 and "1 step an epoch, 1 epoch\n" in err
    assert "--json" not in "".join(lines) and "next: " not in err  # the next line is the demo's
    # A line that is typed by hand, in the folder, says what the demo said.
    scored = next(line for line in lines if "eval geodesic predictions" in line).split()[1:]
    scored = [str(folder / word) if word.endswith((".h5", "annotations.json")) else word for word in scored]
    status, out, _ = shic(*scored, "--json", "--template", folder / "template.h5")
    assert status == 0 and json.loads(out) == found["trained"]


def test_a_folder_that_is_not_empty_is_refused(shic: Run, tmp_path: Path) -> None:
    (tmp_path / "shic-demo").mkdir()
    (tmp_path / "shic-demo" / "notes.txt").write_text("mine")
    status, out, err = shic("demo", *TINY)
    assert (status, out) == (1, "") and "shic-demo: exists and is not empty" in err and "--overwrite" in err
    assert [path.name for path in (tmp_path / "shic-demo").iterdir()] == ["notes.txt"]


def test_a_stopped_demo_goes_on_and_ends_as_one_that_was_not_stopped(
    shic: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is stopped in the second epoch: what was made before stays as it is, and the first epoch too."""
    words = (*TINY, "--epochs", "2", "--json")
    with monkeypatch.context() as patch:
        run_epoch = Trainer.run_epoch

        def stop(trainer: Trainer, *given: Any) -> dict[str, float]:
            if trainer.epoch == 1:
                raise KeyboardInterrupt
            return run_epoch(trainer, *given)

        patch.setattr(Trainer, "run_epoch", stop)
        status, _, err = shic("demo", "there", *words)
    assert status == 130 and "give the same line again to continue" in err
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "there").rglob("*.*") if path.is_file()}
    made = [path for path in before if path.suffix in (".h5", ".jpg", ".obj")]
    assert {"template.h5", "views.h5", "pgt.h5", "synth.h5", "trex.obj"} < {path.name for path in made}
    status, _, err = shic("demo", "there", *words, "--epochs", "3")
    assert status == 1 and "is there with other settings (epochs: 2, now 3)" in err

    status, out, err = shic("demo", "there", *words)
    assert status == 0 and "going on after 4 of 13 lines" in err and "going on after epoch 1 of 2" in err
    lines = [line for line in err.splitlines() if line.startswith("$ ")]
    assert len(lines) == 10 and lines[1].startswith("$ shic train ")
    assert all(path.stat().st_mtime_ns == before[path] for path in made)

    whole = json.loads(shic("demo", "whole", *words)[1])
    found = json.loads(out)
    assert {key: found[key] for key in ("zero_shot", "trained")} == {
        key: whole[key] for key in ("zero_shot", "trained")
    }
    for name in ("annotations.json", "model.safetensors", "summary.png"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    status, _, err = shic("demo", "there", *words)
    assert status == 1 and "exists and is not empty" in err  # it is done


def test_the_help_says_where_the_files_go(shic: Run) -> None:
    out = shic("demo", "--help")[1]
    assert "shic-demo if none is named" in " ".join(out.split()) and "earlier demo in FOLDER" in out
