"""Images, masks, lists and video frames; the pixel convention and the one rule for crops.

Pixels are (y, x) with centres at integers: (0, 0) is the centre of the top left pixel. A position between
centres belongs to the pixel that it falls in. Pictures are (H, W, 3) uint8 RGB with EXIF rotation applied,
masks (H, W) bool.
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageOps

from shic_cli.base.errors import InputError
from shic_cli.base.settings import MARGIN

if TYPE_CHECKING:
    pass

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}
VIDEOS = {".mp4", ".avi", ".mov", ".mkv", ".webm"}
SMALLEST = 8  # pixels a side; nothing can be said of a smaller picture
LARGEST = 1 << 26  # pixels, 8192 by 8192: a file of a few kilobytes can declare any number
# What Pillow may read a file as. Of its other formats some start programs (EPS), and none is one that photos
# come in.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image to read: `name` identifies it in every file, and is its path below `root`; or it is `frame` of
    the video `root`.

    Of a million of them each byte counts: a `root` is kept once for all that share it.
    """

    root: Path
    name: str
    frame: int = -1

    @property
    def path(self) -> Path:
        """The file that it is in."""
        return self.root / self.name if self.frame < 0 else self.root

    @classmethod
    def at(cls, path: Path) -> ImageFile:
        """An image on its own, called like its file."""
        return cls(path.parent, path.name)

    def read(self) -> bytes:
        """The encoded image; a video frame is encoded as PNG. InputError if it can't be read."""
        if self.frame >= 0:
            return _read_frame(self.path, self.frame)
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise InputError(f"{self.path}: can't be read ({error.strerror})", "check the path") from error


def list_images(inputs: Sequence[str]) -> list[ImageFile]:
    """Every image of `inputs`, each a file, folder, glob, `.txt` list, video, or `-` for a list on standard
    input; sorted by name.

    InputError if there is none, or if two of them have one name.
    """
    found: dict[str, ImageFile] = {}
    roots: dict[Path, Path] = {}
    for text in inputs:
        for image in _expand(text):
            image = replace(image, root=roots.setdefault(image.root, image.root))
            other = found.setdefault(image.name, image)
            if other is not image and other.path.resolve() != image.path.resolve():
                raise InputError(
                    f"{image.name}: names two images, {other.path} and {image.path}",
                    "give the folder above them both",
                )
    if not found:
        raise InputError(
            f"{' '.join(inputs)}: holds no image", f"known endings: {' '.join(sorted(SUFFIXES | VIDEOS))}"
        )
    return [found[name] for name in sorted(found)]


def listing(images: Sequence[ImageFile]) -> dict[str, object]:
    """What `sources` records of many images: how many, and a hash of their names and sizes."""
    digest = hashlib.sha256()
    for image in images:
        digest.update(f"{image.name}\0{image.path.stat().st_size}\0".encode())
    return {"count": len(images), "sha256": digest.hexdigest()}


def _expand(text: str) -> Iterator[ImageFile]:
    path = Path(text)
    if text == "-" or path.suffix == ".txt":
        lines = sys.stdin.read() if text == "-" else _read_list(path)
        for line in filter(None, map(str.strip, lines.splitlines())):
            yield from _expand(line)
    elif path.is_dir():
        for folder, folders, names in os.walk(path):
            folders[:] = (name for name in folders if name != "masks")
            below = Path(folder).relative_to(path)
            yield from (
                ImageFile(path, (below / name).as_posix())
                for name in names
                if Path(name).suffix.lower() in SUFFIXES
            )
    elif path.suffix.lower() in VIDEOS and path.is_file():
        yield from (ImageFile(path, f"{path.stem}/{i:06d}.png", i) for i in range(_count_frames(path)))
    elif path.is_file():
        yield ImageFile.at(path)
    elif matches := sorted(glob.glob(text)):
        yield from (ImageFile.at(Path(match)) for match in matches)
    else:
        raise InputError(
            f"{text}: there is no such file or folder", "give an image, a folder, a list or a video"
        )


def _read_list(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as a list of images", "one path a line") from error


def _count_frames(path: Path) -> int:
    with path.open("rb") as stream:
        head = stream.read(12)
    # by its first bytes, for the decoder takes a list of addresses for a video too, and opens them
    known = head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip") or head[:4] in (
        b"RIFF",
        b"\x1a\x45\xdf\xa3",
    )
    count = int(cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)) if known else 0
    if not 0 < count <= path.stat().st_size:  # a frame has a byte at least
        raise InputError(f"{path}: can't be read as a video", "convert it to mp4, or to a folder of images")
    return count


def _read_frame(path: Path, index: int) -> bytes:
    video = cv2.VideoCapture(str(path))
    video.set(cv2.CAP_PROP_POS_FRAMES, index)
    ok, frame = video.read()
    if not ok:
        raise InputError(f"{path}: frame {index} can't be read", "the video may be truncated")
    return cv2.imencode(".png", frame)[1].tobytes()


def decode(data: bytes, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """An encoded image as `(H, W, 3)` uint8 RGB, upright, and its alpha channel `(H, W)` uint8 or None.

    Grey, 16-bit, CMYK and palette images are converted. InputError when it is truncated, no image, or under 8
    pixels a side.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            if picture.width * picture.height > LARGEST:
                raise InputError(
                    f"{name}: is {picture.width} by {picture.height} pixels",
                    f"at most {LARGEST} pixels are read; make it smaller",
                )
            picture = ImageOps.exif_transpose(picture)
            if picture.mode.startswith(("I", "F")):
                picture = Image.fromarray(_to_eight_bits(np.asarray(picture)))
            alpha = (
                np.asarray(picture.convert("RGBA").getchannel("A")) if picture.has_transparency_data else None
            )
            rgb = np.asarray(picture.convert("RGB"))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # Pillow's readers raise whatever their parsing stumbles over
        raise InputError(
            f"{name}: can't be read as an image ({error})",
            "open it in a viewer; export it again as PNG or JPEG",
        ) from error
    if min(rgb.shape[:2]) < SMALLEST:
        height, width = rgb.shape[:2]
        raise InputError(
            f"{name}: is {width} by {height} pixels", f"an image needs at least {SMALLEST} pixels a side"
        )
    return rgb, alpha


def _to_eight_bits(array: np.ndarray) -> np.ndarray:
    """16-bit integers by their high byte; anything else by its own range."""
    array = np.nan_to_num(array.astype(np.float32))
    top = 65535.0 if array.min() >= 0 and 255 < array.max() <= 65535 else max(float(array.max()), 1.0)
    return (array.clip(0, out=array) / top * 255).astype(np.uint8)


def encode(rgb: np.ndarray, suffix: str = ".png") -> bytes:
    """`(H, W, 3)` uint8 RGB as the bytes of a PNG, or of a JPEG of quality 92."""
    options = [cv2.IMWRITE_JPEG_QUALITY, 92] if suffix == ".jpg" else []
    return cv2.imencode(suffix, np.ascontiguousarray(rgb[..., ::-1]), options)[1].tobytes()


def as_mask(array: np.ndarray) -> np.ndarray:
    """A mask picture `(H, W)` or `(H, W, C)` as bool: over half of its largest value."""
    if array.ndim == 3:
        array = array[..., :3].max(-1)
    return array > array.max() / 2


def check_mask(mask: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """`mask` itself if it can serve for a photo of `shape`; InputError when its size differs, or it is empty
    or full.
    """
    if mask.shape != tuple(shape[:2]):
        sizes = f"{mask.shape[1]} by {mask.shape[0]} pixels, the photo {shape[1]} by {shape[0]}"
        raise InputError(
            f"{name}: its mask is {sizes}", "make the mask from the photo as it is, EXIF rotation applied"
        )
    if not mask.any() or mask.all():
        raise InputError(
            f"{name}: its mask is {'full' if mask.any() else 'empty'}",
            "a mask marks the object's pixels and leaves the rest black",
        )
    return mask


@dataclass(frozen=True)
class Photo:
    """A photo and its mask: `data` is the file's own bytes, `rgb` (H, W, 3) uint8, `mask` (H, W) bool."""

    name: str
    data: bytes
    rgb: np.ndarray
    mask: np.ndarray


class MaskSource:
    """Where masks come from, in this order: an alpha channel, `folder` or a sibling folder `masks/`,
    `masker(rgb)`.
    """

    def __init__(
        self, folder: Path | None = None, masker: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> None:
        self.folder = folder
        self.masker = masker
        if folder is not None and not folder.is_dir():
            fact = "is a file, not a folder" if folder.exists() else "there is no such folder"
            raise InputError(f"{folder}: {fact}", "give the folder of masks with --masks")

    @property
    def settings(self) -> dict[str, str]:
        """What files record: the folder as it was given, and of the part that masks photos without a mask its
        name and the class's.
        """
        given = {} if self.folder is None else {"masks": str(self.folder)}
        return given | getattr(self.masker, "settings", {})

    def prepare(self, image: ImageFile) -> None:
        """Make the masker now if `image` needs it, so that weights that are missing are told before anything
        is computed.
        """
        with suppress(InputError):  # what is wrong with the photo alone is told in its turn
            self.read(image)

    def read(self, image: ImageFile) -> Photo:
        """The photo with its mask; InputError if either can't be used."""
        data = image.read()
        rgb, alpha = decode(data, image.name)
        if alpha is not None and alpha.min() < 128:
            mask = alpha >= 128
        elif (path := self._find(image)) is not None:
            mask = read_mask(path)
        elif self.masker is not None:
            mask = self.masker(rgb)
            if not mask.any():
                said = "give it a mask in a folder masks/, or another --masker; those that score what they find have an option threshold="
                raise InputError(f"{image.name}: no object was found in it", said)
        else:
            raise InputError(
                f"{image.name}: has no mask",
                "put masks in a folder masks/ beside the photos' folder, or give --masks or --masker",
            )
        return Photo(image.name, data, rgb, check_mask(mask, rgb.shape, image.name))

    def _find(self, image: ImageFile) -> Path | None:
        stem = Path(image.name).with_suffix("")
        if self.folder is not None:
            folders = [self.folder]
        else:
            root = image.root if image.frame < 0 else image.root.parent
            folders = [root.parent / "masks", root / "masks"]
        tries = [
            folder / f"{part}{suffix}"
            for folder in folders
            for part in (stem, stem.name)
            for suffix in (".png", ".jpg")
        ]
        found = next((path for path in tries if path.is_file()), None)
        if found is None and self.folder is not None:
            raise InputError(
                f"{image.name}: has no mask in {self.folder}",
                f"it would be {self.folder / (str(stem) + '.png')}",
            )
        return found


def read_mask(path: Path) -> np.ndarray:
    """A mask file as `(H, W)` bool."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error
    rgb, alpha = decode(data, str(path))
    if alpha is not None and alpha.min() < 128 <= alpha.max():
        return alpha >= 128
    return as_mask(rgb)


@dataclass(frozen=True)
class Crop:
    """A square of the photo, which may reach beyond it: the pixel `top`, `left` and its `side`, in the
    photo's pixels.
    """

    top: int
    left: int
    side: int

    @classmethod
    def around(cls, mask: np.ndarray, margin: float = MARGIN) -> Crop:
        """The square around the box of `mask` (H, W), `margin` of its longer side wider on each side."""
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        side = int(np.ceil(max(height, width) * (1 + 2 * margin)))
        return cls(int(rows[0] + (height - side) // 2), int(columns[0] + (width - side) // 2), side)

    def cut(self, array: np.ndarray, size: int) -> np.ndarray:
        """`array` (H, W) or (H, W, C) inside the crop, resampled to `size` a side; beyond the photo it is 0.
        bool gives float32.
        """
        array = array.astype(np.float32) if array.dtype == bool else array
        out = np.zeros((self.side, self.side, *array.shape[2:]), array.dtype)
        y0, x0 = max(self.top, 0), max(self.left, 0)
        y1, x1 = min(self.top + self.side, array.shape[0]), min(self.left + self.side, array.shape[1])
        out[y0 - self.top : y1 - self.top, x0 - self.left : x1 - self.left] = array[y0:y1, x0:x1]
        return cv2.resize(
            out, (size, size), interpolation=cv2.INTER_AREA if size < self.side else cv2.INTER_LINEAR
        )

    def to_crop(self, yx: np.ndarray, size: int) -> np.ndarray:
        """Photo positions `(..., 2)` as positions in the crop of `size` pixels a side."""
        return (yx - np.array([self.top, self.left]) + 0.5) * (size / self.side) - 0.5

    def to_photo(self, yx: np.ndarray, size: int) -> np.ndarray:
        """Positions `(..., 2)` in the crop of `size` pixels a side as photo positions."""
        return (yx + 0.5) * (self.side / size) - 0.5 + np.array([self.top, self.left])
