"""The uncertainty that maps state, beside their errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shic_cli.base.errors import InputError
from shic_cli.evaluation.calibration import calibration
from shic_cli.evaluation.geodesic import Scored
from shic_cli.files.annotations import Points
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.photos import encode


def write(path: Path, uncertainty: dict[str, np.ndarray | None], template: str = "") -> ItemReader:
    """A maps file of photos with these uncertainties `(H, W)`.

    Where they are above 0 the vertex is 0 or 1 by turns, and there is none elsewhere.
    """
    attrs = {"labels": "predicted", "template": template}
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=attrs) as writer:
        for name, values in uncertainty.items():
            shape = (20, 10) if values is None else values.shape
            encoded = np.frombuffer(encode(np.zeros((*shape, 3), np.uint8)), np.uint8)
            vertex = np.arange(shape[0] * shape[1]).reshape(shape) % 2
            vertex = vertex if values is None else np.where(values > 0, vertex, -1)
            whole = {"mask": np.ones(shape, bool), "vertex": vertex, "score": np.ones(shape)}
            writer.add(name, encoded=encoded, uncertainty=values, **whole)
    return ItemReader(path, "shic/maps")


def entry(name: str, error: np.ndarray, predicted: np.ndarray | None = None) -> Scored:
    """An object with a point at every pixel, whose errors `(H, W)` these are."""
    yx, flat = np.argwhere(error >= 0), error.ravel().astype(float)
    box, zero = np.array([0.0, 0, 10, 20]), np.zeros(len(yx), int)
    points = Points(name, None, "animal", yx, zero, box, 200.0, "", yx / [20, 10])
    vertex = np.zeros(len(yx), int) if predicted is None else predicted
    return Scored(points, name, vertex, vertex, flat, flat, 1.0)


def test_bins_scale_and_ranks_by_hand(tmp_path: Path) -> None:
    stated = np.arange(1, 201, dtype=np.float32).reshape(20, 10)[::-1]
    maps = write(tmp_path / "m.h5", {"a": stated, "b": stated / 2, "c": stated / 4})
    entries = [entry("a", 2 * stated), entry("b", stated), entry("c", stated / 2)]
    found = calibration(maps, entries)
    assert [row["points"] for row in found["bins"]] == [60] * 10
    for row in found["bins"]:
        assert row["error"] == pytest.approx(2 * row["stated"])
    assert found["bins"][0]["stated"] < found["bins"][9]["stated"] <= 200
    assert found["scale"] == pytest.approx(2)
    assert found["rank_points"] == pytest.approx(1) and found["rank_photos"] == pytest.approx(1)
    assert found["rank_photos_at_points"] == pytest.approx(1)
    backwards = [entry("a", stated / 2), entry("b", stated), entry("c", 2 * stated)]
    assert calibration(maps, backwards)["rank_photos"] == pytest.approx(-1)


def test_what_has_no_answer_is_left_out(tmp_path: Path) -> None:
    stated = np.full((20, 10), 8, np.float32)
    maps = write(tmp_path / "m.h5", {"a": stated})
    predicted = np.where(np.arange(200) < 50, -1, 0)
    errors = np.where(predicted < 0, 228.0, 4.0).reshape(20, 10)
    found = calibration(maps, [entry("a", errors, predicted)])
    assert sum(row["points"] for row in found["bins"]) == 150 and found["scale"] == pytest.approx(0.5)
    assert found["rank_points"] is None and found["rank_photos"] is None


def test_ranks_need_three_photos_and_values_that_differ(tmp_path: Path) -> None:
    rising = np.arange(1, 201, dtype=np.float32).reshape(20, 10)
    maps = write(tmp_path / "m.h5", {"a": rising, "b": rising / 2, "even": np.full((20, 10), 8, np.float32)})
    found = calibration(maps, [entry("a", rising), entry("b", rising / 2)])
    assert found["rank_points"] == pytest.approx(1)
    assert found["rank_photos"] is None and found["rank_photos_at_points"] is None
    assert calibration(maps, [entry("even", rising)])["rank_points"] is None
    assert calibration(maps, [entry("a", np.full((20, 10), 8.0))])["rank_points"] is None


def test_photos_without_a_map_are_left_out_and_the_others_go_on(tmp_path: Path) -> None:
    maps = write(tmp_path / "m.h5", {"a": np.full((20, 10), 8, np.float32)})
    without = replace(entry("b", np.full((20, 10), 228.0)), item=None)
    found = calibration(maps, [without, entry("a", np.full((20, 10), 4.0))])
    assert found["scale"] == pytest.approx(0.5) and sum(row["points"] for row in found["bins"]) == 200
    with pytest.raises(InputError, match="has no map of an annotated photo"):
        calibration(maps, [without])


def test_a_photo_counts_by_all_its_pixels_or_by_its_points(tmp_path: Path) -> None:
    """All pixels rank the photos a, b, c, as their errors do; at the only point each has it is c, b, a."""
    maps, entries = {}, []
    for i, name in enumerate("abc"):
        # Of the pixels of one vertex alone, or with those of none, the order would be another.
        maps[name] = np.tile(np.float32([[10, 10], [40, 5], [20, 60]][i]), (20, 5))
        maps[name][20 - 8 * i :] = 0
        maps[name][0, 0] = 3 - i
        error = np.full((20, 10), 1.0 + i)
        predicted = np.where(np.arange(200) == 0, 0, -1)
        entries.append(entry(name, error, predicted))
    found = calibration(write(tmp_path / "m.h5", maps), entries)
    assert found["rank_photos"] == pytest.approx(1) and found["rank_photos_at_points"] == pytest.approx(-1)


def test_a_file_that_states_none_is_told(tmp_path: Path) -> None:
    maps = write(tmp_path / "m.h5", {"a": None})
    with pytest.raises(InputError, match="states no uncertainty"):
        calibration(maps, [entry("a", np.ones((20, 10)))])
