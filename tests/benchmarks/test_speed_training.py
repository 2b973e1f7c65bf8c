"""A training step's share beside encoder and decoder, what is cached, and a folder's prediction against the
encoder's own rate.

On a CPU in batches of 4; on a GPU of 64.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from timing import Timer

from shic_cli.base.devices import ahead
from shic_cli.base.devices import chance as chance_of
from shic_cli.base.settings import PredictConfig
from shic_cli.base.training_settings import TrainConfig
from shic_cli.files.layouts import Surface, Template
from shic_cli.files.mask_sources import MaskSource, Photo
from shic_cli.files.photo_lists import list_images
from shic_cli.learning import trainer
from shic_cli.learning.batches import collate
from shic_cli.learning.canonical_map import CanonicalMap
from shic_cli.learning.model_file import Saved, save_model
from shic_cli.learning.trainer import Trainer
from shic_cli.parts.extractors.make import make_extractor
from shic_cli.stages.predict import Predictor, predict
from shic_cli.stages.prediction_pictures import Pictures
from shic_cli.stages.train import open_maps

BATCH = {"cpu": 4, "cuda": 64}


def make_trainer(
    template: Template, pictures: Path, encoder: str, device: torch.device, **settings: Any
) -> Trainer:
    config = TrainConfig(**{"encoder": encoder, "batch": BATCH[device.type], **settings})
    return Trainer.make(template, open_maps([pictures / "truth.h5"], template, config), config, device, 0)


def seconds(device: torch.device, call: Any, *given: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    found = call(*given)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


@pytest.mark.parametrize("encoder", ["small", "unet"])
def test_loader_augmentation_and_losses(
    template: Template, pictures: Path, small_dinov2: str, device: torch.device, encoder: str, timer: Timer
) -> None:
    """Their share of a step in which every picture is new, and of one in which every picture is kept."""
    name = small_dinov2 if encoder == "small" else "picture"
    trainer, chance, shares = (
        make_trainer(template, pictures, name, device),
        torch.Generator().manual_seed(0),
        {"new": [], "kept": []},
    )
    size = min(BATCH[device.type], len(trainer.examples))
    count = len(trainer.examples) // size

    def step(turn: int) -> None:
        start = turn % count * size
        numbers = list(range(start, start + size))
        trainer.examples.kept.clear()
        loading, found = seconds(device, trainer.examples.get_all, numbers, 0)
        learning, _ = seconds(device, trainer._step, numbers, found, chance)
        cut = [trainer.examples._crop(number, chance_of(0, "augment", number, 0)) for number in numbers]
        together = trainer.examples.fitting.size
        groups = [[each[:3] for each in cut[i : i + together]] for i in range(0, len(cut), together)]
        encoding, _ = seconds(device, lambda: [trainer.examples._encode(group) for group in groups])
        batch = collate(
            found,
            trainer.examples.draw(len(found), chance),
            trainer.examples.at_points,
            trainer.examples.encoder.side,
            device,
        )
        decoding, _ = seconds(device, lambda: trainer.map.embed(batch.features)[0].mean().backward())
        if turn:  # the first one warms up
            shares["new"].append(1 - (encoding * (encoder == "small") + decoding) / (loading + learning))
            shares["kept"].append(1 - decoding / learning)

    for turn in range(7 if timer.full else 2):
        step(turn)
    frozen = "of encoder and decoder" if encoder == "small" else "of the decoder"
    timer.tell(
        f"beside those {frozen}, new pictures",
        f"{100 * statistics.median(shares['new']):.0f} % of a step",
        "20 %",
    )
    timer.tell(
        f"beside those {frozen}, kept pictures",
        f"{100 * statistics.median(shares['kept']):.0f} % of a step",
        "-",
    )


def test_encoder_outputs_are_kept_when_augmentation_is_off(
    template: Template, pictures: Path, small_dinov2: str, device: torch.device, timer: Timer
) -> None:
    trainer = make_trainer(template, pictures, small_dinov2, device, augment="off")
    real, calls = trainer.examples.encoder, []

    class Counted:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
            calls.append(len(images))
            return real(images, masks)

    trainer.examples.encoder = Counted()
    numbers = range(min(16, len(trainer.examples)))
    first, _ = seconds(device, trainer.examples.get_all, numbers, 0)
    assert sum(calls) == len(numbers)
    later = timer.once(lambda: trainer.examples.get_all(numbers, 1), rounds=5)
    assert sum(calls) == len(numbers)
    timer.tell(
        f"{len(numbers)} pictures",
        f"{1e3 * first:.0f} ms in the first epoch, {1e3 * later:.2f} ms later",
        "cached",
    )


def test_the_next_batch_is_made_meanwhile(
    template: Template, pictures: Path, device: torch.device, timer: Timer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An epoch of new pictures with the loader in a thread of its own against one with the loader in line,
    and the same losses.
    """
    both = {name: make_trainer(template, pictures, "picture", device) for name in ("ahead", "in line")}
    real = ahead

    def epoch(name: str) -> None:
        monkeypatch.setattr(
            trainer, "ahead", real if name == "ahead" else lambda calls: (call() for call in calls)
        )
        both[name].examples.kept.clear()
        both[name].run_epoch()

    ratio = timer.against(lambda: epoch("ahead"), lambda: epoch("in line"), rounds=4)
    for one, other in zip(*(each.history for each in both.values()), strict=True):
        assert one == pytest.approx(other, rel=1e-2)  # a thread of its own may sum in another order
    timer.tell(f"an epoch, {torch.get_num_threads()} threads", f"{ratio:.2f} times faster than in line", "-")


def test_prediction_of_a_folder(
    template: Template, pictures: Path, small_dinov2: str, device: torch.device, tmp_path: Path, timer: Timer
) -> None:
    """Photos of 224 pixels with the convolutional decoder, maps and pictures written, against the encoder
    alone on as many.
    """
    encoder = make_extractor(small_dinov2, device)
    torch.manual_seed(0)
    found = CanonicalMap("convolutional", encoder.dim, 16, torch.from_numpy(template.eigenvectors)).eval()
    torch.nn.init.normal_(found.C)
    meta = {
        "encoder": {"name": small_dinov2},
        "encoder_fingerprint": encoder.fingerprint,
        "decoder": "convolutional",
    }
    meta |= {"channels": encoder.dim, "dim": 16, "template": template.fingerprint}
    save_model(tmp_path / "m.safetensors", Saved(found, Surface.of(template), meta), overwrite=True)
    predictor, images = Predictor(tmp_path / "m.safetensors", device), list_images([str(pictures / "imgs")])
    images = images[:12] if device.type == "cpu" else images
    target, together = tmp_path / "out.maps.h5", 1 if device.type == "cpu" else 32
    drawn = Pictures(target, predictor.surface, None, device, single=False)

    def folder() -> None:
        predict(predictor, images, MaskSource(), target, sources={}, overwrite=True, pictures=drawn)

    def alone() -> None:
        for start in range(0, len(images), together):
            count = min(together, len(images) - start)
            encoder(
                torch.zeros(count, 3, encoder.side, encoder.side),
                torch.ones(count, 1, encoder.side, encoder.side),
            )

    ratio = timer.against(folder, alone, rounds=3)
    timer.tell(
        f"{len(images)} photos, encoder {together} at a time", f"{100 * ratio:.0f} % of its rate", "50 %"
    )


def test_a_training_step_by_default(
    template: Template, pictures: Path, device: torch.device, timer: Timer
) -> None:
    """A step of the U-Net on kept pictures, as `shic train` has it."""
    made = make_trainer(template, pictures, "picture", device, batch=0)
    numbers = list(range(min(made.config.batch, len(made.examples))))
    chance, found = torch.Generator().manual_seed(0), made.examples.get_all(numbers, 0)
    taken = timer.clock(lambda: made._step(numbers, found, chance), rounds=21)
    timer.tell(f"{len(numbers)} pictures, {made.config.precision}", taken, "80 ms on two cores")


def test_prediction_by_default(
    template: Template, pictures: Path, device: torch.device, tmp_path: Path, full: bool, timer: Timer
) -> None:
    """A photo of 590 by 800 pixels by a U-Net model with `--flip` and `--estimate median`, the defaults of
    `shic predict`; its weights have seen a few pictures alone.
    """
    settings = {"batch": 0, "epochs": 2 if full else 1}
    made = make_trainer(template, pictures, "picture", device, **settings)
    for _ in range(made.config.epochs):
        made.run_epoch()
    save_model(tmp_path / "m.safetensors", made.saved({}), overwrite=True)
    predictor = Predictor(tmp_path / "m.safetensors", device)
    assert predictor.flip and predictor.median
    width, height = (800, 590) if full else (80, 59)
    rgb, mask = (cv2.imread(str(pictures / name), 1) for name in ("imgs/0.jpg", "masks/0.png"))
    photo = Photo("", b"", cv2.resize(rgb, (width, height)), cv2.resize(mask, (width, height))[..., 0] > 127)
    taken = timer.clock(lambda: predictor.predict(photo), rounds=5)
    timer.tell(f"{np.count_nonzero(photo.mask):,} pixels of {width} by {height}", taken, "0.5 s on two cores")
    every = Predictor(tmp_path / "m.safetensors", device, PredictConfig(compare="all"))
    ratio = timer.against(lambda: predictor.predict(photo), lambda: every.predict(photo))
    timer.tell("against --compare all", f"{ratio:.1f} times faster", "4 on a CPU")
