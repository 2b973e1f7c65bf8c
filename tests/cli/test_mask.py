"""`shic mask`, and the maskers of the other commands, on tiny random models."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from tiny_maskers import save_grounding_dino, save_sam, save_segformer

from shic_cli.files.arrays import read_arrays
from shic_cli.files.items import ItemReader
from shic_cli.files.masks import read_mask
from shic_cli.parts.maskers.make import ObjectFinder

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def bare(folder: Path) -> Path:
    """The test's own folder with template.h5 and imgs/ of two photos, and no masks."""
    shutil.rmtree(folder / "masks")
    for path in sorted((folder / "imgs").iterdir())[2:]:
        path.unlink()
    return folder


@pytest.fixture
def semantic(bare: Path) -> str:
    """`--masker` for a random Segformer and a label that it finds in both photos."""
    save_segformer(bare / "seg")
    photos = [cv2.imread(str(path))[..., ::-1] for path in sorted((bare / "imgs").iterdir())]
    for label in range(6):
        masker = ObjectFinder(f"semantic:{bare}/seg,label={label}")
        masks = [masker(photo) for photo in photos]
        if all(0 < mask.mean() < 0.99 for mask in masks):
            return f"semantic:{bare}/seg,label={label}"
    raise AssertionError("the random network gives one label to everything")


def test_any_number_of_workers_gives_the_same_bytes(shic: Run, bare: Path) -> None:
    """Masks, overlays, the sheet and what is said of each photo; one that fails is named by both."""
    (bare / "imgs" / "broken.png").write_bytes(b"no picture")
    # of the other photo GrabCut finds the object or not, by the last digits of its colours
    cv2.imwrite(str(bare / "imgs" / "photo1.png"), cv2.imread(str(bare / "imgs" / "photo0.png"))[:, ::-1])
    found = []
    for number in ("1", "2"):
        words = ["mask", "imgs/", "--masker", "grabcut", "--workers", number, "-o", f"m{number}/", "--json"]
        drawn = ["--picture", f"d{number}", "--contact-sheet", f"s{number}.png"]
        status, out, err = shic(*words, *drawn)
        assert status == 4 and "broken.png" in err, err
        files = [path for name in ("m", "d") for path in sorted((bare / f"{name}{number}").iterdir())]
        data = [(path.name, path.read_bytes()) for path in files if path.suffix == ".png"]
        found.append([json.loads(out)["photos"], (bare / f"s{number}.png").read_bytes(), data])
    assert len(found[0][2]) == 4 and found[0] == found[1]


def test_masks_report_and_pictures(shic: Run, bare: Path, semantic: str) -> None:
    pictures = ("--picture", "drawn", "--contact-sheet", "sheet.png")
    status, out, err = shic(
        "mask", "imgs/", "--masker", semantic, "--class", "horse", "-o", "masks/", *pictures, "--json"
    )
    assert status == 0 and "masks: 2 photos" in err
    said = json.loads(out)
    assert (said["masker"], said["class"], said["failed"]) == (semantic, "horse", [])
    for row in said["photos"]:
        mask = read_mask(bare / "masks" / row["masks"][0]).mask
        assert (
            row["coverage"] == pytest.approx(mask.mean())
            and row["source"] == "masker"
            and 0 < row["score"] < 1
        )
        assert (row["photo"] in said["unsure"]) == bool(row["unsure"])
        assert cv2.imread(str(bare / "drawn" / row["masks"][0])).shape[:2] == mask.shape
    assert cv2.imread(str(bare / "sheet.png")) is not None
    status, out, _ = shic(
        "mask", "imgs/", "--masker", semantic, "--class", "horse", "--json"
    )  # masks is the default
    assert status == 0 and [row["source"] for row in json.loads(out)["photos"]] == ["kept", "kept"]
    assert json.loads(out)["written"] == []
    status, _, err = shic("mask", "imgs/", "--masker", semantic, "--class", "horse", *pictures, "--overwrite")
    assert status == 0 and "wrote masks and drawn and sheet.png: " in err
    status, _, err = shic(
        "mask", "imgs/", "--masker", semantic, "--class", "horse", *pictures[2:3], "new.png"
    )
    assert status == 0 and "wrote new.png: " in err  # the masks were there
    status, _, err = shic("mask", "imgs/", "--masker", "none")
    assert status == 2 and "finds nothing" in err


def test_without_a_masker_that_knows_the_class_grabcut_does(shic: Run, bare: Path) -> None:
    status, _, err = shic("mask", "imgs/photo0.png", "--class", "horse")
    assert status == 0 and "masker: auto took grabcut" in err and (bare / "masks/photo0.png").is_file()


def test_the_other_commands_take_maskers_and_say_so_in_their_files(
    shic: Run, bare: Path, semantic: str, small_model_file: Path
) -> None:
    words = ("--masker", semantic, "--class", "horse")
    views = ("--azimuths", "4", "--elevations", "0")
    assert shic("mask", "imgs/", *words, "-o", "made")[0] == 0
    for command, output, kind in (
        ("features", "features.h5", "features"),
        ("pseudo-gt", "pgt.h5", "maps"),
        ("predict", "p.h5", "maps"),
    ):
        status, _, err = shic(
            command, "imgs/", *words, "-o", output, *(views if command == "pseudo-gt" else ())
        )
        assert status == 0, err
        params = read_arrays(bare / output, f"shic/{kind}")[1].params
        assert (params["masker"], params["class"]) == (semantic, "horse")
        for item in ItemReader(bare / output, f"shic/{kind}"):
            assert np.array_equal(item.mask, read_mask(bare / "made" / f"{Path(item.name).stem}.png").mask)
    points = {"names": ["a"], "images": {f"photo{i}.png": {"points": {"a": [40, 40]}} for i in range(2)}}
    (bare / "k.json").write_text(json.dumps(points))
    status, out, err = shic(
        "eval", "pck", small_model_file, "--keypoints", "k.json", "--images", "imgs/", *words, "--json"
    )
    assert status == 0, err
    assert json.loads(out)["pairs"] > 0


def test_crops_of_every_object_feed_the_other_commands(shic: Run, bare: Path, semantic: str) -> None:
    status, out, _ = shic("mask", "imgs/", "--masker", semantic, "--all", "-o", "objects", "--json")
    names = [Path(name).stem for row in json.loads(out)["photos"] for name in row["masks"]]
    assert status == 0 and len(names) >= 2 and {"photo0-1", "photo1-1"} <= set(names)
    status, _, err = shic("features", "objects/imgs", "--masker", "none")
    assert status == 0, err
    assert sorted(
        Path(name).stem for name in ItemReader(bare / "features.h5", "shic/features").names
    ) == sorted(names)


def test_grounded_sam(shic: Run, bare: Path) -> None:
    save_grounding_dino(bare / "w/grounding-dino-tiny"), save_sam(bare / "w/sam-base")
    named = ("--masker", "grounded-sam,side=96,threshold=0.01", "--class", "horse", "--weights", "w")
    status, out, err = shic("mask", "imgs/", *named, "-o", "found", "--json")
    assert status in (0, 4), err  # a random network may give a full mask
    assert all(row["source"] == "masker" and row["score"] > 0.01 for row in json.loads(out)["photos"])
    status, _, err = shic("mask", "imgs/", "--masker", "grounded-sam", "--weights", "w")
    assert status == 2 and "none was given" in err and "--class horse" in err
    status, _, err = shic(
        "mask",
        "imgs/photo0.png",
        "--masker",
        "grounded-sam,threshold=0.999999",
        "--class",
        "horse",
        "--weights",
        "w",
        "-o",
        "m",
    )
    assert status == 1 and "photo0.png: no horse was found in it" in err and "threshold=" in err
    status, _, err = shic("features", "imgs/", "--masker", "grounded-sam", "--class", "horse")
    assert status == 3 and "shic models pull grounding-dino-tiny" in err
    status, _, err = shic("predict", "imgs/", "--masker", "grounded-sam")
    assert status != 0


def test_a_class_that_nothing_matches_ends_the_run_at_once(shic: Run, bare: Path) -> None:
    save_segformer(bare / "seg")
    for words in (("mask",), ("features",), ("pseudo-gt", "--azimuths", "4", "--elevations", "0")):
        status, _, err = shic(
            *words, "imgs/", "--masker", "semantic:seg", "--class", "zebra", "-o", f"out-{words[0]}"
        )
        assert (
            status == 2
            and "none of its labels is 'zebra'" in err
            and "2 horse" in err
            and err.count("zebra") == 1
        )


def test_photos_that_fail_are_named_and_the_rest_is_written(shic: Run, bare: Path, semantic: str) -> None:
    (bare / "imgs/broken.png").write_bytes(b"no picture")
    (bare / "imgs/tiny.png").write_bytes(cv2.imencode(".png", np.zeros((5, 9, 3), np.uint8))[1].tobytes())
    status, out, err = shic("mask", "imgs/", "--masker", semantic, "--class", "horse", "--json")
    assert (
        status == 4
        and "2 of 4 inputs failed: broken.png, tiny.png" in err
        and json.loads(out)["failed"] == ["broken.png", "tiny.png"]
    )
    assert sorted(path.name for path in (bare / "masks").iterdir()) == ["photo0.png", "photo1.png"]


def test_folders_that_are_files(shic: Run, bare: Path) -> None:
    (bare / "masks").write_text("")
    status, _, err = shic("mask", "imgs/")
    assert status == 1 and "masks: is a file" in err and "name a folder with -o" in err
    status, _, err = shic("features", "imgs/", "--masks", "masks")
    assert status == 1 and "masks: is a file, not a folder" in err


def test_a_model_remembers_its_masker_and_class(shic: Run, bare: Path, semantic: str) -> None:
    """Also when its photos were left out of training, as they are where there are synthetic pictures."""
    views = ("--azimuths", "4", "--elevations", "0", "--extractor", "silhouette")
    assert shic("pseudo-gt", "imgs/", "--masker", semantic, "--class", "horse", *views)[0] == 0
    short = ("--epochs", "1", "--variants", "1", "--batch", "2", "--points", "20", "--encoder", "silhouette")
    assert shic("train", *short, "--decoder", "pointwise")[0] == 0
    status, _, err = shic("predict", "imgs/photo0.png", "--no-pictures")
    assert status == 0 and f"photos without a mask: {semantic} for horse, the masker of the training" in err
    params = read_arrays(bare / "photo0.maps.h5", "shic/maps")[1].params
    assert (params["masker"], params["class"]) == (semantic, "horse")
    status, _, err = shic("predict", "imgs/photo0.png", "--no-pictures", "--masker", "grabcut", "-o", "b.h5")
    assert status == 0 and "the masker of the training" not in err
    params = read_arrays(bare / "b.h5", "shic/maps")[1].params
    assert (params["masker"], params["class"]) == ("grabcut", "horse")
    assert shic("synth", "--number", "2", "--size", "64", "--poses", "0")[0] == 0
    words = ("--decoder", "pointwise", "--natural", "0", "-o", "c.safetensors")
    status, _, err = shic("train", *short, *words)
    assert status == 0 and "labels are left out" in err
    status, _, err = shic("predict", "imgs/photo1.png", "--model", "c.safetensors", "--no-pictures")
    assert status == 0 and f"{semantic} for horse, the masker of the training" in err
    (bare / "masks").mkdir()
    mask = np.zeros(cv2.imread(str(bare / "imgs/photo1.png")).shape[:2], np.uint8)
    mask[20:60, 20:60] = 255
    cv2.imwrite(str(bare / "masks/photo1.png"), mask)
    status, _, err = shic("predict", "imgs/photo1.png", "--no-pictures", "-o", "d.h5")
    assert status == 0 and "without a mask" not in err  # for there is none


def test_a_failed_run_leaves_no_empty_folder(shic: Run, bare: Path) -> None:
    save_segformer(bare / "seg")
    (bare / "bad.jpg").write_bytes(b"no picture")
    for words in (
        ("bad.jpg",),
        ("bad.jpg", "--all"),
        ("imgs/", "--masker", "semantic:seg", "--class", "zebra"),
    ):
        assert shic("mask", *words)[0] != 0
        assert not (bare / "masks").exists()
    (bare / "masks").mkdir()
    assert shic("mask", "bad.jpg")[0] == 1 and (bare / "masks").is_dir()  # it was there before


def test_what_can_be_told_at_once_is_told_before_anything_is_loaded(
    shic: Run, folder: Path, small_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pixel off the object by its mask file, a pixel off the photo, a class that a network does
    not know.
    """
    save_segformer(folder / "seg")

    def never(*words: object, **options: object) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("shic_cli.stages.predict.load_model", never)
    monkeypatch.setattr("shic_cli.stages.heatmap.views_for", never)
    monkeypatch.setattr("shic_cli.stages.heatmap.make_extractor", never)
    monkeypatch.setattr("shic_cli.stages.features.make_extractor", never)
    monkeypatch.setattr("shic_cli.parts.maskers.semantic.load", never)
    for command in ("pseudo-gt", "predict"):
        status, _, err = shic(command, "imgs/", "--heatmap", "photo0.png:0,0")
        assert status == 1 and "photo0.png: the pixel 0,0 is not on the object" in err
        status, _, err = shic(command, "imgs/", "--heatmap", "photo0.png:500,0")
        assert status == 1 and "500,0" in err
    shutil.rmtree(folder / "masks")
    status, _, err = shic("predict", "imgs/", "--heatmap", "photo0.png:500,0")
    assert status == 1 and "photo0.png: the pixel 500,0 is not in it" in err
    for command in ("mask", "features", "pseudo-gt"):
        status, _, err = shic(command, "imgs/", "--masker", "semantic:seg")
        assert status == 2 and "which of its labels is the object?" in err and "2 horse" in err
        status, _, err = shic(command, "imgs/", "--masker", "semantic:seg", "--class", "hrose")
        assert status == 2 and "did you mean horse" in err
