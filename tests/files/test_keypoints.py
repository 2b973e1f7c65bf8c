"""Keypoint files: what is read from them, and what is wrong with them."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scoring import keypoints

from shic_cli.base.errors import InputError
from shic_cli.files.annotations import read_annotations
from shic_cli.files.keypoints import image_names, read_pairs, with_itself


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
    assert pair.compared(pair.source_yx) is pair.source_yx  # those of a csv stay as they are
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


def test_each_of_two_kinds_of_annotations_given_for_the_other_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [], "categories": [], "annotations": []}')
    with pytest.raises(InputError) as caught:
        read_pairs(tmp_path / "a.json")
    assert "images: is a list" in str(caught.value) and "eval geodesic" in str(caught.value.hint)
    (tmp_path / "k.json").write_text('{"images": {}}')
    with pytest.raises(InputError) as caught:
        read_annotations(tmp_path / "k.json")
    assert "images: is an object" in str(caught.value) and "eval pck" in str(caught.value.hint)


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
    assert there.compared(np.array([[1.5, 2.75]])).tolist() == [[1, 2]]  # the pixel that it falls in
    again = there.turned()
    assert (again.source, again.target, again.source_yx.tolist()) == ("b", "a", there.target_yx.tolist())
    with pytest.raises(InputError, match="has no class dog"):
        read_pairs(path, ("dog",))
    unnamed = keypoints(tmp_path / "u.json", a={"p": [1, 2]}, b={"p": [3, 4]})
    assert len(read_pairs(unnamed, ("dog",))) == 2  # all of the one class that is asked for
    with pytest.raises(InputError, match="has no class dog") as raised:
        read_pairs(unnamed, ("dog", "cat"))
    assert raised.value.hint == "its images name no class"


def test_pairs_are_made_when_they_are_asked_for(tmp_path: Path) -> None:
    """800 images make 639,200 pairs, which would take a minute and a gigabyte laid out."""
    points = {f"h{i}": {"points": {"a": [i, 1], "b": [2, i]}} for i in range(800)}
    (tmp_path / "k.json").write_text(json.dumps({"images": points}))
    tracemalloc.start()
    pairs = read_pairs(tmp_path / "k.json")
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    assert len(pairs) == 800 * 799 and image_names(pairs) == sorted(points)
    first, last = pairs[0], pairs[-1]
    assert (first.source, first.target, last.source, last.target) == ("h0", "h1", "h799", "h798")
    assert last.source_yx.tolist() == [[1, 799], [799, 2]] and last.kinds == ("a", "b")


def test_each_image_is_paired_with_itself_with_all_its_keypoints(tmp_path: Path) -> None:
    """Those of a csv have no names; equal positions are one keypoint."""
    rows = csv(tmp_path / "p.csv", "a,b,horse,1;2,3;4,5;6,7;8", "c,a,horse,9;9,9;8,2;1,4;5")
    assert image_names(read_pairs(rows)) == ["a", "b", "c"]
    pairs = with_itself(read_pairs(rows))
    assert [(pair.source, pair.target, pair.kinds, pair.category) for pair in pairs] == [
        (name, name, (), "horse") for name in "abc"
    ]
    assert [pair.source_yx.tolist() for pair in pairs] == [
        [[3, 1], [4, 2], [5, 1]],
        [[7, 5], [8, 6]],
        [[9, 9], [8, 9]],
    ]
    assert all(pair.target_yx is pair.source_yx for pair in pairs) and with_itself([]) == []
    named = keypoints(tmp_path / "k.json", a={"p": [1, 2], "q": [3, 4]}, b={"q": [5, 6]}, c={"r": [7, 8]})
    pairs = with_itself(read_pairs(named))  # c shares no keypoint with another and is in no pair
    assert [(pair.source, pair.target, pair.kinds) for pair in pairs] == [
        ("a", "a", ("p", "q")),
        ("b", "b", ("q",)),
    ]
    assert with_itself(list(read_pairs(named)))[0].kinds == ("q",)  # of pairs alone what they share is known


@pytest.mark.parametrize("content", [None, b"\xff\xfe\xff", b'a,b\n"' + b"x" * 200_000 + b'"\n'])
def test_a_csv_that_can_not_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "p.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"p\.csv: can't be read \("):
        read_pairs(tmp_path / "p.csv")


def test_too_many_pairs_are_refused_at_once(tmp_path: Path) -> None:
    points = {f"h{i}": {"points": {"a": [1, 1]}} for i in range(3000)}
    (tmp_path / "k.json").write_text(json.dumps({"images": points}))
    start = time.process_time()
    with pytest.raises(InputError, match="its 3000 images make more than 1000000 pairs") as raised:
        read_pairs(tmp_path / "k.json")
    assert "csv" in raised.value.hint and time.process_time() - start < 5


@pytest.mark.parametrize("number", ["²", "½", "٣", "9" * 400, "9" * 5000, "0", "21"])
def test_classes_that_are_no_number_of_voc(number: str, tmp_path: Path) -> None:
    text = "source_image,target_image,class,XA,YA,XB,YB\na.jpg,b.jpg,{},1,1,1,1\n"
    (tmp_path / "k.csv").write_text(text.format(number))
    with pytest.raises(
        InputError, match=r"k\.csv: line 2, class: .* is no whole number from 1 to 20"
    ) as raised:
        read_pairs(tmp_path / "k.csv")
    assert len(str(raised.value)) < 300
