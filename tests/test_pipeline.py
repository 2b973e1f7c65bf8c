"""The stages from photos to pictures, as a user types them, on a small animal."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from shic_cli import model, registry, train
from shic_cli.batches import Examples, collate, flip_points
from shic_cli.config import PseudoGtConfig, SynthConfig, TrainConfig
from shic_cli.devices import chance
from shic_cli.features import make_extractor, photo_features
from shic_cli.images import Crop, MaskSource, list_images
from shic_cli.matching import best_vertices
from shic_cli.predict import Embedded, Predictor
from shic_cli.pseudo_gt import Teacher, query_cells, views_for
from shic_cli.schema import ItemReader, Template
from shic_cli.synth import synthesize

CPU = torch.device("cpu")
FEW = ("--azimuths", "8", "--elevations", "10")
SHORT = ("--epochs", "2", "--variants", "1", "--batch", "4", "--points", "30")


@pytest.fixture(scope="session")
def album(small_template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with imgs/ and masks/ of six pictures of the animal, and truth.h5 with their exact labels."""
    folder = tmp_path_factory.mktemp("album")
    synthesize(small_template, folder / "truth.h5", SynthConfig(number=6, size=96), CPU, seed=5, sources={})
    (folder / "imgs").mkdir()
    (folder / "masks").mkdir()
    for i, item in enumerate(ItemReader(folder / "truth.h5", "shic/maps")):
        picture = cv2.imdecode(item.encoded, cv2.IMREAD_COLOR)
        cv2.imwrite(str(folder / "imgs" / f"photo{i}.png"), picture)
        cv2.imwrite(str(folder / "masks" / f"photo{i}.png"), item.mask.astype(np.uint8) * 255)
    return folder


@pytest.fixture
def folder(album: Path, small_template_file: Path, tmp_path: Path) -> Path:
    """The test's own folder with template.h5, imgs/ and masks/."""
    for name in ("imgs", "masks"):
        shutil.copytree(album / name, tmp_path / name)
    return tmp_path


def mean_error(template: Template, predicted: Path, truth: Path) -> float:
    pairs = zip(ItemReader(predicted, "shic/maps"), ItemReader(truth, "shic/maps"), strict=True)
    return float(np.mean([template.geodesic[one.vertex[two.vertex >= 0], two.vertex[two.vertex >= 0]].mean() for one, two in pairs]))


def test_four_lines_give_a_model_and_pictures(folder, shic):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    assert shic("train", *SHORT)[0] == 0
    assert shic("predict", "imgs/photo0.png", "--remap", "checker")[0] == 0
    made = {path.name for path in folder.iterdir()}
    expected = {"pgt.h5", "model.safetensors", "model.losses.png", "photo0.maps.h5", "photo0.colors.png", "photo0.remap.png"}
    assert made == expected | {"imgs", "masks", "template.h5"}
    item = ItemReader(folder / "photo0.maps.h5", "shic/maps")["photo0.png"]
    assert ((item.vertex >= 0) == item.mask).all() and (item.score[item.mask] > 0).all()
    picture = cv2.imread(str(folder / "photo0.colors.png"))
    assert picture.shape == (*item.mask.shape, 3)


def test_zero_shot_is_far_better_than_chance(folder, album, shic, small_template):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", "--azimuths", "16", "--elevations", "0,30")[0] == 0
    assert mean_error(small_template, folder / "pgt.h5", album / "truth.h5") < 0.5 * small_template.geodesic.mean()


def test_a_features_file_gives_the_same_labels_as_photos(folder, shic):
    assert shic("features", "imgs", "-o", "f.h5")[0] == 0
    assert shic("pseudo-gt", "f.h5", "-o", "a.h5", *FEW)[0] == 0
    assert shic("pseudo-gt", "imgs", "-o", "b.h5", *FEW)[0] == 0
    for one, two in zip(ItemReader(folder / "a.h5", "shic/maps"), ItemReader(folder / "b.h5", "shic/maps"), strict=True):
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


def test_kept_examples_stay_within_their_memory(album, small_template):
    readers = train.open_maps([album / "truth.h5"], small_template, config())
    shared = {
        "points": 20,
        "vertices": len(small_template.verts),
        "flip": True,
        "at_points": True,
        "seed": 1,
        "augment": False,
        "variants": 1,
    }
    examples = Examples(readers, train.make_extractor("silhouette", CPU), memory=100_000, **shared)
    for index in range(6):
        examples.get(index, 0)
    total = sum(value.nbytes for kept in examples.kept.values() for value in vars(kept).values() if isinstance(value, torch.Tensor))
    assert 0 < total <= 100_000 and 0 < len(examples.kept) < 6


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
    centre = crop.to_photo(cells[number].astype(float), 16)
    assert (np.abs(centre - pixels) <= crop.side / 16 / 2 + 1e-9).all()
    assert len(np.unique(cells, axis=0)) == len(cells)


def test_labels_do_not_depend_on_where_the_object_lies(small_template, album):
    photo = MaskSource().read(list_images([str(album / "imgs")])[0])
    extractor, settings = make_extractor("silhouette", CPU), PseudoGtConfig(azimuths=6, elevations=(10.0,))
    teacher = Teacher.make(extractor, views_for(extractor, small_template, settings, CPU), settings)
    wide = type(photo)("wide", b"", np.pad(photo.rgb, ((40, 3), (9, 60), (0, 0))), np.pad(photo.mask, ((40, 3), (9, 60))))
    one, other = (teacher.match(*photo_features(teacher.extractor, each), each.mask)[0] for each in (photo, wide))
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
    assert status == 2 or len([line for line in err.splitlines() if "error" in line or line.startswith("  ")]) == 2


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


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**{"epochs": 2, "variants": 1, "batch": 4, "points": 30, **changes})


def make_trainer(template: Template, paths: list[Path], settings: TrainConfig, seed: int = 0) -> train.Trainer:
    return train.Trainer.make(template, train.open_maps(paths, template, settings), settings, CPU, seed)


def test_first_loss_is_ln_k_exactly(small_template, album):
    trainer = make_trainer(small_template, [album / "truth.h5"], config())
    losses = trainer._step([0, 1, 2], torch.Generator().manual_seed(0))
    assert losses["synthetic"] == pytest.approx(np.log(len(small_template.verts)), rel=1e-6)


@pytest.mark.parametrize(("encoder", "epochs"), [("silhouette", 150), ("picture", 100)])
def test_training_learns_exact_labels(small_template, album, tmp_path, encoder, epochs):
    settings = config(encoder=encoder, epochs=epochs, augment="off", rate=3e-3, points=100, average=0.9, mirror="off")
    train.train(small_template, [album / "truth.h5"], tmp_path / "m.safetensors", settings, CPU, sources={})
    predictor, errors = Predictor(tmp_path / "m.safetensors", CPU), []
    truth = ItemReader(album / "truth.h5", "shic/maps")
    for photo, item in zip(map(MaskSource().read, list_images([str(album / "imgs")])), truth, strict=True):
        errors.append(small_template.geodesic[predictor.predict(photo)[0][item.mask], item.vertex[item.mask]].mean())
    assert np.mean(errors) < 0.2 * small_template.geodesic.mean()


@pytest.mark.parametrize("encoder", ["silhouette", "picture"])
def test_an_interrupted_training_ends_like_an_uninterrupted_one(folder, shic, monkeypatch, encoder):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    line = ("train", *SHORT, "--encoder", encoder, "--epochs", "3", "--seed", "3")
    assert shic(*line, "-o", "whole.safetensors")[0] == 0
    real, calls = train.Trainer.run_epoch, []

    def stop_at_the_third(self, *rest):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *rest)

    monkeypatch.setattr(train.Trainer, "run_epoch", stop_at_the_third)
    status, _, err = shic(*line, "-o", "two.safetensors")
    assert status == 130 and "goes on" in err and not (folder / "two.safetensors").exists()
    status, _, err = shic("train", *SHORT, "--encoder", encoder, "--epochs", "4", "--seed", "3", "-o", "two.safetensors")
    assert status == 1 and "epochs: 3, now 4" in err
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    assert shic(*line, "-o", "two.safetensors")[0] == 0
    one, two = load_file(folder / "whole.safetensors"), load_file(folder / "two.safetensors")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert not list(folder.glob("two.safetensors.*"))


class Patches:
    """An encoder without weights that needs no mask: the picture's colours in 8 by 8 patches."""

    name, fingerprint, needs_mask, sees_whole_object, side, dim = "patches", "patches", False, False, 64, 3
    settings: ClassVar[dict] = {}

    def __init__(self, argument: str = "", *, device: torch.device | str = "cpu") -> None:
        pass

    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images, 8) + 0.01


def test_a_dense_encoder_trains_the_convolutional_decoder_and_its_foreground(folder, shic, monkeypatch):
    monkeypatch.setitem(registry.PARTS["extractors"], "patches", f"{__name__}:Patches")
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", "--extractor", "silhouette", *FEW)[0] == 0
    assert shic("train", *SHORT, "--encoder", "patches", "--batch", "3", "--augment", "off")[0] == 0
    meta = model.read_meta(folder / "model.safetensors")
    assert meta["decoder"] == "convolutional" and 0 < meta["losses"]["foreground"] < 1
    shutil.rmtree(folder / "masks")
    status, _, err = shic("predict", "imgs", "--masker", "none")
    assert status in (0, 1, 4) and "has no mask" not in err  # it looks for the object itself; two epochs may not find it


def test_the_foreground_output_finds_the_object_and_looks_again_at_its_crop(small_model_file, album, monkeypatch):
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


def test_a_loss_that_is_not_finite_is_named_and_keeps_the_checkpoint(small_template, album):
    trainer = make_trainer(small_template, [album / "truth.h5"], config())
    with torch.no_grad():
        trainer.map.C.fill_(torch.nan)
    with pytest.raises(train.ShicError, match="synthetic loss is not finite"):
        trainer.run_epoch()


@pytest.mark.parametrize("switch", ["pseudo", "distance", "cycle", "equivariance", "synthetic"])
def test_a_loss_of_weight_zero_is_not_computed(folder, album, shic, small_template, switch):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    paths = [folder / "pgt.h5", album / "truth.h5"]
    with_it = make_trainer(small_template, paths, config(batch=12)).run_epoch()
    without = make_trainer(small_template, paths, config(batch=12, **{switch: 0.0})).run_epoch()
    assert set(with_it) == {"total", "pseudo", "distance", "cycle", "equivariance", "synthetic"}
    assert set(with_it) - set(without) == {switch}


def test_data_switches_leave_out_whole_files(album, small_template):
    readers = train.open_maps([album / "truth.h5"], small_template, config(natural_images=False))
    assert len(readers) == 1
    with pytest.raises(train.InputError, match="no pictures"):
        train.open_maps([album / "truth.h5"], small_template, config(synthetic_images=False))


def test_points_flip_and_augment_with_their_picture(album, small_template):
    """A labelled point keeps its place on the mask through every augmentation, and on the mirrored mask when flipped."""
    readers = train.open_maps([album / "truth.h5"], small_template, config())
    extractor = train.make_extractor("silhouette", CPU)
    shared = {"points": 40, "vertices": len(small_template.verts), "flip": False, "at_points": True, "seed": 1}
    examples = Examples(readers, extractor, augment=True, variants=0, **shared)
    for index in range(6):
        example = examples.get(index, epoch=index)
        side = extractor.side
        for mask, yx in ((example.mask, example.yx), (example.mask.flip(-1), flip_points(example.yx, side))):
            row, column = yx.round().long().unbind(-1)
            assert (mask[row, column] > 0.3).float().mean() > 0.97


def test_every_other_epoch_shows_the_mirror_image(album, small_template):
    mirror = torch.from_numpy(small_template.mirror.astype(np.int64))
    shared = {
        "points": 20,
        "vertices": len(small_template.verts),
        "augment": False,
        "variants": 1,
        "flip": False,
        "at_points": False,
        "seed": 0,
    }
    readers = train.open_maps([album / "truth.h5"], small_template, config())
    examples = Examples(readers, train.make_extractor("picture", CPU), mirror=mirror, **shared)
    for index in (0, 1):
        first, second = examples.get(index, 0), examples.get(index, 1)
        one, other = (first, second) if index == 0 else (second, first)
        torch.testing.assert_close(other.features, one.features.flip(-1), atol=4e-3, rtol=0)  # sums in another order, rounded
        assert (other.features - one.features).abs().max() > 1
        assert torch.equal(other.yx, flip_points(one.yx, 128)) and torch.equal(other.vertex, mirror[one.vertex])
        assert torch.equal(examples.get(index, 2).features, first.features)


def test_photos_and_synthetic_pictures_share_a_step(folder, album, shic, small_template):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    trainer = make_trainer(small_template, [folder / "pgt.h5", album / "truth.h5"], config(encoder="picture"))
    torch.nn.init.normal_(trainer.map.C)
    trainer.map.eval()  # batch norm would look at the whole batch
    batches = [
        collate([trainer.examples.get(i, 0) for i in group], 30, False, 128, CPU, torch.Generator().manual_seed(0))
        for group in ([0, 1], [8, 9], [8, 0, 9, 1])
    ]
    with torch.no_grad():
        photos, synthetic, both = (trainer._losses(batch) for batch in batches)
    assert set(photos) == {"pseudo", "distance", "cycle", "equivariance"} and set(synthetic) == {"synthetic"}
    assert set(both) == set(photos) | set(synthetic)
    assert batches[2].natural.tolist() == [False, True, False, True] and batches[2].flipped.shape[0] == 2


def test_recipes_fill_in_what_is_left_open(small_template, album):
    def settled(**given: object) -> TrainConfig:
        settings = TrainConfig(**given)
        return train.settle(settings, train.make_extractor(settings.encoder, CPU))

    open_settings = ("epochs", "batch", "rate", "schedule", "average", "mirror", "natural", "augment")
    for encoder in ("silhouette", "picture"):
        paper = settled(encoder=encoder, recipe="paper")
        assert [getattr(paper, name) for name in open_settings] == [40, 16, 1e-3, "step", 0, "off", 1, "on"]  # sec. 4.1
    unet = settled(encoder="picture", batch=5, average=0.0)
    assert (unet.decoder, unet.batch, unet.average, unet.schedule, unet.mirror) == ("unet", 5, 0, "cosine", "on")
    assert (settled(encoder="silhouette").decoder, settled(encoder="silhouette").augment) == ("pointwise", "off")
    assert settled(encoder="silhouette", decoder="unet").decoder == "unet"


def test_natural_weighs_the_losses_of_photos_alone(folder, album, shic, small_template):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    totals = {}
    for natural in (1.0, 0.5, 0.0):
        trainer = make_trainer(small_template, [folder / "pgt.h5", album / "truth.h5"], config(encoder="silhouette", natural=natural))
        found = trainer._step([0, 1, 8, 9], torch.Generator().manual_seed(0))
        totals[natural] = found["total"]
    assert totals[0.0] == pytest.approx(0.1 * found["synthetic"], rel=1e-5)
    assert totals[0.5] == pytest.approx((totals[1.0] + totals[0.0]) / 2, rel=1e-5) and totals[1.0] > totals[0.5]


def test_schedules(small_template, album):
    step, cosine = (
        make_trainer(small_template, [album / "truth.h5"], config(epochs=4, rate=1.0, schedule=each)) for each in ("step", "cosine")
    )
    assert [step.rate(epoch) for epoch in (0, 1.9, 2, 3.9)] == [1, 1, 0.1, 0.1]
    assert [cosine.rate(epoch) for epoch in (0, 2, 4)] == pytest.approx([1, 0.5, 0])


def test_the_running_mean_is_what_is_saved(small_template, album):
    trainer = make_trainer(small_template, [album / "truth.h5"], config(encoder="picture", average=0.5))
    trainer.run_epoch()
    saved = trainer.saved({}).map
    assert not torch.equal(saved.C, trainer.map.C) and saved.C.any()
    plain = make_trainer(small_template, [album / "truth.h5"], config(encoder="picture", average=0.0))
    plain.run_epoch()
    assert torch.equal(plain.saved({}).map.C, plain.map.C) and torch.equal(plain.map.C, trainer.map.C)


def test_auto_looks_at_pixels_where_synthetic_pictures_teach_it(folder, album, shic, small_template):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    assert make_trainer(small_template, [folder / "pgt.h5"], config()).config.encoder == "silhouette"
    assert make_trainer(small_template, [folder / "pgt.h5", album / "truth.h5"], config()).config.encoder == "picture"


def test_variants_repeat_and_fresh_ones_do_not(album, small_template):
    readers = train.open_maps([album / "truth.h5"], small_template, config())
    extractor = train.make_extractor("silhouette", CPU)
    shared = {"points": 20, "vertices": len(small_template.verts), "flip": False, "at_points": True, "seed": 1, "augment": True}
    kept, fresh = (Examples(readers, extractor, variants=count, **shared) for count in (2, 0))
    assert torch.equal(kept.get(0, 0).yx, kept.get(0, 2).yx) and not torch.equal(kept.get(0, 0).yx, kept.get(0, 1).yx)
    assert not torch.equal(fresh.get(0, 0).yx, fresh.get(0, 2).yx)


def test_predictions_of_a_folder_lie_in_one_file_and_one_folder(folder, small_model_file, shic):
    assert shic("predict", "imgs", "--remap", "grid")[0] == 0
    assert len(ItemReader(folder / "predictions.maps.h5", "shic/maps")) == 6
    assert len(list((folder / "predictions").glob("*.colors.png"))) == len(list((folder / "predictions").glob("*.remap.png"))) == 6


def test_a_model_of_another_encoder_is_refused(folder, small_model_file, shic):
    saved = model.load_model(small_model_file)
    saved.meta["encoder_fingerprint"] = "others"
    model.save_model(small_model_file, saved, overwrite=True)
    status, _, err = shic("predict", "imgs")
    assert status == 1 and "other weights" in err


def test_large_photos_take_the_nearest_position(small_model_file, album):
    from shic_cli.config import PredictConfig

    photo = MaskSource().read(list_images([str(album / "imgs")])[0])
    rgb, mask = (np.repeat(np.repeat(array, 3, axis=0), 3, axis=1) for array in (photo.rgb, photo.mask))
    large = type(photo)("large", b"", rgb, mask)
    whole = Predictor(small_model_file, CPU, PredictConfig(side=4096)).predict(large)[0]
    thin = Predictor(small_model_file, CPU, PredictConfig(side=96)).predict(large)[0]
    assert ((thin >= 0) == large.mask).all() and len(np.unique(thin)) > 10
    assert np.mean(whole[large.mask] == thin[large.mask]) > 0.5


def test_best_vertices_and_chance_are_what_pseudo_gt_uses():
    assert best_vertices(torch.eye(3))[0].tolist() == [0, 1, 2]
    assert chance(1, "a", 2).integers(1 << 30) == chance(1, "a", 2).integers(1 << 30) != chance(1, "b", 2).integers(1 << 30)


def test_info_says_what_was_trained(folder, small_model_file, shic):
    status, out, _ = shic("info", "model.safetensors", "--json")
    assert status == 0 and json.loads(out)["kind"] == "shic/model"
