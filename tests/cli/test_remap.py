"""`shic remap` as a user types it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from shic_cli.cli import main
from shic_cli.files.atomic import Journal
from shic_cli.files.items import ItemWriter
from shic_cli.files.layouts import Template
from shic_cli.files.photos import encode
from shic_cli.stages import remap

Shic = Callable[..., tuple[int, str, str]]


def write_maps(path: Path, names: tuple[str, ...], template: str, encoded: bytes | None = None) -> None:
    vertex = np.full((40, 50), -1)
    vertex[10:30, 10:40] = np.arange(600).reshape(20, 30)
    data = encode(np.full((40, 50, 3), 120, np.uint8))
    with ItemWriter(
        path, "shic/maps", params={}, sources={}, attrs={"labels": "predicted", "template": template}
    ) as writer:
        for name in names:
            bytes_here = encoded if encoded is not None and name == names[-1] else data
            writer.add(
                name,
                encoded=np.frombuffer(bytes_here, np.uint8),
                mask=vertex >= 0,
                vertex=vertex,
                score=vertex >= 0,
            )


@pytest.fixture
def one(small_template: Template, small_template_file: Path) -> Path:
    path = small_template_file.with_name("a.maps.h5")
    write_maps(path, ("a.jpg",), small_template.fingerprint)
    return path


@pytest.mark.parametrize("texture", ["checker", "colors", "grid", "tex.png"])
def test_one_image_goes_beside_its_map(shic: Shic, one: Path, texture: str) -> None:
    one.with_name("tex.png").write_bytes(
        encode(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    )
    status, out, _ = shic("remap", "a.maps.h5", "--texture", texture)
    picture = cv2.imread("a.remap.png")
    assert status == 0 and out == "" and picture.shape == (40, 50, 3)
    outside = np.ones((40, 50), bool)
    outside[10:30, 10:40] = False
    assert (picture[outside] == 120).all() and picture[~outside].std() > 5


def test_kept_unless_overwrite(shic: Shic, one: Path) -> None:
    one.with_name("out.png").write_text("mine")
    status, _, err = shic("remap", "a.maps.h5", "--texture", "grid", "-o", "out.png")
    assert status == 1 and "is there already" in err and one.with_name("out.png").read_text() == "mine"
    assert shic("remap", "a.maps.h5", "--texture", "grid", "-o", "out.png", "--overwrite")[0] == 0
    assert cv2.imread("out.png").shape == (40, 50, 3)


def test_several_go_to_a_folder_and_a_model_serves_as_template(
    shic: Shic, small_template: Template, small_model_file: Path
) -> None:
    write_maps(small_model_file.with_name("all.maps.h5"), ("x/a.jpg", "b.jpg"), small_template.fingerprint)
    assert shic("remap", "all.maps.h5", "--texture", "colors")[0] == 0
    assert cv2.imread("all/x/a.remap.png").shape == cv2.imread("all/b.remap.png").shape
    assert (
        shic("remap", "all.maps.h5", "--texture", "colors", "-o", "there")[0] == 0
        and Path("there/b.remap.png").is_file()
    )
    status, _, err = shic("remap", "all.maps.h5", "--texture", "colors", "-o", "one.png")
    assert status == 2 and "holds 2 images" in err


def test_one_bad_image_costs_that_image(
    shic: Shic, small_template: Template, small_template_file: Path
) -> None:
    write_maps(
        small_template_file.with_name("all.h5"),
        ("a.jpg", "b.jpg"),
        small_template.fingerprint,
        encoded=b"broken",
    )
    status, _, err = shic("remap", "all.h5", "--texture", "grid")
    assert status == 4 and "1 of 2 inputs failed: b.jpg" in err and Path("all/a.remap.png").is_file()


@pytest.mark.parametrize("name", ["../a.jpg", "/a.jpg", "x/../../a.jpg"])
def test_a_name_cannot_lead_out_of_the_folder(
    shic: Shic, small_template: Template, small_template_file: Path, name: str
) -> None:
    write_maps(small_template_file.with_name("all.h5"), (name, "b.jpg"), small_template.fingerprint)
    status, _, err = shic("remap", "all.h5", "--texture", "grid", "-o", "out")
    assert (
        status == 1
        and "is no name for a file below a folder" in err
        and not list(Path(".").rglob("*.remap.png"))
    )
    assert not Path("/a.remap.png").exists()


def test_bad_inputs(shic: Shic, one: Path) -> None:
    for words, said in (
        (("none.h5", "--texture", "grid"), "none.h5: there is no such file"),
        (("a.maps.h5", "--texture", "none.png"), "none.png: can't be read"),
        (
            ("a.maps.h5", "--texture", "grid", "--template", "a.maps.h5"),
            "expected shic/template, found shic/maps",
        ),
    ):
        status, _, err = shic("remap", *words)
        assert status == 1 and said in err and len(err.strip().splitlines()) == 2
    write_maps(one.with_name("other.h5"), ("a.jpg",), "0" * 64)
    status, _, err = shic("remap", "other.h5", "--texture", "grid")
    assert status == 1 and "made with another template" in err
    assert shic("remap", "a.maps.h5")[0] == 2


def test_a_picture_on_stdout(
    one: Path, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    monkeypatch.chdir(one.parent)
    with pytest.raises(SystemExit) as ended:
        main(["remap", "a.maps.h5", "--texture", "checker", "-o", "-"])
    assert not ended.value.code
    assert cv2.imdecode(np.frombuffer(capsysbinary.readouterr().out, np.uint8), cv2.IMREAD_COLOR).shape == (
        40,
        50,
        3,
    )


@pytest.fixture
def several(small_template: Template, small_template_file: Path) -> Path:
    path = small_template_file.with_name("all.maps.h5")
    write_maps(path, ("a.jpg", "b.jpg", "c.jpg"), small_template.fingerprint)
    return path


def test_after_a_full_disk_the_same_line_goes_on(
    shic: Shic, several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    disk = [2]  # pictures that it has room for
    real = remap.encode

    def encode_as_long_as_there_is_room(picture: np.ndarray) -> bytes:
        drawn.append("picture")
        if len(drawn) > disk[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(picture)

    monkeypatch.setattr(remap, "encode", encode_as_long_as_there_is_room)
    status, _, err = shic("remap", "all.maps.h5", "--texture", "grid")
    assert status == 1 and "No space left" in err and "same line again" in err
    first = {path.name: path.stat().st_mtime_ns for path in Path("all").glob("*.png")}
    assert sorted(first) == ["a.remap.png", "b.remap.png"]
    status, _, err = shic("remap", "all.maps.h5", "--texture", "colors")
    assert status == 1 and "an unfinished run is there with other settings (texture: 'grid'" in err
    disk[0] = 9
    assert shic("remap", "all.maps.h5", "--texture", "grid")[:2] == (0, "")
    assert len(drawn) == 4 and sorted(os.listdir("all")) == ["a.remap.png", "b.remap.png", "c.remap.png"]
    assert all((Path("all") / name).stat().st_mtime_ns == changed for name, changed in first.items())


def test_pictures_of_a_finished_run_are_kept(shic: Shic, several: Path) -> None:
    assert shic("remap", "all.maps.h5", "--texture", "grid")[0] == 0
    Path("all/a.remap.png").unlink()
    before = Path("all/c.remap.png").read_bytes()
    status, _, err = shic("remap", "all.maps.h5", "--texture", "colors")
    assert status == 1 and "all/b.remap.png: is there already and is kept" in err
    assert sorted(os.listdir("all")) == ["b.remap.png", "c.remap.png"]
    assert shic("remap", "all.maps.h5", "--texture", "colors", "--overwrite")[0] == 0
    assert Path("all/a.remap.png").exists() and Path("all/c.remap.png").read_bytes() != before


def test_a_picture_that_was_written_just_before_a_kill_is_no_obstacle(
    shic: Shic, several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(journal: Journal, payload: bytes) -> None:
        if payload == b"a.jpg":
            patch.setattr(Journal, "close", lambda journal, remove=False: journal.lock.release())
            raise KeyboardInterrupt
        append(journal, payload)

    append = Journal.append
    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", killed)
        assert shic("remap", "all.maps.h5", "--texture", "grid")[0] == 130
    assert sorted(os.listdir("all")) == [".remap.journal", "a.remap.png"]
    assert shic("remap", "all.maps.h5", "--texture", "grid")[:2] == (0, "")
    assert sorted(os.listdir("all")) == ["a.remap.png", "b.remap.png", "c.remap.png"]


def test_two_images_with_one_picture(shic: Shic, several: Path, small_template: Template) -> None:
    several.unlink()
    write_maps(several, ("a.jpg", "a.png"), small_template.fingerprint)
    status, _, err = shic("remap", "all.maps.h5", "--texture", "grid")
    assert status == 4 and "a.png: its picture would replace that of a.jpg" in err
