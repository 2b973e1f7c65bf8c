"""A video of maps: the photos in the order of their names, with colours or a texture over them."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from shic_cli.base.packages import needed


def write_video(path: Path, frames: Iterable[np.ndarray], fps: float) -> int:
    """Write the frames `(H, W, 3)` uint8 as an H.264 mp4 that browsers play, and say how many there are.

    All get the first one's size, made even; others are fitted into it.
    """
    with needed("mp4"):
        import av

    count = 0
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "18"}
        for count, frame in enumerate(frames, 1):
            if count == 1:
                stream.height, stream.width = (side - side % 2 for side in frame.shape[:2])
            fitted = _fit(frame, stream.height, stream.width)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(fitted, format="rgb24")))
        container.mux(stream.encode())
    return count


def _fit(frame: np.ndarray, height: int, width: int) -> np.ndarray:
    """The frame in a picture of this size, cut by a pixel or with black beside it."""
    if frame.shape[0] - height in (0, 1) and frame.shape[1] - width in (0, 1):
        return np.ascontiguousarray(frame[:height, :width])
    scale = min(height / frame.shape[0], width / frame.shape[1])
    size = max(1, int(frame.shape[1] * scale)), max(1, int(frame.shape[0] * scale))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    out = np.zeros((height, width, 3), np.uint8)
    top, left = (height - size[1]) // 2, (width - size[0]) // 2
    out[top : top + size[1], left : left + size[0]] = small
    return out
