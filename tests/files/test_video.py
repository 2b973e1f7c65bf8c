"""Videos: frames in order, their names, as JPEG; files that are cut off; sizes."""

from __future__ import annotations

import logging
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from shic_cli.base.errors import InputError
from shic_cli.files.items import ItemReader
from shic_cli.files.photo_lists import list_images
from shic_cli.files.photos import decode
from shic_cli.files.video import Video

Run = Callable[..., tuple[int, str, str]]
BOX = np.zeros((48, 64), bool)
BOX[14:38, 20:52] = True


def frame(i: int) -> np.ndarray:
    """Frame `i` (48, 64, 3) BGR: its grey level tells its number."""
    return np.where(BOX[..., None], (40, 90, 255 - 2 * i), 3 * i).astype(np.uint8)


def write_video(path: Path, count: int, code: str = "MJPG", size: tuple[int, int] = (64, 48)) -> Path:
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*code), 10, size)
    for i in range(count):
        video.write(frame(i) if size == (64, 48) else np.zeros((size[1], size[0], 3), np.uint8))
    video.release()
    return path


def level(rgb: np.ndarray) -> float:
    """The frame's number by its background."""
    return float(rgb[~BOX].mean() / 3)


@pytest.mark.parametrize(("ending", "code"), [("avi", "MJPG"), ("mp4", "mp4v"), ("mkv", "mp4v")])
def test_frames_in_any_order(ending: str, code: str, tmp_path: Path) -> None:
    frames = list_images([str(write_video(tmp_path / f"clip.{ending}", 40, code))])
    assert [each.name for each in frames] == [f"clip/{i:06d}" for i in range(40)]
    for i in (0, 1, 2, 30, 7, 39, 0):
        data = frames[i].read()
        assert data[:2] == b"\xff\xd8"  # a JPEG, not a PNG of ten times its size
        assert level(decode(data, "frame")[0]) == pytest.approx(i, abs=1.2)


def test_a_frame_that_is_not_there_costs_that_frame_alone(tmp_path: Path) -> None:
    video = Video(write_video(tmp_path / "clip.avi", 5))
    for i in (5, 9):
        with pytest.raises(InputError, match=f"frame {i} can't be decoded"):
            video.read(i)
        assert level(video.read(4)) == pytest.approx(4, abs=1.2)


@pytest.mark.parametrize(
    ("packets", "said", "count", "told"),
    [
        (3, 3, 3, False),
        (3, 2, 3, False),
        (3, 4, 3, True),
        (3, 400, 3, True),
        (3, 401, 3, False),  # more than bytes: the heading is rubbish
        (10**6, 0, 400, False),  # a decoder that finds packets without end
    ],
)
def test_a_video_has_no_more_frames_than_bytes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    packets: int,
    said: int,
    count: int,
    told: bool,
) -> None:
    class Decoder:
        def __init__(self, *_: object) -> None:
            self.left = packets

        def get(self, what: int) -> float:
            return float(said) if what == cv2.CAP_PROP_FRAME_COUNT else 64.0

        def set(self, *_: object) -> None:
            """A setting that this one has not."""

        def grab(self) -> bool:
            self.left -= 1
            assert self.left > packets - 1000
            return self.left >= 0

        def release(self) -> None:
            """It holds nothing."""

    monkeypatch.setattr(cv2, "VideoCapture", Decoder)
    monkeypatch.setattr(logging.getLogger("shic"), "propagate", True)
    (tmp_path / "clip.avi").write_bytes(b"RIFF".ljust(400, b"\0"))
    with caplog.at_level(logging.WARNING, "shic"):
        assert Video(tmp_path / "clip.avi").count() == count
    assert (f"gives {count} of the {said} frames" in caplog.text) == told


def test_reading_in_order_decodes_each_frame_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    real = cv2.VideoCapture
    path = write_video(tmp_path / "clip.avi", 30)
    video = Video(path)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *words: opened.append(words) or real(*words))
    for i in range(30):
        assert level(video.read(i)) == pytest.approx(i, abs=1.2)
    assert len(opened) == 1


def test_masks_of_frames_and_names_in_files(shic: Run, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", 4)
    (tmp_path / "masks/clip").mkdir(parents=True)
    for i in range(4):
        cv2.imwrite(str(tmp_path / f"masks/clip/{i:06d}.png"), BOX * np.uint8(255))
    status, _, err = shic("features", "clip.avi", "--extractor", "silhouette")
    assert status == 0, err
    items = list(ItemReader(tmp_path / "features.h5", "shic/features"))
    assert [item.name for item in items] == [f"clip/{i:06d}" for i in range(4)]
    for i, item in enumerate(items):
        assert np.array_equal(item.mask, BOX) and item.encoded[:2].tobytes() == b"\xff\xd8"
        assert level(decode(item.encoded.tobytes(), item.name)[0]) == pytest.approx(i, abs=1.2)


def test_masks_are_written_by_the_frames_names(shic: Run, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.avi", 3)
    status, _, err = shic("mask", "clip.avi", "--masker", "grabcut")
    assert status == 0, err
    assert sorted(path.name for path in (tmp_path / "masks/clip").iterdir()) == [
        f"{i:06d}.png" for i in range(3)
    ]


def test_a_file_that_is_cut_off_says_how_many_frames_it_gave(shic: Run, tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 40)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    status, _, err = shic("mask", "clip.avi", "--masker", "grabcut", "-o", "found")
    made = len(list((tmp_path / "found/clip").iterdir()))
    assert 10 < made < 30
    count = int(err.partition("is cut off: it gives ")[2].split()[0])
    assert f"clip.avi: is cut off: it gives {count} of the 40 frames" in err
    assert made in (count, count - 1) and status == (0 if made == count else 4)


def test_decoders_say_nothing_by_themselves(tmp_path: Path) -> None:
    """ffmpeg and OpenCV write to stderr past every log, in their own words; seen from another process."""
    path = write_video(tmp_path / "clip.mp4", 20, "mp4v")
    path.write_bytes(path.read_bytes()[:900])
    (tmp_path / "clip.avi").write_bytes(b"RIFF" + b"\0" * 60)
    for name in ("clip.mp4", "clip.avi"):
        words = [sys.executable, "-m", "shic_cli", "mask", name]
        run = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert run.returncode == 1 and run.stderr.startswith(f"shic: error: {name}: can't be read as a video")
        assert run.stderr.count("\n") == 2


@pytest.mark.parametrize("data", [b"no video", b"RIFF" + b"\0" * 60, b"\0\0\0\x18ftypmp42" + b"\0" * 60])
def test_what_is_no_video(data: bytes, shic: Run, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(data)
    status, _, err = shic("mask", "clip.mp4")
    assert status == 1 and "clip.mp4: can't be read as a video" in err and "moov" not in err


def test_the_size_of_frames_is_asked_first(tmp_path: Path) -> None:
    """An AVI whose heading says 16,000 by 16,000 pixels: 770 MB a frame."""
    path = write_video(tmp_path / "clip.avi", 3)
    data = path.read_bytes()
    data = data.replace(struct.pack("<II", 64, 48), struct.pack("<II", 16_000, 16_000))  # of the headings
    heading = b"\x00\x11\x08"  # of a JPEG's frame
    data = data.replace(heading + struct.pack(">HH", 48, 64), heading + struct.pack(">HH", 16_000, 16_000))
    path.write_bytes(data)
    start = time.process_time()
    with pytest.raises(InputError, match="its frames are 16000 by 16000 pixels"):
        list_images([str(path)])
    assert time.process_time() - start < 2
