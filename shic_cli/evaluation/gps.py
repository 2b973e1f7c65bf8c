"""Average precision over the geodesic point similarity, as DensePose-CSE's evaluator computes it.

An object's GPS is the mean over its points of exp(-d^2 / (2 kappa^2)); a point without a prediction counts 0.
An object counts as found at every threshold that its GPS reaches. Predictions are ranked by confidence,
highest first. Precision is made non-increasing and read at 101 recalls.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from shic_cli.base.settings import GPS_KAPPA
from shic_cli.evaluation.geodesic import Scored

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MEDIUM, LARGE = 32.0**2, 96.0**2  # pixels; an object of at least this area is medium or large
ANY, *SIZES = (0.0, np.inf), (MEDIUM, LARGE), (LARGE, np.inf)


def similarity(entry: Scored, kappa: float = GPS_KAPPA) -> float:
    """The GPS of one object, from 0 to 1."""
    return float(np.where(entry.predicted >= 0, np.exp(-(entry.error**2) / (2 * kappa**2)), 0).mean())


def with_precision(result: dict[str, Any], entries: list[Scored]) -> dict[str, Any]:
    """`result`, the `summary` of `entries`, with average precision added to it and to each class."""
    groups = {
        name: [entry for entry in entries if entry.points.category == name] for name in result["classes"]
    }
    classes = {
        name: {**figures, **average_precision(groups[name])} for name, figures in result["classes"].items()
    }
    return {**result, **average_precision(entries), "classes": classes}


def average_precision(entries: list[Scored]) -> dict[str, Any]:
    """AP and AR over the GPS thresholds, at 0.5 and at 0.75, and the AP of medium and of large objects.

    The thresholds are 0.5 to 0.95; each figure is the mean over classes, and None if there is no such object.
    Every object has at most one prediction, the one in its own box: a missing prediction costs recall, and
    one below the threshold costs precision too. Objects without points are left out. An object's size is its
    annotated area. A prediction below the threshold costs the precision of a size only if its box has that
    size too, as in DensePose's evaluator.
    """
    classes: dict[str, list[Scored]] = defaultdict(list)
    for entry in entries:
        if len(entry.error):
            classes[entry.points.category].append(entry)
    groups = list(classes.values())
    (precision, recall), (ap_medium, _), (ap_large, _) = (_mean(groups, size) for size in (ANY, *SIZES))
    parts = {"ap": precision, "ar": recall}
    by_threshold = {
        f"{name}{end}": _pick(value, at)
        for name, value in parts.items()
        for end, at in (("", None), ("50", 0), ("75", 5))
    }
    return {**by_threshold, "ap_medium": _pick(ap_medium, None), "ap_large": _pick(ap_large, None)}


def _pick(values: np.ndarray | None, at: int | None) -> float | None:
    """The mean of `values` over the thresholds, or the value at threshold `at`; None if there are none."""
    return None if values is None else float(values.mean() if at is None else values[at])


def _mean(
    groups: list[list[Scored]], size: tuple[float, float]
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Average precision and recall `(10,)` at each threshold, for objects of a `size`; the mean over classes.

    A class without such objects in `groups` is left out; both are None if no class has one.
    """
    of_size = [[entry for entry in group if size[0] <= entry.points.area <= size[1]] for group in groups]
    pairs = [_curves(group, size) for group in of_size if group]
    if not pairs:
        return None, None
    precision, recall = zip(*pairs, strict=True)
    return np.mean(precision, axis=0), np.mean(recall, axis=0)


def _curves(group: list[Scored], size: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and recall `(10,)` of one class at each threshold; `size` is that of the objects."""
    answered = [entry for entry in group if entry.item is not None]
    answered.sort(key=lambda entry: -entry.confidence)  # stable
    if not answered:
        return np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
    box = np.array([entry.points.box[2:].prod() for entry in answered])
    right = np.array([similarity(entry) for entry in answered]) >= THRESHOLDS[:, None]
    counted = right | ((size[0] <= box) & (box <= size[1]))
    hits = np.cumsum(right, axis=1)
    recall = hits / len(group)
    precision = hits / np.maximum(np.cumsum(counted, axis=1), 1)
    falling = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([falling, np.zeros((len(THRESHOLDS), 1))], axis=1)
    at_recalls = [row[np.searchsorted(reached, RECALLS)] for row, reached in zip(padded, recall, strict=True)]
    return np.mean(at_recalls, axis=1), recall[:, -1]
