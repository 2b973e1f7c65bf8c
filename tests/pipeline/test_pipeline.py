"""The stages from photos to pictures, as a user types them, on a small animal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from inverse import to_photo

from shic_cli.base.devices import chance
from shic_cli.base.settings import PseudoGtConfig
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.files.mask_sources import MaskSource
from shic_cli.files.photo_lists import list_images
from shic_cli.files.photos import Crop
from shic_cli.learning.encode import photo_features
from shic_cli.learning.model_file import load_model, save_model
from shic_cli.learning.similarity import best_vertices
from shic_cli.parts.extractors.make import make_extractor
from shic_cli.stages.predict import Embedded, Predictor
from shic_cli.stages.pseudo_gt import Teacher, query_cells, views_for

CPU = torch.device("cpu")
FEW = ("--azimuths", "8", "--elevations", "10")
SHORT = ("--epochs", "2", "--variants", "1", "--batch", "4", "--points", "30")


def mean_error(template: Template, predicted: Path, truth: Path) -> float:
    pairs = zip(ItemReader(predicted, "shic/maps"), ItemReader(truth, "shic/maps"), strict=True)
    return float(
        np.mean(
            [
                template.geodesic[one.vertex[two.vertex >= 0], two.vertex[two.vertex >= 0]].mean()
                for one, two in pairs
            ]
        )
    )


def test_four_lines_give_a_model_and_pictures(folder, shic):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    assert shic("train", *SHORT)[0] == 0
    assert shic("predict", "imgs/photo0.png", "--remap", "checker")[0] == 0
    made = {path.name for path in folder.iterdir()}
    expected = {
        "pgt.h5",
        "model.safetensors",
        "model.log.csv",
        "model.losses.png",
        "photo0.maps.h5",
        "photo0.colors.png",
        "photo0.remap.png",
    }
    assert made == expected | {"imgs", "masks", "template.h5"}
    item = ItemReader(folder / "photo0.maps.h5", "shic/maps")["photo0.png"]
    assert ((item.vertex >= 0) == item.mask).all() and (item.score[item.mask] > 0).all()
    picture = cv2.imread(str(folder / "photo0.colors.png"))
    assert picture.shape == (*item.mask.shape, 3)


def test_zero_shot_is_far_better_than_chance(folder, album, shic, small_template):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", "--azimuths", "16", "--elevations", "0,30")[0] == 0
    assert (
        mean_error(small_template, folder / "pgt.h5", album / "truth.h5")
        < 0.5 * small_template.geodesic.mean()
    )


def test_filters_leave_some_pixels_without_a_label(folder, shic):
    views = ("--azimuths", "16", "--elevations", "0,30")
    assert shic("pseudo-gt", "imgs", "-o", "all.h5", *views)[0] == 0
    for name, limit in (("--return-within", "0.05"), ("--surface-within", "30")):
        assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", "--overwrite", *views, name, limit)[0] == 0
        shares = []
        for every, some in zip(
            ItemReader("all.h5", "shic/maps"), ItemReader("pgt.h5", "shic/maps"), strict=True
        ):
            kept = some.vertex >= 0
            assert (some.vertex[kept] == every.vertex[kept]).all() and (some.mask == every.mask).all()
            assert (some.score[~kept] == 0).all()
            shares.append(kept.sum() / some.mask.sum())
        assert 0.3 < np.mean(shares) < 0.99
    assert shic("train", *SHORT)[0] == 0
    status, _, err = shic(
        "pseudo-gt", "imgs", "-o", "none.h5", *views, "--return-within", "1e-9", "--surface-within", "1e-9"
    )
    assert status in (0, 1, 4) and ("no match is kept" in err) == (status != 0)


def test_a_features_file_gives_the_same_labels_as_photos(folder, shic):
    assert shic("features", "imgs", "-o", "f.h5")[0] == 0
    assert shic("pseudo-gt", "f.h5", "-o", "a.h5", *FEW)[0] == 0
    assert shic("pseudo-gt", "imgs", "-o", "b.h5", *FEW)[0] == 0
    for one, two in zip(
        ItemReader(folder / "a.h5", "shic/maps"), ItemReader(folder / "b.h5", "shic/maps"), strict=True
    ):
        assert one.name == two.name and np.mean(one.vertex == two.vertex) > 0.97  # half precision in the file


def test_heatmap_of_a_features_file_is_a_usage_error(folder, shic):
    assert shic("features", "imgs/photo0.png", "-o", "f.h5")[0] == 0
    status, _, err = shic("pseudo-gt", "f.h5", "--heatmap", "photo0.png:40,40")
    assert status == 2 and "needs photos" in err


def test_unknown_labels_are_refused(folder, album, shic):
    import h5py

    shutil.copy(album / "truth.h5", folder / "mine.h5")
    with h5py.File(folder / "mine.h5", "r+") as file:
        file.attrs["labels"] = "guessed"
    status, _, err = shic("train", "mine.h5")
    assert status == 1 and "'guessed'" in err and "annotated" in err


def test_views_of_another_template_are_refused(folder, shic, small_template):
    assert shic("render", "-o", "views.h5", "--size", "64", "--azimuths", "4", "--elevations", "0")[0] == 0
    assert shic("pseudo-gt", "imgs", "-o", "a.h5", "--views", "views.h5")[0] == 0
    import h5py

    with h5py.File(folder / "views.h5", "r+") as file:
        file.attrs["template"] = "another"
    status, _, err = shic("pseudo-gt", "imgs", "-o", "b.h5", "--views", "views.h5")
    assert status == 1 and "another template" in err and not (folder / "b.h5").exists()


def test_every_pixel_of_the_mask_is_matched_through_its_own_cell():
    mask = np.zeros((50, 70), bool)
    mask[10:40, 20:61] = True
    pixels, crop = np.argwhere(mask), Crop.around(mask)
    cells, number = query_cells(pixels, crop, 16)
    centre = to_photo(crop, cells[number].astype(float), 16)
    assert (np.abs(centre - pixels) <= crop.side / 16 / 2 + 1e-9).all()
    assert len(np.unique(cells, axis=0)) == len(cells)


def test_labels_do_not_depend_on_where_the_object_lies(small_template, album):
    photo = MaskSource().read(list_images([str(album / "imgs")])[0])
    extractor, settings = make_extractor("silhouette", CPU), PseudoGtConfig(azimuths=6, elevations=(10.0,))
    teacher = Teacher.make(extractor, views_for(extractor, small_template, settings, CPU), settings)
    wide = type(photo)(
        "wide", b"", np.pad(photo.rgb, ((40, 3), (9, 60), (0, 0))), np.pad(photo.mask, ((40, 3), (9, 60)))
    )
    one, other = (
        teacher.match(*photo_features(teacher.extractor, [each])[0], each.mask)[0] for each in (photo, wide)
    )
    assert np.array_equal(one[photo.mask], other[wide.mask])


def test_a_bad_photo_costs_that_photo_only(folder, shic):
    (folder / "imgs" / "photo1.png").write_bytes((folder / "imgs" / "photo1.png").read_bytes()[:300])
    cv2.imwrite(str(folder / "masks" / "photo2.png"), np.zeros((96, 96), np.uint8))
    status, _, err = shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)
    assert status == 4 and "photo1.png" in err and "photo2.png" in err
    assert len(ItemReader(folder / "pgt.h5", "shic/maps")) == 4


def test_all_photos_bad_is_an_error_that_leaves_nothing(folder, shic):
    for path in (folder / "imgs").iterdir():
        path.write_bytes(b"no image")
    status, _, err = shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)
    assert status == 1 and "all 6 inputs failed" in err
    assert not list(folder.glob("*pgt*"))


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("pseudo-gt", "nothing"), 1, "there is no such file"),
        (("pseudo-gt", "imgs", "--extractor", "silhuette"), 2, "did you mean silhouette"),
        (("pseudo-gt", "imgs", "--pool", "median"), 2, "median"),
        (("pseudo-gt", "imgs", "--template", "imgs/photo0.png"), 1, "HDF5"),
        (("pseudo-gt", "imgs", "--device", "cuda:99"), 1, "cuda:99"),
        (("pseudo-gt", "imgs", "--heatmap", "photo0.png:0,0"), 1, "not on the object"),
        (("pseudo-gt", "imgs", "--heatmap", "photo0.png"), 2, "IMAGE:X,Y"),
        (("pseudo-gt", "imgs", "--masks", "nowhere"), 1, "nowhere"),
        (("train",), 1, "pgt.h5"),
        (("train", "template.h5"), 1, "expected shic/maps, found shic/template"),
        (("train", "--epochs", "-1"), 2, "--epochs"),
        (("predict", "imgs"), 1, "model.safetensors"),
        (("features", "imgs", "--extractor", "silhouette", "--batch", "0"), 2, "--batch"),
    ],
)
def test_bad_input_is_two_lines_and_a_status(folder, shic, words, status, text):
    found, out, err = shic(*words)
    assert (found, out) == (status, "") and text in err and "Traceback" not in err
    assert (
        status == 2
        or len([line for line in err.splitlines() if "error" in line or line.startswith("  ")]) == 2
    )


def test_an_existing_file_is_kept_and_overwritten_only_when_asked(folder, shic):
    (folder / "pgt.h5").write_text("precious")
    status, _, err = shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)
    assert status == 1 and "--overwrite" in err and (folder / "pgt.h5").read_text() == "precious"
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW, "--overwrite")[0] == 0


def test_heatmap_draws_a_picture(folder, shic):
    mask = cv2.imread(str(folder / "masks" / "photo0.png"), cv2.IMREAD_GRAYSCALE) > 0
    y, x = np.argwhere(mask)[mask.sum() // 2]
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW, "--heatmap", f"photo0.png:{x},{y}")[0] == 0
    picture = cv2.imread(str(folder / "pgt.heatmap.png"))
    assert picture is not None and picture.shape[0] == 3 * 256 and picture.std() > 10


def test_the_foreground_output_finds_the_object_and_looks_again_at_its_crop(
    small_model_file, album, monkeypatch
):
    photo, crops = MaskSource().read(list_images([str(album / "imgs")])[0]), []

    def embed(self: Predictor, one) -> Embedded:
        crop = Crop.around(one.mask)
        crops.append(crop)
        logits = torch.from_numpy(crop.cut(photo.mask, 64)) - 0.5
        return Embedded(torch.zeros(16, 64, 64), logits, crop)

    monkeypatch.setattr(Predictor, "embed", embed)
    found = Predictor(small_model_file, CPU).find_mask(photo.rgb)
    assert (found & photo.mask).sum() / (found | photo.mask).sum() > 0.9
    assert crops[1].side < crops[0].side


def test_predictions_of_a_folder_lie_in_one_file_and_one_folder(folder, small_model_file, shic):
    assert shic("predict", "imgs", "--remap", "grid")[0] == 0
    assert len(ItemReader(folder / "predictions.maps.h5", "shic/maps")) == 6
    assert (
        len(list((folder / "predictions").glob("*.colors.png")))
        == len(list((folder / "predictions").glob("*.remap.png")))
        == 6
    )


def test_a_model_of_another_encoder_is_refused(folder, small_model_file, shic):
    saved = load_model(small_model_file)
    saved.meta["encoder_fingerprint"] = "others"
    save_model(small_model_file, saved, overwrite=True)
    status, _, err = shic("predict", "imgs")
    assert status == 1 and "other weights" in err


def test_large_photos_take_the_nearest_position(small_model_file, album):
    from shic_cli.base.settings import PredictConfig

    photo = MaskSource().read(list_images([str(album / "imgs")])[0])
    rgb, mask = (np.repeat(np.repeat(array, 3, axis=0), 3, axis=1) for array in (photo.rgb, photo.mask))
    large = type(photo)("large", b"", rgb, mask)
    whole = Predictor(small_model_file, CPU, PredictConfig(side=4096)).predict(large)[0]
    thin = Predictor(small_model_file, CPU, PredictConfig(side=96)).predict(large)[0]
    assert ((thin >= 0) == large.mask).all() and len(np.unique(thin)) > 10
    assert np.mean(whole[large.mask] == thin[large.mask]) > 0.5


def test_best_vertices_and_chance_are_what_pseudo_gt_uses():
    assert best_vertices(torch.eye(3))[0].tolist() == [0, 1, 2]
    assert (
        chance(1, "a", 2).integers(1 << 30)
        == chance(1, "a", 2).integers(1 << 30)
        != chance(1, "b", 2).integers(1 << 30)
    )


def test_info_says_what_was_trained(folder, small_model_file, shic):
    status, out, _ = shic("info", "model.safetensors", "--json")
    assert status == 0 and json.loads(out)["kind"] == "shic/model"
