"""Annotation files: what is read from them, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scoring import annotation, write_annotations

from shic_cli.base.errors import InputError
from shic_cli.files import annotations


def test_points_on_the_edges_of_the_box(tmp_path: Path) -> None:
    points = annotation(1, [2, 3, 4, 5], [0, 255, 63.75], [0, 255, 50.99], [0, 0, 0])
    found = annotations.read_annotations(write_annotations(tmp_path / "a.json", [points]))[0]
    assert found.area == 20  # of the box
    assert found.yx.tolist() == [
        [3, 2],
        [7, 5],
        [3, 3],
    ]  # the far edge belongs to the last pixel, 50.99 / 51 of one to the first


@pytest.mark.parametrize(
    ("box", "yx"), [([-3, -4, 5.1, 5.1], [0, 0]), ([7, 2, 0, 5], [2, 6]), ([0, 0, 5, 5], [0, 0])]
)
def test_boxes_that_begin_beside_the_photo_or_have_no_width(
    tmp_path: Path, box: list[float], yx: list[int]
) -> None:
    path = write_annotations(tmp_path / "a.json", [annotation(1, box, [1], [1], [0])])
    assert annotations.read_annotations(path)[0].yx.tolist() == [yx]


def test_scale_of_the_points_is_an_argument(tmp_path: Path) -> None:
    path = write_annotations(tmp_path / "a.json", [annotation(1, [0, 0, 256, 256], [4], [4], [0])])
    assert annotations.read_annotations(path, scale=256)[0].yx.tolist() == [[4, 4]]
    assert annotations.read_annotations(path, scale=128)[0].yx.tolist() == [[8, 8]]


def test_objects_without_points_are_passed_over(tmp_path: Path) -> None:
    path = write_annotations(
        tmp_path / "a.json", [{"image_id": 1, "category_id": 1}, annotation(1, [0, 0, 5, 5], [1], [1], [0])]
    )
    assert len(annotations.read_annotations(path)) == 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"bbox": None}, "bbox"),
        ({"bbox": [1, 2, 3]}, "bbox"),
        ({"bbox": [0, 0, 1e300, 1]}, "bbox: .* is no box"),
        ({"bbox": [0, 0, -5, 1]}, "bbox: .* is no box"),
        ({"dp_y": [1, 2]}, "dp_y"),
        ({"dp_vertex": [1.5]}, "dp_vertex"),
        ({"dp_vertex": [1, 2]}, "dp_vertex"),
        ({"dp_vertex": [2**40]}, "dp_vertex"),
        ({"dp_x": ["left"]}, "dp_x"),
        ({"dp_x": [float("nan")]}, "dp_x"),
        ({"dp_x": [{}]}, "dp_x"),
        ({"dp_x": [10**400]}, "dp_x"),
        ({"dp_x": [[1], [1, 2]]}, "dp_x"),
        ({"image_id": 7}, "image_id"),
        ({"category_id": 7}, "category_id"),
    ],
)
def test_wrong_fields_are_named(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    path = write_annotations(tmp_path / "a.json", [annotation(1, [0, 0, 5, 5], [1], [1], [0]) | change])
    with pytest.raises(InputError, match=rf"a\.json: annotations\[0\].*{word}") as raised:
        annotations.read_annotations(path)
    if word.endswith("_id"):
        assert raised.value.hint == f"check the file's list of {word.removesuffix('_id')} ids"


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("annotations", [5], r"annotations\[0\]: has no `image_id`"),
        ("annotations", [{"dp_y": [1]}], r"annotations\[0\]: has no `image_id`"),
        ("images", [{"id": 1}], "image 1: has no `file_name`"),
    ],
)
def test_entries_without_what_they_need(tmp_path: Path, key: str, value: Any, said: str) -> None:
    path = write_annotations(tmp_path / "a.json", [annotation(1, [0, 0, 5, 5], [1], [1], [0])])
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(InputError, match=rf"a\.json: {said}"):
        annotations.read_annotations(path)


@pytest.mark.parametrize("key", ["images", "categories", "annotations"])
def test_missing_lists_are_named(tmp_path: Path, key: str) -> None:
    path = write_annotations(tmp_path / "a.json", [annotation(1, [0, 0, 5, 5], [1], [1], [0])])
    value = json.loads(path.read_text())
    del value[key]
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=f"a.json: has no `{key}`"):
        annotations.read_annotations(path)


@pytest.mark.parametrize("text", ["", "{", "[]", "3"])
def test_what_is_no_annotation_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json"):
        annotations.read_annotations(tmp_path / "a.json")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json: can't be read \(No such file"):
        annotations.read_annotations(tmp_path / "a.json")


def test_no_point_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no annotated point"):
        annotations.read_annotations(write_annotations(tmp_path / "a.json", []))


def test_what_an_lvis_file_says_of_an_object(tmp_path: Path) -> None:
    """As published: no file_name, a coco_url, a mesh, an area, polygons."""
    each = annotation(1, [2.5, 1, 10, 20], [0, 255], [127.5, 255], [7, 8])
    path = write_annotations(tmp_path / "a.json", [each | {"area": 120.5, "ref_model": "horse_5004"}])
    value = json.loads(path.read_text())
    value["images"][0] = {
        "id": 1,
        "width": 640,
        "height": 480,
        "coco_url": "http://images.cocodataset.org/val2017/000000000139.jpg",
    }
    path.write_text(json.dumps(value))
    (found,) = annotations.read_annotations(path)
    assert (found.name, found.shape, found.category) == ("val2017/000000000139.jpg", (480, 640), "horse")
    assert (found.area, found.mesh, found.box.tolist()) == (120.5, "horse_5004", [2.5, 1, 10, 20])
    assert found.yx.tolist() == [[11, 2], [20, 12]] and found.inside.tolist() == [
        [0.5, 0],
        [1, 1],
    ]  # the far corner: its last pixel


@pytest.mark.parametrize(
    "url", ["139.jpg", "http://x/../139.jpg", "http://x/val2017/..", "http://x/val2017/"]
)
def test_addresses_that_lead_elsewhere(tmp_path: Path, url: str) -> None:
    path = write_annotations(tmp_path / "a.json", [annotation(1, [0, 0, 5, 5], [1], [1], [0])])
    value = json.loads(path.read_text())
    value["images"][0] = {"id": 1, "coco_url": url}
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=r"image 1\.coco_url"):
        annotations.read_annotations(path)


def on_mesh(tmp_path: Path, *meshes: str, vertex: int = 0) -> list[annotations.Points]:
    found = [annotation(1, [0, 0, 5, 5], [1], [1], [vertex]) | {"ref_model": mesh} for mesh in meshes]
    return annotations.read_annotations(write_annotations(tmp_path / "a.json", found))


def test_annotations_of_another_mesh(tmp_path: Path) -> None:
    annotations.check_mesh(on_mesh(tmp_path, "horse_5004", vertex=5003), 5004)
    annotations.check_mesh(on_mesh(tmp_path, "horse"), 5004)  # a name that says nothing
    with pytest.raises(InputError, match="on the mesh cow_5002, the template's mesh file has 5004"):
        annotations.check_mesh(on_mesh(tmp_path, "cow_5002"), 5004)
    with pytest.raises(InputError, match="several meshes: cow_5002, horse_5004"):
        annotations.check_mesh(on_mesh(tmp_path, "horse_5004", "cow_5002"), 5004)


@pytest.mark.parametrize("vertex", [-1, 5004])
def test_vertex_ids_out_of_range(tmp_path: Path, vertex: int) -> None:
    with pytest.raises(
        InputError,
        match=rf"a.jpg: dp_vertex holds {vertex}, the template's mesh file has the vertices 0 to 5003",
    ):
        annotations.check_mesh(on_mesh(tmp_path, "horse_5004", vertex=vertex), 5004)


@pytest.mark.parametrize("area", [10**400, -1, "large", float("inf"), 1e300, True, [3]])
def test_areas_that_are_no_number_of_pixels(area: Any, tmp_path: Path) -> None:
    change = annotation(1, [0, 0, 5, 5], [1], [1], [0]) | {"area": area}
    path = write_annotations(tmp_path / "a.json", [change])
    with pytest.raises(InputError, match=r"a\.json: annotations\[0\]\.area: .* is no number from 0 to"):
        annotations.read_annotations(path)


@pytest.mark.parametrize("digits", ["9" * 400, "9" * 5000, "0005", "²"])
def test_meshes_with_absurd_numbers(digits: str, tmp_path: Path) -> None:
    change = annotation(1, [0, 0, 5, 5], [1], [1], [0]) | {"ref_model": f"horse_{digits}"}
    found = annotations.read_annotations(write_annotations(tmp_path / "a.json", [change]))
    if digits in ("0005", "²"):
        annotations.check_mesh(found, 5)
        return
    with pytest.raises(InputError, match="the annotations are on the mesh horse_999") as raised:
        annotations.check_mesh(found, 5)
    assert len(str(raised.value)) < 300
