"""Geodesic scores with answers worked out by hand."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scoring import annotation, four_vertices, one_map, write_annotations, write_maps

from shic_cli.base.errors import InputError
from shic_cli.evaluation.geodesic import MapsFile, Scored, bootstrap, figures, scored, summary
from shic_cli.files.annotations import Points, read_annotations
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.files.names import meet, picture_path


@pytest.fixture
def template() -> Template:
    return four_vertices()


def geodesic(maps: ItemReader, points: list[Points], template: Template) -> dict[str, Any]:
    """The summary of `maps` at the annotated points."""
    return summary(scored(MapsFile(maps, template), points, template))


def test_errors_by_hand(tmp_path: Path, template: Template) -> None:
    maps = write_maps(tmp_path / "m.h5", {"a.jpg": one_map()}, template.fingerprint)
    # Box of 5.1 by 5.1 pixels from (2, 1): dp 50 is one pixel. Points at (x, y) = (3, 2), (4, 2), (3, 5) and
    # a hole at (6, 2).
    points = annotation(1, [2, 1, 5.1, 5.1], [50, 100, 50, 200], [50, 50, 200, 50], [2, 2, 0, 1])
    found = geodesic(maps, read_annotations(write_annotations(tmp_path / "a.json", [points])), template)
    # The mesh file's 2, 2, 0, 1 are the template's 1, 1, 3, 2: errors d(0, 1), d(1, 1), d(2, 3) and the
    # largest for the hole.
    errors = np.array([10, 0, 90, 228.0])
    assert (found["images"], found["points"]) == (1, 4)
    assert found["mean"] == pytest.approx(errors.mean())
    assert found["median"] == pytest.approx(50)
    assert found["gps"] == pytest.approx(np.exp(-(errors**2) / (2 * 25.5**2)).mean())
    assert found["holes"] == 1 and found["missing_images"] == 0
    assert found["ci95"] == [found["mean"]] * 2  # one image: every draw is the same
    assert list(found["classes"]) == ["horse"] and found["classes"]["horse"]["mean"] == found["mean"]


def test_share_that_the_mirror_would_mend(tmp_path: Path, template: Template) -> None:
    maps = write_maps(tmp_path / "m.h5", {"a.jpg": one_map()}, template.fingerprint)
    points = annotation(
        1, [3, 2, 255, 255], [0, 0], [0, 0], [0, 1]
    )  # predicted 0; truth 3 is its mirror, truth 2 isn't
    found = geodesic(maps, read_annotations(write_annotations(tmp_path / "a.json", [points])), template)
    assert found["left_right"] == 0.5


def test_only_a_mirrored_answer_of_less_than_half_the_error_is_a_mix_up(
    tmp_path: Path, template: Template
) -> None:
    """0 for 3 is its mirror image; 3 for 2 would err by 50 in place of 90; 1 for 1 is right, mirrored too."""
    vertex = one_map()
    vertex[5, 3] = 3
    maps = write_maps(tmp_path / "m.h5", {"a.jpg": vertex}, template.fingerprint)
    points = annotation(1, [0, 0, 255, 255], [3, 3, 4], [2, 5, 2], [0, 1, 2])
    found = geodesic(maps, read_annotations(write_annotations(tmp_path / "a.json", [points])), template)
    assert found["mean"] == pytest.approx((228 + 90 + 0) / 3) and found["left_right"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("box", "confidence"),
    [
        ([3.5, 2.5, 1.2, 0.4], 0.5),  # columns 3 and 4 of row 2, in which the box begins and ends
        ([4, 2, 1, 1], 0.75),
        ([4, 0, 1, 2], 0),  # rows 0 and 1, in which no pixel has a vertex
        ([-2, -2, 5.5, 4.5], 0.25),  # columns to 3, rows to 2
        ([-3, -3, 2, 2], 0),  # beside the photo
        ([0, 0, 100, 100], 0.5),
    ],
)
def test_confidence_is_the_mean_score_of_the_pixels_that_the_box_touches(
    tmp_path: Path, template: Template, box: list[float], confidence: float
) -> None:
    vertex, score = one_map(), np.zeros((10, 10))
    vertex[5, 3] = -1
    score[2, 3], score[2, 4] = 0.25, 0.75
    maps = write_maps(tmp_path / "m.h5", {"a.jpg": vertex}, template.fingerprint, score)
    points = read_annotations(write_annotations(tmp_path / "a.json", [annotation(1, box, [0], [0], [0])]))
    (found,) = scored(MapsFile(maps, template), points, template)
    assert found.confidence == pytest.approx(confidence, abs=1e-3)


def test_missing_image_counts_at_the_largest_distance(
    tmp_path: Path, template: Template, caplog: pytest.LogCaptureFixture
) -> None:
    maps = write_maps(tmp_path / "m.h5", {"a.jpg": one_map()}, template.fingerprint)
    both = [
        annotation(1, [3, 2, 255, 255], [0], [0], [3]),
        annotation(2, [3, 2, 255, 255], [0], [0], [3], category=2),
    ]
    logging.getLogger("shic").propagate = True
    entries = scored(
        MapsFile(maps, template), read_annotations(write_annotations(tmp_path / "a.json", both)), template
    )
    assert [entry.predicted.tolist() for entry in entries] == [[0], [-1]]  # -1: none, as in maps
    found = summary(entries)
    assert found["mean"] == 114 and found["missing_images"] == 1 and found["holes"] == 0
    assert found["classes"]["horse"]["mean"] == 0 and found["classes"]["cow"]["mean"] == 228
    assert found["ci95"] == [0, 228]
    assert "b.jpg" in caplog.text


def test_vertices_that_the_mesh_has_not(tmp_path: Path, template: Template) -> None:
    maps = write_maps(tmp_path / "m.h5", {"a.jpg": one_map()}, template.fingerprint)
    path = write_annotations(tmp_path / "a.json", [annotation(1, [0, 0, 5, 5], [1], [1], [4])])
    with pytest.raises(InputError, match="dp_vertex"):
        geodesic(maps, read_annotations(path), template)


def test_maps_that_do_not_fit(tmp_path: Path, template: Template, caplog: pytest.LogCaptureFixture) -> None:
    points = read_annotations(
        write_annotations(tmp_path / "a.json", [annotation(1, [3, 2, 5, 5], [0], [0], [3])])
    )
    other = write_maps(tmp_path / "other.h5", {"a.jpg": one_map()}, "0" * 64)
    with pytest.raises(InputError, match=r"another template \(0{8}, this one is [0-9a-f]{8}\)"):
        geodesic(other, points, template)
    unknown = write_maps(tmp_path / "unknown.h5", {"a.jpg": one_map()}, "")
    logging.getLogger("shic").propagate = True
    assert geodesic(unknown, points, template)["mean"] == 0
    assert "does not name its template" in caplog.text
    with pytest.raises(InputError, match="9 by 10 pixels"):
        geodesic(write_maps(tmp_path / "size.h5", {"a.jpg": one_map()[:, :9]}, ""), points, template)
    with pytest.raises(InputError, match="vertex"):
        geodesic(write_maps(tmp_path / "range.h5", {"a.jpg": one_map() + 5}, ""), points, template)


def test_photos_of_no_stated_size_are_scored_and_points_beyond_them_are_holes(
    tmp_path: Path, template: Template
) -> None:
    maps = write_maps(tmp_path / "m.h5", {"a.jpg": one_map()}, template.fingerprint)
    points = annotation(1, [0, 0, 255, 255], [3, 10, 3], [2, 2, 10], [3, 3, 3])
    path = write_annotations(tmp_path / "a.json", [points])
    path.write_text(path.read_text().replace('"width": 10, "height": 10', '"width": 10'))
    found = geodesic(maps, read_annotations(path), template)
    assert (found["points"], found["holes"], found["mean"]) == (3, 2, 2 * 228 / 3)


def test_objects_without_points_have_no_figures_but_count_as_images() -> None:
    nothing = np.zeros(0)
    points = Points("a.jpg", None, "horse", np.zeros((0, 2), int), nothing, np.zeros(4), 0.0, "", nothing)
    assert figures([Scored(points, "a.jpg", nothing, nothing, nothing, nothing, 0.0)]) == {
        "images": 1,
        "points": 0,
    }


def test_an_image_without_points_changes_no_figure_of_the_others() -> None:
    """It counts as an image, in the first place too, and its interval is that of the images with points."""

    def entry(name: str, errors: list[float]) -> Scored:
        found = np.zeros(len(errors), int)
        inside = np.zeros((len(errors), 2), int)
        points = Points(name, None, "horse", inside, found, np.zeros(4), 0.0, "", found)
        return Scored(points, name, found, found, np.array(errors), np.ones(len(errors)), 0.0)

    others = [entry(f"{i}", [i**2, i]) for i in range(1, 9)]
    assert figures([entry("none", []), *others]) == figures(others) | {"images": 9}


def test_the_seed_of_the_interval_is_0_unless_another_is_given() -> None:
    nothing, chosen = np.zeros(1, int), []
    for i in range(20):
        points = Points(f"{i}", None, "horse", np.zeros((1, 2), int), nothing, np.zeros(4), 0.0, "", nothing)
        chosen.append(Scored(points, "a", nothing, nothing, np.array([i**2]), np.array([1.0]), 0.0))
    for of in (figures, summary):
        assert of(chosen)["ci95"] == of(chosen, 0)["ci95"] != of(chosen, 1)["ci95"]


def test_names_meet() -> None:
    assert meet(["x/a.jpg", "b.jpg", "c.jpg"], ["a.jpg", "y/b.jpg"]) == {
        "x/a.jpg": "a.jpg",
        "b.jpg": "y/b.jpg",
        "c.jpg": None,
    }
    assert meet(["x/a.jpg"], ["a.jpg", "x/a.jpg"]) == {"x/a.jpg": "x/a.jpg"}  # the exact name first
    assert meet(["00000", "v1.2"], ["d/00000.png", "v1.2.jpg"], stems=True) == {
        "00000": "d/00000.png",
        "v1.2": "v1.2.jpg",
    }
    assert meet(["a"], ["a.jpg"]) == {"a": None}


@pytest.mark.parametrize(
    ("wanted", "have"), [(["a.jpg"], ["x/a.jpg", "y/a.jpg"]), (["x/a.jpg", "y/a.jpg"], ["a.jpg"])]
)
def test_names_that_could_mean_two(wanted: list[str], have: list[str]) -> None:
    two = sorted([*wanted, *have])[1:]  # those with a folder, after the one without
    with pytest.raises(InputError, match=rf"a\.jpg: could be {two[0]} or {two[1]}"):
        meet(wanted, have)


def test_pictures_lie_below_their_folder() -> None:
    assert picture_path(Path("out"), "a/b.jpg", ".png") == Path("out/a/b.png")
    with pytest.raises(InputError, match="is no name"):
        picture_path(Path("out"), "../b.jpg", ".png")


def test_bootstrap_draws_groups() -> None:
    sums, counts = np.array([0.0, 30.0]), np.array([1, 3])
    assert bootstrap(sums, counts, 0) == [0, 10]  # only one of the two, or both
    many = bootstrap(np.arange(100.0), np.ones(100), 1)
    assert many == bootstrap(np.arange(100.0), np.ones(100), 1)
    assert pytest.approx(many[0], abs=0.4) == 49.5 - 1.96 * 2.89  # the mean's standard error is 28.9 / 10
    assert pytest.approx(many[1], abs=0.4) == 49.5 + 1.96 * 2.89


def test_the_interval_is_that_of_a_ratio_of_sums() -> None:
    """Half of the groups have one point without an error, half nine points of 10: the mean over points is 9,
    that over groups 5.
    """
    low, high = bootstrap(np.repeat([0.0, 90.0], 40), np.repeat([1, 9], 40), 0)
    assert 8 < low < 9 < high < 9.6
