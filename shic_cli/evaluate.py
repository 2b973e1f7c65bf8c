"""Scores of maps: the geodesic error of annotated points and keypoint transfer between photos (sec. 4.3).

Predictions and annotations meet by file name. What is missing counts as an error at the largest distance and is reported.
"""

from __future__ import annotations

import csv
import json
import logging
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shic_cli.config import PckConfig
from shic_cli.devices import chance
from shic_cli.errors import Failures, InputError
from shic_cli.images import ImageFile, MaskSource
from shic_cli.maps import check_template, meet
from shic_cli.match import GPS_KAPPA, Paths, Side, ThroughTemplate, make_side
from shic_cli.progress import Track, plain_track
from shic_cli.schema import ItemReader, Template, check_indices

log = logging.getLogger("shic")

DP_SCALE = 255.0  # dp_x and dp_y run from 0 to this over the box, as in DensePose's evaluation
ROUNDS = 1000  # of the bootstrap


@dataclass(frozen=True)
class Points:
    """The annotated points of one object: pixels `yx` (P, 2) and vertices of the mesh file `vertex` (P,)."""

    name: str
    shape: tuple[int, int] | None
    category: str
    yx: np.ndarray
    vertex: np.ndarray


def read_json(path: Path) -> Any:
    """The JSON value in `path`; InputError if it can't be read."""
    try:
        return json.loads(Path(path).read_text())
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error})", "check that the file is whole") from error


def _get(value: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """`value[key]`, checked to be of `kind`; InputError names the field."""
    if not isinstance(value, dict) or key not in value:
        raise InputError(f"{where}: has no `{key}`", "see the README for what an annotation file holds")
    if not isinstance(value[key], kind) or isinstance(value[key], bool):
        raise InputError(f"{where}.{key}: is {type(value[key]).__name__}", "see the README for what an annotation file holds")
    return value[key]


def _numbers(value: Any, shape: tuple[int | None, ...], where: str) -> np.ndarray:
    """`value` as finite numbers of `shape`, where None is any size."""
    try:
        array = np.asarray(value, float)
        fits = array.ndim == len(shape) and all(size in (None, found) for size, found in zip(shape, array.shape, strict=True))
    except (TypeError, ValueError):
        fits = False
    if not fits or not np.isfinite(array).all():
        raise InputError(f"{where}: is not a list of numbers of the right length", "see the README for what an annotation file holds")
    return array


def read_annotations(path: Path, scale: float = DP_SCALE) -> list[Points]:
    """The DensePose points in a COCO or LVIS file, one entry an object; InputError names the file and the field that is wrong."""
    data = read_json(path)
    images = {_get(each, "id", (int, str), f"{path}: images[{i}]"): each for i, each in enumerate(_get(data, "images", list, str(path)))}
    names = {
        _get(each, "id", (int, str), f"{path}: categories[{i}]"): _get(each, "name", str, f"{path}: categories[{i}]")
        for i, each in enumerate(_get(data, "categories", list, str(path)))
    }
    found = []
    for i, each in enumerate(_get(data, "annotations", list, str(path))):
        where = f"{path}: annotations[{i}]"
        if isinstance(each, dict) and not {"dp_x", "dp_y", "dp_vertex"} & set(each):
            continue  # LVIS has objects without points
        image, category = _get(each, "image_id", (int, str), where), _get(each, "category_id", (int, str), where)
        for key, known, value in (("image_id", images, image), ("category_id", names, category)):
            if value not in known:
                raise InputError(f"{where}.{key}: {value} is not listed", f"check the file's list of {key[:-3]} ids")
        found.append(_read_points(each, where, images[image], names[category], f"{path}: image {image}", scale))
    if not sum(len(each.vertex) for each in found):
        raise InputError(f"{path}: holds no annotated point", "an annotation has dp_x, dp_y and dp_vertex")
    return found


def _read_points(each: dict, where: str, image: dict, category: str, image_where: str, scale: float) -> Points:
    """One object's points: position = box corner + dp * box size / `scale`; the pixel that it falls in."""
    box = _numbers(_get(each, "bbox", list, where), (4,), f"{where}.bbox")
    x, y = (_numbers(_get(each, key, list, where), (None,), f"{where}.{key}") for key in ("dp_x", "dp_y"))
    vertex = _numbers(_get(each, "dp_vertex", list, where), (len(x),), f"{where}.dp_vertex")
    if len(y) != len(x):
        raise InputError(f"{where}.dp_y: has {len(y)} numbers, dp_x has {len(x)}", "give one of each for a point")
    if (vertex != np.rint(vertex)).any():
        raise InputError(f"{where}.dp_vertex: holds numbers that are not whole", "give vertex ids of the mesh file, counted from 0")
    yx = np.stack([box[1] + y * box[3] / scale, box[0] + x * box[2] / scale], 1)
    last = np.ceil(box[[1, 0]] + box[[3, 2]]) - 1  # a point on the box's far edge belongs to its last pixel
    pixels = np.maximum(np.minimum(np.floor(yx), last), 0).astype(int)
    if "file_name" in image or "coco_url" not in image:
        name = _get(image, "file_name", str, image_where)
    else:
        name = "/".join(_get(image, "coco_url", str, image_where).split("/")[-2:])  # LVIS has train2017/NAME.jpg there only
    shape = (image["height"], image["width"]) if {"height", "width"} <= set(image) else None
    return Points(name, shape, category, pixels, vertex.astype(int))


def bootstrap(sums: np.ndarray, counts: np.ndarray, seed: int) -> list[float]:
    """The 95 % interval `[lo, hi]` of sum(sums) / sum(counts) when the groups (images, pairs) are drawn again with replacement."""
    random = chance(seed, "bootstrap")
    draws = (random.integers(len(sums), size=len(sums)) for _ in range(ROUNDS))
    return [float(value) for value in np.percentile([sums[draw].sum() / counts[draw].sum() for draw in draws], [2.5, 97.5])]


def geodesic(maps: ItemReader, points: list[Points], template: Template, seed: int = 0, track: Track = plain_track) -> dict[str, Any]:
    """Geodesic error and GPS of `maps` at the annotated points: the figures together and, under `classes`, for each category.

    InputError if the maps are of another template, or the annotations hold vertices that its mesh file has not.
    """
    check_template(maps, template.fingerprint)
    for each in points:
        check_indices(each.vertex, len(template.source_to_vertex), f"{each.name}: dp_vertex")
    met = meet((each.name for each in points), maps.names)
    objects: dict[str, list[tuple[Points, np.ndarray]]] = defaultdict(list)
    by_image: dict[str, list[Points]] = defaultdict(list)
    for each in points:
        by_image[each.name].append(each)
    for name, group in track(by_image.items(), len(by_image), "score"):
        vertex = maps[met[name]].vertex if met[name] is not None else None
        if vertex is not None:
            check_indices(vertex, len(template.verts), f"{maps.path}: {met[name]}: vertex", lowest=-1)
        for each in group:
            objects[each.category].append((each, _look_up(vertex, each)))
    missing = sorted(name for name in by_image if met[name] is None)
    every = [pair for pairs in objects.values() for pair in pairs]
    holes = sum(int((found < 0).sum()) for each, found in every if met[each.name] is not None)
    if missing:
        log.warning("%d of %d annotated images have no prediction and count as errors: %s", len(missing), len(by_image), _some(missing))
    if holes:
        log.warning("%d annotated points fall on pixels without a vertex and count as errors", holes)
    classes = {name: _figures(pairs, template, seed) for name, pairs in sorted(objects.items())}
    return {"metric": "geodesic", **_figures(every, template, seed), "missing_images": len(missing), "holes": holes, "classes": classes}


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")


def _look_up(vertex: np.ndarray | None, points: Points) -> np.ndarray:
    """The predicted vertex `(P,)` at each point, -1 where there is none."""
    if vertex is None:
        return np.full(len(points.vertex), -1)
    if points.shape is not None and tuple(points.shape) != vertex.shape:
        sizes = f"{vertex.shape[1]} by {vertex.shape[0]} pixels, its annotation {points.shape[1]} by {points.shape[0]}"
        raise InputError(f"{points.name}: its map is {sizes}", "predict on the image that was annotated")
    inside = (points.yx < vertex.shape).all(1)
    found = np.full(len(points.vertex), -1)
    found[inside] = vertex[tuple(points.yx[inside].T)]
    return found


def _figures(pairs: list[tuple[Points, np.ndarray]], template: Template, seed: int) -> dict[str, Any]:
    """The figures of one category or of all, from each object's points and the vertices found there."""
    names = {name: i for i, name in enumerate(dict.fromkeys(each.name for each, _ in pairs))}
    image = np.concatenate([np.full(len(found), names[each.name]) for each, found in pairs])
    truth = template.source_to_vertex[np.concatenate([each.vertex for each, _ in pairs])]
    found = np.concatenate([found for _, found in pairs])
    worst = template.geodesic.max()
    error = np.where(found >= 0, template.geodesic[found, truth], worst).astype(float)
    mirrored = np.where(found >= 0, template.geodesic[template.mirror[found], truth], worst)
    if not len(error):
        return {"images": len(names), "points": 0}
    counts = np.bincount(image, minlength=len(names))
    sums = np.bincount(image, error, minlength=len(names))[counts > 0]
    return {
        "images": len(names),
        "points": len(error),
        "mean": float(error.mean()),
        "median": float(np.median(error)),
        "ci95": bootstrap(sums, counts[counts > 0], seed),
        "gps": float(np.exp(-(error**2) / (2 * GPS_KAPPA**2)).mean()),
        "left_right": float((mirrored < error / 2).mean()),
    }


@dataclass(frozen=True)
class Pair:
    """Two photos and the positions `(P, 2)` (y, x) of the same keypoints in both."""

    source: str
    target: str
    source_yx: np.ndarray
    target_yx: np.ndarray


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a keypoint file: a plain JSON (every ordered pair of images that share names) or a PF-PASCAL csv."""
    pairs = _read_csv(path) if Path(path).suffix == ".csv" else _read_keypoints(path)
    if not pairs:
        raise InputError(f"{path}: no two images in it share a keypoint", "a pair needs the same names in both")
    return pairs


def _read_keypoints(path: Path) -> list[Pair]:
    images = {}
    for name, each in _get(read_json(path), "images", dict, str(path)).items():
        where = f"{path}: images.{name}"
        points = _get(each, "points", dict, where)
        images[name] = {key: _numbers(value, (2,), f"{where}.points.{key}")[::-1] for key, value in points.items()}
    pairs = []
    for source, points in images.items():
        for target, others in images.items():
            shared = [key for key in points if key in others]
            if source != target and shared:
                pairs.append(Pair(source, target, *(np.array([of[key] for key in shared]) for of in (points, others))))
    return pairs


def _read_csv(path: Path) -> list[Pair]:
    """PF-PASCAL: source_image, target_image, class, XA, YA, XB, YB; coordinates separated by semicolons."""
    try:
        with open(path, newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: can't be read ({error})", "check the path") from error
    pairs = []
    for i, row in enumerate(rows, 2):
        if lack := [key for key in ("source_image", "target_image", "XA", "YA", "XB", "YB") if not row.get(key)]:
            raise InputError(f"{path}: line {i} has no `{lack[0]}`", "PF-PASCAL: source_image,target_image,class,XA,YA,XB,YB")
        xa = _numbers(row["XA"].split(";"), (None,), f"{path}: line {i}, XA")
        ya, xb, yb = (_numbers(row[key].split(";"), (len(xa),), f"{path}: line {i}, {key}") for key in ("YA", "XB", "YB"))
        pairs.append(Pair(row["source_image"], row["target_image"], np.stack([ya, xa], 1), np.stack([yb, xb], 1)))
    return pairs


def _names(pairs: list[Pair]) -> list[str]:
    return sorted({name for pair in pairs for name in (pair.source, pair.target)})


def sides_of_maps(pairs: list[Pair], maps: ItemReader, surface: Any, track: Track = plain_track) -> dict[str, Side]:
    """The photos of `pairs` by their maps; what the file lacks is left out. InputError if it is of another template."""
    check_template(maps, surface.fingerprint)
    paths, sides = Paths(surface.verts, surface.faces), {}
    met = meet(_names(pairs), maps.names, stems=True)
    failures = Failures()
    for name, found in track(met.items(), len(met), "read"):
        if found is not None:
            item = maps[found]
            check_indices(item.vertex, len(surface.verts), f"{maps.path}: {found}: vertex", lowest=-1)
            with failures.catch(found):
                sides[name] = ThroughTemplate(found, item.vertex, item.score, paths)
    return sides


def sides_of_model(
    pairs: list[Pair], images: list[ImageFile], masks: MaskSource, predictor: Any, via: str, track: Track = plain_track
) -> dict[str, Side]:
    """The photos of `pairs` as a model (a Predictor) sees them; those that are not among `images` or can't be used are left out."""
    paths, sides = Paths(predictor.surface.verts, predictor.surface.faces), {}
    files = {image.name: image for image in images}
    met = meet(_names(pairs), list(files), stems=True)
    failures = Failures()
    for name, found in track(met.items(), len(met), "predict"):
        if found is not None:
            with failures.catch(found):
                sides[name] = make_side(predictor, masks.read(files[found]), via, paths)
    return sides


def pck(pairs: list[Pair], sides: dict[str, Side], config: PckConfig, seed: int = 0, track: Track = plain_track) -> dict[str, Any]:
    """PCK of transferred keypoints: the share that lands nearer than alpha times the longer side of the target image.

    `sides` has the photos by the names of the pairs; keypoints of a pair that lacks one count as wrong. Pixels are compared.
    """
    right, counts = np.zeros(len(pairs)), np.array([len(pair.source_yx) for pair in pairs])
    for i, pair in enumerate(track(pairs, len(pairs), "transfer")):
        if pair.source in sides and pair.target in sides:
            target = sides[pair.target]
            found, _ = target.find(sides[pair.source].describe(np.floor(pair.source_yx)))
            distance = np.linalg.norm(found - np.floor(pair.target_yx), axis=1)
            right[i] = (distance < config.alpha * max(target.shape)).sum()
    missing = [name for name in _names(pairs) if name not in sides]
    if missing:
        log.warning("%d annotated images have no prediction; their keypoints count as errors: %s", len(missing), _some(missing))
    return {
        "metric": "pck",
        "alpha": config.alpha,
        "pairs": len(pairs),
        "keypoints": int(counts.sum()),
        "pck": float(right.sum() / counts.sum()),
        "ci95": bootstrap(right, counts, seed),
        "via": config.via,
        "missing_images": len(missing),
    }
