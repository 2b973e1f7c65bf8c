"""DensePose-LVIS as folders, from a file written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from shic_cli.base.errors import InputError
from shic_cli.files.annotations import read_annotations
from shic_cli.files.masks import read_mask
from shic_cli.files.segmentations import segmentation_mask
from shic_cli.stages.dataset import split_name, window

Shic = Callable[..., tuple[int, str, str]]
NAME = "densepose_lvis_v1_ds1_val_v1.json"
WORDS = ("dataset", "densepose-lvis", NAME, "--images", "coco", "-o", "out", "--json")


def url(folder: str, number: int) -> str:
    return f"http://images.cocodataset.org/{folder}/{number:012d}.jpg"


def thing(number: int, image: int, category: int, box: list[float], **more: Any) -> dict[str, Any]:
    """An annotation as published, its polygon the box's own corners."""
    x, y, w, h = box
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    points = {
        "dp_x": [0, 127.5, 255],
        "dp_y": [0, 127.5, 255],
        "dp_vertex": [1, 2, 3],
        "ref_model": "horse_5004",
    }
    return (
        {
            "id": number,
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "area": w * h,
            "segmentation": [polygon],
        }
        | points
        | more
    )


@pytest.fixture
def lvis(tmp_path: Path) -> Callable[..., None]:
    """`lvis(*annotations)` writes the file and, below coco/, two images of 100 by 60 pixels; a third is
    listed and not there.
    """
    for folder, number in (("train2017", 1), ("val2017", 2)):
        (tmp_path / "coco" / folder).mkdir(parents=True)
        rows, columns = np.mgrid[:60, :100]
        cv2.imwrite(
            str(tmp_path / "coco" / folder / f"{number:012d}.jpg"),
            np.stack([columns, rows, rows + columns], -1).astype(np.uint8),
        )

    def write(*annotations: dict[str, Any]) -> None:
        images = [
            {"id": i, "width": 100, "height": 60, "coco_url": url(folder, i)} for i, folder in LISTED.items()
        ]
        names = {569: "horse", 80: "cow", 943: "sheep"}
        categories = [{"id": number, "name": name} for number, name in names.items()]
        (tmp_path / NAME).write_text(
            json.dumps({"images": images, "categories": categories, "annotations": annotations})
        )

    return write


LISTED = {1: "train2017", 2: "val2017", 3: "val2017"}
HORSE = thing(11, 1, 569, [20, 10, 40, 20])


def test_crop_mask_and_points_move_together(shic: Shic, lvis: Callable[..., None], tmp_path: Path) -> None:
    """A box of 40 by 20 from (20, 10): the square of 48 around its middle (40, 20) is columns 16 to 64, and
    rows 0 to 44 of the image.
    """
    lvis(HORSE, {"id": 5, "image_id": 1, "category_id": 943})  # a sheep without points
    status, out, err = shic(*WORDS)
    assert status == 0, err
    assert json.loads(out)["classes"] == {
        "horse": {"crops": 1, "photos": 1, "points": 3, "missing_images": 0}
    }
    folder = tmp_path / "out/horse/ds1_val"
    mask = read_mask(folder / "masks/000000000001_11.png").mask
    assert mask.shape == (44, 48) and mask[10:30, 4:44].all() and mask.sum() == 20 * 40
    crop = cv2.imread(str(folder / "imgs/000000000001_11.jpg")).astype(int)
    assert abs(crop[10, 4] - [20, 10, 30]).max() < 6 and abs(crop[29, 43] - [59, 29, 88]).max() < 6
    (found,) = read_annotations(folder / "annotations.json")
    assert (found.name, found.shape, found.category, found.mesh) == (
        "000000000001_11.jpg",
        (44, 48),
        "horse",
        "horse_5004",
    )
    assert found.yx.tolist() == [[10, 4], [20, 24], [29, 43]] and found.vertex.tolist() == [1, 2, 3]
    value = json.loads((folder / "annotations.json").read_text())
    assert (
        value["info"]["split"] == "ds1_val"
        and value["info"]["source"]["path"] == NAME
        and value["info"]["missing_images"] == []
    )
    assert (
        value["annotations"][0]["segmentation"] == [[4, 10, 44, 10, 44, 30, 4, 30]]
        and value["annotations"][0]["area"] == 800
    )
    assert value["images"][0]["coco_url"] == url("train2017", 1) and value["images"][0]["crop"] == [
        16,
        0,
        48,
        44,
    ]


def test_a_folder_a_class(shic: Shic, lvis: Callable[..., None], tmp_path: Path) -> None:
    lvis(HORSE, thing(12, 2, 569, [0, 0, 30.5, 20]), thing(13, 2, 80, [50, 30, 50, 30]))
    assert shic(*WORDS)[0] == 0
    assert sorted(path.name for path in tmp_path.glob("out/*/ds1_val/imgs/*")) == [
        "000000000001_11.jpg", "000000000002_12.jpg", "000000000002_13.jpg",
    ]  # fmt: skip
    (cow,) = read_annotations(tmp_path / "out/cow/ds1_val/annotations.json")
    assert cow.yx.tolist()[2] == [
        cow.shape[0] - 1,
        cow.shape[1] - 1,
    ]  # the image's last pixel, on the far edge of the box
    status, _, err = shic(*WORDS)
    assert status == 1 and "is there already" in err
    assert shic(*WORDS, "--overwrite")[0] == 0
    assert shic(*WORDS, "--class", "cow", "--split", "mine")[0] == 0
    assert (tmp_path / "out/cow/mine/masks/000000000002_13.png").is_file() and not (
        tmp_path / "out/horse/mine"
    ).exists()


def test_images_that_are_not_there_are_counted_and_named(
    shic: Shic, lvis: Callable[..., None], tmp_path: Path
) -> None:
    lvis(HORSE, thing(14, 3, 569, [5, 5, 20, 20]), thing(15, 3, 569, [30, 5, 20, 20]))
    status, out, err = shic(*WORDS)
    assert status == 4 and "1 annotated images are not below coco: val2017/000000000003.jpg" in err
    assert json.loads(out)["classes"]["horse"] == {"crops": 1, "photos": 1, "points": 3, "missing_images": 1}
    info = json.loads((tmp_path / "out/horse/ds1_val/annotations.json").read_text())["info"]
    assert info["missing_images"] == ["val2017/000000000003.jpg"]
    lvis(thing(14, 3, 569, [5, 5, 20, 20]))
    status, out, err = shic(*WORDS, "--split", "none")
    assert (
        status == 1
        and out == ""
        and "has none of the 1 annotated images" in err
        and not (tmp_path / "out/horse/none").exists()
    )


def test_unknown_class_lists_the_classes(shic: Shic, lvis: Callable[..., None]) -> None:
    lvis(HORSE, thing(13, 2, 80, [50, 30, 30, 20]))
    status, out, err = shic(*WORDS, "--class", "bear")
    assert status == 1 and out == "" and "has no annotated bear" in err and "it has cow, horse" in err


def test_splits_that_share_images(shic: Shic, lvis: Callable[..., None]) -> None:
    lvis(HORSE, thing(12, 2, 569, [0, 0, 30, 20]))
    assert shic(*WORDS, "--split", "ds1_train")[0] == 0
    lvis(HORSE)
    status, _, err = shic(*WORDS, "--split", "ds2_val")
    assert status == 0 and "1 of its 1 images are also in out/horse/ds1_train" in err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"segmentation": {"counts": [1], "size": [60, 100]}}, "do not add up"),
        ({"segmentation": [[1, 2, 3, 4]]}, "is no polygon"),
        ({"segmentation": [[500, 500, 600, 500, 600, 600]]}, "marks no pixel"),
        ({"segmentation": [[0, 0, 100, 0, 100, 60, 0, 60]]}, "fills its whole image"),
        ({"segmentation": []}, "marks no pixel"),
        ({"bbox": [1, 2]}, "bbox"),
        ({"id": "../x"}, "can't name a file"),
    ],
)
def test_objects_that_can_not_be_used(
    shic: Shic, lvis: Callable[..., None], change: dict[str, Any], said: str
) -> None:
    lvis(HORSE, thing(12, 2, 569, [0, 0, 30, 20]) | change)
    status, out, err = shic(*WORDS)
    assert status == 4 and json.loads(out)["classes"]["horse"]["crops"] == 1
    assert said in err and "1 objects can't be used" in err and f"{NAME}: annotations[1]" in err


def test_images_of_another_size(shic: Shic, lvis: Callable[..., None], tmp_path: Path) -> None:
    lvis(HORSE)
    cv2.imwrite(str(tmp_path / "coco/train2017/000000000001.jpg"), np.zeros((50, 100, 3), np.uint8))
    status, _, err = shic(*WORDS)
    assert status == 1 and "100 by 50 pixels, the annotations say 100 by 60" in err


def test_polygons_mark_the_pixels_whose_middle_they_hold() -> None:
    def mask(*polygons: list[float], shape: tuple[int, int] = (8, 10)) -> np.ndarray:
        return segmentation_mask(list(polygons), shape, "a")

    assert np.argwhere(mask([2, 3, 5, 3, 5, 5, 2, 5])).tolist() == [[y, x] for y in (3, 4) for x in (2, 3, 4)]
    assert mask([2.4, 3.4, 4.6, 3.4, 4.6, 4.6, 2.4, 4.6]).sum() == 6  # the middles 2.5 to 4.5 and 3.5 to 4.5
    with pytest.raises(InputError, match="marks no pixel"):
        mask([2.7, 3.7, 4.3, 3.7, 4.3, 4.3, 2.7, 4.3])  # between the middles of rows 3 and 4
    assert mask([-5, -5, 3, -5, 3, 2, -5, 2]).sum() == 6 and mask([0, 0, 99, 0, 99, 99, 0, 99]).all()
    both = mask([0, 0, 4, 0, 4, 4, 0, 4], [2, 2, 6, 2, 6, 6, 2, 6])
    assert both.sum() == 16 + 16 - 4  # parts are joined, where they lie over each other too


def test_window_is_the_square_around_the_object_as_far_as_the_image_goes() -> None:
    mask = np.zeros((60, 100), bool)
    mask[10:30, 20:60] = True
    assert window(mask, np.array([20, 10, 40, 20.0])) == (0, 16, 44, 64)
    assert window(mask, np.array([10, 10, 50, 20.0])) == (0, 5, 50, 65)  # the box is larger than the mask
    mask[:] = True
    assert window(mask, np.array([0, 0, 100, 60.0])) == (0, 0, 60, 100)


def test_split_by_the_files_name() -> None:
    assert split_name(Path("a/densepose_lvis_v1_ds2_train_v1.json")) == "ds2_train"
    assert split_name(Path("val.json")) == "val" and split_name(Path("trainer.json")) == "trainer"


def test_no_folder_of_images(shic: Shic, lvis: Callable[..., None]) -> None:
    lvis(HORSE)
    status, _, err = shic("dataset", "densepose-lvis", NAME, "--images", "nowhere")
    assert status == 1 and "nowhere: there is no such folder" in err


def test_class_that_is_no_folder(tmp_path: Path) -> None:
    from shic_cli.stages.dataset import read_classes

    data = {"images": [{"id": 1, "coco_url": url("val2017", 1)}], "categories": [{"id": 1, "name": "../x"}]}
    (tmp_path / "a.json").write_text(json.dumps(data | {"annotations": [thing(1, 1, 1, [0, 0, 5, 5])]}))
    with pytest.raises(InputError, match="can't name a folder"):
        read_classes(tmp_path / "a.json")


def test_a_run_that_ended_between_two_classes_is_given_again(
    shic: Shic, lvis: Callable[..., None], tmp_path: Path
) -> None:
    lvis(HORSE, thing(12, 2, 80, [20, 10, 40, 20]))
    assert shic(*WORDS)[0] == 0
    horse, cow = (tmp_path / "out" / name / "ds1_val/annotations.json" for name in ("horse", "cow"))
    before = cow.read_bytes(), horse.read_bytes()
    assert shic(*WORDS)[0] == 1  # both are there and are kept
    cow.unlink()
    assert shic(*WORDS)[0] == 0 and (cow.read_bytes(), horse.read_bytes()) == before
    cow.unlink()
    lvis(HORSE, thing(12, 2, 80, [20, 10, 40, 30]))
    status, _, err = shic(*WORDS)
    assert status == 1 and "horse/ds1_val/annotations.json: is there already" in err and not cow.exists()
