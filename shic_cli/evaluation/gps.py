"""Average precision over the geodesic point similarity, as DensePose-CSE's evaluator computes it.

An object's GPS is the mean over its points of exp(-d^2 / (2 kappa^2)); a point without a prediction has 0. An
object counts as found at a threshold that its GPS reaches. Predictions are taken from the surest down;
precision is made falling and read at 101 recalls.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from shic_cli.base.settings import GPS_KAPPA
from shic_cli.evaluation.geodesic import Scored

THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0, 1, 101)
MEDIUM, LARGE = 32.0**2, 96.0**2  # pixels; the evaluator's bounds of an object's area


def similarity(each: Scored, kappa: float = GPS_KAPPA) -> float:
    """The GPS of one object, 0 to 1."""
    return float(np.where(each.found >= 0, np.exp(-(each.error**2) / (2 * kappa**2)), 0).mean())


def with_precision(result: dict[str, Any], found: list[Scored]) -> dict[str, Any]:
    """`evaluate.summary`'s figures of `found` with average precision beside them, of all objects and of each
    class.
    """
    groups = {name: [each for each in found if each.points.category == name] for name in result["classes"]}
    classes = {
        name: {**figures, **average_precision(groups[name])} for name, figures in result["classes"].items()
    }
    return {**result, **average_precision(found), "classes": classes}


def average_precision(found: list[Scored]) -> dict[str, Any]:
    """AP and AR over GPS thresholds 0.5 to 0.95 and at 0.5 and 0.75, AP of medium and large objects, each the
    mean over classes.

    None where there is no such object. Every object has at most one prediction, the one in its own place: one
    that is not there costs recall, one that misses the threshold costs precision too. Objects without points
    are left out.
    """
    classes: dict[str, list[Scored]] = defaultdict(list)
    for each in found:
        if len(each.error):
            classes[each.points.category].append(each)
    groups = list(classes.values())
    medium, large = (
        [[each for each in group if low <= each.points.area <= high] for group in groups]
        for low, high in SIZES
    )
    (precision, recall), ap_medium, ap_large = _mean(groups), _mean(medium)[0], _mean(large)[0]
    parts = {"ap": precision, "ar": recall}
    named = {
        f"{name}{end}": _pick(value, at)
        for name, value in parts.items()
        for end, at in (("", None), ("50", 0), ("75", 5))
    }
    return {**named, "ap_medium": _pick(ap_medium, None), "ap_large": _pick(ap_large, None)}


SIZES = ((MEDIUM, LARGE), (LARGE, np.inf))


def _pick(values: np.ndarray | None, at: int | None) -> float | None:
    return None if values is None else float(values.mean() if at is None else values[at])


def _mean(groups: list[list[Scored]]) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Average precision and recall `(10,)` at each threshold, the mean over those `groups` (classes) that
    hold an object.
    """
    pairs = [_curves(group) for group in groups if group]
    return tuple(np.mean(each, axis=0) for each in zip(*pairs, strict=True)) if pairs else (None, None)


def _curves(group: list[Scored]) -> tuple[np.ndarray, np.ndarray]:
    """Average precision and recall `(10,)` of one class at each threshold."""
    there = [each for each in group if each.item is not None]
    order = np.argsort([-each.confidence for each in there], kind="stable")
    gps = np.array([similarity(each) for each in there])[order]
    hits = np.cumsum(gps >= THRESHOLDS[:, None], axis=1)
    if not len(gps):
        return np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
    recall = hits / len(group)
    precision = np.maximum.accumulate((hits / np.arange(1, len(gps) + 1))[:, ::-1], axis=1)[:, ::-1]
    padded = np.concatenate([precision, np.zeros((len(THRESHOLDS), 1))], axis=1)
    read = [row[np.searchsorted(reached, RECALLS)] for row, reached in zip(padded, recall, strict=True)]
    return np.mean(read, axis=1), recall[:, -1]
