"""Scores with answers worked out by hand."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shic_cli import evaluate, pck
from shic_cli.config import PckConfig
from shic_cli.errors import InputError
from shic_cli.keypoints import read_pairs
from shic_cli.maps import meet
from shic_cli.match import Paths, ThroughTemplate
from shic_cli.schema import ItemReader, ItemWriter, Template

DISTANCES = np.array([[0, 10, 50, 228], [10, 0, 40, 100], [50, 40, 0, 90], [228, 100, 90, 0]], np.float32)


@pytest.fixture
def template() -> Template:
    """Four vertices with chosen distances; vertex 0 mirrors 3. The mesh file had them in the opposite order."""
    return Template(
        verts=np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32),
        faces=np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32),
        eigenvectors=np.zeros((4, 1), np.float32),
        eigenvalues=np.zeros(1, np.float32),
        geodesic=DISTANCES,
        mirror=np.array([3, 1, 2, 0], np.int32),
        colors=np.zeros((4, 3), np.uint8),
        uv=np.zeros((4, 2), np.float32),
        face_uv=np.zeros((4, 3), np.int32),
        source_to_vertex=np.array([3, 2, 1, 0], np.int32),
    )


def write_maps(path: Path, maps: dict[str, np.ndarray], template: str) -> ItemReader:
    attrs = {"labels": "predicted", "template": template}
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=attrs, overwrite=True) as writer:
        for name, vertex in maps.items():
            writer.add(name, encoded=np.zeros(1, np.uint8), mask=vertex >= 0, vertex=vertex, score=np.ones(vertex.shape))
    return ItemReader(path, "shic/maps")


def annotation(image: int, box: list[float], x: list[float], y: list[float], vertex: list[int], category: int = 1) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "dp_x": x, "dp_y": y, "dp_vertex": vertex}


def write_annotations(path: Path, annotations: list[dict[str, Any]], names: tuple[str, ...] = ("a.jpg", "b.jpg")) -> Path:
    images = [{"id": i, "file_name": name, "width": 10, "height": 10} for i, name in enumerate(names, 1)]
    categories = [{"id": 1, "name": "horse"}, {"id": 2, "name": "cow"}]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return path


def one_map() -> np.ndarray:
    vertex = np.full((10, 10), -1, np.int32)
    vertex[2, 3], vertex[2, 4], vertex[5, 3] = 0, 1, 2
    return vertex


def test_errors_by_hand(tmp_path: Path, template: Template) -> None:
    maps = write_maps(tmp_path / "m.h5", {"a.jpg": one_map()}, template.fingerprint)
    # Box of 5.1 by 5.1 pixels from (2, 1): dp 50 is one pixel. Points at (x, y) = (3, 2), (4, 2), (3, 5) and a hole at (6, 2).
    points = annotation(1, [2, 1, 5.1, 5.1], [50, 100, 50, 200], [50, 50, 200, 50], [2, 2, 0, 1])
    found = evaluate.geodesic(maps, evaluate.read_annotations(write_annotations(tmp_path / "a.json", [points])), template)
    # The mesh file's 2, 2, 0, 1 are the template's 1, 1, 3, 2: errors d(0, 1), d(1, 1), d(2, 3) and the largest for the hole.
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
    points = annotation(1, [3, 2, 255, 255], [0, 0], [0, 0], [0, 1])  # predicted 0; truth 3 is its mirror, truth 2 isn't
    found = evaluate.geodesic(maps, evaluate.read_annotations(write_annotations(tmp_path / "a.json", [points])), template)
    assert found["left_right"] == 0.5


def test_missing_image_counts_at_the_largest_distance(tmp_path: Path, template: Template, caplog: pytest.LogCaptureFixture) -> None:
    maps = write_maps(tmp_path / "m.h5", {"a.jpg": one_map()}, template.fingerprint)
    both = [annotation(1, [3, 2, 255, 255], [0], [0], [3]), annotation(2, [3, 2, 255, 255], [0], [0], [3], category=2)]
    logging.getLogger("shic").propagate = True
    found = evaluate.geodesic(maps, evaluate.read_annotations(write_annotations(tmp_path / "a.json", both)), template)
    assert found["mean"] == 114 and found["missing_images"] == 1 and found["holes"] == 0
    assert found["classes"]["horse"]["mean"] == 0 and found["classes"]["cow"]["mean"] == 228
    assert found["ci95"] == [0, 228]
    assert "b.jpg" in caplog.text


def test_points_on_the_edges_of_the_box(tmp_path: Path) -> None:
    points = annotation(1, [2, 3, 4, 5], [0, 255, 63.75], [0, 255, 50.99], [0, 0, 0])
    found = evaluate.read_annotations(write_annotations(tmp_path / "a.json", [points]))[0]
    assert found.yx.tolist() == [[3, 2], [7, 5], [3, 3]]  # the far edge belongs to the last pixel, 50.99 / 51 of one to the first


def test_scale_of_the_points_is_an_argument(tmp_path: Path) -> None:
    path = write_annotations(tmp_path / "a.json", [annotation(1, [0, 0, 256, 256], [4], [4], [0])])
    assert evaluate.read_annotations(path, scale=256)[0].yx.tolist() == [[4, 4]]
    assert evaluate.read_annotations(path, scale=128)[0].yx.tolist() == [[8, 8]]


def test_objects_without_points_are_passed_over(tmp_path: Path) -> None:
    path = write_annotations(tmp_path / "a.json", [{"image_id": 1, "category_id": 1}, annotation(1, [0, 0, 5, 5], [1], [1], [0])])
    assert len(evaluate.read_annotations(path)) == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"bbox": None}, "bbox"),
        ({"bbox": [1, 2, 3]}, "bbox"),
        ({"dp_y": [1, 2]}, "dp_y"),
        ({"dp_vertex": [1.5]}, "dp_vertex"),
        ({"dp_vertex": [1, 2]}, "dp_vertex"),
        ({"dp_x": ["left"]}, "dp_x"),
        ({"dp_x": [float("nan")]}, "dp_x"),
        ({"image_id": 7}, "image_id"),
        ({"category_id": 7}, "category_id"),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    path = write_annotations(tmp_path / "a.json", [annotation(1, [0, 0, 5, 5], [1], [1], [0]) | change])
    with pytest.raises(InputError, match=rf"a\.json: annotations\[0\].*{word}"):
        evaluate.read_annotations(path)


@pytest.mark.parametrize("key", ["images", "categories", "annotations"])
def test_missing_lists_are_named(tmp_path: Path, key: str) -> None:
    path = write_annotations(tmp_path / "a.json", [annotation(1, [0, 0, 5, 5], [1], [1], [0])])
    value = json.loads(path.read_text())
    del value[key]
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=f"a.json: has no `{key}`"):
        evaluate.read_annotations(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_what_is_no_annotation_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json"):
        evaluate.read_annotations(tmp_path / "a.json")


def test_no_point_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no annotated point"):
        evaluate.read_annotations(write_annotations(tmp_path / "a.json", []))


def test_vertices_that_the_mesh_has_not(tmp_path: Path, template: Template) -> None:
    maps = write_maps(tmp_path / "m.h5", {"a.jpg": one_map()}, template.fingerprint)
    path = write_annotations(tmp_path / "a.json", [annotation(1, [0, 0, 5, 5], [1], [1], [4])])
    with pytest.raises(InputError, match="dp_vertex"):
        evaluate.geodesic(maps, evaluate.read_annotations(path), template)


def test_maps_that_do_not_fit(tmp_path: Path, template: Template, caplog: pytest.LogCaptureFixture) -> None:
    points = evaluate.read_annotations(write_annotations(tmp_path / "a.json", [annotation(1, [3, 2, 5, 5], [0], [0], [3])]))
    other = write_maps(tmp_path / "other.h5", {"a.jpg": one_map()}, "0" * 64)
    with pytest.raises(InputError, match="another template"):
        evaluate.geodesic(other, points, template)
    unknown = write_maps(tmp_path / "unknown.h5", {"a.jpg": one_map()}, "")
    logging.getLogger("shic").propagate = True
    assert evaluate.geodesic(unknown, points, template)["mean"] == 0
    assert "does not say which template" in caplog.text
    with pytest.raises(InputError, match="9 by 10 pixels"):
        evaluate.geodesic(write_maps(tmp_path / "size.h5", {"a.jpg": one_map()[:, :9]}, ""), points, template)
    with pytest.raises(InputError, match="vertex"):
        evaluate.geodesic(write_maps(tmp_path / "range.h5", {"a.jpg": one_map() + 5}, ""), points, template)


def test_names_meet() -> None:
    assert meet(["x/a.jpg", "b.jpg", "c.jpg"], ["a.jpg", "y/b.jpg"]) == {"x/a.jpg": "a.jpg", "b.jpg": "y/b.jpg", "c.jpg": None}
    assert meet(["x/a.jpg"], ["a.jpg", "x/a.jpg"]) == {"x/a.jpg": "x/a.jpg"}  # the exact name first
    assert meet(["00000", "v1.2"], ["d/00000.png", "v1.2.jpg"], stems=True) == {"00000": "d/00000.png", "v1.2": "v1.2.jpg"}
    assert meet(["a"], ["a.jpg"]) == {"a": None}


@pytest.mark.parametrize(("wanted", "have"), [(["a.jpg"], ["x/a.jpg", "y/a.jpg"]), (["x/a.jpg", "y/a.jpg"], ["a.jpg"])])
def test_names_that_could_mean_two(wanted: list[str], have: list[str]) -> None:
    with pytest.raises(InputError, match="could be"):
        meet(wanted, have)


def test_bootstrap_draws_groups() -> None:
    sums, counts = np.array([0.0, 30.0]), np.array([1, 3])
    assert evaluate.bootstrap(sums, counts, 0) == [0, 10]  # only one of the two, or both
    many = evaluate.bootstrap(np.arange(100.0), np.ones(100), 1)
    assert many == evaluate.bootstrap(np.arange(100.0), np.ones(100), 1)
    assert pytest.approx(many[0], abs=0.6) == 49.5 - 1.96 * 2.89  # the mean's standard error is 28.9 / 10
    assert pytest.approx(many[1], abs=0.6) == 49.5 + 1.96 * 2.89


def keypoints(path: Path, **images: dict[str, list[float]]) -> Path:
    path.write_text(json.dumps({"names": ["p", "q"], "images": {name: {"points": points} for name, points in images.items()}}))
    return path


def side(template: Template, pixels: dict[tuple[int, int], int], shape: tuple[int, int] = (20, 40)) -> ThroughTemplate:
    vertex = np.full(shape, -1, np.int32)
    for pixel, number in pixels.items():
        vertex[pixel] = number
    return ThroughTemplate("photo", vertex, np.ones(shape), Paths(template.verts, template.faces))


def test_pairs_are_ordered_and_share_names(tmp_path: Path) -> None:
    pairs = read_pairs(keypoints(tmp_path / "k.json", a={"p": [1, 2], "q": [3, 4]}, b={"q": [5, 6]}, c={"r": [7, 8]}))
    assert [(pair.source, pair.target) for pair in pairs] == [("a", "b"), ("b", "a")]
    assert pairs[0].source_yx.tolist() == [[4, 3]] and pairs[0].target_yx.tolist() == [[6, 5]]


@pytest.mark.parametrize(("x", "right"), [(13, 1), (14, 0), (13.9, 1)])
def test_pck_just_below_and_at_the_threshold(tmp_path: Path, template: Template, x: float, right: int) -> None:
    pairs = read_pairs(keypoints(tmp_path / "k.json", a={"p": [5, 5]}, b={"p": [x, 5]}))[:1]
    sides = {"a": side(template, {(5, 5): 2}), "b": side(template, {(5, 10): 2, (9, 9): 1})}
    found = pck.pck(pairs, sides, PckConfig(alpha=(0.1,)))  # of 40 pixels: a distance of 4 is not below the threshold of 4
    assert (found["pairs"], found["keypoints"], found["pck"]) == (1, 1, right)


def test_pck_keypoints_off_the_mask_and_missing_images(tmp_path: Path, template: Template) -> None:
    path = keypoints(tmp_path / "k.json", a={"p": [5, 2]}, b={"p": [30, 10]}, c={"p": [0, 0]})
    sides = {"a": side(template, {(4, 5): 2, (15, 5): 1}), "b": side(template, {(10, 30): 2, (10, 2): 1})}
    found = pck.pck(read_pairs(path), sides, PckConfig())
    assert found["pairs"] == found["keypoints"] == 6 and found["missing_images"] == 1
    assert found["pck"] == pytest.approx(2 / 6)  # a to b and back; whatever has c is wrong
    assert found["ci95"][0] < found["pck"] < found["ci95"][1]


def test_pf_pascal_csv(tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text("source_image,target_image,class,XA,YA,XB,YB\nJ/a.jpg,J/b.jpg,1,1;2.5,3;4,5;6,7;8\n")
    (pair,) = read_pairs(path)
    assert (pair.source, pair.target) == ("J/a.jpg", "J/b.jpg")
    assert pair.source_yx.tolist() == [[3, 1], [4, 2.5]] and pair.target_yx.tolist() == [[7, 5], [8, 6]]
    path.write_text("source_image,target_image,class,XA,YA,XB,YB\na,b,1,1;2,3;4,5;6,7\n")
    with pytest.raises(InputError, match="line 2, YB"):
        read_pairs(path)
    path.write_text("source_image,target_image\na,b\n")
    with pytest.raises(InputError, match="line 2 has no `XA`"):
        read_pairs(path)


@pytest.mark.parametrize(
    ("value", "word"),
    [
        ({}, "images"),
        ({"images": {"a": {}}}, "points"),
        ({"images": {"a": {"points": {"p": [1]}}}}, "points.p"),
        ({"images": {}}, "no two"),
    ],
)
def test_wrong_keypoint_files(tmp_path: Path, value: dict[str, Any], word: str) -> None:
    (tmp_path / "k.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match=word):
        read_pairs(tmp_path / "k.json")


def test_maps_and_models_as_sides(tmp_path: Path, template: Template) -> None:
    pairs = read_pairs(keypoints(tmp_path / "k.json", a={"p": [3, 2]}, b={"p": [3, 2]}))
    maps = write_maps(tmp_path / "m.h5", {"d/a.jpg": one_map(), "empty.jpg": one_map(), "b.png": np.full((9, 9), -1)}, template.fingerprint)
    sides = pck.sides_of_maps(pairs, maps, template)
    assert list(sides) == ["a"]  # b has no labelled pixel: it is missing, and the run goes on
    with pytest.raises(InputError, match="another template"):
        pck.sides_of_maps(pairs, maps, replace(template, verts=template.verts * 2))
