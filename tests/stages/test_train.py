"""Training: examples and batches, losses and settings, interruption, and what is saved."""

from __future__ import annotations

import shutil
import threading
from functools import partial
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training import CPU, config, make_trainer

from shic_cli.base import devices
from shic_cli.base.errors import InputError, ShicError
from shic_cli.base.training_settings import TrainConfig
from shic_cli.files.items import ItemReader
from shic_cli.files.mask_sources import MaskSource
from shic_cli.files.photo_lists import list_images
from shic_cli.learning.batches import collate, flip_points
from shic_cli.learning.examples import Examples
from shic_cli.learning.model_file import read_meta
from shic_cli.learning.recipes import settle
from shic_cli.learning.trainer import Trainer
from shic_cli.parts import registry
from shic_cli.parts.extractors.contract import ExtractorDefaults
from shic_cli.parts.extractors.make import make_extractor
from shic_cli.stages import train
from shic_cli.stages.predict import Predictor
from shic_cli.stages.train import open_maps

FEW = ("--azimuths", "8", "--elevations", "10")
KEPT = {
    "points": 20,
    "flip": True,
    "at_points": True,
    "seed": 1,
    "augment": False,
    "variants": 1,
}  # of Examples
SHORT = ("--epochs", "2", "--variants", "1", "--batch", "4", "--points", "30")


def test_kept_examples_stay_within_their_memory(album, small_template):
    readers = open_maps([album / "truth.h5"], small_template, config())
    shared = {**KEPT, "vertices": len(small_template.verts)}
    examples = Examples(readers, make_extractor("silhouette", CPU), memory=100_000, **shared)
    for index in range(6):
        examples.get(index, 0)
    total = sum(
        value.nbytes
        for kept in examples.kept.values()
        for value in vars(kept).values()
        if isinstance(value, torch.Tensor)
    )
    assert 0 < total <= 100_000 and 0 < len(examples.kept) < 6


def step(trainer: Trainer, batch: list[int]) -> dict[str, float]:
    """The losses of one step on the examples `batch`."""
    return trainer._step(batch, trainer.examples.get_all(batch, 0), torch.Generator().manual_seed(0))


def test_first_loss_is_ln_k_exactly(small_template, album):
    trainer = make_trainer(small_template, [album / "truth.h5"], config())
    losses = step(trainer, [0, 1, 2])
    assert losses["synthetic"] == pytest.approx(np.log(len(small_template.verts)), rel=1e-6)


@pytest.mark.parametrize(("encoder", "epochs"), [("silhouette", 150), ("picture", 180)])
def test_training_learns_exact_labels(small_template, album, tmp_path, encoder, epochs):
    settings = config(
        encoder=encoder, epochs=epochs, augment="off", rate=3e-3, points=100, mirror="off", rough="off"
    )
    train.train(small_template, [album / "truth.h5"], tmp_path / "m.safetensors", settings, CPU, sources={})
    predictor, errors = Predictor(tmp_path / "m.safetensors", CPU), []
    truth = ItemReader(album / "truth.h5", "shic/maps")
    for photo, item in zip(map(MaskSource().read, list_images([str(album / "imgs")])), truth, strict=True):
        errors.append(
            small_template.geodesic[predictor.predict(photo)[0][item.mask], item.vertex[item.mask]].mean()
        )
    assert np.mean(errors) < 0.25 * small_template.geodesic.mean()


@pytest.mark.parametrize("encoder", ["silhouette", "picture"])
def test_an_interrupted_training_ends_like_an_uninterrupted_one(folder, shic, monkeypatch, encoder):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    line = ("train", *SHORT, "--encoder", encoder, "--epochs", "3", "--seed", "3")
    assert shic(*line, "-o", "whole.safetensors")[0] == 0
    real, calls = Trainer.run_epoch, []

    def stop_at_the_third(self, *rest):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, *rest)

    monkeypatch.setattr(Trainer, "run_epoch", stop_at_the_third)
    status, _, err = shic(*line, "-o", "two.safetensors")
    assert (
        status == 130
        and "give the same line again to continue" in err
        and not (folder / "two.safetensors").exists()
    )
    status, _, err = shic(
        "train", *SHORT, "--encoder", encoder, "--epochs", "4", "--seed", "3", "-o", "two.safetensors"
    )
    assert status == 1 and "epochs: 3, now 4" in err
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    went_on = []

    def counted(self, *rest):
        went_on.append(self.epoch)
        return real(self, *rest)

    monkeypatch.setattr(Trainer, "run_epoch", counted)
    assert shic(*line, "-o", "two.safetensors")[0] == 0 and went_on == [2]  # the third epoch alone
    one, two = load_file(folder / "whole.safetensors"), load_file(folder / "two.safetensors")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert not list(folder.glob("two.safetensors.*"))


class Patches(ExtractorDefaults):
    """An encoder without weights that needs no mask: the picture's colours in 8 by 8 patches."""

    name, fingerprint, needs_mask, sees_whole_object, side, dim = "patches", "patches", False, False, 64, 3
    settings: ClassVar[dict] = {}

    def __init__(self, argument: str = "", *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.avg_pool2d(images, 8) + 0.01


def test_a_dense_encoder_trains_the_convolutional_decoder_and_its_foreground(folder, shic, monkeypatch):
    monkeypatch.setitem(registry.PARTS["extractors"], "patches", f"{__name__}:Patches")
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", "--extractor", "silhouette", *FEW)[0] == 0
    assert shic("train", *SHORT, "--encoder", "patches", "--batch", "3", "--augment", "off")[0] == 0
    meta = read_meta(folder / "model.safetensors")
    assert meta["decoder"] == "convolutional" and 0 < meta["losses"]["foreground"] < 1
    shutil.rmtree(folder / "masks")
    status, _, err = shic("predict", "imgs", "--masker", "none")
    assert (
        status in (0, 1, 4) and "has no mask" not in err
    )  # it looks for the object itself; two epochs may not find it


def test_a_loss_that_is_not_finite_is_named_and_keeps_the_checkpoint(small_template, album):
    trainer = make_trainer(small_template, [album / "truth.h5"], config())
    with torch.no_grad():
        trainer.map.C.fill_(torch.nan)
    with pytest.raises(ShicError, match="synthetic loss is not finite"):
        trainer.run_epoch()


@pytest.mark.parametrize("switch", ["pseudo", "distance", "cycle", "equivariance", "synthetic"])
def test_a_loss_of_weight_zero_is_not_computed(folder, album, shic, small_template, switch):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    paths = [folder / "pgt.h5", album / "truth.h5"]
    with_it = make_trainer(small_template, paths, config(batch=12, natural=1.0)).run_epoch()
    without = make_trainer(small_template, paths, config(batch=12, natural=1.0, **{switch: 0.0})).run_epoch()
    of_pictures = {"synthetic", "near"}
    assert set(with_it) == {"total", "pseudo", "distance", "cycle", "equivariance"} | of_pictures
    assert set(with_it) - set(without) == (of_pictures if switch == "synthetic" else {switch})


def test_without_any_loss_training_is_refused(folder, album, shic):
    shutil.copy(album / "truth.h5", folder / "synth.h5")
    status, _, err = shic("train", "synth.h5", "--synthetic", "0")
    assert status == 2 and "every loss has weight 0" in err


def test_data_switches_leave_out_whole_files(album, small_template):
    readers = open_maps([album / "truth.h5"], small_template, config(natural_images=False))
    assert len(readers) == 1
    with pytest.raises(InputError, match="no pictures"):
        open_maps([album / "truth.h5"], small_template, config(synthetic_images=False))


def test_points_flip_and_augment_with_their_picture(album, small_template):
    """A labelled point keeps its place on the mask through every augmentation, and on the mirrored mask when
    flipped.
    """
    readers = open_maps([album / "truth.h5"], small_template, config())
    extractor = make_extractor("silhouette", CPU)
    shared = {
        "points": 40,
        "vertices": len(small_template.verts),
        "flip": False,
        "at_points": True,
        "seed": 1,
    }
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
    readers = open_maps([album / "truth.h5"], small_template, config())
    examples = Examples(readers, make_extractor("picture", CPU), mirror=mirror, **shared)
    for index in (0, 1):
        first, second = examples.get(index, 0), examples.get(index, 1)
        one, other = (first, second) if index == 0 else (second, first)
        torch.testing.assert_close(
            other.features, one.features.flip(-1), atol=4e-3, rtol=0
        )  # sums in another order, rounded
        assert (other.features - one.features).abs().max() > 1
        assert torch.equal(other.yx, flip_points(one.yx, 128)) and torch.equal(
            other.vertex, mirror[one.vertex]
        )
        assert torch.equal(examples.get(index, 2).features, first.features)


def test_photos_and_synthetic_pictures_share_a_step(folder, album, shic, small_template):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    trainer = make_trainer(
        small_template, [folder / "pgt.h5", album / "truth.h5"], config(encoder="picture", natural=1.0)
    )
    torch.nn.init.normal_(trainer.map.C)
    trainer.map.eval()  # batch norm would look at the whole batch
    batches = [
        collate(
            [trainer.examples.get(i, 0) for i in group],
            trainer.examples.draw(len(group), torch.Generator().manual_seed(0)),
            False,
            128,
            CPU,
        )
        for group in ([0, 1], [8, 9], [8, 0, 9, 1])
    ]
    with torch.no_grad():
        photos, synthetic, both = (trainer._losses(batch) for batch in batches)
    assert set(photos) == {"pseudo", "distance", "cycle", "equivariance"}
    assert set(synthetic) == {"synthetic", "near"}
    assert set(both) == set(photos) | set(synthetic)
    assert batches[2].natural.tolist() == [False, True, False, True] and batches[2].flipped.shape[0] == 2


def test_recipes_fill_in_what_is_left_open(small_template, album):
    def settled(**given: object) -> TrainConfig:
        settings = TrainConfig(**given)
        return settle(settings, make_extractor(settings.encoder, CPU), CPU)

    open_settings = ("epochs", "batch", "rate", "schedule", "mirror", "natural", "augment", "precision")
    for encoder in ("silhouette", "picture"):
        paper = settled(encoder=encoder, recipe="paper")
        assert [getattr(paper, name) for name in open_settings] == [
            40,
            16,
            1e-3,
            "step",
            "off",
            1,
            "on",
            "float32",
        ]  # sec. 4.1
    unet = settled(encoder="picture", batch=5)
    assert (unet.decoder, unet.batch, unet.schedule, unet.mirror) == ("unet", 5, "cosine", "on")
    assert (settled(encoder="silhouette").decoder, settled(encoder="silhouette").augment) == (
        "pointwise",
        "off",
    )
    assert settled(encoder="silhouette", decoder="unet").decoder == "unet"


def test_bfloat16_is_for_a_unet_on_a_processor_that_has_it(monkeypatch):
    for able, expected in (
        ({"avx512_bf16": True}, "bfloat16"),
        ({"avx512_bf16": False, "amx_bf16": True}, "bfloat16"),
        ({}, "float32"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda able=able: able, raising=False)
        for encoder in ("picture", "silhouette"):
            found = settle(TrainConfig(encoder=encoder), make_extractor(encoder, CPU), CPU)
            assert found.precision == (expected if encoder == "picture" else "float32")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)  # older versions have none
    assert settle(TrainConfig(), make_extractor("picture", CPU), CPU).precision == "float32"


def test_in_bfloat16_only_the_decoder_is_rounded(album, small_template):
    """Its layers see eight bits, and what the losses see of the map is float32: the first losses are near,
    the gradients too.
    """
    found = {}
    for precision in ("float32", "bfloat16"):
        trainer = make_trainer(
            small_template, [album / "truth.h5"], config(encoder="picture", precision=precision)
        )
        torch.nn.init.normal_(trainer.map.C, generator=torch.Generator().manual_seed(0))
        dtypes = set()
        trainer.map.decoder.out.register_forward_hook(lambda _, __, out, dtypes=dtypes: dtypes.add(out.dtype))
        loss = step(trainer, [0, 1, 2])["synthetic"]
        assert dtypes == {torch.float32 if precision == "float32" else torch.bfloat16}
        assert {value.dtype for value in trainer.map.parameters()} == {torch.float32}
        found[precision] = loss
    assert (
        found["bfloat16"] == pytest.approx(found["float32"], rel=0.02)
        and found["bfloat16"] != found["float32"]
    )


def test_natural_weighs_the_losses_of_photos_alone(folder, album, shic, small_template):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    found = {}
    for natural in (1.0, 0.5):
        trainer = make_trainer(
            small_template,
            [folder / "pgt.h5", album / "truth.h5"],
            config(encoder="silhouette", natural=natural),
        )
        found[natural] = step(trainer, [0, 1, 8, 9])
    exact = 0.1 * found[1.0]["synthetic"]
    assert found[0.5]["total"] - exact == pytest.approx((found[1.0]["total"] - exact) / 2, rel=1e-4)


def test_a_unet_leaves_pseudo_labels_out_where_there_is_better(folder, album, shic, small_template):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    both = [folder / "pgt.h5", album / "truth.h5"]
    assert len(make_trainer(small_template, both, config(encoder="picture")).examples) == 6
    assert len(make_trainer(small_template, both, config(encoder="picture", natural=0.5)).examples) == 12
    assert len(make_trainer(small_template, both, config(encoder="picture", recipe="paper")).examples) == 12
    assert len(make_trainer(small_template, both, config(encoder="silhouette")).examples) == 12
    assert len(make_trainer(small_template, both[:1], config(encoder="picture")).examples) == 6
    with pytest.raises(ShicError, match="no pictures to train on"):
        make_trainer(small_template, both[:1], config(encoder="picture", natural=0.0))
    shutil.copy(album / "truth.h5", folder / "mine.h5")
    with h5py.File(folder / "mine.h5", "r+") as file:
        file.attrs["labels"] = "annotated"
    assert (
        len(
            make_trainer(
                small_template, [album / "truth.h5", folder / "mine.h5"], config(encoder="picture")
            ).examples
        )
        == 12
    )


def test_the_next_batch_is_made_while_the_last_is_used():
    made, others, order = threading.Event(), [], []

    def make(i):
        order.append(i)
        others.append(threading.current_thread() is not threading.main_thread())
        if i == 1:
            made.set()
        return i

    found = devices.ahead(partial(make, i) for i in range(4))
    assert next(found) == 0 and made.wait(10)
    assert list(found) == [1, 2, 3] and order == [0, 1, 2, 3] and all(others)
    assert list(devices.ahead([])) == []


def test_what_fails_ahead_fails_in_its_turn():
    def fail():
        raise InputError("a.jpg: is broken", "")

    found = devices.ahead([lambda: 1, fail, lambda: 3])
    assert next(found) == 1
    with pytest.raises(InputError, match=r"a\.jpg"):
        next(found)


def test_schedules(small_template, album):
    step, cosine = (
        make_trainer(small_template, [album / "truth.h5"], config(epochs=4, rate=1.0, schedule=each))
        for each in ("step", "cosine")
    )
    assert [step.rate(epoch) for epoch in (0, 1.9, 2, 3.9)] == [1, 1, 0.1, 0.1]
    assert [cosine.rate(epoch) for epoch in (0, 2, 4)] == pytest.approx([1, 0.5, 0])


def test_synthetic_pictures_alone_are_enough(folder, album, shic):
    shutil.copy(album / "truth.h5", folder / "synth.h5")
    status, _, err = shic("train", *SHORT)
    assert (
        status == 0
        and "there is no pgt.h5: training on synth.h5 alone" in err
        and "photos are left out" not in err
    )
    assert [Path(name).name for name in read_meta(folder / "model.safetensors")["sources"]] == [
        "template",
        "synth.h5",
        "start",
    ]


def test_auto_looks_at_pixels_where_synthetic_pictures_teach_it(folder, album, shic, small_template):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    assert make_trainer(small_template, [folder / "pgt.h5"], config()).config.encoder == "silhouette"
    assert (
        make_trainer(small_template, [folder / "pgt.h5", album / "truth.h5"], config()).config.encoder
        == "picture"
    )


def test_variants_repeat_and_fresh_ones_do_not(album, small_template):
    readers = open_maps([album / "truth.h5"], small_template, config())
    extractor = make_extractor("silhouette", CPU)
    shared = {
        "points": 20,
        "vertices": len(small_template.verts),
        "flip": False,
        "at_points": True,
        "seed": 1,
        "augment": True,
    }
    kept, fresh = (Examples(readers, extractor, variants=count, **shared) for count in (2, 0))
    assert torch.equal(kept.get(0, 0).yx, kept.get(0, 2).yx) and not torch.equal(
        kept.get(0, 0).yx, kept.get(0, 1).yx
    )
    assert not torch.equal(fresh.get(0, 0).yx, fresh.get(0, 2).yx)


@pytest.mark.parametrize("encoder", ["silhouette", "picture"])
def test_what_does_not_fit_is_done_in_parts_with_the_same_result(
    folder, album, shic, small_template, monkeypatch, encoder
):
    """A stand-in for a GPU that holds 2 pictures: gradients add up to those of the whole batch, but for what
    batch norm sees.
    """
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    grads, values, said = [], [], []
    monkeypatch.setattr(devices.log, "warning", lambda fact, *values: said.append(fact % values))
    for most in (100, 2):
        trainer = make_trainer(
            small_template,
            [folder / "pgt.h5", album / "truth.h5"],
            config(encoder=encoder, batch=7, natural=1.0, precision="float32"),
        )
        torch.nn.init.normal_(trainer.map.C, generator=torch.Generator().manual_seed(0))
        for layer in trainer.map.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                monkeypatch.setattr(layer, "forward", lambda features: features)
        real = trainer._losses

        def losses(batch, most=most, real=real):
            if len(batch.yx) > most:
                raise torch.OutOfMemoryError("too many")
            return real(batch)

        monkeypatch.setattr(trainer, "_losses", losses)
        values.append(step(trainer, [0, 1, 2, 6, 8, 9, 11]))
        grads.append([parameter.grad for parameter in trainer.map.parameters() if parameter.grad is not None])
    assert values[1] == pytest.approx(values[0], rel=1e-5)
    assert {"pseudo", "cycle", "equivariance", "synthetic"} < set(values[0])
    for one, two in zip(*grads, strict=True):
        # Other batch sizes round otherwise, and ReLU makes more of it at single weights.
        assert (two - one).norm() < 0.01 * one.norm(), (two - one).norm() / one.norm()
    assert len(grads[0]) > 5 and said == [
        "out of memory: training goes on without what was kept for later",
        "out of memory: training goes on with 3 at a time in place of 7",
        "out of memory: training goes on with 1 at a time in place of 3",
    ]


def test_the_encoder_gets_fewer_pictures_when_memory_runs_out(album, small_template, monkeypatch):
    readers = open_maps([album / "truth.h5"], small_template, config())
    shared = {**KEPT, "vertices": len(small_template.verts)}

    said = []
    monkeypatch.setattr(devices.log, "warning", lambda fact, *values: said.append(fact % values))

    class Small(Patches):
        def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
            if len(images) > 2:
                raise torch.OutOfMemoryError("too many")
            return super().__call__(images, masks)

    small, large = (
        Examples(readers, part(), together=6, **shared).get_all(range(6), 0) for part in (Small, Patches)
    )
    assert all(
        torch.equal(one.features, two.features) and torch.equal(one.yx, two.yx)
        for one, two in zip(small, large, strict=True)
    )
    assert len(small) == 6 and said[1:] == [
        "out of memory: the encoder goes on with 1 at a time in place of 3"
    ]


def test_kept_examples_go_before_a_step_is_made_smaller(small_template, album, monkeypatch):
    """The memory of what was kept is given back first; then as much again is enough, and half of it
    is kept.
    """
    trainer, said = make_trainer(small_template, [album / "truth.h5"], config(rough="off")), []
    monkeypatch.setattr(devices.log, "warning", lambda fact, *values: said.append(fact % values))
    examples, real = trainer.examples, trainer._losses
    examples.get_all(range(6), 0)
    before = examples.memory
    assert examples.kept and examples.room < before

    def losses(batch):
        if examples.kept:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        return real(batch)

    monkeypatch.setattr(trainer, "_losses", losses)
    found = examples.get_all([0, 1, 2], 0)
    trainer._step([0, 1, 2], found, torch.Generator().manual_seed(0))
    assert said == ["out of memory: training goes on without what was kept for later"]
    assert trainer.fitting.size == 4 and not examples.kept and examples.room == examples.memory == before // 2
    examples.get_all([0, 1], 0)
    assert len(examples.kept) == 2


def test_one_alone_that_does_not_fit_is_an_error(small_template, album, monkeypatch):
    trainer = make_trainer(small_template, [album / "truth.h5"], config())

    def full(batch):
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(trainer, "_losses", full)
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        step(trainer, [0, 1, 2])


def test_the_log_goes_on_where_a_run_was_stopped(folder, album, shic, monkeypatch):
    """The rows of finished epochs are kept, and each epoch has one row."""
    words = ("train", str(album / "truth.h5"), *SHORT, "--encoder", "silhouette", "--epochs", "3")
    save, seen = Trainer.save_checkpoint, []

    def stop(trainer: Trainer, path: Path) -> None:
        save(trainer, path)
        seen.append(trainer.epoch)
        if trainer.epoch == 2:
            raise ShicError("stopped", "")

    monkeypatch.setattr(Trainer, "save_checkpoint", stop)
    assert shic(*words)[0] == 1 and seen == [1, 2]
    first = (folder / "model.log.csv").read_text().splitlines()
    monkeypatch.setattr(Trainer, "save_checkpoint", save)
    assert shic(*words)[0] == 0
    rows = (folder / "model.log.csv").read_text().splitlines()
    assert rows[:3] == first[:3] and [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]
    assert shic(*words, "--overwrite")[0] == 0
    assert len((folder / "model.log.csv").read_text().splitlines()) == 4


def test_tensorboard_gets_the_losses_where_it_is_installed(folder, album, shic):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    words = ("train", str(album / "truth.h5"), *SHORT, "--encoder", "silhouette")
    assert shic(*words)[0] == 0
    read = loader.EventAccumulator(str(folder / "model.tensorboard"))
    read.Reload()
    assert [event.step for event in read.Scalars("loss/synthetic")] == [1, 2]
