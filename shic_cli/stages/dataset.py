"""Converts published data sets to folders for the other commands: DensePose-LVIS, a folder for each class."""

from __future__ import annotations

import json
import logging
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shic_cli.base.errors import Failures, InputError, PartialError, some
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import MARGIN
from shic_cli.files.annotations import Entry, coco_path, get, read_entries, read_json, read_points
from shic_cli.files.arrays import source
from shic_cli.files.atomic import atomic, check_target
from shic_cli.files.photo_lists import ImageFile
from shic_cli.files.photos import decode, encode
from shic_cli.files.segmentations import run_lengths, segmentation_mask

log = logging.getLogger("shic")


@dataclass
class Split:
    """The crops of one class: their folder, images and annotations as JSON values, and missing images."""

    folder: Path
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)


def split_name(path: Path) -> str:
    """The split that an annotation file's name tells, else the file's stem.

    For example, densepose_lvis_v1_ds2_val_v1.json gives `ds2_val`.
    """
    match = re.search(r"(?:ds\d_)?(?:train|val|test)(?![a-z])", path.stem)
    return match[0] if match else path.stem


def read_classes(path: Path, classes: tuple[str, ...] = ()) -> dict[str, list[Entry]]:
    """The annotated objects of a DensePose-LVIS file by class, or those of `classes` only.

    InputError that lists the classes of the file if one of `classes` is not among them.
    """
    by_class: dict[str, list[Entry]] = {}
    for entry in read_entries(path):
        by_class.setdefault(entry.category, []).append(entry)
    if unknown := [name for name in classes if name not in by_class]:
        raise InputError(
            f"{path}: has no annotated {unknown[0]}", f"it has {', '.join(sorted(by_class)) or 'none'}"
        )
    if not by_class:
        raise InputError(f"{path}: holds no annotated points", "an annotation needs dp_x, dp_y and dp_vertex")
    if odd := [name for name in by_class if not re.fullmatch(r"[\w -]+", name)]:
        raise InputError(f"{path}: {odd[0]!r} can't name a folder", "rename that category in the file")
    return {name: by_class[name] for name in sorted(classes or by_class)}


def densepose_lvis(
    path: Path,
    root: Path,
    output: Path,
    classes: tuple[str, ...] = (),
    split: str = "",
    overwrite: bool = False,
    track: Track = plain_track,
) -> tuple[dict[str, Split], list[str]]:
    """Write `output`/CLASS/SPLIT with imgs/, masks/ and annotations.json: a crop of each annotated object.

    The points are moved with the crop. An image's path below `root` is the last two parts of its `coco_url`.
    Returns the splits by class, and the facts about what could not be written, which `complain` takes.
    InputError if nothing could be written.
    """
    if not root.is_dir():
        raise InputError(
            f"{root}: there is no such folder", "give the folder above train2017/ and val2017/ with --images"
        )
    groups, split = read_classes(path, classes), split or split_name(path)
    splits = {name: Split(output / name / split) for name in groups}
    overwrite = overwrite or _was_killed(splits, path)
    for class_split in splits.values():
        if (target := class_split.folder / "annotations.json").exists():
            check_target(target, overwrite)
    entries = [(name, entry) for name, group in groups.items() for entry in group]
    failures = Failures(len(entries))
    for name, entry in track(entries, len(entries), "crop"):
        with failures.catch(entry.where):
            file = root / coco_path(entry)
            if file.is_file():
                _write_object(splits[name], entry, file, len(splits[name].images) + 1)
            else:
                splits[name].missing.add(coco_path(entry))
    failures.check(len(entries))
    missing = sorted(set().union(*(class_split.missing for class_split in splits.values())))
    if missing and not any(class_split.images for class_split in splits.values()):
        raise InputError(
            f"{root}: has none of the {len(missing)} annotated images",
            f"the first is expected at {root / missing[0]}",
        )
    for name, class_split in splits.items():
        if class_split.images:
            _finish(class_split, name, split, path, overwrite)
    facts = [f"{len(missing)} annotated images are not below {root}: {some(missing)}"] if missing else []
    return splits, facts + (
        [f"{len(failures.names)} objects can't be used: {some(failures.names)}"] if failures.names else []
    )


def _was_killed(splits: dict[str, Split], path: Path) -> bool:
    """Whether an earlier run of this file ended after some of its classes: then they may be written again."""
    targets = [class_split.folder / "annotations.json" for class_split in splits.values()]
    there = [target for target in targets if target.exists()]
    made_from = [get(read_json(target), "info", dict, str(target)).get("source") for target in there]
    return 0 < len(there) < len(targets) and all(each == source(path) for each in made_from)


def complain(facts: list[str]) -> None:
    """Raise PartialError (status 4) if there are `facts` about what could not be written."""
    if facts:
        raise PartialError(
            "; ".join(facts), "the rest is written; each annotations.json lists its missing images"
        )


def _write_object(split: Split, entry: Entry, file: Path, number: int) -> None:
    """Write the crop and the mask of one object, and record them in `split`."""
    if entry.annotation.get("iscrowd"):
        raise InputError(
            f"{entry.where}: marks a crowd, not one object", "leave it out; points belong to one object"
        )
    points = read_points(entry)
    rgb, _ = decode(ImageFile.at(file).read(), str(file))
    if points.shape is not None and tuple(points.shape) != rgb.shape[:2]:
        sizes = [f"{width} by {height}" for height, width in (rgb.shape[:2], points.shape)]
        raise InputError(
            f"{entry.where}: {file} is {sizes[0]} pixels, the annotations say {sizes[1]}",
            "give the images that were annotated",
        )
    outline = get(entry.annotation, "segmentation", (list, dict), entry.where)
    mask = segmentation_mask(outline, rgb.shape[:2], entry.where)
    top, left, bottom, right = window(mask, points.box)
    crop, inside = rgb[top:bottom, left:right], mask[top:bottom, left:right]
    if inside.all():
        raise InputError(
            f"{entry.where}: fills its whole image", "leave it out; a mask needs some background"
        )
    name = f"{file.stem}_{get(entry.annotation, 'id', (int, str), entry.where)}"
    if not re.fullmatch(r"[\w.-]+", name):
        raise InputError(f"{entry.where}: {name!r} can't name a file", "rename the image")
    pictures = {"imgs": (".jpg", crop), "masks": (".png", np.repeat(inside[..., None] * np.uint8(255), 3, 2))}
    for folder, (suffix, picture) in pictures.items():
        (split.folder / folder).mkdir(parents=True, exist_ok=True)
        with atomic(split.folder / folder / f"{name}{suffix}") as partial:
            partial.write_bytes(encode(picture, suffix))
    height, width = inside.shape
    original = {"coco_url": entry.image["coco_url"], "crop": [left, top, width, height]}
    split.images.append(
        {"id": number, "file_name": f"{name}.jpg", "width": width, "height": height, **original}
    )
    split.annotations.append(
        {**_moved(entry.annotation, points.box, left, top, inside), "image_id": number, "category_id": 1}
    )


def _moved(
    annotation: dict[str, Any], box: np.ndarray, left: int, top: int, mask: np.ndarray
) -> dict[str, Any]:
    """The annotation in a crop that starts at `left`, `top` and in which `mask` `(H, W)` is the object.

    Points are shares of the box, so they don't change.
    """
    shift = np.array([left, top])
    parts = annotation["segmentation"]
    if isinstance(parts, list) and not any(isinstance(part, dict) for part in parts):
        moved: Any = [(np.reshape(part, (-1, 2)) - shift).ravel().round(3).tolist() for part in parts]
    else:
        moved = run_lengths(mask)
    return {**annotation, "bbox": [*(box[:2] - shift).tolist(), *box[2:].tolist()], "segmentation": moved}


def window(mask: np.ndarray, box: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the crop.

    It is the square around mask and box with the margin of every crop, cut off at the image's border.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    low = np.minimum([rows[0], columns[0]], np.floor(box[[1, 0]])).clip(0)
    high = np.minimum(
        np.maximum([rows[-1] + 1, columns[-1] + 1], np.ceil(box[[1, 0]] + box[[3, 2]])), mask.shape
    )
    half = (high - low).max() * (1 + 2 * MARGIN) / 2
    first = np.floor((low + high) / 2 - half).clip(0).astype(int)
    last = np.minimum(np.ceil((low + high) / 2 + half), mask.shape).astype(int)
    return int(first[0]), int(first[1]), int(last[0]), int(last[1])


def _finish(split: Split, name: str, part: str, path: Path, overwrite: bool) -> None:
    """Write annotations.json, last, and warn of images that another split of the class has too."""
    info = {"class": name, "split": part, "source": source(path), "missing_images": sorted(split.missing)}
    data = {
        "info": info,
        "images": split.images,
        "categories": [{"id": 1, "name": name}],
        "annotations": split.annotations,
    }
    with atomic(split.folder / "annotations.json", overwrite) as partial:
        partial.write_text(json.dumps(data), "utf-8")
    log.info("%s: %d crops of %s, split %s", split.folder, len(split.images), name, part)
    urls = {image["coco_url"] for image in split.images}
    for other in _others(split.folder):
        images = get(read_json(other), "images", list, str(other))
        shared = len(urls & {image.get("coco_url") for image in images})
        if shared:
            log.warning(
                "%s: %d of its %d images are also in %s; don't train on one and test on the other",
                split.folder,
                shared,
                len(urls),
                other.parent,
            )


def _others(folder: Path) -> Iterator[Path]:
    """The annotation files of the other splits of the class."""
    return (path for path in sorted(folder.parent.glob("*/annotations.json")) if path.parent != folder)


def counts(splits: dict[str, Split]) -> dict[str, dict[str, int]]:
    """For each class the numbers of crops, photos, points and missing images."""
    return {
        name: {
            "crops": len(split.images),
            "photos": len(Counter(image["coco_url"] for image in split.images)),
            "points": sum(len(annotation["dp_x"]) for annotation in split.annotations),
            "missing_images": len(split.missing),
        }
        for name, split in splits.items()
    }
