"""Where a photo's mask comes from: a mask file with its name, its alpha channel, or a masker; in this
order.
"""

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
from shic_cli.files.masks import RULE, ReadMask, read_mask
from shic_cli.files.photos import MASK_FOLDERS, ImageFile, decode, is_photo, orientation, photo_of_mask, turn

log = logging.getLogger("shic")

OTHER_FILES = ("thumbs.db", "desktop.ini")  # what Windows leaves in folders
BORDER = 0.5  # share of the photo's border; what covers more of it is the background, as a rule


@dataclass(frozen=True)
class Photo:
    """A photo and its mask: `data` is the file's own bytes, `rgb` (H, W, 3) uint8, `mask` (H, W) bool."""

    name: str
    data: bytes
    rgb: np.ndarray
    mask: np.ndarray


def check_mask(mask: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    """`mask` itself if it can serve for a photo of `shape`; InputError when its size differs, or it is empty
    or full.
    """
    if mask.shape != tuple(shape[:2]):
        sizes = f"{mask.shape[1]} by {mask.shape[0]} pixels, the photo {shape[1]} by {shape[0]}"
        raise InputError(f"{name}: its mask is {sizes}", "make the mask from the photo at its own size")
    if not mask.any() or mask.all():
        raise InputError(
            f"{name}: its mask is {'full' if mask.any() else 'empty'}",
            "a mask marks the object's pixels and leaves the rest black",
        )
    return mask


def on_border(mask: np.ndarray, void: np.ndarray | None = None) -> float:
    """The share of the picture's border that the mask `(H, W)` covers, `void` pixels left out."""
    edges = (
        np.concatenate([each[0], each[-1], each[1:-1, 0], each[1:-1, -1]])
        for each in (mask, np.zeros_like(mask) if void is None else void)
    )
    marked, unknown = edges
    return float(marked.sum() / max((~unknown).sum(), 1))


class NoMaskError(InputError):
    """A photo has neither a mask file nor an alpha channel that is one, and there is no masker."""


class MaskFolder:
    """The mask files below a folder, by the names of their photos."""

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
        """The mask file of the photo of that name: `h.jpg.png`, `h.png` or `h_mask.png` is that of `h.jpg`,
        in the photo's folder below this one, or right in it, or in any folder below where no other has its
        name.
        """
        name = PurePosixPath(_key(photo))
        for key in (name.as_posix(), name.with_suffix("").as_posix(), name.name, name.stem):
            for table in (self._exact, self._marked):
                if key in table:
                    return table[key]
        bare = self._bare.get(name.name) or self._bare.get(name.stem) or []
        return bare[0] if len(bare) == 1 else None  # in a folder below, as masks/horse/h.png


def _files(root: Path) -> Iterator[Path]:
    """The files below a folder in the order of their names, without hidden ones."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not _is_foreign(name))


def _is_foreign(name: str) -> bool:
    """Whether a file was left by a system and not put there by anybody."""
    return name.startswith(".") or name.lower() in OTHER_FILES


def _key(name: str) -> str:
    """A name in one Unicode form: file systems and archives write an umlaut as one character or as two."""
    return unicodedata.normalize("NFC", name)


@dataclass
class Notes:
    """Warnings about single photos: the first of a kind is told at once, the number of the others at the
    end.
    """

    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, name: str, text: str) -> None:
        """Tell `text` if it is the first of its `kind`, else count the photo `name`."""
        if kind not in self.names:
            log.warning("%s", text)
        self.names.setdefault(kind, []).append(name)

    def tell(self) -> None:
        """Say of each kind how many more photos there were."""
        for kind, names in self.names.items():
            if len(names) > 1:
                log.warning("%d more photos like that (%s): %s", len(names) - 1, kind, some(names[1:]))
        self.names.clear()


class MaskSource:
    """Where masks come from, in this order: a file in `config.masks` or in a folder masks/ or mask/ beside
    the photos' folder or in it, an alpha channel that cuts out an object, `masker(rgb)`.
    """

    def __init__(
        self,
        config: MasksConfig | None = None,
        masker: Callable[[np.ndarray], np.ndarray] | None = None,
        class_name: str = "",
    ) -> None:
        self.config, self.masker, self.class_name = config or MasksConfig(), masker, class_name
        self.folder = Path(self.config.masks) if self.config.masks else None
        self.notes = Notes()
        self._folders: dict[Path, MaskFolder] = {}
        self._below: dict[Path, list[Path]] = {}
        self._beside: dict[Path, dict[str, Path]] = {}
        if self.folder is not None and not self.folder.is_dir():
            fact = "is a file, not a folder" if self.folder.exists() else "there is no such folder"
            raise InputError(f"{self.folder}: {fact}", "give the folder of masks with --masks")

    @property
    def settings(self) -> dict[str, str]:
        """What files record: how mask files are read, the folder and the label as they were given, and of the
        part that masks photos without a mask its name and the class's.
        """
        given = {name: value for name, value in self.config.params().items() if value}
        called = {"class": self.class_name} if self.class_name else {}
        return {"mask_rule": RULE, **given, **called, **getattr(self.masker, "settings", {})}

    def prepare(self, images: Sequence[ImageFile]) -> None:
        """Find the images' mask files, and make the masker now if one of them needs it, so that weights
        that are missing are told before anything is computed.

        Says how many have no mask file where others have. InputError when there is a folder of masks and
        none belongs to any image.
        """
        lacking = [image for image in images if self._find(image) is None]
        if images and len(lacking) == len(images):
            self._check_strangers(images)
        elif lacking:
            names = some([image.name for image in lacking])
            log.warning("%d of %d photos have no mask file: %s", len(lacking), len(images), names)
        if lacking and self.folder is None and self.masker is not None:
            with suppress(InputError):  # what is wrong with the photo alone is told in its turn
                self.read(lacking[0])
            self.notes.names.clear()

    def _check_strangers(self, images: Sequence[ImageFile]) -> None:
        """InputError if a folder of masks belongs to none of the images, and to no other photo near it."""
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
        """The photo with its mask; InputError if either can't be used."""
        data = image.read()
        rgb, alpha = decode(data, image.name)
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
        return Photo(image.name, data, rgb, mask)

    def _look(self, image: ImageFile, rgb: np.ndarray) -> np.ndarray:
        """What the masker finds in a photo without a mask."""
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
        mask = self.masker(rgb)
        if not mask.any():
            raise InputError(
                f"{image.name}: no object was found in it",
                "give it a mask in a folder masks/, or another --masker; those that score what they find have"
                " an option threshold=",
            )
        return mask

    def _upright(self, name: str, rgb: np.ndarray, data: bytes, found: ReadMask) -> ReadMask:
        """The mask of the photo as it is seen: one that was drawn on the stored pixels is turned by the
        photo's EXIF flag. Sizes tell which it is; where they can't, `config.exif` does, and without it a
        warning is given.
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
        """How much two readings of a mask overlap with what the masker finds, as part of a message."""
        if self.masker is None:
            return ""
        try:
            seen = self.masker(rgb)
        except ShicError:
            return ""
        kept, turned = ((seen & mask).sum() / max((seen | mask).sum(), 1) for mask in masks)
        called = getattr(self.masker, "name", "the model")
        return f"as it is it overlaps by {kept:.2f} with what {called} finds, turned by {turned:.2f}; "

    def _find(self, image: ImageFile) -> Path | None:
        found = (self._index(folder).find(image.name) for folder in self._places(image))
        mask = next((path for path in found if path is not None), None)
        return mask or (None if self.folder or image.frame >= 0 else self._find_beside(image.path))

    def _find_beside(self, photo: Path) -> Path | None:
        """The file `h_mask.png` in the folder of the photo h.jpg itself."""
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
        """The folders that may have the image's mask: beside or in the folder of photos, then its own
        folder.
        """
        if self.folder is not None:
            return [self.folder]
        root = image.root if image.frame < 0 else image.root.parent
        own = image.path.parent
        places = dict.fromkeys((root.parent, root, own.parent, own))
        return [folder for place in places for folder in self._mask_folders(place)]

    def _mask_folders(self, place: Path) -> list[Path]:
        """The folders masks/ and mask/ in a folder, in any case of letters."""
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
    """The place of a folder of masks among those beside it."""
    return MASK_FOLDERS.index(folder.name.lower())


def _has_owner(masks: MaskFolder) -> bool:
    """Whether a mask belongs to a photo beside the folder of masks, or in a folder beside it."""
    around = masks.root.resolve().parent
    with suppress(OSError):
        for entry in sorted(around.iterdir()):
            if entry.is_dir() and entry.name.lower() not in MASK_FOLDERS and not entry.name.startswith("."):
                if any(is_photo(path.name) and masks.find(path.name) for path in entry.iterdir()):
                    return True
            elif is_photo(entry.name) and masks.find(entry.name):
                return True
    return False
