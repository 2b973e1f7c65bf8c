"""`shic remap` as a user types it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from shic_cli.cli import main
from shic_cli.files.items import ItemWriter
from shic_cli.files.layouts import Template
from shic_cli.files.photos import encode

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
        (("a.maps.h5", "--texture", "none.png"), "none.png: is no picture file"),
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
