"""Write foreground masks of photos as files.

A photo gets the mask of its main object, or one crop for each object. A report lists the unsure masks.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from shic_cli.base.errors import Failures, InputError, SettingError, ShicError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import MaskConfig
from shic_cli.base.workers import number_of, spread
from shic_cli.files.alpha import cut_out
from shic_cli.files.atomic import atomic, check_folder, tidy
from shic_cli.files.locks import Lock
from shic_cli.files.mask_checks import check_mask
from shic_cli.files.masks import read_mask
from shic_cli.files.photo_lists import ImageFile
from shic_cli.files.photos import SMALLEST, Crop, decode, encode
from shic_cli.files.pictures import fit_height, outline
from shic_cli.parts.maskers.contract import Found, main_object
from shic_cli.parts.maskers.make import ObjectFinder
from shic_cli.stages.mask_report import SHOWN, Report, Row, doubts

log = logging.getLogger("shic")

KEY = "shic"  # the text field of a mask's PNG that says what made it
MOST = 1000  # the largest number of objects in a photo
LEAST_PHOTOS = 20  # for which a process pays
SURE, UNSURE, OTHER = (70, 220, 90), (240, 60, 50), (70, 130, 255)  # the colours of outlines


def check_places(
    inputs: Sequence[str], images: Sequence[ImageFile], folder: Path, others: Sequence[Path]
) -> None:
    """Raise SettingError if the output folders or the masks' names conflict with the photos.

    This happens if the next run would read the output as photos, if two photos would share one mask, or if a
    mask would overwrite a photo.
    """
    for place in (folder, *others):
        for text in inputs:
            root = Path(text).resolve()
            if (
                root.is_dir()
                and place.resolve().is_relative_to(root)
                and "masks" not in place.resolve().relative_to(root).parts
            ):
                raise SettingError(
                    f"{place}: lies among the photos of {text}", "name a folder beside them, as in -o masks/"
                )
    owners: dict[str, str] = {}
    for image in images:
        target = mask_name(image.name)
        if owners.setdefault(target, image.name) != image.name:
            raise SettingError(
                f"{owners[target]} and {image.name}: would have one mask, {target}",
                "rename one of the photos",
            )
        if (folder / target).resolve() == image.path.resolve():
            raise SettingError(f"{folder / target}: is a photo", "name another folder with -o")


def mask_name(photo: str) -> str:
    """Return the path of a photo's mask in the folder of masks: the photo's name with the ending .png."""
    return Path(photo).with_suffix(".png").as_posix()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Make `folder` and lock it, so that no second run writes to it.

    InputError if it is a file or can't be made. ShicError if another run holds the lock.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file", "name a folder with -o")
    check_folder(folder.parent)
    is_new = not folder.exists()
    folder.mkdir(exist_ok=True)
    try:
        with Lock(folder.resolve()):  # which has a name, unlike `.`
            yield
    finally:
        for place in (folder / "imgs", folder / "masks", folder) if is_new else ():
            with suppress(OSError):  # the folder does not exist, or it is not empty
                place.rmdir()


class Made(NamedTuple):
    """What was made of a photo: its row, its overlay `(h, w, 3)` uint8, and whether a kept mask is foreign.

    A foreign mask was made with other settings. `note` is what is to be said.
    """

    row: Row
    overlay: np.ndarray
    is_foreign: bool
    note: str


class MaskWriter:
    """A writer makes the masks of photos in `folder`; call it with each photo.

    It makes each mask once. With `config.all` it writes to folder/imgs and folder/masks.
    """

    def __init__(
        self,
        folder: Path,
        masker: ObjectFinder,
        config: MaskConfig,
        overwrite: bool = False,
        pictures: Path | None = None,
    ) -> None:
        self.folder, self.masker, self.config, self.overwrite, self.pictures = (
            folder,
            masker,
            config,
            overwrite,
            pictures,
        )
        self.masks = folder / "masks" if config.all else folder

    def attempt(self, image: ImageFile) -> Made | ShicError:
        """Return what was made of the photo, or the error."""
        try:
            return self(image)
        except ShicError as error:
            return error

    def __call__(self, image: ImageFile) -> Made:
        """Return what was made of the photo.

        InputError if no object was found in the photo, or if the photo can't be read.
        """
        note, is_foreign = "", False
        rgb, alpha = decode(image.read(), image.name)
        if self._path(image.name, 0).exists() and not self.overwrite:
            found, objects, kept, is_foreign = self._read(image.name, rgb.shape[:2])
            main, source = main_object(found), "kept"
            for number in kept:  # a run that was killed may have left a lock beside them
                tidy(self._path(image.name, number - 1))
                if self.config.all:
                    tidy(self._crop(image, number - 1))
        else:
            cut = cut_out(alpha)
            if cut.reason:
                note = f"{image.name}: its alpha channel {cut.reason}: it is no mask"
            source = "masker" if cut.mask is None else "alpha"
            found = self.masker.objects(rgb) if cut.mask is None else [Found(cut.mask)]
            main, objects, kept = self._write(image, rgb, found, source)
        reasons = doubts(found, main, self.config)
        names = [self._path(image.name, number - 1).relative_to(self.masks).as_posix() for number in kept]
        row = Row(
            image.name,
            names,
            source,
            objects,
            kept,
            float(found[main].mask.mean()),
            found[main].score,
            reasons,
        )
        others = [each.mask for i, each in enumerate(found) if i != main]
        overlay = outline(rgb, found[main].mask, UNSURE if reasons else SURE, others, OTHER)
        if self.pictures is not None:
            _write(self.pictures / mask_name(image.name), encode(overlay))
        return Made(row, fit_height(overlay, min(200, overlay.shape[0])), is_foreign, note)

    def _path(self, photo: str, i: int) -> Path:
        """Return the path of the mask of object `i` of a photo."""
        name = Path(photo).with_suffix("")
        return self.masks / name.with_name(
            f"{name.name}-{i + 1}.png" if self.config.all else f"{name.name}.png"
        )

    def _crop(self, image: ImageFile, i: int) -> Path:
        """Return the path of the cropped picture of object `i`.

        It is a JPEG if the photo is one. Otherwise it is a PNG, which is lossless.
        """
        suffix = ".jpg" if image.path.suffix.lower() in (".jpg", ".jpeg") else ".png"
        return self.folder / "imgs" / self._path(image.name, i).relative_to(self.masks).with_suffix(suffix)

    def _write(
        self, image: ImageFile, rgb: np.ndarray, found: list[Found], source: str
    ) -> tuple[int, int, list[int]]:
        """Write the masks and return which objects they show.

        The values are the index of the main object in `found`, the number of objects, and the numbers of the
        objects that were written, counted from 1.
        """
        if not found:
            wanted = self.masker.class_name or "object"
            raise InputError(
                f"{image.name}: no {wanted} was found in it",
                "try another --masker, or a lower threshold= where it has one",
            )
        main = main_object(found)
        check_mask(found[main].mask, rgb.shape, image.name)
        numbers = list(range(len(found))) if self.config.all else [main]
        for i in reversed(numbers):  # the first mask is written last: if it exists, all the others exist
            mask, score = found[i].mask, found[i].score
            info = {
                **self.masker.settings,
                "source": source,
                "score": score,
                "objects": len(found),
                "number": i + 1,
            }
            if self.config.all:
                box = _inside(Crop.around(mask), mask.shape)
                picture = self._crop(image, i)
                _write(picture, encode(rgb[box], picture.suffix))
                mask, info = mask[box], info | {"top": box[0].start, "left": box[1].start}
            _write_mask(self._path(image.name, i), mask, info)
        for i in range(len(found), len(found) + MOST):  # crops of an earlier run with more objects
            if self.config.all and self._path(image.name, i).exists():
                self._path(image.name, i).unlink()
                self._crop(image, i).unlink(missing_ok=True)
        return main, len(found), [i + 1 for i in numbers]

    def _read(self, photo: str, shape: tuple[int, ...]) -> tuple[list[Found], int, list[int], bool]:
        """Return what the existing mask files of a photo hold.

        The values are the objects, how many objects were found, the numbers of the objects that are kept, and
        whether they were made with other settings.
        """
        info = _read_info(self._path(photo, 0))
        is_foreign = any(info.get(key) != value for key, value in self.masker.settings.items() if info)
        if not self.config.all:
            mask = check_mask(read_mask(self._path(photo, 0)).mask, shape, photo)
            return (
                [Found(mask, info.get("score"))],
                info.get("objects", 1),
                [info.get("number", 1)],
                is_foreign,
            )
        found = []
        for i in range(info.get("objects", 1)):
            path, full = self._path(photo, i), np.zeros(shape, bool)
            mask, info = read_mask(path).mask, _read_info(path)
            top, left = info.get("top", 0), info.get("left", 0)
            if "top" not in info or top + mask.shape[0] > shape[0] or left + mask.shape[1] > shape[1]:
                raise InputError(
                    f"{path}: is no crop of {photo}",
                    "make it again with --overwrite, or name another folder with -o",
                )
            full[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
            found.append(Found(full, info.get("score")))
        return found, len(found), list(range(1, len(found) + 1)), is_foreign


def _inside(crop: Crop, shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the rows and the columns of the crop that lie inside a photo of `shape`.

    If they are fewer than a picture needs, the range is extended.
    """
    box = []
    for start, length in ((crop.top, shape[0]), (crop.left, shape[1])):
        first, last = max(start, 0), min(start + crop.side, length)
        first = max(min(first, length - SMALLEST), 0) if last - first < SMALLEST else first
        box.append(slice(first, max(last, first + SMALLEST)))
    return box[0], box[1]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path) as partial:
        partial.write_bytes(data)


def _write_mask(path: Path, mask: np.ndarray, info: dict[str, Any]) -> None:
    """Write a mask as a PNG of 0 and 255, with `info` in its text field."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = PngInfo()
    text.add_text(KEY, json.dumps(info))
    with atomic(path) as partial:
        Image.fromarray(mask.astype(np.uint8) * 255).save(partial, pnginfo=text)


def _read_info(path: Path) -> dict[str, Any]:
    """Return what the mask's file records about how the mask was made.

    The result is empty if `shic mask` did not make the file, or if somebody painted over it later.
    """
    try:
        with Image.open(path) as picture:
            info = json.loads(picture.info.get(KEY, "{}"))
    except (OSError, ValueError, SyntaxError, TypeError):
        return {}  # the code that reads the mask reports the error
    kinds = {"score": (float, type(None)), "objects": int, "number": int, "top": int, "left": int}
    sound = isinstance(info, dict) and all(
        isinstance(info[key], kind) for key, kind in kinds.items() if key in info
    )
    return (
        info
        if sound and 0 < info.get("objects", 1) <= MOST and min(info.get("top", 0), info.get("left", 0)) >= 0
        else {}
    )


def _writer(*given: Any) -> Callable[[ImageFile], Made | ShicError]:
    """A function that makes the mask of a photo, with what MaskWriter is made of."""
    return MaskWriter(*given).attempt


def write_masks(
    images: Sequence[ImageFile],
    masker: ObjectFinder,
    folder: Path,
    config: MaskConfig,
    *,
    pictures: Path | None = None,
    overwrite: bool = False,
    track: Track = plain_track,
    workers: int | None = 1,
) -> tuple[Report, Failures]:
    """Write the masks of photos and return the report and the failures.

    The masks are written to `folder`, and their overlays to `pictures`. An existing mask is kept unless
    `overwrite` is set. A photo that fails is left out and named. InputError if all photos fail. So many
    processes as `workers` find masks, or as many as pay if it is None, if the masker is small and no photo is
    a video's; this makes no difference to the files.
    """
    report, failures, foreign = Report(), Failures(len(images)), []
    spreads = masker.small and not any(image.video for image in images)
    alone = "" if spreads else "only a small masker, as grabcut is, takes more, and no video does"
    number = number_of(workers, len(images), LEAST_PHOTOS, alone)
    with _locked(folder):
        given = (folder, masker, config, overwrite, pictures)
        found = spread(_writer, given, images, number)
        for image, made in zip(images, track(found, len(images), "mask"), strict=True):
            with failures.catch(image.name):
                if isinstance(made, ShicError):
                    raise made
                if made.note:
                    log.warning("%s", made.note)
                foreign += [image.name] if made.is_foreign else []
                report.rows.append(made.row)
                some = report.pictures[bool(made.row.unsure)]
                if len(some) < SHOWN:
                    some.append((image.name, made.overlay))
    failures.check(len(images))
    report.failed = failures.names
    if foreign:
        count, first = len(foreign), foreign[0]
        log.warning(
            "%s: %d masks made with other settings are kept, the first of %s; --overwrite makes them again",
            folder,
            count,
            first,
        )
    return report, failures
