"""`shic render` as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from shic_cli.cli import main
from shic_cli.files import items
from shic_cli.files.arrays import source
from shic_cli.files.layouts import Template
from shic_cli.learning.views import read_views

FEW = ("--azimuths", "4", "--elevations", "-10,30", "--size", "48", "--renderer", "warp", "--device", "cpu")


@pytest.fixture
def folder(small_template_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(small_template_file.parent)
    return small_template_file.parent


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["render", *words])
    return ended.value.code or 0


def test_template_h5_becomes_views_h5(
    folder: Path, small_template: Template, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*FEW, "--contact-sheet", "sheet.png") == 0
    views = read_views("views.h5")
    assert views.image.shape == (8, 48, 48, 3) and views.vertex_yx.shape == (8, 642, 2)
    assert views.template == small_template.fingerprint
    described = items.describe("views.h5")
    expected = {
        "azimuths": 4,
        "elevations": [-10, 30],
        "fov": 30,
        "size": 48,
        "style": "normals",
        "renderer": "warp",
    }
    assert described["params"] == expected
    assert described["sources"]["template"] == source("template.h5")
    assert cv2.imread("sheet.png").shape == (2 * 148 + 4, 4 * 132 + 4, 3)
    assert capsys.readouterr().out == ""


def test_the_renderer_that_auto_took_is_said_and_recorded(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("template.h5", "-o", "a.h5", "--azimuths", "1", "--size", "16", "--device", "cpu") == 0
    assert items.describe("a.h5")["params"]["renderer"] == "warp"
    assert capsys.readouterr().err.count("renderer: auto took warp") == 1


@pytest.mark.parametrize(("style", "grey"), [("normals", False), ("shaded", True), ("depth", True)])
def test_styles(folder: Path, style: str, grey: bool) -> None:
    assert run(*FEW, "--style", style) == 0
    image = read_views("views.h5").image
    assert bool((image == image[..., :1]).all()) == grey and image.max() > 200


BAD = {
    "no template": (("nothing.h5",), 1, "nothing.h5: there is no such file"),
    "another kind": (("views.h5", "-o", "more.h5"), 1, "expected shic/template, found shic/views"),
    "no HDF5": (("words.h5",), 1, "can't be read as HDF5"),
    "a folder": ((".",), 1, ".: is a folder"),
    "no such device": (("--device", "cuda:99"), 1, "there is no such device"),
    "no device at all": (("--device", "gpu"), 1, "is no device"),
    "no such renderer": (("--renderer", "wrap"), 2, "did you mean warp?"),
    "out of range": (("--elevations", "0,95"), 2, "--elevations 95.0: is out of range"),
    "no number": (("--elevations", "low"), 2, "not a list of numbers"),
    "no such style": (("--style", "pretty"), 2, "pretty"),
    "no folder": (("-o", "nowhere/views.h5"), 1, "no such folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_said_and_leaves_nothing(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words, status, message = BAD[name]
    if name == "another kind":
        assert run(*FEW) == 0
    (folder / "words.h5").write_text("hello")
    before = sorted(folder.iterdir())
    assert run(*words) == status
    out, err = capsys.readouterr()
    assert message in err and out == "" and sorted(folder.iterdir()) == before


def test_what_is_there_is_kept_unless_overwrite(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "sheet.png").write_text("mine")
    assert run(*FEW, "--contact-sheet", "sheet.png") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (folder / "sheet.png").read_text() == "mine" and not (folder / "views.h5").exists()
    assert run(*FEW, "--contact-sheet", "sheet.png", "--overwrite") == 0
    assert cv2.imread("sheet.png") is not None


def test_pytorch3d_where_it_is_not_ends_in_status_three(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    monkeypatch.setitem(sys.modules, "pytorch3d.renderer", None)
    assert run("--renderer", "pytorch3d", "--device", "cpu") == 3
    assert "pytorch3d can't be imported" in capsys.readouterr().err


def test_warp_writes_nothing_of_its_own_even_when_it_compiles(folder: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "shic_cli",
        "render",
        "--azimuths",
        "1",
        "--size",
        "16",
        "--device",
        "cpu",
        "--renderer",
        "warp",
    ]
    ran = subprocess.run(
        words, env={**os.environ, "WARP_CACHE_PATH": str(folder / "kernels")}, capture_output=True, text=True
    )
    assert ran.returncode == 0 and ran.stdout == ""
    assert all(line.startswith("shic: ") for line in ran.stderr.splitlines())
    assert list((folder / "kernels").rglob("*shic*"))
    blocked = folder / "words"
    blocked.write_text("a file, no folder")
    ran = subprocess.run(
        [*words, "--overwrite"],
        env={**os.environ, "WARP_CACHE_PATH": str(blocked)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1 and "WARP_CACHE_PATH" in ran.stderr and len(ran.stderr.splitlines()) == 2
