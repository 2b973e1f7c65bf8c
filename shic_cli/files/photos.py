"""Read and write pictures; define the pixel convention and the rule for crops.

Pixels are (y, x) with centres at integers: (0, 0) is the centre of the top left pixel. A position between
centres belongs to the pixel that contains it. Pictures are `(H, W, 3)` uint8 RGB with EXIF rotation applied,
masks are `(H, W)` bool.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from shic_cli.base.errors import InputError
from shic_cli.base.packages import OPTIONAL
from shic_cli.base.settings import MARGIN

log = logging.getLogger("shic")

# The formats that pictures are written in.
WRITTEN = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
SMALLEST = 8  # pixels a side; a smaller picture holds too little information
LARGEST = 1 << 26  # pixels, 8192 by 8192; a file of a few kilobytes can declare any number
LONGEST = 1 << 15  # pixels a side
SCANS = 100  # the largest number of scans in a JPEG
HUGE = 1 << 13  # pixels a side of a crop; for a larger crop the photo is shrunk before the cut
# The formats that Pillow may read a file as. Some of its other formats start programs (EPS), and no photo
# has one of them.
FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
JPEG = b"\xff\xd8"
HEIF = (b"ftypheic", b"ftypheix", b"ftypheim", b"ftypheis", b"ftypmif1", b"ftyphevc", b"ftypmsf1")
HEIC_HINT = f"{OPTIONAL['pillow_heif'].install}, or convert it to JPEG"
UNREADABLE = "open it in a viewer; export it again as PNG or JPEG"
GREY = 24  # the largest difference in levels between the channels of a lossy grey picture


def read_bytes(path: Path) -> bytes:
    """Return the bytes of a file; InputError if it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error


@contextmanager
def _opened(data: bytes, name: str) -> Iterator[Image.Image]:
    """Yield an encoded image as an upright Pillow image.

    The size is checked before any pixel is read. InputError for every error inside the block.
    """
    try:
        with Image.open(io.BytesIO(data), formats=_formats(data)) as picture:
            _check_size(picture.size, name)
            _check_scans(data, name)
            ImageOps.exif_transpose(picture, in_place=True)
            yield picture
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise many kinds of exceptions
        if data[4:12] in HEIF:
            raise InputError(f"{name}: is HEIC, and Pillow alone can't read it", HEIC_HINT) from error
        said = f" ({error})" if not isinstance(error, UnidentifiedImageError) else ""
        raise InputError(f"{name}: can't be read as an image{said}", UNREADABLE) from error


def _formats(data: bytes) -> tuple[str, ...]:
    """Return the formats that Pillow may read `data` as; HEIC needs the package for it."""
    if data[4:12] in HEIF and find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()
        return (*FORMATS, "HEIF")
    return FORMATS


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width * height > LARGEST or max(width, height) > LONGEST:
        most = f"at most {LARGEST} pixels, and {LONGEST} a side, are read; make it smaller"
        raise InputError(f"{name}: is {width} by {height} pixels", most)
    if min(width, height) < SMALLEST:
        raise InputError(
            f"{name}: is {width} by {height} pixels", f"an image needs at least {SMALLEST} pixels a side"
        )


def _check_scans(data: bytes, name: str) -> None:
    """Raise InputError if a JPEG has more scans than programs write; each is a pass over all pixels."""
    scans = data.count(b"\xff\xda") if data[:2] == JPEG else 0
    if scans > SCANS:
        raise InputError(f"{name}: is a JPEG of {scans} scans", "save it again; programs write about ten")


def decode(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """Return an encoded image as upright `(H, W, 3)` uint8 RGB, and its alpha `(H, W)` uint8 or None.

    Grey, 16-bit, CMYK and palette images are converted. InputError if the image is truncated, is no image,
    has fewer than 8 pixels a side, or is larger than the limits of this module.
    """
    with _opened(data, name) as picture:
        if picture.mode.startswith(("I", "F")):
            picture = Image.fromarray(_to_eight_bits(np.asarray(picture)))
        alpha = np.asarray(picture.convert("RGBA").getchannel("A")) if picture.has_transparency_data else None
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB")), alpha


def decode_levels(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray | None, np.ndarray | None]:
    """Return the stored levels, the colours and the alpha channel of a mask's picture.

    The levels are `(H, W)`. The colours are `(H, W, 3)` uint8, or None if the picture is grey. The alpha
    channel is `(H, W)` uint8 or None. The levels are grey values of any depth, the indices of a palette, or
    colours packed into one number each. Raises the same errors as `decode`.
    """
    with _opened(data, name) as picture:
        alpha = np.asarray(picture.convert("RGBA").getchannel("A")) if picture.has_transparency_data else None
        if picture.mode in ("1", "L", "F") or picture.mode.startswith("I"):
            levels = np.asarray(picture.convert("L") if picture.mode == "1" else picture)
            return np.nan_to_num(levels, posinf=0, neginf=0), None, alpha
        colors = np.asarray(picture.convert("RGB"))
        most = GREY if is_lossy(data) else 0
        if all(cv2.absdiff(colors[..., 1], colors[..., other]).max() <= most for other in (0, 2)):
            return colors[..., 1], None, alpha
        filled = [channel for channel in range(3) if colors[..., channel].any()]
        if len(filled) == 1 and picture.mode != "P":  # the numbers are in one channel
            return colors[..., filled[0]], None, alpha
        return np.asarray(picture) if picture.mode == "P" else pack(colors), colors, alpha


def is_lossy(data: bytes) -> bool:
    """Return whether the format of the encoded image blurs pixels, as JPEG does."""
    return data[:2] == JPEG or data[8:12] == b"WEBP" or data[4:8] == b"ftyp"


def pack(colors: np.ndarray) -> np.ndarray:
    """Return colours `(H, W, 3)` uint8 as one number each, 0xRRGGBB, `(H, W)` uint32."""
    red, green, blue = (colors[..., channel].astype(np.uint32) for channel in range(3))
    return red << 16 | green << 8 | blue


def orientation(data: bytes) -> int:
    """Return the photo's EXIF orientation: 1 if its pixels are stored upright, or else 2 to 8."""
    try:
        with Image.open(io.BytesIO(data), formats=_formats(data)) as picture:
            flag = picture.getexif().get(0x0112, 1)
    except Exception:  # the code that decodes it reports the error
        return 1
    return flag if flag in range(2, 9) else 1


def count_frames(data: bytes) -> int:
    """Return how many frames or pages an encoded image holds; 1 also if it can't be read.

    Only formats that hold several pictures of one thing are looked into. The further pictures of a phone's
    JPEG are depths or parts of the first.
    """
    animated = data[:3] == b"GIF" or b"acTL" in data[:4096] or (data[8:16] == b"WEBPVP8X" and data[20] & 2)
    if not animated and data[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            return int(getattr(picture, "n_frames", 1))
    except Exception:  # the code that decodes it reports the error
        return 1


def turn(array: np.ndarray, flag: int) -> np.ndarray:
    """Return `array` `(H, W)` of stored pixels turned upright, by the EXIF flag 2 to 8."""
    if flag >= 5:
        array = array.T
    flips = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}
    rows, columns = flips.get(flag, (1, 1))
    return np.ascontiguousarray(array[::rows, ::columns])


def _to_eight_bits(array: np.ndarray) -> np.ndarray:
    """Return 16-bit integers as their high byte, and other values scaled by their own range."""
    array = np.nan_to_num(array.astype(np.float32))
    top = 65535.0 if array.min() >= 0 and 255 < array.max() <= 65535 else max(float(array.max()), 1.0)
    return (array.clip(0, out=array) / top * 255).astype(np.uint8)


def encode(rgb: np.ndarray, suffix: str = ".png", quality: int = 92) -> bytes:
    """Return `(H, W, 3)` uint8 RGB as the bytes of a PNG, or of a JPEG of that `quality`, 0 to 100."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix == ".jpg" else []
    return cv2.imencode(suffix, np.ascontiguousarray(rgb[..., ::-1]), options)[1].tobytes()


@dataclass(frozen=True)
class Crop:
    """A crop is a square of the photo, and it may extend beyond the photo.

    `top` and `left` are its first pixel and `side` is its length, in pixels of the photo.
    """

    top: int
    left: int
    side: int

    @classmethod
    def around(cls, mask: np.ndarray, margin: float = MARGIN) -> Crop:
        """Return the square around the box of `mask` `(H, W)`, enlarged by `margin`.

        Its side is the box's longer side times `1 + 2 * margin`.
        """
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        side = int(np.ceil(max(height, width) * (1 + 2 * margin)))
        return cls(int(rows[0] + (height - side) // 2), int(columns[0] + (width - side) // 2), side)

    def cut(self, array: np.ndarray, size: int, pillow: bool = False) -> np.ndarray:
        """Return the part of `array` `(H, W)` or `(H, W, C)` inside the crop, resampled to `size` a side.

        Values beyond the photo are 0. A bool array gives float32. With `pillow`, which is for a picture of
        uint8, it is resampled by Pillow's bilinear filter.
        """
        array = array.astype(np.float32) if array.dtype == bool else array
        if (step := -(-self.side // HUGE)) > 1:  # a square of so many pixels would fill the memory
            smaller = cv2.resize(array, None, fx=1 / step, fy=1 / step, interpolation=cv2.INTER_AREA)
            return Crop(self.top // step, self.left // step, -(-self.side // step)).cut(smaller, size, pillow)
        out = np.zeros((self.side, self.side, *array.shape[2:]), array.dtype)
        y0, x0 = max(self.top, 0), max(self.left, 0)
        y1, x1 = min(self.top + self.side, array.shape[0]), min(self.left + self.side, array.shape[1])
        out[y0 - self.top : y1 - self.top, x0 - self.left : x1 - self.left] = array[y0:y1, x0:x1]
        if pillow:
            return np.asarray(Image.fromarray(out).resize((size, size), Image.Resampling.BILINEAR))
        return cv2.resize(
            out, (size, size), interpolation=cv2.INTER_AREA if size < self.side else cv2.INTER_LINEAR
        )

    def to_crop(self, yx: np.ndarray, size: int) -> np.ndarray:
        """Return photo positions `(..., 2)` as positions in the crop of `size` pixels a side."""
        return (yx - np.array([self.top, self.left]) + 0.5) * (size / self.side) - 0.5
