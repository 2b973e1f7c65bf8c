"""The geodesic error of predictions at annotated points (sec. 4.3).

Predictions are assigned to annotations by file name. A missing prediction counts as an error of the largest
distance and is reported.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from shic_cli.base.devices import chance
from shic_cli.base.errors import InputError, some
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import GPS_KAPPA
from shic_cli.files.annotations import Points, check_mesh
from shic_cli.files.checks import check_indices
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.files.names import check_template, meet

log = logging.getLogger("shic")

ROUNDS = 1000  # rounds of the bootstrap


class Predictions(Protocol):
    """Predictions that can be scored: they give vertices for the points of an image."""

    def meet(self, wanted: Iterable[str]) -> dict[str, str | None]:
        """For each wanted image the name that it has here, or None if it has no prediction."""
        ...

    def look_up(self, item: str, group: list[Points]) -> list[tuple[np.ndarray, float]]:
        """For each object of the image `item` the predicted vertices `(P,)`, -1 for none; a confidence."""
        ...


@dataclass(frozen=True)
class Scored:
    """One annotated object and its prediction; P points, errors on the 228 scale.

    `item` is the image's name in the predictions, None if it has none there. `predicted` `(P,)` are the
    predicted vertices, -1 for none, and `truth` `(P,)` the true ones. `error` `(P,)` is the geodesic error,
    and `mirrored` `(P,)` the error of the mirrored answer; both are the largest distance where there is no
    prediction.
    """

    points: Points
    item: str | None
    predicted: np.ndarray
    truth: np.ndarray
    error: np.ndarray
    mirrored: np.ndarray
    confidence: float


class MapsFile:
    """Predictions in a maps file; InputError if it was made with another template."""

    def __init__(self, maps: ItemReader, template: Template) -> None:
        check_template(maps, template.fingerprint)
        self.maps, self.vertices = maps, len(template.verts)

    def meet(self, wanted: Iterable[str]) -> dict[str, str | None]:
        """For each wanted image the name that it has here; names are compared with and without folders."""
        return meet(wanted, self.maps.names)

    def look_up(self, item: str, group: list[Points]) -> list[tuple[np.ndarray, float]]:
        """The map's vertices `(P,)` for each object, and the mean score in the object's box as confidence."""
        image_map = self.maps[item]
        check_indices(image_map.vertex, self.vertices, f"{self.maps.path}: {item}: vertex", lowest=-1)
        return [
            (
                _at_pixels(image_map.vertex, points),
                _mean_in_box(image_map.vertex, image_map.score, points.box),
            )
            for points in group
        ]


def _at_pixels(vertex: np.ndarray, points: Points) -> np.ndarray:
    """The vertex `(P,)` of a map `(H, W)` at each point, -1 where there is none."""
    if points.shape is not None and tuple(points.shape) != vertex.shape:
        sizes = [f"{width} by {height}" for height, width in (vertex.shape, points.shape)]
        raise InputError(
            f"{points.name}: its map is {sizes[0]} pixels, its annotation {sizes[1]}",
            "predict on the image that was annotated",
        )
    inside = (points.yx < vertex.shape).all(1)
    at_points = np.full(len(points.vertex), -1)
    at_points[inside] = vertex[tuple(points.yx[inside].T)]
    return at_points


def _mean_in_box(vertex: np.ndarray, score: np.ndarray, box: np.ndarray) -> float:
    """The mean score of a map's pixels with a vertex in `box` (x, y, width, height); 0 if there are none."""
    low, high = (
        np.maximum(np.floor(box[:2]), 0).astype(int),
        np.maximum(np.ceil(box[:2] + box[2:]), 0).astype(int),
    )
    part = (slice(low[1], high[1]), slice(low[0], high[0]))
    scores = score[part][vertex[part] >= 0].astype(float)
    return float(scores.mean()) if len(scores) else 0.0


def open_predictions(path: Path, template: Template) -> Predictions:
    """The predictions in `path`: a maps file, or another program's points as .csv or .npz.

    InputError if it is neither.
    """
    from shic_cli.evaluation.external import NAMES, GivenPoints

    if path.suffix in NAMES:
        return GivenPoints(path, template)
    return MapsFile(ItemReader(path, "shic/maps"), template)


def scored(
    predictions: Predictions, points: list[Points], template: Template, track: Track = plain_track
) -> list[Scored]:
    """Each annotated object with its prediction, image by image; missing predictions are logged.

    InputError if the annotations belong to another mesh, or hold vertices that its mesh file doesn't have.
    """
    check_mesh(points, len(template.source_to_vertex))
    by_image: dict[str, list[Points]] = defaultdict(list)
    for object_points in points:
        by_image[object_points.name].append(object_points)
    met, entries = predictions.meet(by_image), []
    for name, group in track(by_image.items(), len(by_image), "score"):
        item = met[name]
        if item is None:
            answers = [(np.full(len(object_points.vertex), -1), 0.0) for object_points in group]
        else:
            answers = predictions.look_up(item, group)
        for object_points, (predicted, confidence) in zip(group, answers, strict=True):
            entries.append(_scored(object_points, item, predicted, confidence, template))
    _warn(entries)
    return entries


def _scored(
    points: Points, item: str | None, predicted: np.ndarray, confidence: float, template: Template
) -> Scored:
    """One object with its errors."""
    truth, worst = template.source_to_vertex[points.vertex], template.geodesic.max()
    error = np.where(predicted >= 0, template.geodesic[predicted, truth], worst).astype(float)
    mirrored = np.where(predicted >= 0, template.geodesic[template.mirror[predicted], truth], worst).astype(
        float
    )
    return Scored(points, item, predicted, truth, error, mirrored, confidence)


def _missing(entries: list[Scored]) -> list[str]:
    """The names of the images without a prediction, sorted."""
    return sorted({entry.points.name for entry in entries if entry.item is None})


def _holes(entries: list[Scored]) -> int:
    """The number of points, in images with a prediction, that fall on pixels without a vertex."""
    return sum(int((entry.predicted < 0).sum()) for entry in entries if entry.item is not None)


def _warn(entries: list[Scored]) -> None:
    """Log how many images and points have no prediction."""
    if missing := _missing(entries):
        total = len({entry.points.name for entry in entries})
        log.warning(
            "no prediction for %d of %d annotated images, which count as errors: %s",
            len(missing),
            total,
            some(missing),
        )
    if holes := _holes(entries):
        points = sum(len(entry.predicted) for entry in entries)
        log.warning("no vertex at %d of %d annotated points, which count as errors", holes, points)


def bootstrap(sums: np.ndarray, counts: np.ndarray, seed: int) -> list[float]:
    """The 95 % interval `[low, high]` of sum(sums) / sum(counts).

    The groups (images or pairs) are drawn again with replacement.
    """
    random = chance(seed, "bootstrap")
    draws = (random.integers(len(sums), size=len(sums)) for _ in range(ROUNDS))
    ratios = [sums[draw].sum() / counts[draw].sum() for draw in draws]
    return [float(value) for value in np.percentile(ratios, [2.5, 97.5])]


def summary(entries: list[Scored], seed: int = 0) -> dict[str, Any]:
    """The figures of all objects together and, under `classes`, of each class.

    `missing_images` and `holes` count the missing predictions.
    """
    classes: dict[str, list[Scored]] = defaultdict(list)
    for entry in entries:
        classes[entry.points.category].append(entry)
    counts = {"missing_images": len(_missing(entries)), "holes": _holes(entries)}
    by_class = {name: figures(group, seed) for name, group in sorted(classes.items())}
    return {"metric": "geodesic", **figures(entries, seed), **counts, "classes": by_class}


def figures(entries: list[Scored], seed: int = 0) -> dict[str, Any]:
    """The figures of some objects: counts, mean and median error, 95 % interval, GPS, `left_right`.

    The interval is that of the mean error, and draws images. `left_right` is the share of points whose
    mirrored answer has less than half the error.
    """
    names = {name: i for i, name in enumerate(dict.fromkeys(entry.points.name for entry in entries))}
    image = np.concatenate([np.full(len(entry.error), names[entry.points.name]) for entry in entries])
    error, mirrored = (
        np.concatenate([getattr(entry, key) for entry in entries]) for key in ("error", "mirrored")
    )
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
