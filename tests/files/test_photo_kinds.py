"""Which files are photos: kinds, names that begin with a dot, lists with a name that is missing, sizes."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from shic_cli.base.errors import InputError
from shic_cli.files import photo_lists, photos
from shic_cli.files.items import ItemReader
from shic_cli.files.photo_lists import list_images
from shic_cli.files.photos import Crop, decode

Run = Callable[..., tuple[int, str, str]]
BLOB = np.zeros((48, 64), bool)
BLOB[16:36, 14:50] = True
RGB = np.where(BLOB[..., None], (190, 120, 60), (60, 90, 60)).astype(np.uint8)
NAMES = ("a.jpg", "b.jfif", "c.JPE", "d.gif", "e.avif", "f.heic", "g.HEIF", "h.webp", "i.bmp", "j.tif")


def write(path: Path, rgb: np.ndarray = RGB) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds = {".jfif": "JPEG", ".jpe": "JPEG", ".heic": "HEIF", ".heif": "HEIF"}
    if path.suffix.lower() in (".heic", ".heif"):
        pytest.importorskip("pillow_heif").register_heif_opener()
    Image.fromarray(rgb).save(path, kinds.get(path.suffix.lower()))
    return path


def write_masks(folder: Path, names: tuple[str, ...]) -> None:
    for name in names:
        write((folder / "masks" / name).with_suffix(".png"), BLOB * np.uint8(255))


def test_kinds_of_photos(shic: Run, tmp_path: Path) -> None:
    for name in NAMES:
        write(tmp_path / "imgs" / name)
    write_masks(tmp_path, NAMES)
    status, _, err = shic("features", "imgs/", "--extractor", "silhouette")
    assert status == 0, err
    items = list(ItemReader(tmp_path / "features.h5", "shic/features"))
    assert [item.name for item in items] == sorted(NAMES)
    for item in items:
        rgb, _ = decode(
            item.encoded.tobytes(), item.name
        )  # the file's own bytes, which every reader can decode
        assert np.abs(rgb.astype(int) - RGB)[BLOB].mean() < 12


def test_heic_without_the_package_says_how(
    shic: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.heic", "b.HEIC", "c.jpg"):
        write(tmp_path / "imgs" / name)
    write_masks(tmp_path, ("a", "b", "c"))
    for module in (photos, photo_lists):
        monkeypatch.setattr(module, "find_spec", lambda name: None)
    status, _, err = shic("features", "imgs/", "--extractor", "silhouette")
    assert status == 4 and "imgs/: 2 files of HEIC can't be read: pip install 'shic[formats]'" in err
    assert "a.heic: is HEIC" in err and "shic[formats]" in err
    assert ItemReader(tmp_path / "features.h5", "shic/features").names == ["c.jpg"]


def test_kinds_that_are_not_read_are_counted(shic: Run, tmp_path: Path) -> None:
    write(tmp_path / "imgs/a.jpg")
    write_masks(tmp_path, ("a",))
    for name in ("1.CR2", "2.cr2", "3.jxl", "notes.md"):
        (tmp_path / "imgs" / name).write_bytes(b"")
    status, _, err = shic("features", "imgs/", "--extractor", "silhouette")
    assert status == 0 and "2 files .cr2 are not read" in err and "1 files .jxl" in err and "notes" not in err


def test_names_that_begin_with_a_dot_are_no_photos(tmp_path: Path) -> None:
    """What macOS, Jupyter and Windows leave beside photos."""
    for name in (
        "a.jpg",
        "._a.jpg",
        ".ipynb_checkpoints/a-checkpoint.jpg",
        "__MACOSX/._a.jpg",
        ".hidden.png",
    ):
        write(tmp_path / "imgs" / name)
    assert [image.name for image in list_images([str(tmp_path / "imgs")])] == ["a.jpg"]


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\nshort", b"\0\0\0\x18ftypheicshort"])
def test_messages_name_no_python_object(data: bytes, shic: Run, tmp_path: Path) -> None:
    (tmp_path / "h.jpg").write_bytes(data)
    status, out, err = shic("mask", "h.jpg")
    assert status == 1 and "h.jpg: " in err and " at 0x" not in out + err and "<_io" not in out + err


def test_a_missing_name_of_a_list_costs_that_name(shic: Run, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        write(tmp_path / "imgs" / name)
    write_masks(tmp_path, ("a", "b"))
    (tmp_path / "list.txt").write_text("imgs/a.jpg\nimgs/gone.jpg\nimgs/b.jpg\n")
    for i, words in enumerate((("list.txt",), ("imgs/a.jpg", "imgs/gone.jpg", "imgs/b.jpg"))):
        status, _, err = shic("features", *words, "--extractor", "silhouette", "-o", f"{i}.h5")
        assert status == 4 and "1 of 3 inputs failed: gone.jpg" in err
        assert ItemReader(tmp_path / f"{i}.h5", "shic/features").names == ["a.jpg", "b.jpg"]
    (tmp_path / "none.txt").write_text("imgs/x.jpg\nimgs/y.jpg\n")
    for words in (("none.txt",), ("imgs/x.jpg",)):
        status, _, err = shic("features", *words, "--extractor", "silhouette", "-o", "none.h5")
        assert status == 1 and "x.jpg: there is no such file or folder" in err


def test_sizes_are_asked_before_pixels_are_read(tmp_path: Path) -> None:
    """A PNG of 8 by 8,388,608 pixels is a small file; so is a JPEG of 1,500 scans."""
    for size in ((8, 8_388_608), (40_000, 10)):
        buffer = io.BytesIO()
        Image.new("1", size).save(buffer, "PNG")
        with pytest.raises(InputError, match=f"is {size[0]} by {size[1]} pixels"):
            decode(buffer.getvalue(), "a.png")


def test_progressive_scans_are_counted(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(RGB).resize((1024, 1024)).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    assert decode(data, "a.jpg")[0].shape == (1024, 1024, 3)
    scan = data.rindex(b"\xff\xda")
    many = data[:-2] + data[scan:-2] * 1500 + data[-2:]
    start = time.process_time()
    with pytest.raises(InputError, match=r"is a JPEG of 15\d\d scans"):
        decode(many, "a.jpg")
    assert time.process_time() - start < 2


def test_a_crop_of_a_long_photo_takes_no_square_of_its_length() -> None:
    """30,000 by 16 pixels: the square around it would take 3.9 GB."""
    strip = np.zeros((16, 30_000, 3), np.uint8)
    strip[:, 9_000:21_000] = 200
    found = Crop(-14_992, 0, 30_000).cut(strip, 100)
    assert found.shape == (100, 100, 3)
    lit = np.flatnonzero(found.max((0, 2)) > found.max() / 2)
    assert abs(lit[0] - 30) <= 1 and abs(lit[-1] - 69) <= 1


def test_lists_with_a_mark_at_the_start_and_names_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Windows' editor saves them; names may be relative to the list's own folder."""
    write(tmp_path / "set/imgs/a.jpg")
    (tmp_path / "set/list.txt").write_bytes("\ufeffimgs/a.jpg\r\n\r\n".encode())
    monkeypatch.chdir(tmp_path)
    assert [image.path for image in list_images(["set/list.txt"])] == [Path("set/imgs/a.jpg")]


def test_links_that_lead_nowhere_and_folders_called_like_photos(shic: Run, tmp_path: Path) -> None:
    write(tmp_path / "imgs/a.jpg")
    write_masks(tmp_path, ("a", "b"))
    (tmp_path / "imgs/b.jpg").symlink_to("/nowhere/b.jpg")
    (tmp_path / "imgs/c.jpg").mkdir()
    status, _, err = shic("features", "imgs/", "--extractor", "silhouette")
    assert status == 4 and "1 of 2 inputs failed: b.jpg" in err


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tif"])
def test_of_several_frames_the_first_is_read_and_their_number_is_said(
    shic: Run, tmp_path: Path, kind: str
) -> None:
    frames = [Image.fromarray(np.roll(RGB, 3 * i, 1)) for i in range(3)]
    (tmp_path / "imgs").mkdir()
    whole = {"save_all": True, "append_images": frames[1:]}
    frames[0].save(tmp_path / f"imgs/a.{kind}", **whole, **({"lossless": True} if kind == "webp" else {}))
    write(tmp_path / f"imgs/still.{kind}")
    write_masks(tmp_path, ("a.png", "still.png"))
    status, _, err = shic("features", "imgs/", "--extractor", "silhouette")
    assert status == 0, err
    assert f"a.{kind}: holds 3 frames, and the first is read; convert it to mp4" in err and "still" not in err
    rgb, _ = decode((tmp_path / f"imgs/a.{kind}").read_bytes(), "a")
    assert np.abs(rgb.astype(int) - RGB).max() < 40  # of the palette of a GIF
