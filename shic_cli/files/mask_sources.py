"""Find a photo's mask in a mask file with its name, in its alpha channel, or by a masker, in this order."""

from __future__ import annotations

import logging
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from shic_cli.base.errors import InputError, ShicError, some
from shic_cli.base.settings import MasksConfig
from shic_cli.files.alpha import cut_out
from shic_cli.files.checks import unreadable
from shic_cli.files.mask_checks import check_mask, is_outline, on_border
from shic_cli.files.masks import RULE, ReadMask, read_mask
from shic_cli.files.photo_lists import MASK_FOLDERS, ImageFile, is_photo, photo_of_mask
from shic_cli.files.photos import count_frames, decode, orientation, turn

log = logging.getLogger("shic")

OTHER_FILES = ("thumbs.db", "desktop.ini")  # files that Windows writes into folders
BORDER = 0.5  # share of the photo's border; a mask that covers more usually marks the background


@dataclass(frozen=True)
class Photo:
    """A photo holds a picture and its mask.

    `data` is the file's own bytes, `rgb` is `(H, W, 3)` uint8, `mask` is `(H, W)` bool. `void` `(H, W)` bool
    are the pixels that the mask file gives to neither the object nor the background, None if there are none.
    """

    name: str
    data: bytes
    rgb: np.ndarray
    mask: np.ndarray
    void: np.ndarray | None = None

    @property
    def kept(self) -> dict[str, np.ndarray]:
        """The arrays that files keep of the photo itself, by their names there."""
        void = {} if self.void is None else {"void": self.void}
        return {"encoded": np.frombuffer(self.data, np.uint8), "mask": self.mask, **void}


class NoMaskError(InputError):
    """A photo has no mask file and no alpha channel that is a mask, and there is no masker."""


class MaskFolder:
    """A mask folder finds the mask files below a folder by the names of their photos."""

    def __init__(self, root: Path) -> None:
        self.root, self.count, self.first = root, 0, []
        self._exact: dict[str, Path] = {}
        self._marked: dict[str, Path] = {}
        self._bare: dict[str, list[Path]] = {}
        for path in _files(root):
            self.count += 1
            self.first = sorted([*self.first, path.name])[:2]
            if not is_photo(path.name):
                continue
            stem = _key(path.relative_to(root).with_suffix("").as_posix())
            self._exact.setdefault(stem, path)
            if (photo := photo_of_mask(stem)) is not None:
                self._marked.setdefault(photo, path)
            for name in {PurePosixPath(stem).name, PurePosixPath(photo or stem).name}:
                self._bare.setdefault(name, []).append(path)

    def find(self, photo: str) -> Path | None:
        """Return the path of the mask of the photo with that name, or None.

        `h.jpg.png`, `h.png` and `h_mask.png` are masks of `h.jpg`. A mask lies in the photo's subfolder of
        this folder, or directly in this folder. It may lie in any other folder below if no other file there
        has its name.
        """
        name = PurePosixPath(_key(photo))
        for key in (name.as_posix(), name.with_suffix("").as_posix(), name.name, name.stem):
            for table in (self._exact, self._marked):
                if key in table:
                    return table[key]
        bare = self._bare.get(name.name) or self._bare.get(name.stem) or []
        return bare[0] if len(bare) == 1 else None  # a file in a subfolder, such as masks/horse/h.png


def _files(root: Path) -> Iterator[Path]:
    """Yield the files below a folder in the order of their names, without hidden files."""
    for folder, folders, names in os.walk(root, onerror=unreadable(root)):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not _is_foreign(name))


def _is_foreign(name: str) -> bool:
    """Return whether an operating system made the file, and not the user."""
    return name.startswith(".") or name.lower() in OTHER_FILES


def _key(name: str) -> str:
    """Return a name in one Unicode form.

    File systems and archives write an umlaut as one character or as two.
    """
    return unicodedata.normalize("NFC", name)


@dataclass
class Notes:
    """Notes collect warnings about single photos.

    The first warning of a kind is logged at once. The number of the others is logged at the end. A worker
    keeps them all in `kept` for the first process to log.
    """

    names: dict[str, list[str]] = field(default_factory=dict)
    kept: list[tuple[str, str, str]] | None = None

    def add(self, kind: str, name: str, text: str) -> None:
        """Log `text` if it is the first of its `kind`, and record the photo `name`."""
        if self.kept is not None:
            self.kept.append((kind, name, text))
        if kind not in self.names:
            log.warning("%s", text)
        self.names.setdefault(kind, []).append(name)

    def tell(self) -> None:
        """Log how many more photos there were of each kind."""
        for kind, names in self.names.items():
            if len(names) > 1:
                log.warning("%d more photos like that (%s): %s", len(names) - 1, kind, some(names[1:]))
        self.names.clear()


class MaskSource:
    """A mask source finds the masks of photos.

    It looks first for a file in `config.masks`, or in a folder masks/ or mask/ beside the photos' folder or
    in it. Then it takes an alpha channel that cuts out an object. Last it calls `masker(rgb)`; the first
    time, it logs `note`.
    """

    def __init__(
        self,
        config: MasksConfig | None = None,
        masker: Callable[[np.ndarray], np.ndarray] | None = None,
        class_name: str = "",
        note: str = "",
    ) -> None:
        self.note = note
        self.config, self.masker, self.class_name = config or MasksConfig(), masker, class_name
        self.folder = Path(self.config.masks) if self.config.masks else None
        self.notes, self._asks = Notes(), True
        self._folders: dict[Path, MaskFolder] = {}
        self._below: dict[Path, list[Path]] = {}
        self._beside: dict[Path, dict[str, Path]] = {}
        if self.folder is not None and not self.folder.is_dir():
            fact = "is a file, not a folder" if self.folder.exists() else "there is no such folder"
            raise InputError(f"{self.folder}: {fact}", "check the name that --masks gives")

    @property
    def settings(self) -> dict[str, str]:
        """Return the settings that output files record.

        They are the rule for reading mask files, the given folder and label, and the name and class of the
        part that masks photos without a mask.
        """
        given = {name: value for name, value in self.config.params().items() if value}
        called = {"class": self.class_name} if self.class_name else {}
        return {"mask_rule": RULE, **given, **called, **getattr(self.masker, "settings", {})}

    @property
    def small(self) -> bool:
        """Return whether each of several processes may have a copy: no photo asks a masker that is large.

        What `masker` has no attribute `small` for is not counted.
        """
        return not self._asks or getattr(self.masker, "small", True)

    def prepare(self, images: Sequence[ImageFile]) -> None:
        """Find the mask files of the images, and make the masker if one of them needs it.

        Missing weights are thus reported before anything is computed. Logs how many images have no mask file
        if others have one. InputError if there is a folder of masks and none of them belongs to any image.
        """
        lacking = [image for image in images if self._find(image) is None]
        self._asks = bool(lacking)
        if images and len(lacking) == len(images):
            self._check_strangers(images)
        elif lacking:
            names = some([image.name for image in lacking])
            log.warning("no mask file for %d of %d photos: %s", len(lacking), len(images), names)
        if lacking and self.folder is None and self.masker is not None:
            with suppress(InputError):  # an error of this photo alone is reported when the photo is read
                self.read(lacking[0])
            self.notes.names.clear()

    def _check_strangers(self, images: Sequence[ImageFile]) -> None:
        """Raise InputError if no file in a folder of masks belongs to an image.

        A folder that was not given by name passes if one of its masks belongs to another photo near it.
        """
        folders = {folder: self._index(folder) for image in images for folder in self._places(image)}
        for folder, index in folders.items():
            if not index.count or (self.folder is None and _has_owner(index)):
                continue
            photos = " and ".join(image.name for image in images[:2])
            raise InputError(
                f"{folder}: none of its {index.count} files has the name of a photo: it has"
                f" {' and '.join(index.first)}, the photos are called {photos}",
                "call each mask like its photo (h.png for h.jpg), or name another folder with --masks",
            )

    def read(self, image: ImageFile) -> Photo:
        """Return the photo with its mask; InputError if either can't be used."""
        data = image.read()
        rgb, alpha = decode(data, image.name)
        if (count := count_frames(data)) > 1:
            fact = f"{image.name}: holds {count} frames, and the first is read"
            self.notes.add("several frames", image.name, f"{fact}; convert it to mp4 to take them all")
        cut = cut_out(alpha)
        if cut.reason:
            self.notes.add(
                "alpha", image.name, f"{image.name}: its alpha channel {cut.reason}: it is no mask"
            )
        void, path = None, self._find(image)
        if path is not None:
            found = self._upright(image.name, rgb, data, read_mask(path, self.config.label, self.class_name))
            mask, void = found.mask, found.void
            if found.kind == "label map":
                log.debug("%s: label %s is the object", path, found.label)
        elif cut.mask is not None:
            mask = cut.mask
        else:
            mask = self._look(image, rgb)
        check_mask(mask, rgb.shape, image.name)
        if void is not None and (mask | void).all():
            raise InputError(
                f"{image.name}: its mask leaves no background beside void pixels",
                "a mask marks the object's pixels and leaves the rest black",
            )
        if (share := on_border(mask, void)) > BORDER:
            fact = f"{image.name}: its mask is on {share:.0%} of the photo's border"
            self.notes.add("on the border", image.name, f"{fact}: does it mark the background?")
        if is_outline(mask):
            fact = f"{image.name}: its mask is a thin line around something: is it the outline? Then fill it"
            self.notes.add("a line", image.name, fact)
        return Photo(image.name, data, rgb, mask, void)

    def _look(self, image: ImageFile, rgb: np.ndarray) -> np.ndarray:
        """Return the mask `(H, W)` that the masker finds in a photo without a mask."""
        if self.folder is not None:
            raise InputError(
                f"{image.name}: has no mask in {self.folder}",
                f"it would be {self.folder / PurePosixPath(image.name).with_suffix('.png')}",
            )
        if self.masker is None:
            raise NoMaskError(
                f"{image.name}: has no mask",
                "put masks in a folder masks/ beside the photos' folder, or give --masks or --masker",
            )
        if self.note:
            log.info("%s", self.note)
            self.note = ""
        mask = self.masker(rgb)
        if not mask.any():
            raise InputError(
                f"{image.name}: no object was found in it",
                "give it a mask in a folder masks/, or another --masker; those that score what they find have"
                " an option threshold=",
            )
        return mask

    def _upright(self, name: str, rgb: np.ndarray, data: bytes, found: ReadMask) -> ReadMask:
        """Return the mask in the orientation in which the photo is seen.

        A mask that was drawn on the stored pixels is turned by the photo's EXIF flag. The sizes show whether
        it was. If they can't, `config.exif` decides. Without that setting, a warning is logged.
        """
        flag = orientation(data)
        if flag == 1 or self.config.exif == "apply":
            return found
        shape = rgb.shape[:2]
        stored = shape[::-1] if flag >= 5 else shape
        if found.mask.shape != stored:
            return found
        turned = ReadMask(
            turn(found.mask, flag),
            None if found.void is None else turn(found.void, flag),
            found.kind,
            found.label,
        )
        if self.config.exif == "ignore" or stored != shape:
            return turned
        if not np.array_equal(turned.mask, found.mask):
            is_first = "EXIF" not in self.notes.names
            fits = self._overlaps(rgb, found.mask, turned.mask) if is_first else ""
            self.notes.add(
                "EXIF",
                name,
                f"{name}: is turned by its EXIF flag {flag}, and its size does not tell whether its mask was"
                f" drawn on the turned photo: {fits}it is taken as it is; --exif ignore turns it too, --exif"
                " apply does not",
            )
        return found

    def _overlaps(self, rgb: np.ndarray, *masks: np.ndarray) -> str:
        """Return, as part of a message, how much two readings of a mask overlap with the masker's mask."""
        if self.masker is None:
            return ""
        try:
            seen = self.masker(rgb)
        except ShicError:
            return ""
        kept, turned = ((seen & mask).sum() / (seen | mask).sum() for mask in masks)
        called = getattr(self.masker, "name", "the model")
        return f"as it is it overlaps by {kept:.2f} with what {called} finds, turned by {turned:.2f}; "

    def _find(self, image: ImageFile) -> Path | None:
        found = (self._index(folder).find(image.name) for folder in self._places(image))
        mask = next((path for path in found if path is not None), None)
        return mask or (None if self.folder or image.frame >= 0 else self._find_beside(image.path))

    def _find_beside(self, photo: Path) -> Path | None:
        """Return the path of the file `h_mask.png` in the folder of the photo h.jpg itself, or None."""
        if photo.parent not in self._beside:
            here: dict[str, Path] = {}
            with suppress(OSError):
                for path in sorted(photo.parent.iterdir()):
                    owner = photo_of_mask(_key(path.stem))
                    if owner is not None and is_photo(path.name):
                        here.setdefault(owner, path)
            self._beside[photo.parent] = here
        here = self._beside[photo.parent]
        return here.get(_key(photo.name)) or here.get(_key(photo.stem))

    def _places(self, image: ImageFile) -> list[Path]:
        """Return the folders that may hold the image's mask.

        First come those beside the folder of photos or in it, then those beside the image's own folder or in
        it.
        """
        if self.folder is not None:
            return [self.folder]
        root = image.root if image.frame < 0 else image.root.parent
        own = image.path.parent
        places = dict.fromkeys((root.parent, root, own.parent, own))
        return [folder for place in places for folder in self._mask_folders(place)]

    def _mask_folders(self, place: Path) -> list[Path]:
        """Return the folders masks/ and mask/ in a folder, with upper or lower case letters."""
        if place not in self._below:
            found = []
            with suppress(OSError):
                names = [name for name in sorted(os.listdir(place)) if name.lower() in MASK_FOLDERS]
                found = sorted((place / name for name in names if (place / name).is_dir()), key=_plural_first)
            self._below[place] = found
        return self._below[place]

    def _index(self, folder: Path) -> MaskFolder:
        if folder not in self._folders:
            self._folders[folder] = MaskFolder(folder)
        return self._folders[folder]


def _plural_first(folder: Path) -> int:
    """Return the rank of a folder of masks among the folders beside it."""
    return MASK_FOLDERS.index(folder.name.lower())


def _has_owner(masks: MaskFolder) -> bool:
    """Return whether a mask belongs to a photo beside the folder of masks, or in a folder beside it."""
    around = masks.root.resolve().parent
    with suppress(OSError):
        for entry in sorted(around.iterdir()):
            if entry.is_dir() and entry.name.lower() not in MASK_FOLDERS and not entry.name.startswith("."):
                if any(is_photo(path.name) and masks.find(path.name) for path in entry.iterdir()):
                    return True
            elif is_photo(entry.name) and masks.find(entry.name):
                return True
    return False
