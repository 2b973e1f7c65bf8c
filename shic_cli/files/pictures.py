"""The pictures: colour maps, heatmaps, contact sheets, plots. Pictures are (H, W, 3) uint8 RGB."""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

UNSURE = 57.0  # the uncertainty of the lightest colour, of 228; the page of `shic view` has the same


def color_map(rgb: np.ndarray, vertex: np.ndarray, colors: np.ndarray, opacity: float = 0.75) -> np.ndarray:
    """`rgb` `(H, W, 3)` uint8 with every labelled pixel of `vertex` `(H, W)` in the color of its vertex.

    The light and dark of the photo remain visible, by 1 - `opacity`.
    """
    return _tinted(rgb, vertex >= 0, colors[vertex[vertex >= 0]], opacity)


def uncertainty_map(rgb: np.ndarray, vertex: np.ndarray, uncertainty: np.ndarray) -> np.ndarray:
    """`rgb` `(H, W, 3)` uint8 with every labelled pixel of `vertex` `(H, W)` from dark to light by its
    `uncertainty` `(H, W)`; UNSURE and more is the lightest.
    """
    labelled = vertex >= 0
    colors = _ramp(uncertainty[labelled] / UNSURE, cv2.COLORMAP_VIRIDIS)
    return _tinted(rgb, labelled, colors, 0.75)


def _tinted(rgb: np.ndarray, labelled: np.ndarray, colors: np.ndarray, opacity: float) -> np.ndarray:
    """`rgb` in pale, its `labelled` pixels `(H, W)` in the `colors` `(P, 3)`, and the others darker."""
    out = (rgb.astype(np.float32) * 0.35 + 0.65 * rgb.mean(-1, keepdims=True)) * np.where(labelled, 1, 0.6)[
        ..., None
    ]
    out[labelled] = out[labelled] * (1 - opacity) + colors * opacity
    return out.clip(0, 255).astype(np.uint8)


def outline(
    rgb: np.ndarray,
    mask: np.ndarray,
    color: tuple[int, ...],
    others: Sequence[np.ndarray] = (),
    other: tuple[int, ...] = (0, 0, 0),
) -> np.ndarray:
    """`rgb` `(H, W, 3)` uint8, darker outside the `mask` `(H, W)` bool, whose outline is drawn in `color`.

    The outlines of the masks `others` are drawn in the color `other`.
    """
    out = np.where(mask[..., None], rgb, (rgb * np.float32(0.45)).astype(np.uint8))
    width = max(1, round(max(mask.shape) / 300))
    for shape, paint in [*((shape, other) for shape in others), (mask, color)]:
        contours, _ = cv2.findContours(shape.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(out, contours, -1, paint, width)
    return out


def heat_colors(values: np.ndarray) -> np.ndarray:
    """Colours `(..., 3)` uint8 of `values` in 0..1, dark blue to yellow."""
    return _ramp(values, cv2.COLORMAP_TURBO)


def _ramp(values: np.ndarray, ramp: int) -> np.ndarray:
    """Colours `(..., 3)` uint8 of `values` in 0..1, by a colour map of OpenCV."""
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], ramp)[:, 0, ::-1]
    return table[(np.clip(values, 0, 1) * 255).round().astype(int)]


def dot(rgb: np.ndarray, yx: tuple[float, float], radius: int = 5) -> np.ndarray:
    """`rgb` with a red dot with a white rim at the pixel `yx`."""
    out, centre = np.array(rgb, order="C"), (round(yx[1]), round(yx[0]))
    cv2.circle(out, centre, radius + 2, (255, 255, 255), -1, cv2.LINE_AA)
    return cv2.circle(out, centre, radius, (220, 30, 30), -1, cv2.LINE_AA)


def dots(rgb: np.ndarray, yx: np.ndarray, colors: np.ndarray, radius: int = 3) -> np.ndarray:
    """`rgb` with a dot with a thin white rim at each pixel of `yx` `(P, 2)`, in `colors` `(P, 3)` uint8."""
    out = np.array(rgb, order="C")
    for (y, x), color in zip(yx.tolist(), colors.tolist(), strict=True):
        cv2.circle(out, (round(x), round(y)), radius + 1, (255, 255, 255), -1, cv2.LINE_AA)
        cv2.circle(out, (round(x), round(y)), radius, color, -1, cv2.LINE_AA)
    return out


MARK = b"tEXtSoftware\0shic"  # the PNG chunk that says who made a picture


def marked(png: bytes) -> bytes:
    """The bytes of a PNG with the mark that it is of this program, which may then replace it."""
    chunk = struct.pack(">I", len(MARK) - 4) + MARK + struct.pack(">I", zlib.crc32(MARK))
    return png[:33] + chunk + png[33:]  # after the signature and the first chunk


def is_marked(path: Path) -> bool:
    """Whether `path` is a PNG with that mark."""
    try:
        with path.open("rb") as file:
            return MARK in file.read(100)
    except OSError:
        return False


def fit_height(rgb: np.ndarray, height: int) -> np.ndarray:
    """`rgb` resized to a height of `height` pixels, with the same aspect ratio."""
    width = max(1, round(rgb.shape[1] * height / rgb.shape[0]))
    return cv2.resize(
        rgb, (width, height), interpolation=cv2.INTER_AREA if height < rgb.shape[0] else cv2.INTER_LINEAR
    )


def contact_sheet(
    images: Sequence[np.ndarray], columns: int, captions: Sequence[str] = (), side: int = 128
) -> np.ndarray:
    """`(H, W, 3)` uint8: the `images` in rows of `columns` tiles of `side` pixels, with captions below."""
    gap, foot = 4, 16 if captions else 0
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (side + foot + gap) + gap, columns * (side + gap) + gap, 3), 40, np.uint8)
    for i, image in enumerate(images):
        scale = side / max(image.shape[:2])
        height, width = (max(1, round(length * scale)) for length in image.shape[:2])
        tile = cv2.resize(
            image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        )
        top, left = gap + i // columns * (side + foot + gap), gap + i % columns * (side + gap)
        sheet[top : top + height, left : left + width] = tile
        if captions:
            place = (left + 2, top + side + 12)
            cv2.putText(
                sheet, captions[i], place, cv2.FONT_HERSHEY_SIMPLEX, 0.36, (210, 210, 210), 1, cv2.LINE_AA
            )
    return sheet


# matplotlib's ten colours, which are told apart by most people.
LINES = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")
WIDTH, HEIGHT, LEGEND = 840, 480, 270  # pixels of a plot, and of the legend on its right
FINE = 3  # it is drawn larger by this, so that its lines are smooth


def loss_plot(history: list[dict[str, float]]) -> np.ndarray:
    """A picture `(H, W, 3)` uint8 of every loss over the epochs, each divided by its largest value.

    The losses of a single epoch are dots, side by side.
    """
    size = WIDTH + LEGEND, HEIGHT
    picture = Image.new("RGB", (size[0] * FINE, size[1] * FINE), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(13 * FINE)
    left, top, right, bottom = (FINE * edge for edge in (70, 30, WIDTH - 20, HEIGHT - 50))
    last = len(history)

    def place(epoch: float, share: float) -> tuple[float, float]:
        along = (epoch - 1) / (last - 1) if last > 1 else 0.5
        return left + along * (right - left), bottom - share / 1.02 * (bottom - top)

    for share in np.linspace(0, 1, 6):
        y = place(1, share)[1]
        draw.line([(left, y), (right, y)], "#dddddd", FINE)
        draw.text((left - 8 * FINE, y), f"{share:.1f}", "black", font, "rm")
    for epoch in sorted({round(each) for each in np.linspace(1, last, 9)}):
        draw.line([place(epoch, 0), place(epoch, 1.02)], "#dddddd", FINE)
        draw.text((place(epoch, 0)[0], bottom + 8 * FINE), str(epoch), "black", font, "mt")
    draw.rectangle([left, top, right, bottom], outline="black", width=FINE)
    draw.text(((left + right) / 2, bottom + 28 * FINE), "epoch", "black", font, "mt")
    draw.text((left, top - 6 * FINE), "share of its largest value", "black", font, "lb")
    for row, (name, color) in enumerate(zip(history[0], itertools.cycle(LINES))):
        values = np.array([means.get(name, np.nan) for means in history])
        shares = values / (np.nanmax(np.abs(values)) or 1)
        points = [place(i, share) for i, share in enumerate(shares, 1) if np.isfinite(share)]
        draw.line(points, color, 2 * FINE, joint="curve")
        if len(points) == 1:
            aside = (row - (len(history[0]) - 1) / 2) * 14 * FINE if last == 1 else 0
            draw.circle((points[0][0] + aside, points[0][1]), 4 * FINE, color)
        x, y = right + 20 * FINE, top + (14 + 20 * row) * FINE
        draw.line([x, y, x + 24 * FINE, y], color, 2 * FINE)
        ends = f"{values[0]:.4g} to {values[-1]:.4g}" if last > 1 else f"{values[0]:.4g}"
        draw.text((x + 32 * FINE, y), f"{name}  {ends}", "black", font, "lm")
    return np.asarray(picture.resize(size, Image.Resampling.BOX))
