"""What libraries warn of, log and print is shown with -v alone, and no message holds an object's address."""

from __future__ import annotations

import logging
import os
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shic_cli.base.errors import InputError
from shic_cli.cli.console import configure

ROOT = Path(__file__).parents[2]
LOUD = pytest.mark.parametrize("verbosity", [0, 1])


@LOUD
def test_pillow_warns_with_v_alone(shic: Callable, tmp_path: Path, verbosity: int) -> None:
    """Of a picture that says it has 90 million pixels Pillow warns; we refuse it in our own words."""
    head = struct.pack(">IIBBBBB", 9000, 10_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in ((b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    for folder in ("imgs", "masks"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").write_bytes(data)
    status, _, err = shic(*["-v"] * verbosity, "features", "imgs", "--extractor", "silhouette")
    assert status == 1 and "is 9000 by 10000 pixels" in err
    assert ("shic: DecompressionBombWarning: " in err) == (verbosity == 1) == ("ombWarning" in err)


@LOUD
def test_numpy_and_the_logs_of_libraries_are_heard_with_v_alone(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verbosity: int
) -> None:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    configure(verbosity)
    configure(verbosity)
    warnings.simplefilter("always")
    assert np.isinf(np.array([3e38], np.float32) * np.float32(10)).all()
    logging.getLogger("some.library").warning("mind this")
    logging.getLogger("some.library").info("never mind")
    said = capsys.readouterr().err.splitlines()
    expected = ["shic: RuntimeWarning: overflow encountered in multiply", "shic: some.library: mind this"]
    assert said == (expected if verbosity else [])


@LOUD
def test_opencv_prints_with_v_alone_and_ffmpeg_nothing(tmp_path: Path, verbosity: int) -> None:
    """OpenCV writes to the process's stderr, past Python. Its ffmpeg would write to stdout, among JSON."""
    (tmp_path / "x.mp4").write_bytes(b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(500))
    program = f"""
from shic_cli.cli.console import configure
configure({verbosity})
import cv2
from pathlib import Path
from shic_cli.base.errors import InputError
from shic_cli.files.video import Video
cv2.imread("nowhere.png")
try:
    Video(Path("x.mp4")).count()
except InputError:
    pass
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": ""},
    )
    assert done.returncode == 0 and done.stdout == "", done.stderr
    assert ("nowhere.png" in done.stderr) == ("VIDEOIO" in done.stderr) == (verbosity == 1)
    assert verbosity or not done.stderr


def test_no_message_holds_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    held, work = object(), test_no_message_holds_an_address
    error = InputError(f"a.jpg: can't be read ({held!r})", "next")
    assert error.message == "a.jpg: can't be read (<object>)"
    assert InputError(f"{work!r}", "").message == f"<function {work.__name__}>"
    assert InputError("at 0x1f of <it>", "").message == "at 0x1f of <it>"
    configure(0)
    logging.getLogger("shic").warning("left out %s\n  and \x1b[2J", held)
    assert capsys.readouterr().err == "shic: warning: left out <object>\n  and \\x1b[2J\n"
