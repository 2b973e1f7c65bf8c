"""The geodesic error of predictions at annotated points (sec. 4.3).

Predictions and annotations meet by file name. What is missing counts as an error at the largest distance and
is reported.
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

ROUNDS = 1000  # of the bootstrap


class Predictions(Protocol):
    """What is scored: for the points of an image the predicted vertices."""

    def meet(self, wanted: Iterable[str]) -> dict[str, str | None]:
        """For each annotated image the name that it has here, None if it has no prediction."""

    def look_up(self, item: str, group: list[Points]) -> list[tuple[np.ndarray, float]]:
        """For each object of the image `item` the template vertices `(P,)` at its points, -1 for none, and
        how sure.
        """


@dataclass(frozen=True)
class Scored:
    """One annotated object beside what was predicted: its `points`, the image's name `item` in the
    predictions (None: it has none), the predicted vertex `found` (P,) with -1 for none, the true one `truth`
    (P,), the `error` (P,) on the 228 scale, that of the mirrored answer `mirrored` (P,), both the largest
    distance where there is no prediction, and the prediction's `confidence`."""

    points: Points
    item: str | None
    found: np.ndarray
    truth: np.ndarray
    error: np.ndarray
    mirrored: np.ndarray
    confidence: float


class MapsFile:
    """Predictions in a maps file. InputError if it was made with another template than `template`."""

    def __init__(self, maps: ItemReader, template: Template) -> None:
        check_template(maps, template.fingerprint)
        self.maps, self.vertices = maps, len(template.verts)

    def meet(self, wanted: Iterable[str]) -> dict[str, str | None]:
        """The images by name, with or without folders."""
        return meet(wanted, self.maps.names)

    def look_up(self, item: str, group: list[Points]) -> list[tuple[np.ndarray, float]]:
        """The map's vertices at the points; an object is as sure as the map's pixels in its box on average."""
        held = self.maps[item]
        check_indices(held.vertex, self.vertices, f"{self.maps.path}: {item}: vertex", lowest=-1)
        return [
            (_at_pixels(held.vertex, each), _mean_in_box(held.vertex, held.score, each.box)) for each in group
        ]


def _at_pixels(vertex: np.ndarray, points: Points) -> np.ndarray:
    """The vertex `(P,)` of a map (H, W) at each point, -1 where there is none."""
    if points.shape is not None and tuple(points.shape) != vertex.shape:
        sizes = f"{vertex.shape[1]} by {vertex.shape[0]} pixels, its annotation {points.shape[1]} by {points.shape[0]}"
        raise InputError(f"{points.name}: its map is {sizes}", "predict on the image that was annotated")
    inside = (points.yx < vertex.shape).all(1)
    found = np.full(len(points.vertex), -1)
    found[inside] = vertex[tuple(points.yx[inside].T)]
    return found


def _mean_in_box(vertex: np.ndarray, score: np.ndarray, box: np.ndarray) -> float:
    low, high = (
        np.maximum(np.floor(box[:2]), 0).astype(int),
        np.maximum(np.ceil(box[:2] + box[2:]), 0).astype(int),
    )
    part = (slice(low[1], high[1]), slice(low[0], high[0]))
    scores = score[part][vertex[part] >= 0].astype(float)
    return float(scores.mean()) if len(scores) else 0.0


def open_predictions(path: Path, template: Template) -> Predictions:
    """The predictions in `path`: a maps file, or another program's points as .csv or .npz. InputError if it
    is neither.
    """
    from shic_cli.evaluation.external import NAMES, GivenPoints

    return (
        GivenPoints(path, template)
        if path.suffix in NAMES
        else MapsFile(ItemReader(path, "shic/maps"), template)
    )


def scored(
    predictions: Predictions, points: list[Points], template: Template, track: Track = plain_track
) -> list[Scored]:
    """Each annotated object beside its prediction, image by image; what is missing is logged.

    InputError if the annotations are of another mesh, or hold vertices that its mesh file has not.
    """
    check_mesh(points, len(template.source_to_vertex))
    by_image: dict[str, list[Points]] = defaultdict(list)
    for each in points:
        by_image[each.name].append(each)
    met, found = predictions.meet(by_image), []
    for name, group in track(by_image.items(), len(by_image), "score"):
        item = met[name]
        answers = (
            predictions.look_up(item, group)
            if item is not None
            else [(np.full(len(each.vertex), -1), 0.0) for each in group]
        )
        found += [_scored(each, item, *answer, template) for each, answer in zip(group, answers, strict=True)]
    _warn(found)
    return found


def _scored(
    points: Points, item: str | None, found: np.ndarray, confidence: float, template: Template
) -> Scored:
    truth, worst = template.source_to_vertex[points.vertex], template.geodesic.max()
    error = np.where(found >= 0, template.geodesic[found, truth], worst).astype(float)
    mirrored = np.where(found >= 0, template.geodesic[template.mirror[found], truth], worst).astype(float)
    return Scored(points, item, found, truth, error, mirrored, confidence)


def _missing(found: list[Scored]) -> list[str]:
    return sorted({each.points.name for each in found if each.item is None})


def _holes(found: list[Scored]) -> int:
    return sum(int((each.found < 0).sum()) for each in found if each.item is not None)


def _warn(found: list[Scored]) -> None:
    if missing := _missing(found):
        total = len({each.points.name for each in found})
        log.warning(
            "%d of %d annotated images have no prediction and count as errors: %s",
            len(missing),
            total,
            some(missing),
        )
    if holes := _holes(found):
        log.warning("%d annotated points fall on pixels without a vertex and count as errors", holes)


def bootstrap(sums: np.ndarray, counts: np.ndarray, seed: int) -> list[float]:
    """The 95 % interval `[lo, hi]` of sum(sums) / sum(counts) when the groups (images, pairs) are drawn again
    with replacement.
    """
    random = chance(seed, "bootstrap")
    draws = (random.integers(len(sums), size=len(sums)) for _ in range(ROUNDS))
    return [
        float(value)
        for value in np.percentile([sums[draw].sum() / counts[draw].sum() for draw in draws], [2.5, 97.5])
    ]


def geodesic(
    maps: ItemReader, points: list[Points], template: Template, seed: int = 0, track: Track = plain_track
) -> dict[str, Any]:  # fmt: skip
    """Geodesic error and GPS of `maps` at the annotated points: `summary` of what `scored` finds. Raises what
    they raise.
    """
    return summary(scored(MapsFile(maps, template), points, template, track), seed)


def summary(found: list[Scored], seed: int = 0) -> dict[str, Any]:
    """The figures of all objects together and, under `classes`, of each class; `missing_images` and `holes`
    count what was missing.
    """
    classes: dict[str, list[Scored]] = defaultdict(list)
    for each in found:
        classes[each.points.category].append(each)
    counts = {"missing_images": len(_missing(found)), "holes": _holes(found)}
    by_class = {name: figures(group, seed) for name, group in sorted(classes.items())}
    return {"metric": "geodesic", **figures(found, seed), **counts, "classes": by_class}


def figures(found: list[Scored], seed: int = 0) -> dict[str, Any]:
    """The figures of some objects: how many, mean and median error with the mean's 95 % interval, GPS and
    `left_right`.

    The interval draws images; `left_right` is the share of points whose mirrored answer is less than half as
    wrong.
    """
    names = {name: i for i, name in enumerate(dict.fromkeys(each.points.name for each in found))}
    image = np.concatenate([np.full(len(each.error), names[each.points.name]) for each in found])
    error, mirrored = (
        np.concatenate([getattr(each, key) for each in found]) for key in ("error", "mirrored")
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
