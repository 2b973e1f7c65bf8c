"""Which photos a command reads: files, folders, lists and videos, and the masks beside them by name."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from shic_cli.base.errors import InputError
from shic_cli.files.checks import unreadable
from shic_cli.files.photos import HEIC_HINT, encode, read_bytes
from shic_cli.files.video import VIDEOS, Video

log = logging.getLogger("shic")

SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".avif"),
    *(".heic", ".heif"),
}
# The endings of photos that are not read.
FOREIGN = {
    *(".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"),
    *(".jxl", ".jp2", ".j2k", ".psd", ".xcf", ".svg", ".exr", ".hdr", ".tga", ".pcx"),
}
MASK_FOLDERS = ("masks", "mask")  # names of folders of masks beside photos, in upper or lower case
MASK_MARKS = ("_mask", "-mask", ".mask", " mask")  # what may follow the photo's name in a mask's name


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image file names an image to read.

    `name` identifies the image in every file and is its path below `root`. For a video frame, `root` is the
    video's file, and the image is `frame` of `video`. A listing may hold a million images, so each byte
    counts: all images that share a `root` share one object.
    """

    root: Path
    name: str
    frame: int = -1
    video: Video | None = None

    @property
    def path(self) -> Path:
        """Return the path of the file that holds the image."""
        return self.root / self.name if self.frame < 0 else self.root

    @classmethod
    def at(cls, path: Path) -> ImageFile:
        """Return a single image that has the name of its file."""
        return cls(path.parent, path.name)

    def read(self) -> bytes:
        """Return the encoded image (a video frame as JPEG); InputError if it can't be read."""
        if self.video is not None:
            return encode(self.video.read(self.frame), ".jpg")
        return read_bytes(self.path)


def list_images(inputs: Sequence[str]) -> list[ImageFile]:
    """Return every image of `inputs`, sorted by name.

    An input is a file, a folder, a glob, a `.txt` list, a video, or `-` for a list on standard input. If a
    list or one of several inputs names a file that does not exist, the result includes it. Reading it fails
    later, and only that image is lost. InputError if there is no image, or if two images have the same name.
    """
    found: dict[str, ImageFile] = {}
    roots: dict[Path, Path] = {}
    passed: Counter[str] = Counter()
    for text in inputs:
        for image in _expand(text, passed, len(inputs) > 1):
            image = replace(image, root=roots.setdefault(image.root, image.root))
            other = found.setdefault(image.name, image)
            if other is not image and other.path.resolve() != image.path.resolve():
                raise InputError(
                    f"{image.name}: names two images, {other.path} and {image.path}",
                    "give the folder above them both",
                )
    said = " ".join(inputs)
    _tell_passed(passed, said)
    stems = {name.rpartition(".")[0] for name in found}
    for name in [name for name in found if photo_of_mask(name.rpartition(".")[0]) in stems]:
        del found[name]  # it is a mask beside its photo
    if not found and (count := sum(passed[suffix] for suffix in VIDEOS)):
        raise InputError(f"{said}: holds no image, but {count} videos", "give a video by its own name")
    if not found:
        raise InputError(f"{said}: holds no image", f"known endings: {' '.join(sorted(SUFFIXES | VIDEOS))}")
    if not any(image.path.exists() for image in found.values()):
        first = next(iter(found.values()))
        raise InputError(
            f"{first.path}: there is no such file or folder", "give an image, a folder, a list or a video"
        )
    return [found[name] for name in sorted(found)]


def listing(images: Sequence[ImageFile]) -> dict[str, object]:
    """Return what `sources` records about many images: their count and a hash of their names and sizes."""
    digest = hashlib.sha256()
    for image in images:
        size = image.path.stat().st_size if image.path.exists() else 0
        digest.update(f"{image.name}\0{size}\0".encode())
    return {"count": len(images), "sha256": digest.hexdigest()}


def is_photo(name: str) -> bool:
    """Return whether a file's name ends like a photo's; names with a dot in front are other programs'."""
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def photo_of_mask(stem: str) -> str | None:
    """Return the stem of the photo that a mask file belongs to (`h` for `h_mask`), or None."""
    mark = next((mark for mark in MASK_MARKS if stem.lower().endswith(mark)), None)
    return stem[: -len(mark)] if mark and len(stem) > len(mark) else None


def _expand(text: str, passed: Counter[str], is_one_of_many: bool) -> Iterator[ImageFile]:
    """Yield the images that an input names; `passed` counts the endings of the files in folders."""
    path = Path(text)
    if text == "-" or path.suffix == ".txt":
        lines = sys.stdin.read() if text == "-" else _read_list(path)
        for line in filter(None, map(str.strip, lines.splitlines())):
            beside = path.parent / line if text != "-" else Path(line)
            yield from _expand(
                str(beside) if beside.exists() and not Path(line).exists() else line, passed, True
            )
    elif path.is_dir():
        yield from _walk(path, passed)
    elif path.suffix.lower() in VIDEOS and path.is_file():
        video = Video(path)
        yield from (ImageFile(path, f"{path.stem}/{i:06d}", i, video) for i in range(video.count()))
    elif path.is_file():
        yield ImageFile.at(path)
    elif matches := sorted(glob.glob(text)):
        yield from (ImageFile.at(Path(match)) for match in matches if Path(match).is_file())
    elif is_one_of_many:
        yield ImageFile.at(path)
    else:
        raise InputError(
            f"{text}: there is no such file or folder", "give an image, a folder, a list or a video"
        )


def _walk(root: Path, passed: Counter[str]) -> Iterator[ImageFile]:
    """Yield the photos below a folder, except those in folders of masks and in hidden folders."""
    for folder, folders, names in os.walk(root, onerror=unreadable(root)):
        folders[:] = (
            name for name in folders if name.lower() not in MASK_FOLDERS and not name.startswith(".")
        )
        below = Path(folder).relative_to(root)
        passed.update(Path(name).suffix.lower() for name in names if not name.startswith("."))
        yield from (ImageFile(root, (below / name).as_posix()) for name in names if is_photo(name))


def _tell_passed(passed: Counter[str], where: str) -> None:
    """Warn how many photos have a kind that is not read, and say how to make them readable."""
    for suffix in sorted(FOREIGN & passed.keys()):
        log.warning(
            "%s: %d files %s are not read: convert them to JPEG or PNG", where, passed[suffix], suffix
        )
    heic = passed[".heic"] + passed[".heif"]
    if heic and find_spec("pillow_heif") is None:
        log.warning("%s: %d files of HEIC can't be read: %s", where, heic, HEIC_HINT)


def _read_list(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read as a list of images", "one path a line") from error
