"""How commands end: what they wrote, what to look at, what comes next; as one JSON object with --json."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cv2
import pytest

from shic_cli.cli import COMMANDS, group

Run = Callable[..., tuple[int, str, str]]
VIEWS = ("--azimuths", "4", "--elevations", "10")
SHORT = ("--epochs", "2", "--variants", "1", "--batch", "4", "--points", "30", "--encoder", "silhouette")


def leaves(name: str, command: click.Command) -> dict[str, click.Command]:
    """The commands that do something, by their names."""
    if isinstance(command, click.Group):
        return {
            title: leaf
            for part, below in command.commands.items()
            for title, leaf in leaves(f"{name} {part}", below).items()
        }
    return {name: command}


def test_every_command_that_writes_has_json() -> None:
    """`annotate` writes at every click, until it is stopped."""
    context = click.Context(group)
    every = {}
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        every |= leaves(name, command)
    writing = {
        name for name, command in every.items() if any(each.name == "output" for each in command.params)
    }
    writing |= {"demo", "models pull", "eval geodesic"}
    assert len(writing) > 15
    lacking = {name for name in writing if not any(each.name == "as_json" for each in every[name].params)}
    assert lacking == {"annotate"}


def ended(shic: Run, *words: str, status: int = 0) -> tuple[dict[str, Any], str]:
    """The JSON of a command line, and the line that it ends with."""
    found, out, err = shic(*words, "--json")
    assert found == status, err
    value = json.loads(out)
    assert value["written"] and all(Path(path).exists() for path in value["written"]), words
    assert value["seconds"] >= 0 and "failed" in value, words
    [line] = [line for line in err.splitlines() if line.startswith("shic: wrote ")]
    assert all(path in line for path in value["written"]), line
    return value, line


def test_the_pipeline_tells_what_it_wrote_and_what_comes_next(shic: Run, folder: Path) -> None:
    (folder / "template.h5").rename(folder / "other.h5")
    mesh = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    (folder / "mesh.obj").write_text(mesh)
    value, line = ended(shic, "template", "prep", "mesh.obj", "--vertices", "60", "--eigenvectors", "8")
    assert value["written"] == ["template.h5", "template.png"] and value["vertices"] > 20
    assert f"{value['vertices']} vertices, {value['faces']} faces" in line
    assert "look at: template.png" in line and line.endswith("next: shic pseudo-gt imgs/")
    (folder / "other.h5").replace(folder / "template.h5")

    value, line = ended(shic, "render", *VIEWS, "--size", "48", "--contact-sheet", "views.png")
    assert value["written"] == ["views.h5", "views.png"] and value["views"] == 4 and "4 views" in line
    value, line = ended(shic, "features", "imgs/", "--extractor", "silhouette")
    assert value["photos"] == 6 and line.endswith("next: shic pseudo-gt features.h5")
    value, line = ended(
        shic, "pseudo-gt", "imgs/", *VIEWS, "--extractor", "silhouette", "--contact-sheet", "pgt.png"
    )
    assert value["written"] == ["pgt.h5", "pgt.png"] and value["photos"] == 6 and value["failed"] == []
    assert "6 photos" in line and line.endswith("look at: pgt.png; next: shic synth")
    sheet = cv2.imread("pgt.png")
    assert sheet is not None and sheet.std() > 10

    value, line = ended(shic, "synth", "--number", "2", "--size", "64", "--shard", "1/2")
    assert value["pictures"] == 1 and line.endswith("next: shic join synth.part-*.h5")
    assert ended(shic, "synth", "--number", "2", "--size", "64", "--shard", "2/2")[0]["pictures"] == 1
    value, line = ended(shic, "join", "synth.part-1-of-2.h5", "synth.part-2-of-2.h5")
    assert value["written"] == ["synth.h5"] and value["pictures"] == 2

    value, line = ended(shic, "train", "pgt.h5", *SHORT)
    assert value["written"] == ["model.safetensors", "model.losses.png", "model.log.csv"]
    assert value["epochs"] == 2 and value["losses"]["pseudo"] > 0
    assert "2 epochs" in line and line.endswith("look at: model.losses.png; next: shic predict imgs/")
    rows = list(csv.DictReader(Path("model.log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"] and float(rows[1]["rate"]) > 0
    assert float(rows[1]["pseudo"]) == pytest.approx(value["losses"]["pseudo"], rel=1e-4)

    value, line = ended(shic, "predict", "imgs/", "--contact-sheet", "predicted.png")
    assert (
        value["written"] == ["predictions.maps.h5", "predictions", "predicted.png"] and value["photos"] == 6
    )
    value, line = ended(shic, "predict", "imgs/photo1.png", "--remap", "checker")
    assert value["written"] == ["photo1.maps.h5", "photo1.colors.png", "photo1.remap.png"]
    assert "1 photo," in line and line.endswith("look at: photo1.remap.png; next: shic view photo1.maps.h5")
    frame = cv2.imread("imgs/photo0.png")
    video = cv2.VideoWriter("clip.avi", cv2.VideoWriter_fourcc(*"MJPG"), 10, frame.shape[1::-1])
    video.write(frame)
    video.release()
    line = ended(shic, "predict", "clip.avi", "--masker", "grabcut", "--no-pictures")[1]
    assert line.endswith("next: shic export 000000.maps.h5 -o clip.colors.mp4"), line


def test_pages_pictures_and_exports_tell_too(
    shic: Run, folder: Path, album: Path, small_model_file: Path
) -> None:
    truth = str(album / "truth.h5")
    value, _ = ended(shic, "remap", truth, "--texture", "grid", "-o", "remapped/")
    assert value["written"] == ["remapped"] and value["photos"] == 6
    value, _ = ended(shic, "match", "imgs/photo0.png", "imgs/photo1.png", "--points", "3")
    assert value["written"] == ["match.png"] and len(value["matches"]) == 3
    value, line = ended(shic, "view", truth, "--only", "synth_0000[01]*")
    assert (
        value["written"] == ["view.html"]
        and value["photos"] == 2
        and line.endswith("look at: view.html in a browser")
    )
    value, _ = ended(shic, "export", truth, "-o", "points.csv")
    assert value["written"] == ["points.csv"] and value["seconds"] >= 0
    (folder / "imgs/photo1.png").unlink()  # GrabCut finds nothing in it
    value, line = ended(shic, "mask", "imgs/", "--masker", "grabcut", "-o", "found")
    assert value["written"] == ["found"] and len(value["photos"]) == 5
    assert line.endswith("next: shic pseudo-gt imgs/ --masks found")


def test_a_photo_that_fails_is_told_and_the_rest_is_written(
    shic: Run, folder: Path, small_model_file: Path
) -> None:
    (folder / "imgs" / "broken.png").write_bytes(b"no picture")
    value, _ = ended(shic, "predict", "imgs/", "--contact-sheet", "sheet.png", status=4)
    assert value["failed"] == ["broken.png"] and value["photos"] == 6 and "sheet.png" in value["written"]


def test_json_and_a_picture_do_not_share_stdout(shic: Run, folder: Path, album: Path) -> None:
    for words in (
        ("remap", str(album / "truth.h5"), "--texture", "grid"),
        ("match", "imgs/photo0.png", "imgs/photo1.png"),
    ):
        status, out, err = shic(*words, "-o", "-", "--json")
        assert (status, out) == (2, "") and "both write to stdout" in err


def test_a_sheet_that_is_there_is_kept(shic: Run, folder: Path, small_model_file: Path) -> None:
    (folder / "sheet.png").write_text("mine")
    for words in (("predict", "imgs/"), ("pseudo-gt", "imgs/", *VIEWS)):
        status, _, err = shic(*words, "--contact-sheet", "sheet.png")
        assert status == 1 and "sheet.png: is there already and is kept" in err
        assert (folder / "sheet.png").read_text() == "mine"
