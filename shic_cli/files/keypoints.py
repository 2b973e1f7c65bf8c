"""Read keypoint files: a plain JSON of images or video frames, or pairs as a PF-PASCAL csv."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import overload

import numpy as np

from shic_cli.base.errors import InputError
from shic_cli.files.annotations import get, pixels, read_json
from shic_cli.files.checks import whole_number

COLUMNS = ("source_image", "target_image", "XA", "YA", "XB", "YB")
MOST = 1_000_000  # the largest number of ordered pairs in a file that pairs every two images
CSV_HINT = "PF-PASCAL: source_image,target_image,class,XA,YA,XB,YB"
# PF-PASCAL numbers the classes of PASCAL VOC from 1, in the order of their names.
VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *(
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ),
)


@dataclass(frozen=True)
class Pair:
    """A pair holds two photos and the positions `(P, 2)` (y, x) of the same keypoints in both.

    `kinds` are the names of the keypoints and `category` is the class of the pair, where the file gives them.
    """

    source: str
    target: str
    source_yx: np.ndarray
    target_yx: np.ndarray
    kinds: tuple[str, ...] = ()
    category: str = ""

    def turned(self) -> Pair:
        """Return the pair with source and target exchanged."""
        return Pair(self.target, self.source, self.target_yx, self.source_yx, self.kinds, self.category)

    def compared(self, yx: np.ndarray) -> np.ndarray:
        """Return the positions `yx` of the target `(P, 2)` as errors are measured from them.

        A position of a JSON stands for the pixel that it falls in. Those of a csv stay as they are, as in the
        evaluation of SD-DINO.
        """
        return np.floor(yx) if self.kinds else yx


@dataclass(frozen=True)
class EveryTwo(Sequence[Pair]):
    """The sequence holds the ordered pairs of images that share the name of a keypoint.

    Each pair is made when it is requested. `images` maps an image's name to its points (y, x) by kind.
    `categories` maps it to its class. `numbers` `(N, 2)` are the indices of source and target among the
    images.
    """

    images: dict[str, dict[str, np.ndarray]]
    categories: dict[str, str]
    numbers: np.ndarray

    @cached_property
    def names(self) -> list[str]:
        """Return the names of the images."""
        return list(self.images)

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, i: int) -> Pair: ...

    @overload
    def __getitem__(self, i: slice) -> list[Pair]: ...

    def __getitem__(self, i: int | slice) -> Pair | list[Pair]:
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        source, target = (self.names[number] for number in self.numbers[i])
        points, others = self.images[source], self.images[target]
        shared = tuple(key for key in points if key in others)
        source_yx, target_yx = (np.array([of[key] for key in shared]) for of in (points, others))
        return Pair(source, target, source_yx, target_yx, shared, self.categories[source])


def read_pairs(path: Path, classes: tuple[str, ...] = ()) -> Sequence[Pair]:
    """Return the pairs of a keypoint file, which is a plain JSON or a PF-PASCAL csv.

    A JSON gives every ordered pair of images that share names. `classes` selects the pairs of these classes.
    If the file names no class, all its pairs count as the one class that is requested. InputError names what
    is wrong. If the file does not have a requested class, the error lists the classes that it has.
    """
    is_csv = Path(path).suffix == ".csv"
    rows = read_csv(path) if is_csv else []
    images, categories = ({}, {}) if is_csv else _read_keypoints(path)
    known = sorted(({pair.category for pair in rows} | set(categories.values())) - {""})
    classes = classes if known or len(classes) > 1 else ()
    if unknown := [name for name in classes if name not in known]:
        listed = f"it has {', '.join(known)}" if known else "its images name no class"
        raise InputError(f"{path}: has no class {unknown[0]}", listed)
    if is_csv:
        pairs: Sequence[Pair] = [pair for pair in rows if not classes or pair.category in classes]
    else:
        kept = {name: points for name, points in images.items() if not classes or categories[name] in classes}
        pairs = _every_two(kept, categories, path)
    if not pairs:
        raise InputError(
            f"{path}: no two images in it share a keypoint", "a pair needs the same names in both"
        )
    return pairs


def _read_keypoints(path: Path) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, str]]:
    """Return the points (y, x) by kind, and the class, of each image of a plain JSON."""
    images, categories = {}, {}
    for name, each in get(read_json(path), "images", dict, str(path)).items():
        where = f"{path}: images.{name}"
        points = get(each, "points", dict, where)
        images[name] = {
            key: pixels(value, (2,), f"{where}.points.{key}")[::-1] for key, value in points.items()
        }
        categories[name] = get(each, "class", str, where) if "class" in each else ""
    return images, categories


def _every_two(images: dict[str, dict[str, np.ndarray]], categories: dict[str, str], path: Path) -> EveryTwo:
    """Return the ordered pairs of images of one class that share a kind.

    InputError if there are too many pairs to score.
    """
    sharing: dict[tuple[str, str], list[int]] = {}  # indices of images by class and kind
    for i, (name, points) in enumerate(images.items()):
        for kind in points:
            sharing.setdefault((categories[name], kind), []).append(i)
    found, total = [], 0
    for i, (name, points) in enumerate(images.items()):
        others = [sharing[categories[name], kind] for kind in points]
        partners = np.unique(np.concatenate([*map(np.array, others), np.zeros(0)])).astype(np.int32)
        partners = partners[partners != i]
        total += len(partners)
        if total > MOST:
            raise InputError(
                f"{path}: its {len(images)} images make more than {MOST} pairs",
                "give a csv of the pairs that count",
            )
        found.append(np.stack([np.full_like(partners, i), partners], 1))
    return EveryTwo(images, categories, np.concatenate([*found, np.zeros((0, 2), np.int32)]))


def read_csv(path: Path) -> list[Pair]:
    """Return the pairs of a PF-PASCAL csv.

    The columns are source_image, target_image, class, XA, YA, XB, YB. Semicolons separate the coordinates.
    InputError names the line that is wrong.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: can't be read ({error})", "check the path") from error
    return [_read_row(row, f"{path}: line {line}") for line, row in rows]


def _read_row(row: dict[str, str], where: str) -> Pair:
    if lack := [key for key in COLUMNS if not row.get(key)]:
        raise InputError(f"{where} has no `{lack[0]}`", CSV_HINT)
    if None in row:
        raise InputError(f"{where} has more fields than the heading", CSV_HINT)
    xa = pixels(row["XA"].strip("; ").split(";"), (None,), f"{where}, XA")
    ya, xb, yb = (
        pixels(row[key].strip("; ").split(";"), (len(xa),), f"{where}, {key}") for key in ("YA", "XB", "YB")
    )
    category = (row.get("class") or "").strip()
    if category.isnumeric():
        hint = "give PASCAL VOC's number, or the class's name"
        category = VOC[whole_number(category, f"{where}, class", 1, len(VOC), hint) - 1]
    return Pair(
        row["source_image"], row["target_image"], np.stack([ya, xa], 1), np.stack([yb, xb], 1), (), category
    )


def image_names(pairs: Sequence[Pair]) -> list[str]:
    """Return the names of all images in `pairs`, sorted."""
    if isinstance(pairs, EveryTwo):
        return sorted(pairs.names[number] for number in np.unique(pairs.numbers))
    return sorted({name for pair in pairs for name in (pair.source, pair.target)})


def with_itself(pairs: Sequence[Pair]) -> list[Pair]:
    """Return for each image in `pairs` the pair of the image with itself, which has all its keypoints.

    If the keypoints have no names, equal positions are one keypoint.
    """
    if isinstance(pairs, EveryTwo):
        used = [pairs.names[number] for number in np.unique(pairs.numbers)]
        images, categories = {name: pairs.images[name] for name in used}, pairs.categories
    else:
        images, categories = {}, {}
        for pair in pairs:
            for each in (pair, pair.turned()):
                kinds = each.kinds or tuple(map(str, each.source_yx.tolist()))
                images.setdefault(each.source, {}).update(zip(kinds, each.source_yx, strict=True))
                categories[each.source] = each.category
    named = not pairs or bool(pairs[0].kinds)
    return [
        Pair(
            name,
            name,
            yx := np.array(list(points.values())),
            yx,
            tuple(points) if named else (),
            categories[name],
        )
        for name, points in images.items()
    ]
