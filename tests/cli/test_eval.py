"""`shic eval` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from shic_cli.cli.eval import _cells
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import Template
from shic_cli.files.photos import encode

Shic = Callable[..., tuple[int, str, str]]
SIZE = 48


@pytest.fixture
def maps(small_template: Template, small_template_file: Path) -> Path:
    """Three maps of one picture each: 40 columns of vertices in their order."""
    path = small_template_file.with_name("pred.h5")
    vertex = np.full((SIZE, SIZE), -1)
    vertex[4:44, 4:44] = np.arange(1600).reshape(40, 40) % 642
    rgb = np.random.default_rng(0).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
    attrs = {"labels": "predicted", "template": small_template.fingerprint}
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=attrs) as writer:
        for name in ("a.png", "b.png", "c.png"):
            writer.add(
                name,
                encoded=np.frombuffer(encode(rgb), np.uint8),
                mask=vertex >= 0,
                vertex=vertex,
                score=vertex >= 0,
            )
    return path


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """Right points in a.png and b.png of two classes."""
    images = [
        {"id": i, "file_name": name, "width": SIZE, "height": SIZE}
        for i, name in enumerate(("a.png", "b.png"))
    ]
    categories = [{"id": 7, "name": "dog"}, {"id": 8, "name": "cat"}]
    points = {"bbox": [4, 4, 255, 255], "dp_x": [0.5, 3.5], "dp_y": [0.5, 1.5], "dp_vertex": [0, 43]}
    found = [{"image_id": i, "category_id": 7 + i, **points} for i in range(2)]
    path = tmp_path / "ann.json"
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": found}))
    return path


def test_geodesic_json_is_one_object(shic: Shic, maps: Path, annotations: Path) -> None:
    status, out, err = shic("eval", "geodesic", "pred.h5", "--annotations", "ann.json", "--json")
    found = json.loads(out)
    assert status == 0 and "geodesic error" in err
    assert {key: found[key] for key in ("metric", "images", "points", "mean", "median", "ci95", "gps")} == {
        "metric": "geodesic", "images": 2, "points": 4, "mean": 0, "median": 0, "ci95": [0, 0], "gps": 1,
    }  # fmt: skip
    assert set(found["classes"]) == {"cat", "dog"} and found["classes"]["cat"]["points"] == 2


def test_geodesic_table_leaves_stdout_empty(shic: Shic, maps: Path, annotations: Path) -> None:
    status, out, err = shic("eval", "geodesic", "pred.h5", "--annotations", "ann.json")
    assert status == 0 and out == ""
    assert all(word in err for word in ("cat", "dog", "all", "mean"))


def test_calibration_is_a_table_and_json_and_needs_an_uncertainty(
    shic: Shic, maps: Path, annotations: Path
) -> None:
    line = ("eval", "geodesic", "pred.h5", "--annotations", "ann.json", "--calibration", "--json")
    assert "pred.h5: states no uncertainty" in shic(*line)[2]
    held = [item.arrays for item in ItemReader(maps, "shic/maps")]
    attrs = ItemReader(maps, "shic/maps").header.attrs
    with ItemWriter(maps, "shic/maps", params={}, sources={}, attrs=attrs, overwrite=True) as writer:
        for name, arrays in zip(("a.png", "b.png", "c.png"), held, strict=True):
            writer.add(name, **arrays, uncertainty=np.full((SIZE, SIZE), 2.5))
    status, out, err = shic(*line)
    found = json.loads(out)["calibration"]
    assert status == 0 and found["scale"] == 0 and "pred.h5: calibration" in err and "rank_photos -" in err
    assert [row["points"] for row in found["bins"]] == [1] * 4
    assert {row["stated"] for row in found["bins"]} == {2.5} and found["rank_photos"] is None


def test_what_is_missing_is_said_and_counted(shic: Shic, maps: Path, annotations: Path) -> None:
    value = json.loads(annotations.read_text())
    value["images"][1]["file_name"] = "z.png"
    annotations.write_text(json.dumps(value))
    status, out, err = shic("eval", "geodesic", "pred.h5", "--annotations", "ann.json", "--json")
    assert status == 0 and json.loads(out)["mean"] == pytest.approx(114)
    assert json.loads(out)["missing_images"] == 1
    assert "no prediction for 1 of 2 annotated images" in err and "z.png" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pred.h5", "--annotations", "none.json"), "none.json: there is no such file"),
        (("none.h5", "--annotations", "ann.json"), "none.h5: there is no such file"),
        (
            ("template.h5", "--annotations", "ann.json"),
            "template.h5: expected shic/maps, found shic/template",
        ),
        (
            ("pred.h5", "--annotations", "ann.json", "--template", "other.h5"),
            "other.h5: there is no such file",
        ),
        (("pred.h5", "--annotations", "pred.h5"), "pred.h5"),
    ],
)
def test_bad_inputs_give_two_lines_and_status_1(
    shic: Shic, maps: Path, annotations: Path, words: tuple[str, ...], said: str
) -> None:
    status, out, err = shic("eval", "geodesic", *words)
    assert status == 1 and out == ""
    assert said in err and len(err.strip().splitlines()) == 2


def test_several_predictions_and_baselines_make_one_table(shic: Shic, maps: Path, annotations: Path) -> None:
    rows = "image,x,y,vertex\n" + "".join(
        f"{name}.png,{x},{y},{vertex}\n" for name in "ab" for x, y, vertex in ((4.5, 4.5, 0), (7.5, 5.5, 43))
    )
    maps.with_name("other.csv").write_text(rows)
    baselines = ("--baseline", "chance", "--baseline", "position")
    words = ("eval", "geodesic", "pred.h5", "other.csv", "--annotations", "ann.json", *baselines, "--gps")
    status, out, err = shic(*words, "--json")
    found = json.loads(out)
    assert (
        status == 0
        and found["metric"] == "geodesic"
        and list(found["rows"]) == ["pred.h5", "other.csv", "chance", "position"]
    )
    assert found["rows"]["pred.h5"]["mean"] == found["rows"]["other.csv"]["mean"] == 0
    assert found["rows"]["pred.h5"]["ap"] == 1 and found["rows"]["other.csv"]["classes"]["cat"]["ap"] == 1
    assert found["rows"]["chance"]["mean"] > 20 and found["rows"]["position"]["points"] == 4
    assert all(word in err for word in ("other.csv", "chance", "position", "ap50"))
    assert json.loads(shic(*words, "--json")[1]) == found
    assert (
        shic("eval", "geodesic", "--annotations", "ann.json", "--baseline", "chance")[0] == 0
    )  # with no file of predictions


def test_files_of_one_name_are_told_apart(shic: Shic, maps: Path, annotations: Path) -> None:
    maps.with_name("x").mkdir()
    maps.with_name("x").joinpath("pred.h5").write_bytes(maps.read_bytes())
    _, out, _ = shic("eval", "geodesic", "pred.h5", "x/pred.h5", "--annotations", "ann.json", "--json")
    assert list(json.loads(out)["rows"]) == ["pred.h5", "x/pred.h5"]


def test_scale_of_the_points_is_an_option(shic: Shic, maps: Path, annotations: Path) -> None:
    """At 127.5 the points lie twice as far into the box: 7 columns and 3 rows, where the vertices
    are others.
    """
    words = ("eval", "geodesic", "pred.h5", "--annotations", "ann.json", "--json", "--dp-scale")
    assert (
        json.loads(shic(*words, "255")[1])["mean"] == 0 and json.loads(shic(*words, "127.5")[1])["mean"] > 0
    )


def test_nothing_to_score_is_wrong_usage(shic: Shic, annotations: Path) -> None:
    assert shic("eval", "geodesic", "--annotations", "ann.json")[0] == 2
    write_keypoints(annotations.with_name("k.json"), a=(10, 10), b=(10, 10))
    assert shic("eval", "pck", "--keypoints", "k.json")[0] == 2
    assert shic("eval", "pck", "--keypoints", "k.json", "--baseline", "chance")[0] == 2  # of which photos?


def test_annotations_of_another_mesh(shic: Shic, maps: Path, annotations: Path) -> None:
    value = json.loads(annotations.read_text())
    for each in value["annotations"]:
        each["ref_model"] = "horse_5004"
    annotations.write_text(json.dumps(value))
    status, _, err = shic("eval", "geodesic", "pred.h5", "--annotations", "ann.json")
    assert status == 1 and "on the mesh horse_5004, the template's mesh file has 642 vertices" in err


def write_keypoints(path: Path, **images: tuple[float, float]) -> None:
    path.write_text(
        json.dumps(
            {"names": ["p"], "images": {name: {"points": {"p": point}} for name, point in images.items()}}
        )
    )


def test_pck_of_maps(shic: Shic, maps: Path) -> None:
    write_keypoints(maps.with_name("k.json"), a=(10, 10), b=(10.9, 10.1), c=(30, 30))
    status, out, err = shic("eval", "pck", "pred.h5", "--keypoints", "k.json", "--json")
    found = json.loads(out)
    assert status == 0 and "PCK via template" in err
    assert (found["metric"], found["alpha"], found["pairs"], found["keypoints"]) == ("pck", 0.1, 6, 6)
    assert found["pck"] == pytest.approx(2 / 6)  # the maps are equal: a and b agree, c lies elsewhere
    assert (
        json.loads(shic("eval", "pck", "pred.h5", "--keypoints", "k.json", "--json", "--alpha", "1")[1])[
            "pck"
        ]
        == 1
    )
    assert shic("eval", "pck", "pred.h5", "--keypoints", "k.json")[1] == ""


def test_pck_of_another_program_and_of_baselines(shic: Shic, maps: Path) -> None:
    folder = maps.parent
    (folder / "pairs.csv").write_text(
        "source_image,target_image,class,XA,YA,XB,YB\na.png,b.png,13,10;20,10;20,10;30,10;30\n"
    )
    (folder / "other.csv").write_text(
        "source_image,target_image,class,XA,YA,XB,YB\na.png,b.png,13,20;10,20;10,30;40,30;40\n"
    )
    words = (
        "eval",
        "pck",
        "pred.h5",
        "other.csv",
        "--keypoints",
        "pairs.csv",
        "--baseline",
        "position",
        "--baseline",
        "chance",
        "--json",
    )
    status, out, err = shic(*words)
    rows = json.loads(out)["rows"]
    assert status == 0, err
    # the maps are equal, so a point stays where it is: the first is right; the program has the second;
    # position is as the maps are
    assert {name: row["pck"] for name, row in rows.items() if name != "chance"} == {
        "pred.h5": 0.5,
        "other.csv": 0.5,
        "position": 0.5,
    }
    cells = [line.split() for line in err.splitlines()]
    columns = [row[1:] for row in cells if row and row[0] in ("pred.h5", "other.csv", "position")]
    assert [row[3] for row in columns] == ["0.500"] * 3 and {row[0] for row in columns} == {"0.1"}
    swapped = ("eval", "pck", "other.csv", "pred.h5", *words[4:])
    assert list(json.loads(shic(*swapped)[1])["rows"]) == [
        "other.csv",
        "pred.h5",
        "position",
        "chance",
    ]  # as they were given
    status, _, err = shic(*words, "--class", "cow")
    assert status == 1 and "has no class cow" in err and "it has horse" in err
    rows = json.loads(shic(*words, "--alpha", "0.1,1", "--protocol", "csm", "--self-pairs", "off")[1])["rows"]
    assert [each["pck"] for each in rows["position"]["alphas"]] == [0.5, 1] and rows["pred.h5"][
        "protocol"
    ] == "csm"


def test_pck_by_both_ways_in_one_table(shic: Shic, small_model_file: Path, album: Path) -> None:
    folder = small_model_file.parent
    write_keypoints(folder / "k.json", photo0=(48, 48), photo1=(48, 48))
    words = ("--keypoints", "k.json", "--images", str(album / "imgs"), "--json")
    status, out, err = shic(
        "eval", "pck", "model.safetensors", *words, "--via", "both", "--baseline", "position"
    )
    assert status == 0, err
    rows = json.loads(out)["rows"]
    assert list(rows) == ["model.safetensors via template", "model.safetensors via embedding", "position"]
    (folder / "maps.h5").write_bytes((album / "truth.h5").read_bytes())
    truth = ItemReader(album / "truth.h5", "shic/maps").names[:2]
    write_keypoints(folder / "t.json", **dict.fromkeys(truth, (48, 48)))
    status, out, err = shic("eval", "pck", "maps.h5", "--keypoints", "t.json", "--via", "both", "--json")
    assert status == 0 and json.loads(out)["via"] == "template", err  # a maps file has one way only
    status, out, _ = shic(
        "eval", "pck", *words, "--baseline", "position"
    )  # alone: the masks come from the photos
    assert status == 0 and json.loads(out)["pck"] == rows["position"]["pck"]


@pytest.mark.parametrize("target", ["surface", "probability", "embedding"])
def test_pck_says_how_a_vertex_was_found(
    shic: Shic, small_model_file: Path, album: Path, target: str
) -> None:
    write_keypoints(small_model_file.parent / "k.json", photo0=(48, 48), photo1=(48, 48))
    words = ("--keypoints", "k.json", "--images", str(album / "imgs"), "--target", target, "--json")
    status, out, err = shic("eval", "pck", "model.safetensors", *words)
    assert status == 0 and json.loads(out)["target"] == target, err


@pytest.mark.parametrize("via", ["template", "embedding"])
def test_pck_of_a_model(shic: Shic, small_model_file: Path, via: str) -> None:
    """The same picture three times: every keypoint must come back to its own place."""
    folder = small_model_file.parent
    (folder / "photos").mkdir()
    (folder / "masks").mkdir()
    mask = np.zeros((60, 80, 3), np.uint8)
    mask[10:50, 10:60], mask[30:50, 20:30] = 255, 0
    for name in ("a", "b", "c"):
        (folder / "photos" / f"{name}.png").write_bytes(encode(255 - mask // 2))
        (folder / "masks" / f"{name}.png").write_bytes(encode(mask))
    write_keypoints(folder / "k.json", a=(20, 20), b=(20, 20), c=(20, 20))
    words = (
        "eval",
        "pck",
        "model.safetensors",
        "--keypoints",
        "k.json",
        "--images",
        "photos",
        "--via",
        via,
        "--json",
    )
    status, out, _ = shic(*words)
    assert status == 0 and json.loads(out)["pck"] == 1 and json.loads(out)["via"] == via
    (folder / "photos" / "c.png").write_bytes(b"no picture")
    status, out, err = shic(*words)
    assert status == 0 and json.loads(out)["pck"] == pytest.approx(2 / 6) and "c.png" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pred.h5", "--keypoints", "k.json", "--via", "embedding"), "holds no embeddings"),
        (("pred.h5", "--keypoints", "k.json", "--target", "probability"), "--target surface"),
        (("model.safetensors", "--keypoints", "k.json"), "--images"),
        (("pred.h5", "--keypoints", "k.json", "--alpha", "-1"), "--alpha"),
        (("pred.h5",), "--keypoints"),
    ],
)
def test_wrong_usage_of_pck_is_status_2(shic: Shic, maps: Path, words: tuple[str, ...], said: str) -> None:
    write_keypoints(maps.with_name("k.json"), a=(10, 10), b=(10, 10))
    status, out, err = shic("eval", "pck", *words)
    assert status == 2 and out == "" and said in err


def test_a_column_has_as_many_decimals_in_each_row() -> None:
    assert _cells("pck", [0.889, 0.35, 0.0, None, 1.0]) == ["0.889", "0.350", "0.000", "", "1.000"]
    assert _cells("mean", [0.3, 112.456]) == ["0.30", "112.46"]
    assert _cells("ci95", [[0.0183, 0.5], [0.03, 0.127]]) == ["0.018 to 0.500", "0.030 to 0.127"]
    assert _cells("alpha", [0.1, 0.05]) == ["0.10", "0.05"] and _cells("alpha", [0.0125]) == ["0.0125"]
    assert _cells("images", [3, 12]) == ["3", "12"]


def test_what_pck_lacks_is_said_once_for_all_rows(shic: Shic, maps: Path) -> None:
    write_keypoints(maps.with_name("k.json"), a=(10, 10), b=(10, 10), other=(10, 10))
    status, _, err = shic("eval", "pck", "pred.h5", "--keypoints", "k.json", "--baseline", "position")
    said = "no prediction for 1 annotated image, whose keypoints count as errors: other"
    assert status == 0 and err.count(said) == err.count("warning") == 1, err


def test_no_surface_in_the_folder(shic: Shic, maps: Path) -> None:
    write_keypoints(maps.with_name("k.json"), a=(10, 10), b=(10, 10))
    maps.with_name("template.h5").unlink()
    status, _, err = shic("eval", "pck", "pred.h5", "--keypoints", "k.json")
    assert status == 1 and "neither model.safetensors nor template.h5 is here" in err
