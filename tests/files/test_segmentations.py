"""Segmentations of COCO files: polygons, run lengths in both forms, several parts, crowds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from shic_cli.base.errors import InputError
from shic_cli.files.masks import read_mask
from shic_cli.files.segmentations import decode_counts, run_lengths, segmentation_mask

Run = Callable[..., tuple[int, str, str]]
Y, X = np.mgrid[:60, :100]
BLOB = ((Y - 30) / 16.0) ** 2 + ((X - 45) / 22.0) ** 2 < 1
NAME = "densepose_lvis_v1_ds1_val_v1.json"


def compressed(mask: np.ndarray) -> str:
    """COCO's compressed text of a mask, by the definition of its C code."""
    counts, text = run_lengths(mask)["counts"], ""
    for i, count in enumerate(counts):
        value, more = count - (counts[i - 2] if i > 2 else 0), True
        while more:
            chunk, value = value & 31, value >> 5
            more = value != -1 if chunk & 16 else value != 0
            text += chr(48 + chunk + (32 if more else 0))
    return text


# By pycocotools: a mask of 90 by 120 pixels, rows 20 to 49 and columns 30 to 69.
KNOWN = "Pe2n0l100000000000000000000000000000000000000000000000000000000000000000000000000000P\\4"


def test_counts_of_another_program() -> None:
    wanted = np.zeros((90, 120), bool)
    wanted[20:50, 30:70] = True
    found = segmentation_mask({"size": [90, 120], "counts": KNOWN}, (90, 120), "a")
    assert np.array_equal(found, wanted) and compressed(wanted) == KNOWN


@pytest.mark.parametrize("mask", [BLOB, ~BLOB, X % 2 == 0, X + Y == 0, X + Y > 0, np.ones((60, 100), bool)])
def test_run_lengths_there_and_back(mask: np.ndarray) -> None:
    plain = run_lengths(mask)
    assert sum(plain["counts"]) == 6000 and plain["size"] == [60, 100]
    for counts in (plain["counts"], compressed(mask)):
        found = segmentation_mask({"size": [60, 100], "counts": counts}, (60, 100), "a")
        assert np.array_equal(found, mask)
    assert decode_counts(compressed(mask), "a").tolist() == plain["counts"]


@pytest.mark.parametrize("corners", [[0, 0, 5, 5], [0, 0, 5, 0, 5, 5, 0], []])
def test_a_polygon_has_three_corners_of_two_numbers(corners: list[int]) -> None:
    with pytest.raises(InputError, match=r"a\.segmentation\[0\]: is no polygon"):
        segmentation_mask([corners], (60, 100), "a")


def test_a_polygon_marks_the_pixels_whose_middle_it_holds() -> None:
    polygon = [2.8, 1.2, 90.2, 1.2, 90.2, 50.8, 2.8, 50.8]
    wanted = (X >= 3) & (X < 90) & (Y >= 1) & (Y < 51)
    assert np.array_equal(segmentation_mask([polygon], (60, 100), "a"), wanted)
    beyond = [-20, -20, 500, -20, 500, 30, -20, 30]
    assert np.array_equal(segmentation_mask([beyond], (60, 100), "a"), Y < 30)


def test_parts_are_joined() -> None:
    polygon = [0, 0, 5, 0, 5, 5, 0, 5]
    parts = [run_lengths(BLOB), polygon, {"size": [60, 100], "counts": compressed(Y > 55)}]
    wanted = BLOB | ((Y < 5) & (X < 5)) | (Y > 55)
    assert np.array_equal(segmentation_mask(parts, (60, 100), "a"), wanted)


def write(folder: Path, segmentation: Any, **more: Any) -> None:
    """A DensePose-LVIS file of one horse, whose box holds the blob, and its image below coco/."""
    (folder / "coco/train2017").mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "coco/train2017/000000000001.jpg"), np.zeros((60, 100, 3), np.uint8))
    url = "http://images.cocodataset.org/train2017/000000000001.jpg"
    annotation = {
        "id": 11, "image_id": 1, "category_id": 569, "bbox": [20, 10, 50, 40], "area": float(BLOB.sum()),
        "dp_x": [100.0], "dp_y": [100.0], "dp_vertex": [1], "segmentation": segmentation,
    }  # fmt: skip
    data = {
        "images": [{"id": 1, "width": 100, "height": 60, "coco_url": url}],
        "categories": [{"id": 569, "name": "horse"}],
        "annotations": [annotation | more],
    }
    (folder / NAME).write_text(json.dumps(data))


WORDS = ("dataset", "densepose-lvis", NAME, "--images", "coco", "-o", "out")


@pytest.mark.parametrize("form", ["list", "text", "parts"])
def test_crops_of_objects_with_run_lengths(form: str, shic: Run, tmp_path: Path) -> None:
    """The crop's mask and the moved annotation mark the same pixels."""
    text = {"size": [60, 100], "counts": compressed(BLOB)}
    write(tmp_path, {"list": run_lengths(BLOB), "text": text, "parts": [text, run_lengths(BLOB)]}[form])
    status, _, err = shic(*WORDS)
    assert status == 0, err
    folder = tmp_path / "out/horse/ds1_val"
    mask = read_mask(folder / "masks/000000000001_11.png").mask
    [image] = json.loads((folder / "annotations.json").read_text())["images"]
    left, top, width, height = image["crop"]
    assert np.array_equal(mask, BLOB[top : top + height, left : left + width]) and mask.sum() == BLOB.sum()
    [moved] = json.loads((folder / "annotations.json").read_text())["annotations"]
    assert np.array_equal(segmentation_mask(moved["segmentation"], mask.shape, "a"), mask)


@pytest.mark.parametrize(
    ("segmentation", "more", "said"),
    [
        (run_lengths(BLOB), {"iscrowd": 1}, "marks a crowd, not one object"),
        ({"size": [60, 90], "counts": [5400]}, {}, "is for an image of 90 by 60 pixels, the image 100 by 60"),
        ({"size": [60, 100], "counts": [10**400]}, {}, "counts: is not a list of numbers"),
        ({"size": [60, 100], "counts": [-5, 6005]}, {}, "do not add up to the image's 6000 pixels"),
        ({"size": [60, 100], "counts": [10, 20]}, {}, "do not add up"),
        ({"size": [60, 100], "counts": "o" * 5000}, {}, "counts are damaged"),
        ({"size": [60, 100], "counts": "²½"}, {}, "counts are damaged"),
        ({"size": [60, 100], "counts": compressed(BLOB)[:-1] + "o"}, {}, "end in the middle"),
        ({"size": [60, 100], "counts": ""}, {}, "do not add up"),
        ({"size": [60, 100], "counts": [6000]}, {}, "marks no pixel"),
        ({"size": "large", "counts": [6000]}, {}, "size: is a text"),
        (5, {}, "segmentation: is a number"),
    ],
)
def test_segmentations_that_are_refused(
    segmentation: Any, more: dict[str, Any], said: str, shic: Run, tmp_path: Path
) -> None:
    write(tmp_path, segmentation, **more)
    status, _, err = shic(*WORDS)
    assert status == 1 and said in err and "annotations[0]" in err


def test_damaged_texts_never_do_more_than_fail() -> None:
    """pycocotools' C code crashes on some of them."""
    rng = np.random.default_rng(0)
    text = compressed(BLOB)
    for _ in range(2000):
        damaged = list(text)
        for place in rng.integers(len(text), size=3):
            damaged[place] = chr(rng.integers(30, 130))
        try:
            found = segmentation_mask({"size": [60, 100], "counts": "".join(damaged)}, (60, 100), "a")
        except InputError:
            continue
        assert found.shape == (60, 100)
