"""GPS and average precision with answers worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scoring import annotation, four_vertices, one_map, write_annotations, write_maps

from shic_cli.base.settings import GPS_KAPPA
from shic_cli.evaluation.geodesic import MapsFile, Scored, scored, summary
from shic_cli.evaluation.gps import average_precision, similarity, with_precision
from shic_cli.files.annotations import Points, read_annotations


def at_gps(
    *values: float,
    confidence: float = 1.0,
    item: str | None = "a",
    category: str = "horse",
    area: float = 5000,
    box: float | None = None,
) -> Scored:
    """An object whose points have these similarities; 0 is a point without a prediction.

    `box` is the area of its box, the object's if it is not given.
    """
    gps = np.array(values)
    error = np.where(gps > 0, GPS_KAPPA * np.sqrt(-2 * np.log(np.maximum(gps, 1e-300))), 228)
    nothing = np.zeros(len(gps), int)
    points = Points(
        "a.jpg",
        None,
        category,
        np.zeros((len(gps), 2), int),
        nothing,
        np.array([0, 0, area if box is None else box, 1]),
        area,
        "",
        np.zeros((len(gps), 2)),
    )
    return Scored(points, item, np.where(gps > 0, 0, -1), nothing, error, error, confidence)


def test_similarity_by_hand() -> None:
    assert similarity(at_gps(1, 0.5)) == pytest.approx(0.75)
    assert similarity(at_gps(1, 0)) == 0.5  # no prediction at a point: 0, exactly
    each = at_gps(1)
    assert similarity(
        Scored(each.points, "a", each.predicted, each.truth, np.array([25.5]), each.error, 1)
    ) == pytest.approx(np.exp(-0.5))


def test_one_object() -> None:
    """0.72 reaches the thresholds 0.5, 0.55, 0.6, 0.65 and 0.7: five of ten."""
    found = average_precision([at_gps(0.72)])
    assert found["ap"] == pytest.approx(0.5) and found["ar"] == pytest.approx(0.5)
    assert (found["ap50"], found["ap75"], found["ar50"], found["ar75"]) == (1, 0, 1, 0)
    assert found["ap_medium"] == pytest.approx(0.5) and found["ap_large"] is None


def test_just_below_and_at_a_threshold() -> None:
    assert average_precision([at_gps(0.7499)])["ap75"] == 0
    assert average_precision([at_gps(0.7501)])["ap75"] == 1
    exact = at_gps(1, 0)  # its similarity is 0.5 with no rounding
    assert average_precision([exact])["ap50"] == 1


def test_a_missing_prediction_costs_recall_and_a_wrong_one_precision_too() -> None:
    good, missing = at_gps(1), at_gps(0, item=None)
    found = average_precision([good, missing])
    assert (
        found["ap50"] == pytest.approx(51 / 101) and found["ar50"] == 0.5
    )  # precision 1 at the recalls 0, 0.01 … 0.5
    wrong_first = average_precision([good, at_gps(0.1, confidence=2)])
    assert (
        wrong_first["ap50"] == pytest.approx(51 / 101 / 2) and wrong_first["ar50"] == 0.5
    )  # the surest is wrong: precision 1/2
    wrong_last = average_precision([good, at_gps(0.1, confidence=0)])
    assert wrong_last["ap50"] == pytest.approx(51 / 101)
    assert average_precision([missing])["ap"] == 0


def test_precision_is_made_falling() -> None:
    """Right, wrong, right, in this order: precision 1, 1/2, 2/3; from recall 1/2 on it is 2/3."""
    found = average_precision([at_gps(1, confidence=3), at_gps(0.1, confidence=2), at_gps(1, confidence=1)])
    assert found["ar50"] == pytest.approx(2 / 3)
    assert found["ap50"] == pytest.approx(
        (34 * 1 + 33 * 2 / 3) / 101
    )  # recalls 0 … 0.33, then 0.34 … 0.66, then none


def test_classes_count_alike_and_sizes_apart() -> None:
    horses = [at_gps(1, area=40**2) for _ in range(3)]
    found = average_precision(
        [*horses, at_gps(0.1, category="cow", area=100**2), at_gps(1, category="cow", area=10**2)]
    )
    assert found["ap_medium"] == 1 and found["ap_large"] == 0
    assert found["ap50"] == pytest.approx(
        (1 + 51 / 101 / 2) / 2
    )  # equal confidence: the annotations' order, the wrong cow first
    assert average_precision([at_gps()]) == dict.fromkeys(found)  # no point, no figure


def test_objects_of_just_the_areas_between_the_sizes() -> None:
    """32 squared is medium, 96 squared is both; a pixel less is neither, or medium alone."""
    for area, medium, large in (
        (32**2 - 1, None, None),
        (32**2, 1, None),
        (96**2 - 1, 1, None),
        (96**2, 1, 1),
    ):
        found = average_precision([at_gps(1, area=area)])
        assert (found["ap_medium"], found["ap_large"]) == (medium, large)
    found = average_precision([at_gps(1, area=10**4), at_gps(0, item=None, area=10**4)])
    assert found["ap_large"] == pytest.approx(51 / 101)  # the recall would be 1 / 2


def test_an_object_without_an_area_counts_among_all() -> None:
    found = average_precision([at_gps(1, area=0)])
    assert (found["ap"], found["ap_medium"], found["ap_large"]) == (1, None, None)


def test_a_wrong_prediction_costs_a_size_only_if_its_box_has_it() -> None:
    """DensePose's evaluator ignores wrong predictions whose own area, the box's, is outside the range.

    A right one of any box counts. A wrong one that is surest halves the precision at recalls 0 to 0.5.
    """
    right = at_gps(1, area=90**2, box=100**2)
    for box, ap in ((96**2, 51 / 101 / 2), (96**2 + 1, 51 / 101)):
        wrong = at_gps(0.1, area=90**2, box=box, confidence=2)
        found = average_precision([right, wrong])
        assert found["ap_medium"] == pytest.approx(ap) and found["ap_large"] is None
        assert found["ap"] == pytest.approx(51 / 101 / 2)
    exact = at_gps(0.1, area=96**2, box=96**2, confidence=2)
    assert average_precision([at_gps(1, area=96**2), exact])["ap_large"] == pytest.approx(51 / 101 / 2)
    small = at_gps(0.1, area=96**2, box=96**2 - 1, confidence=2)
    assert average_precision([at_gps(1, area=96**2), small])["ap_large"] == pytest.approx(51 / 101)


def test_of_maps(tmp_path: Path) -> None:
    """One object whose points are at d = 10 and 0, one without a map: GPS (exp(-100 / 1300.5) + 1) / 2 =
    0.963 reaches all ten.
    """
    template = four_vertices()
    each = [
        annotation(1, [3, 2, 255, 255], [0, 1], [0, 0], [2, 2]),
        annotation(2, [3, 2, 255, 255], [0], [0], [3], category=2),
    ]
    points = read_annotations(write_annotations(tmp_path / "a.json", each))
    found = scored(
        MapsFile(write_maps(tmp_path / "m.h5", {"a.jpg": one_map()}, template.fingerprint), template),
        points,
        template,
    )
    assert similarity(found[0]) == pytest.approx((np.exp(-100 / 1300.5) + 1) / 2) and found[0].confidence == 1
    result = with_precision(summary(found), found)
    assert result["ap"] == pytest.approx(0.5) and result["ar"] == pytest.approx(0.5)
    assert result["classes"]["horse"]["ap"] == pytest.approx(1) and result["classes"]["cow"]["ap"] == 0
