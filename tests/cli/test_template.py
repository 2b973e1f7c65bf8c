"""`shic template prep` as a user types it."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
import trimesh

from shic_cli.cli import main
from shic_cli.files import items
from shic_cli.files.arrays import read_template


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    trimesh.creation.capsule(height=2, radius=0.4, count=[10, 10]).export(tmp_path / "animal.obj")
    return tmp_path


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["template", "prep", *words])
    return ended.value.code or 0


def test_a_mesh_becomes_template_h5_with_pictures(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (
        "animal.obj",
        "--vertices",
        "300",
        "--eigenvectors",
        "8",
        "--picture",
        "sides.png",
        "--uv-template",
        "paint.png",
    )
    assert run(*words) == 0
    found = read_template(folder / "template.h5")
    assert len(found.verts) == 300 and found.eigenvectors.shape == (300, 8)
    assert items.describe(folder / "template.h5")["params"] == {
        "vertices": 300,
        "remesh": "auto",
        "eigenvectors": 8,
        "keep": False,
        "up": "auto",
        "front": "auto",
    }
    assert cv2.imread("sides.png").shape == (512, 2048, 3) and cv2.imread("paint.png").shape == (
        2048,
        2048,
        3,
    )
    out, err = capsys.readouterr()
    assert out == "" and "axes of the mesh file" in err and "subdivided" in err


def test_a_picture_is_made_beside_the_template_and_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "made").mkdir()
    words = ("animal.obj", "--vertices", "200", "--eigenvectors", "8")
    assert run(*words, "-o", "made/beast.h5") == 0
    assert cv2.imread("made/beast.png").shape == (512, 2048, 3)
    assert "look at: made/beast.png (which way it stands and faces)" in capsys.readouterr().err
    (folder / "template.png").write_text("mine")
    assert run(*words) == 1
    assert (folder / "template.png").read_text() == "mine" and not (folder / "template.h5").exists()


def test_unsure_axes_are_a_warning_that_names_the_options(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--vertices", "200", "--eigenvectors", "8", "--picture", "sides.png", "--overwrite")
    assert run("animal.obj", *words) == 0
    assert "say so with --up and --front" in " ".join(capsys.readouterr().err.split())
    assert run("animal.obj", *words, "--up", "+z", "--front", "-y") == 0
    assert "leaves it open" not in " ".join(capsys.readouterr().err.split())


def test_what_is_there_is_kept_unless_overwrite(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "sides.png").write_text("mine")
    assert run("animal.obj", "--picture", "sides.png") == 1
    assert (folder / "sides.png").read_text() == "mine" and not (folder / "template.h5").exists()
    assert "--overwrite" in capsys.readouterr().err
    assert (
        run("animal.obj", "--vertices", "0", "--eigenvectors", "4", "--picture", "sides.png", "--overwrite")
        == 0
    )
    assert cv2.imread("sides.png") is not None


BAD = {
    "nothing.obj": "",
    "words.obj": "hello\n",
    "points.obj": "v 0 0 0\nv 1 0 0\n",
    "nan.obj": "v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    "words.ply": "hello",
    "words.glb": "hello",
    "photo.jpg": "hello",
}


@pytest.mark.parametrize("name", [*BAD, "missing.obj"])
def test_bad_input_ends_in_two_lines_and_status_one(
    folder: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if name in BAD:
        (folder / name).write_text(BAD[name])
    assert run(name) == 1
    out, err = capfd.readouterr()
    lines = err.rstrip("\n").split("\n")
    assert out == "" and len(lines) == 2, err
    assert lines[0].startswith(f"shic: error: {name}: ") and lines[1].startswith("  ")
    assert not (folder / "template.h5").exists()


@pytest.mark.parametrize(
    "words",
    [("--front", "-y", "--up", "+y"), ("--up", "north"), ("--vertices", "-3"), ("--eigenvectors", "0")],
)
def test_bad_settings_are_wrong_usage(
    folder: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("animal.obj", *words) == 2
    assert words[0] in capsys.readouterr().err
    assert not (folder / "template.h5").exists()


def test_its_own_older_picture_is_no_reason_to_refuse(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """But a file of that name that it did not make is one, such as the mesh's texture."""
    few = ("animal.obj", "--vertices", "100", "--eigenvectors", "4")
    assert run(*few) == 0
    (folder / "template.h5").unlink()
    old = (folder / "template.png").read_bytes()
    assert run(*few, "--up", "+x") == 0 and (folder / "template.png").read_bytes() != old
    assert cv2.imread("template.png").shape == (512, 2048, 3)
    (folder / "animal.png").write_bytes(cv2.imencode(".png", cv2.imread("template.png"))[1].tobytes())
    capsys.readouterr()
    assert run(*few, "-o", "animal.h5") == 1
    assert "animal.png: is there already and is kept" in capsys.readouterr().err
    assert not (folder / "animal.h5").exists()


def test_a_run_that_is_killed_between_its_files_is_given_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The template comes last: as long as it is not there, the same line makes what is missing."""

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    few = ("animal.obj", "--vertices", "100", "--eigenvectors", "4")
    monkeypatch.setattr("shic_cli.stages.template.write", stop)
    assert run(*few) == 130 and not (folder / "template.h5").exists()
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert run(*few) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["animal.obj", "template.h5", "template.png"]
