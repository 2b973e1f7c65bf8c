"""Keypoint files: a plain JSON of images or video frames, or pairs as a PF-PASCAL csv."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path

import numpy as np

from shic_cli.base.errors import InputError
from shic_cli.files.annotations import get, pixels, read_json

COLUMNS = ("source_image", "target_image", "XA", "YA", "XB", "YB")
MOST = 3000  # images of which every two are a pair
CSV_HINT = "PF-PASCAL: source_image,target_image,class,XA,YA,XB,YB"
# PF-PASCAL numbers the classes of PASCAL VOC from 1 in the order of their names.
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
    """Two photos and the positions `(P, 2)` (y, x) of the same keypoints in both; their `kinds` and the
    pair's `category` where known.
    """

    source: str
    target: str
    source_yx: np.ndarray
    target_yx: np.ndarray
    kinds: tuple[str, ...] = ()
    category: str = ""

    def turned(self) -> Pair:
        """The pair the other way round."""
        return Pair(self.target, self.source, self.target_yx, self.source_yx, self.kinds, self.category)


def read_pairs(path: Path, classes: tuple[str, ...] = ()) -> list[Pair]:
    """The pairs of a keypoint file: a plain JSON (every ordered pair of images that share names) or a
    PF-PASCAL csv.

    With `classes` only those; a file that names no class is taken to be of the one that is asked for.
    InputError names what is wrong, and lists the file's classes where one is asked for that it has not.
    """
    pairs = read_csv(path) if Path(path).suffix == ".csv" else _read_keypoints(path)
    known = sorted({pair.category for pair in pairs} - {""})
    classes = classes if known or len(classes) > 1 else ()
    if unknown := [name for name in classes if name not in known]:
        listed = f"it has {', '.join(known)}" if known else "its images name no class"
        raise InputError(f"{path}: has no class {unknown[0]}", listed)
    pairs = [pair for pair in pairs if not classes or pair.category in classes]
    if not pairs:
        raise InputError(
            f"{path}: no two images in it share a keypoint", "a pair needs the same names in both"
        )
    return pairs


def _read_keypoints(path: Path) -> list[Pair]:
    images, categories = {}, {}
    for name, each in get(read_json(path), "images", dict, str(path)).items():
        where = f"{path}: images.{name}"
        points = get(each, "points", dict, where)
        images[name] = {
            key: pixels(value, (2,), f"{where}.points.{key}")[::-1] for key, value in points.items()
        }
        categories[name] = get(each, "class", str, where) if "class" in each else ""
    if len(images) > MOST:
        raise InputError(
            f"{path}: has {len(images)} images, at most {MOST} are paired with each other",
            "give a csv of the pairs that count",
        )
    pairs = []
    for (source, points), (target, others) in permutations(images.items(), 2):
        shared = tuple(key for key in points if key in others)
        if shared and categories[source] == categories[target]:
            yx = (np.array([of[key] for key in shared]) for of in (points, others))
            pairs.append(Pair(source, target, *yx, shared, categories[source]))
    return pairs


def read_csv(path: Path) -> list[Pair]:
    """PF-PASCAL's pairs: source_image, target_image, class, XA, YA, XB, YB; coordinates separated by
    semicolons.

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
    if category.isdigit():
        if not 1 <= int(category) <= len(VOC):
            raise InputError(
                f"{where}, class: {category} is not one of 1 to {len(VOC)}",
                "give PASCAL VOC's number, or the class's name",
            )
        category = VOC[int(category) - 1]
    return Pair(
        row["source_image"], row["target_image"], np.stack([ya, xa], 1), np.stack([yb, xb], 1), (), category
    )


def image_names(pairs: list[Pair]) -> list[str]:
    """The names of all images in `pairs`, sorted."""
    return sorted({name for pair in pairs for name in (pair.source, pair.target)})
