"""Names, JSON, pictures, meshes and models that others made."""

from __future__ import annotations

import io
import json
import logging
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image
from scoring import four_vertices

from shic_cli.base.errors import InputError, ShicError, printable
from shic_cli.files.checks import (
    check_name,
    check_surface,
    parse_json,
    real_number,
    shorten,
    unreadable,
    whole_number,
)
from shic_cli.files.keypoints import read_pairs
from shic_cli.files.names import meet
from shic_cli.files.photo_lists import list_images
from shic_cli.files.photos import decode
from shic_cli.learning.model_file import load_model
from shic_cli.parts.extractors.carried import check_config
from shic_cli.surface.mesh_file import read_mesh


@pytest.mark.parametrize(
    "name", ["a.png", "a/b.png", "é/ü.jpg", ".hidden", "a..b.png", "a b", "b" * 200, "a/" * 511 + "bb"]
)
def test_names_below_a_folder(name: str) -> None:
    assert check_name(name, "x") == name


@pytest.mark.parametrize(
    "name",
    [
        "/a",
        "../a",
        "a/..",
        "..",
        ".",
        "",
        "a\0b",
        "a\x1b",
        "a\u202eb",
        "b" * 201,
        "é" * 101,
        "a/" * 512 + "b",
        None,
        3,
    ],
)
def test_names_that_lead_elsewhere_or_nowhere(name: Any) -> None:
    with pytest.raises(InputError, match="is no name"):
        check_name(name, "x")


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 200_000, "9" * 10_000, b"\xff\xfe\xfd", b"\x80", '{"a": ["\\ud800"]}']
)
def test_what_is_no_json(text: str | bytes) -> None:
    with pytest.raises(InputError, match="is not JSON"):
        parse_json(text, "x")


def test_messages_hold_nothing_that_a_terminal_acts_on() -> None:
    error = ShicError("a\x1b[2J\nb\udcff", "hint")
    assert error.message == "a\\x1b[2J\\nb\\udcff" and printable("plain é") == "plain é"
    str(error).encode()


def test_numbers_are_shown_short_with_the_next_step() -> None:
    assert shorten(10**40) == "a number of more than 40 digits" and shorten(10**40 - 1) == "9" * 40
    assert shorten("x" * 41) == "x" * 40 + "…"
    assert whole_number(" +2 ", "x", 0, 3) == whole_number(2, "x", 0, 3) == real_number("2", "x", 0, 3) == 2
    for read in (real_number, whole_number):
        with pytest.raises(InputError, match="x: 4 is no ") as raised:
            read("4", "x", 0, 3)
        assert raised.value.hint == "correct it in the file"
        for other in (True, 10**400, None, [], "nan", "1" * 400, "-0.5"):
            with pytest.raises(InputError, match="x: "):
                read(other, "x", 0, 3)
        with pytest.raises(InputError) as raised:
            read("four", "x", 0, 3, "ask")
        assert raised.value.hint == "ask"


def test_a_folder_that_can_not_be_read_is_left_out_unless_it_is_the_one_that_was_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("shic"), "propagate", True)
    tell = unreadable(Path("imgs"))
    with caplog.at_level(logging.WARNING, "shic"):
        tell(PermissionError(13, "Permission denied", "imgs/sub"))
    assert set(caplog.messages) == {"imgs/sub: can't be read (Permission denied): is left out"}
    with pytest.raises(InputError, match=r"^imgs: can't be read \(Permission denied\)"):
        tell(PermissionError(13, "Permission denied", "imgs"))


def test_a_surface_has_faces_an_extent_and_edges() -> None:
    template = four_vertices()
    check_surface(template, "x")
    none, points = np.zeros((0, 3), np.int32), np.zeros((4, 3), np.int32)
    for change in (
        {"faces": none, "face_uv": none},
        {"faces": points},
        {"verts": template.verts * np.float32(0.09)},
    ):
        with pytest.raises(InputError, match="x: verts and faces are no surface"):
            check_surface(replace(template, **change), "x")


def png(width: int, height: int, data: bytes) -> bytes:
    out = b"\x89PNG\r\n\x1a\n"
    for name, body in (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    ):
        out += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return out


def test_a_picture_of_many_pixels_is_refused_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="is 9000 by 9000 pixels"):
        decode(png(9000, 9000, b""), "x.png")
    monkeypatch.setattr("shic_cli.files.photos.LARGEST", 400)
    assert decode(png(20, 20, bytes(20 * 21)), "x.png")[0].shape == (20, 20, 3)
    with pytest.raises(InputError, match="at most 400 pixels"):
        decode(png(20, 21, bytes(21 * 21)), "x.png")


@pytest.mark.parametrize("kind", ["EPS", "PDF", "PCX", "TGA", "ICO", "JPEG2000"])
def test_only_kinds_that_photos_come_in_are_read(kind: str) -> None:
    """Pillow hands EPS to Ghostscript, a program that runs what it reads."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(buffer, kind)
    with pytest.raises(InputError, match="can't be read as an image"):
        decode(buffer.getvalue(), "x.png")


@pytest.mark.parametrize(
    "head",
    [b"#EXTM3U\n#EXTINF:1,\nhttp://localhost:1/a.ts\n", b"ffconcat version 1.0\nfile '/etc/passwd'\n", b""],
)
def test_a_list_of_addresses_is_no_video(
    tmp_path: Path, head: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.mp4").write_bytes(head)
    monkeypatch.setattr("cv2.VideoCapture", lambda path: pytest.fail("opened"))
    with pytest.raises(InputError, match="can't be read as a video"):
        list_images([str(tmp_path / "x.mp4")])


def ball(folder: Path, change: Callable[[dict], object]) -> Path:
    """A glTF file with its buffer beside it, changed."""
    (folder / "model").mkdir()
    for name, data in trimesh.exchange.gltf.export_gltf(
        trimesh.Scene(trimesh.creation.icosphere(subdivisions=1))
    ).items():
        (folder / "model" / name).write_bytes(data)
    path = folder / "model" / "model.gltf"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    return path


def test_the_buffer_of_a_gltf_file_lies_beside_it(tmp_path: Path) -> None:
    path = ball(tmp_path, lambda tree: None)
    assert len(read_mesh(path).faces) == 80
    buffer = next(path.parent.glob("*.bin"))
    buffer.rename(tmp_path / buffer.name)
    tree = json.loads(path.read_text())
    for uri in (f"../{buffer.name}", str(tmp_path / buffer.name), f"x/../../{buffer.name}"):
        tree["buffers"][0]["uri"] = uri
        path.write_text(json.dumps(tree))
        with pytest.raises(InputError, match="not below its folder"):
            read_mesh(path)
    (path.parent / "link.bin").symlink_to(tmp_path / buffer.name)
    tree["buffers"][0]["uri"] = "link.bin"
    path.write_text(json.dumps(tree))
    with pytest.raises(InputError, match="not below its folder"):
        read_mesh(path)


def test_a_scene_that_shows_one_part_very_often(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def multiply(tree: dict) -> None:
        tree["nodes"] = [{"mesh": 0} for _ in range(20)]
        tree["scenes"] = [{"nodes": list(range(20))}]

    path = ball(tmp_path, multiply)
    assert len(read_mesh(path).faces) == 1600
    monkeypatch.setattr("shic_cli.surface.allowance.MOST", 1599)
    with pytest.raises(InputError, match="over 1599 faces"):
        read_mesh(path)


@pytest.mark.parametrize("number", ["nan", "inf", "1e308", "1e35"])
def test_vertices_that_are_no_places(tmp_path: Path, number: str) -> None:
    (tmp_path / "x.obj").write_text(
        f"v 0 0 0\nv 1 0 0\nv 0 1 {number}\nv 0 0 1\nf 1 2 3\nf 1 2 4\nf 2 3 4\nf 1 3 4\n"
    )
    with pytest.raises(InputError, match=r"not finite|longest side"):
        read_mesh(tmp_path / "x.obj")


def changed(path: Path, change: Callable[[dict, dict, bytearray], object]) -> Path:
    """A model file after `change(header, meta, tensors)`."""
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    meta = json.loads(header["__metadata__"]["meta"])
    change(header, meta, body)
    header["__metadata__"]["meta"] = json.dumps(meta)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(body))
    return path


def fill(name: str, value: float) -> Callable[[dict, dict, bytearray], None]:
    def change(header: dict, meta: dict, body: bytearray) -> None:
        at = header[name]["data_offsets"][0]
        body[at : at + 4] = struct.pack("<f", value)

    return change


def put(**values: Any) -> Callable[[dict, dict, bytearray], None]:
    return lambda header, meta, body: meta.update(values)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put(channels=10**9), "another size"),  # 1 TB of layers, had they been made
        (put(dim=10**9), "another size"),
        (put(channels=-1), "another size"),
        (put(channels="80"), "channels is missing, or is not of type int"),
        (put(decoder=[]), "decoder is missing, or is not of type str"),
        (put(decoder="x"), "a tensor is missing"),
        (fill("C", float("nan")), "C is not finite"),
        (fill("surface.verts", float("inf")), "surface.verts holds numbers that are not finite"),
        (fill("surface.verts", 50.0), "surface.verts holds numbers outside -1 to 1"),
        (fill("surface.uv", -3.0), "surface.uv holds numbers outside 0 to 1"),
        (fill("surface.faces", -1.0), "surface: faces holds numbers outside"),
        (lambda header, meta, body: header.pop("C"), "safetensors|missing"),
        (
            lambda header, meta, body: header["C"].update(dtype="I32"),
            "C is torch.int32, expected torch.float32",
        ),
    ],
)
def test_models(small_model_file: Path, change: Callable, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        load_model(changed(small_model_file, change))
    assert "allocat" not in caught.value.message  # nothing of the size that the file claims was asked for


@pytest.mark.parametrize(
    "given", [{"hidden_size": 10**6}, {"num_hidden_layers": 10**6}, {"num_attention_heads": 0}, {"x": 1}]
)
def test_the_settings_of_a_carried_encoder_are_those_of_its_tensors(given: dict[str, int]) -> None:
    import torch

    tensors = {
        "embeddings.cls_token": torch.zeros(1, 1, 8),
        "embeddings.patch_embeddings.projection.weight": torch.zeros(8, 3, 14, 14),
        "embeddings.position_embeddings": torch.zeros(1, 5, 8),
        "encoder.layer.0.norm1.weight": torch.zeros(8),
    }
    config = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    check_config(config, tensors)
    with pytest.raises(InputError, match=r"settings|heads"):
        check_config({**config, **given}, tensors)


@pytest.mark.parametrize("number", [1e308, -1e300, 2**64, 10**400])
@pytest.mark.parametrize("suffix", [".json", ".csv"])
def test_keypoints_that_are_in_no_picture(tmp_path: Path, number: float, suffix: str) -> None:
    """So far away all pixels are equally near, and the nearest is none."""
    path = tmp_path / f"x{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps({"images": {name: {"points": {"a": [number, 1]}} for name in "ab"}}))
    else:
        path.write_text(f"source_image,target_image,class,XA,YA,XB,YB\na,b,1,1;{number},1;1,1;1,1;1")
    with pytest.raises(InputError, match=r"no pixel of a picture|numbers of the right length"):
        read_pairs(path)


@pytest.mark.parametrize("name", ["", ".", "/", ".."])
def test_names_without_a_stem_meet_nothing(name: str) -> None:
    assert meet([name, "a/b.jpg"], ["b.png"], stems=True) == {name: None, "a/b.jpg": "b.png"}


def test_many_images_are_not_all_paired(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shic_cli.files.keypoints.MOST", 2)
    (tmp_path / "x.json").write_text(
        json.dumps({"images": {name: {"points": {"a": [1, 1]}} for name in "abc"}})
    )
    with pytest.raises(InputError, match="its 3 images make more than 2 pairs"):
        read_pairs(tmp_path / "x.json")
