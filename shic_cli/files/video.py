"""The frames of a video, read in order: to seek each anew takes twenty times as long, and is not exact."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import cv2
import numpy as np

from shic_cli.base.errors import InputError

log = logging.getLogger("shic")

VIDEOS = {".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm"}
LARGEST = 1 << 26  # pixels of a frame, as of a photo
CONVERT = "convert it to mp4, or to a folder of images"


class Video:
    """A video file; one frame after the other is read from one open decoder. Any thread may ask."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._decoder: cv2.VideoCapture | None = None
        self._next = 0  # the frame that the decoder gives next
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Video({str(self.path)!r})"

    def count(self) -> int:
        """How many frames the file holds, by counting its packets; a warning where its heading says more.

        InputError if it can't be read, or if its frames are larger than is read.
        """
        decoder = self._open()
        said = int(decoder.get(cv2.CAP_PROP_FRAME_COUNT))
        decoder.set(cv2.CAP_PROP_FORMAT, -1)  # packets as they are: nothing is decoded
        count, most = 0, self.path.stat().st_size  # a frame has a byte at least
        while count < most and decoder.grab():
            count += 1
        decoder.release()
        if not count:
            raise InputError(f"{self.path}: can't be read as a video", CONVERT)
        if count < said <= most:
            log.warning(
                "%s: is cut off: it gives %d of the %d frames that it announces", self.path, count, said
            )
        return count

    def read(self, index: int) -> np.ndarray:
        """Frame `index` `(H, W, 3)` uint8 RGB; InputError if it can't be decoded."""
        with self._lock:
            if self._decoder is None or index < self._next:
                self._decoder, self._next = self._open(), 0
            while self._next < index and self._decoder.grab():
                self._next += 1
            good, frame = self._decoder.read() if self._next == index else (False, None)
            if not good or frame is None:
                self._decoder = None
                raise InputError(f"{self.path}: frame {index} can't be decoded", "the video is damaged there")
            self._next += 1
        return np.ascontiguousarray(frame[..., ::-1])

    def _open(self) -> cv2.VideoCapture:
        """A decoder at the first frame; its size is asked before a frame is decoded."""
        with self.path.open("rb") as stream:
            head = stream.read(12)
        # by its first bytes, for the decoder takes a list of addresses for a video too, and opens them
        if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") and head[:4] not in (
            b"RIFF",
            b"\x1a\x45\xdf\xa3",
        ):
            raise InputError(f"{self.path}: can't be read as a video", CONVERT)
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # it prints to stdout, among JSON
        level = cv2.utils.logging.getLogLevel()
        if not log.isEnabledFor(logging.DEBUG):
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            decoder = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
        finally:
            cv2.utils.logging.setLogLevel(level)
        width, height = (
            int(decoder.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if width * height > LARGEST:
            raise InputError(
                f"{self.path}: its frames are {width} by {height} pixels",
                f"at most {LARGEST} pixels are read",
            )
        return decoder
