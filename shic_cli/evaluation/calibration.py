"""How far the uncertainty that maps state agrees with their errors at annotated points."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import rankdata

from shic_cli.base.errors import InputError
from shic_cli.evaluation.geodesic import Scored
from shic_cli.files.items import ItemReader

BINS = 10


def calibration(maps: ItemReader, entries: list[Scored]) -> dict[str, Any]:
    """How the uncertainty in a maps file agrees with the errors of `entries`, on the 228 scale.

    `bins` hold the points in ten groups of equal size, from the surest on: how many there are, and their mean
    `stated` uncertainty and mean `error`. `scale` is what to multiply the uncertainty by to have the mean
    error right. The ranks are Spearman's correlations with errors, None if not defined: `rank_points` of
    points; `rank_photos` of the photos' mean uncertainty, of all pixels, with their mean errors;
    `rank_photos_at_points` of the mean uncertainty at the photo's points alone.

    Points without a prediction are left out. InputError if the file states no uncertainty.
    """
    stated, errors, photos = [], [], {}
    for entry in entries:
        if entry.item is None:
            continue
        item, answered = maps[entry.item], entry.predicted >= 0
        if "uncertainty" not in item.arrays:
            raise InputError(
                f"{maps.path}: states no uncertainty", "make it with `shic predict`, or again if it is older"
            )
        at_points = item.uncertainty[tuple(entry.points.yx[answered].T)].astype(float)
        stated.append(at_points)
        errors.append(entry.error[answered])
        doubt = float(item.uncertainty[item.vertex >= 0].astype(float).mean())
        pairs = zip(at_points, entry.error[answered], strict=True)
        photos.setdefault(entry.item, (doubt, []))[1].extend(pairs)
    if not photos:
        raise InputError(f"{maps.path}: has no map of an annotated photo", "predict the annotated photos")
    return _figures(np.concatenate(stated), np.concatenate(errors), list(photos.values()))


def _figures(
    stated: np.ndarray, error: np.ndarray, photos: list[tuple[float, list[tuple[float, float]]]]
) -> dict[str, Any]:
    """The figures of points and of photos: each one's mean uncertainty, and what its points state and err."""
    order = np.argsort(stated, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if len(part)]
    seen = np.array([(doubt, *np.mean(pairs, axis=0)) for doubt, pairs in photos if pairs]).reshape(-1, 3)
    return {
        "bins": [
            {"points": len(part), "stated": float(stated[part].mean()), "error": float(error[part].mean())}
            for part in bins
        ],
        "scale": float(error.mean() / stated.mean()) if stated.any() else None,
        "rank_points": _rank(stated, error),
        "rank_photos": _rank(seen[:, 0], seen[:, 2]),
        "rank_photos_at_points": _rank(seen[:, 1], seen[:, 2]),
    }


def _rank(a: np.ndarray, b: np.ndarray) -> float | None:
    """Spearman's rank correlation; None for fewer than three values, or where all are the same."""
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
