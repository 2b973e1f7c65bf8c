"""Published data sets as folders that the other commands take: DensePose-LVIS, a folder a class of cropped
animals.
"""

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
from shic_cli.files.photos import ImageFile, decode, encode
from shic_cli.files.segmentations import run_lengths, segmentation_mask

log = logging.getLogger("shic")


@dataclass
class Split:
    """What is written of one class: its folder, the crops' images and annotations as JSON values, and the
    images that were not there.
    """

    folder: Path
    images: list[dict[str, Any]] = field(default_factory=list)
    annotations: list[dict[str, Any]] = field(default_factory=list)
    missing: set[str] = field(default_factory=set)


def split_name(path: Path) -> str:
    """The split that an annotation file's name tells, as `ds2_val` of densepose_lvis_v1_ds2_val_v1.json; else
    its stem.
    """
    found = re.search(r"(?:ds\d_)?(?:train|val|test)(?![a-z])", path.stem)
    return found[0] if found else path.stem


def read_classes(path: Path, classes: tuple[str, ...] = ()) -> dict[str, list[Entry]]:
    """The annotated objects of a DensePose-LVIS file by class; with `classes` only those. InputError lists
    what it has if one lacks.
    """
    found: dict[str, list[Entry]] = {}
    for entry in read_entries(path):
        found.setdefault(entry.category, []).append(entry)
    if unknown := [name for name in classes if name not in found]:
        raise InputError(
            f"{path}: has no annotated {unknown[0]}", f"it has {', '.join(sorted(found)) or 'none'}"
        )
    if not found:
        raise InputError(f"{path}: holds no annotated point", "an annotation has dp_x, dp_y and dp_vertex")
    if odd := [name for name in found if not re.fullmatch(r"[\w -]+", name)]:
        raise InputError(f"{path}: {odd[0]!r} is no name for a folder", "rename that category in the file")
    return {name: found[name] for name in sorted(classes or found)}


def densepose_lvis(
    path: Path,
    root: Path,
    output: Path,
    classes: tuple[str, ...] = (),
    split: str = "",
    overwrite: bool = False,
    track: Track = plain_track,
) -> tuple[dict[str, Split], list[str]]:
    """Write `output`/CLASS/SPLIT with imgs/, masks/ and annotations.json: each annotated object cropped, its
    points moved along.

    Images are the last two parts of `coco_url` below `root`. What was written by class, and what could not
    be, to be given to `complain`. InputError if nothing could.
    """
    if not root.is_dir():
        raise InputError(
            f"{root}: there is no such folder", "give the folder above train2017/ and val2017/ with --images"
        )
    groups, split = read_classes(path, classes), split or split_name(path)
    splits = {name: Split(output / name / split) for name in groups}
    for each in splits.values():
        if (target := each.folder / "annotations.json").exists():
            check_target(target, overwrite)
    entries = [(name, entry) for name, group in groups.items() for entry in group]
    failures = Failures()
    for name, entry in track(entries, len(entries), "crop"):
        with failures.catch(entry.where):
            file = root / coco_path(entry)
            if file.is_file():
                _write_object(splits[name], entry, file, len(splits[name].images) + 1)
            else:
                splits[name].missing.add(coco_path(entry))
    failures.check(len(entries))
    missing = sorted(set().union(*(each.missing for each in splits.values())))
    if missing and not any(each.images for each in splits.values()):
        raise InputError(
            f"{root}: has none of the {len(missing)} annotated images",
            f"the first would be {root / missing[0]}",
        )
    for name, each in splits.items():
        if each.images:
            _finish(each, name, split, path, overwrite)
    facts = [f"{len(missing)} annotated images are not below {root}: {some(missing)}"] if missing else []
    return splits, facts + (
        [f"{len(failures.names)} objects can't be used: {some(failures.names)}"] if failures.names else []
    )


def complain(facts: list[str]) -> None:
    """Raise PartialError (status 4) if there are `facts` about what could not be written."""
    if facts:
        raise PartialError(
            "; ".join(facts), "the rest is written; each annotations.json lists its missing images"
        )


def _write_object(split: Split, entry: Entry, file: Path, number: int) -> None:
    """Write the crop and the mask of one object, and note them in `split`."""
    if entry.annotation.get("iscrowd"):
        raise InputError(
            f"{entry.where}: marks a crowd, not one object", "leave it out; points are of one object"
        )
    points = read_points(entry)
    rgb, _ = decode(ImageFile.at(file).read(), str(file))
    if points.shape is not None and tuple(points.shape) != rgb.shape[:2]:
        sizes = f"{rgb.shape[1]} by {rgb.shape[0]} pixels, the annotations say {points.shape[1]} by {points.shape[0]}"
        raise InputError(f"{entry.where}: {file} is {sizes}", "give the images that were annotated")
    outline = get(entry.annotation, "segmentation", (list, dict), entry.where)
    mask = segmentation_mask(outline, rgb.shape[:2], entry.where)
    top, left, bottom, right = window(mask, points.box)
    crop, inside = rgb[top:bottom, left:right], mask[top:bottom, left:right]
    if inside.all():
        raise InputError(
            f"{entry.where}: fills its whole image", "leave it out; a mask has to leave some background"
        )
    name = f"{file.stem}_{get(entry.annotation, 'id', (int, str), entry.where)}"
    if not re.fullmatch(r"[\w.-]+", name):
        raise InputError(f"{entry.where}: {name!r} is no name for a file", "rename the image")
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
    """The annotation in a crop that begins at `left`, `top`, where its object is `mask` (H, W): points are
    shares of the box and stay as they are.
    """
    shift = np.array([left, top])
    parts = annotation["segmentation"]
    if isinstance(parts, list) and not any(isinstance(part, dict) for part in parts):
        moved: Any = [(np.reshape(part, (-1, 2)) - shift).ravel().round(3).tolist() for part in parts]
    else:
        moved = run_lengths(mask)
    return {**annotation, "bbox": [*(box[:2] - shift).tolist(), *box[2:].tolist()], "segmentation": moved}


def window(mask: np.ndarray, box: np.ndarray) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the crop: the square around mask and box with the margin of every crop,
    as far as the image goes.
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
        partial.write_text(json.dumps(data))
    log.info("%s: %d crops of %s, split %s", split.folder, len(split.images), name, part)
    urls = {each["coco_url"] for each in split.images}
    for other in _others(split.folder):
        shared = len(
            urls & {each.get("coco_url") for each in get(read_json(other), "images", list, str(other))}
        )
        if shared:
            log.warning(
                "%s: %d of its %d images are also in %s; train on one and test on the other no more",
                split.folder,
                shared,
                len(urls),
                other.parent,
            )


def _others(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.parent.glob("*/annotations.json")) if path.parent != folder)


def counts(splits: dict[str, Split]) -> dict[str, dict[str, int]]:
    """For each class how many crops, photos, points and missing images there are."""
    return {
        name: {
            "crops": len(each.images),
            "photos": len(Counter(image["coco_url"] for image in each.images)),
            "points": sum(len(annotation["dp_x"]) for annotation in each.annotations),
            "missing_images": len(each.missing),
        }
        for name, each in splits.items()
    }
