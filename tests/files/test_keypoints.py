"""Keypoint files: what is read from them, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scoring import keypoints

from shic_cli.base.errors import InputError
from shic_cli.files.keypoints import read_pairs


def test_pairs_are_ordered_and_share_names(tmp_path: Path) -> None:
    pairs = read_pairs(
        keypoints(tmp_path / "k.json", a={"p": [1, 2], "q": [3, 4]}, b={"q": [5, 6]}, c={"r": [7, 8]})
    )
    assert [(pair.source, pair.target) for pair in pairs] == [("a", "b"), ("b", "a")]
    assert pairs[0].source_yx.tolist() == [[4, 3]] and pairs[0].target_yx.tolist() == [[6, 5]]


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


ROW = "J/a.jpg,J/b.jpg,{},1;2,3;4,5;6,7;8"
HEAD = "source_image,target_image,class,XA,YA,XB,YB"


def csv(path: Path, *rows: str) -> Path:
    path.write_text("\n".join([HEAD, *rows]) + "\n")
    return path


def test_classes_of_pf_pascal(tmp_path: Path) -> None:
    """Numbers are PASCAL VOC's, from 1 in the order of the names."""
    path = csv(
        tmp_path / "p.csv", *(ROW.format(name) + ";" for name in ("1", "10", "13", "17", "20", "horse"))
    )
    assert [pair.category for pair in read_pairs(path)] == [
        "aeroplane",
        "cow",
        "horse",
        "sheep",
        "tvmonitor",
        "horse",
    ]
    assert [pair.category for pair in read_pairs(path, ("horse", "cow"))] == ["cow", "horse", "horse"]
    with pytest.raises(InputError, match="has no class bear") as caught:
        read_pairs(path, ("bear",))
    assert caught.value.hint == "it has aeroplane, cow, horse, sheep, tvmonitor"


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("a,b,13,1;2,3;4,5;6,7;x", "line 3, YB"),
        ("a,b,13,1;2,3,5;6,7;8", "line 3, YA"),
        ("a,b,13,1;2,3;4,5;6,7;8,9", "line 3 has more fields"),
        ("a,b", "line 3 has no `XA`"),
        ("a,b,21,1,3,5,7", "line 3, class: 21"),
        ("a,b,0,1,3,5,7", "line 3, class: 0"),
        ("a,b,13,nan,3,5,7", "line 3, XA"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(tmp_path: Path, row: str, said: str) -> None:
    with pytest.raises(InputError, match=rf"p\.csv: {said}"):
        read_pairs(csv(tmp_path / "p.csv", ROW.format(13), row))


def test_kinds_and_classes_of_a_plain_file(tmp_path: Path) -> None:
    images = {
        "a": ("horse", {"p": [1, 2], "q": [3, 4]}),
        "b": ("horse", {"q": [5, 6], "p": [7, 8]}),
        "c": ("cow", {"p": [7, 8]}),
    }
    path = tmp_path / "k.json"
    path.write_text(
        json.dumps(
            {"images": {name: {"class": kind, "points": points} for name, (kind, points) in images.items()}}
        )
    )
    there, back = read_pairs(path)  # a cow is not matched to a horse
    assert (there.kinds, there.category) == (("p", "q"), "horse") and back.kinds == ("q", "p")
    assert there.target_yx.tolist() == [[8, 7], [6, 5]]
    again = there.turned()
    assert (again.source, again.target, again.source_yx.tolist()) == ("b", "a", there.target_yx.tolist())
    with pytest.raises(InputError, match="has no class dog"):
        read_pairs(path, ("dog",))
