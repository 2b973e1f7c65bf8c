"""The second round of `shic train`: bodies fitted to the photos are labels."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from beast import beast as beast

from shic_cli.base.errors import InputError, SettingError, ShicError
from shic_cli.base.settings import SynthConfig
from shic_cli.base.training_settings import TrainConfig
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import Template
from shic_cli.learning import trainer as trainer_module
from shic_cli.learning.examples import Examples
from shic_cli.learning.trainer import Trainer
from shic_cli.stages import second_round
from shic_cli.stages.photo_bodies import read_bodies
from shic_cli.stages.synth import synthesize
from shic_cli.stages.train import train
from shic_cli.surface import body_fit

CONFIG = TrainConfig(encoder="picture", epochs=3, batch=4, points=50, start="none", fits=3)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_fit, "STEPS", 16)
    monkeypatch.setattr(second_round, "OVERLAP", 0.0)


@pytest.fixture(scope="module")
def maps(beast: Template, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four photos with labels of `pseudo-gt`, and four synthetic pictures."""
    folder = tmp_path_factory.mktemp("maps")
    pictures = folder / "synth.h5"
    synthesize(beast, pictures, SynthConfig(number=4, size=96), torch.device("cpu"), seed=3, sources={})
    attrs = {"labels": "pseudo", "template": beast.fingerprint}
    with ItemWriter(folder / "pgt.h5", "shic/maps", params={}, sources={}, attrs=attrs) as writer:
        for item in ItemReader(pictures, "shic/maps"):
            writer.add(item.name, **item.arrays)
    return [folder / "pgt.h5", pictures]


def run(template: Template, maps: list[Path], path: Path, config: TrainConfig = CONFIG) -> None:
    train(template, maps, path, config, torch.device("cpu"), sources={}, overwrite=True)


def test_the_last_epochs_see_photos_with_their_bodies_labels(
    beast: Template, maps: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three epochs see the synthetic pictures alone. A fourth one also sees pictures posed like the photos'
    bodies, as many as POSED says, and copies of the photos, as many as SHARE says. The photos' labels are
    those of bodies. The maps that these were fitted to are gone at the end, as are the posed pictures.
    """
    seen, own = [], Trainer.run_epoch

    def noted(trainer: Trainer, *given: object) -> dict[str, float]:
        seen.append([reader.header.attrs["labels"] for reader, _ in trainer.examples.entries])
        return own(trainer, *given)

    monkeypatch.setattr(Trainer, "run_epoch", noted)
    monkeypatch.setattr(second_round, "SHARE", 0.6)
    run(beast, maps, tmp_path / "model.safetensors")
    assert seen == [["synthetic"] * 4] * 3 + [["synthetic"] * 6 + ["fitted"] * 9]
    fits = ItemReader(tmp_path / "model.fits.h5", "shic/maps")
    assert len(fits) == 3 and fits.header.attrs["labels"] == "fitted"
    assert not list(tmp_path.glob(".*.h5*"))


def test_new_pictures_are_posed_like_the_bodies(
    beast: Template, maps: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are painted as the first ones were, with another seed, and all of them are like photos."""
    own = second_round.synthesize

    def noted(*given: Any, **words: Any) -> None:
        own(*given, **words)
        shutil.copy(given[1], tmp_path / "posed.h5")

    monkeypatch.setattr(second_round, "synthesize", noted)
    run(beast, maps, tmp_path / "model.safetensors")
    params = ItemReader(tmp_path / "posed.h5", "shic/maps").header.params
    first = ItemReader(maps[1], "shic/maps").header.params
    other = {name for name in params if params[name] != first[name]}
    assert other == {"number", "photo_poses", "seed"} and (params["number"], params["seed"]) == (2, 4)
    bodies = read_bodies(tmp_path / "model.fits.h5", beast)
    assert bodies.shape == (3, *beast.verts.shape)


@pytest.mark.parametrize("left", ["nothing", "poses 0", "a folder that is gone", "a value that can't be"])
def test_pictures_that_cannot_be_made_again_leave_the_photos(
    left: str, beast: Template, maps: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where `shic synth` did not make the pictures, or they are at rest, or its backgrounds are gone."""
    reader = ItemReader(maps[1], "shic/maps")
    params = dict(reader.header.params)
    changed = {
        "nothing": {}, "poses 0": params | {"poses": 0.0}, "a value that can't be": params | {"size": 0},
        "a folder that is gone": params | {"backgrounds": str(tmp_path / "gone")},
    }[left]  # fmt: skip
    attrs = reader.header.attrs
    with ItemWriter(tmp_path / "s.h5", "shic/maps", params=changed, sources={}, attrs=attrs) as writer:
        for item in reader:
            writer.add(item.name, **item.arrays)
    run(beast, [maps[0], tmp_path / "s.h5"], tmp_path / "model.safetensors")
    assert len(ItemReader(tmp_path / "model.fits.h5", "shic/maps")) == 3
    assert ("no pictures are posed" in caplog.text) == (left == "a folder that is gone")


def test_a_run_that_ends_in_the_second_round_goes_on(
    beast: Template, maps: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No body is fitted and no picture is painted again, and the model is the same to the byte."""
    run(beast, maps, tmp_path / "whole.safetensors")
    own, target = Examples.add, tmp_path / "whole.again.safetensors"
    (tmp_path / "cut").mkdir()
    target = tmp_path / "cut" / "whole.safetensors"

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Examples, "add", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(beast, maps, target)
    monkeypatch.setattr(Examples, "add", own)
    for again in ("fit", "synthesize"):
        monkeypatch.setattr(second_round, again, stopped)
    run(beast, maps, target)
    assert target.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_other_settings_fit_again(
    beast: Template, maps: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged file is made again, and bodies of another run of the same name are replaced."""
    run(beast, maps, tmp_path / "model.safetensors")
    before = (tmp_path / "model.fits.h5").read_bytes()
    (tmp_path / "model.fits.h5").write_bytes(before[: len(before) // 2])
    run(beast, maps, tmp_path / "model.safetensors")
    assert (tmp_path / "model.fits.h5").read_bytes() == before
    train(
        beast,
        maps,
        tmp_path / "model.safetensors",
        CONFIG,
        torch.device("cpu"),
        seed=1,
        sources={},
        overwrite=True,
    )
    assert (tmp_path / "model.fits.h5").read_bytes() != before


def test_photos_that_no_body_fits_are_left_out(
    beast: Template, maps: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """With none left, training goes on with the synthetic pictures."""
    monkeypatch.setattr(second_round, "OVERLAP", 1.0)
    with caplog.at_level(logging.INFO, "shic"):
        run(beast, maps, tmp_path / "model.safetensors")
    assert "goes on without photos: no body fits any of its 3" in caplog.text
    assert "it is left out" in caplog.text
    assert (tmp_path / "model.safetensors").exists()


def test_photos_that_cannot_be_read_do_not_end_the_training(
    beast: Template, maps: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A photo with broken data is named; with nothing but such photos there is no second round."""
    attrs = {"labels": "pseudo", "template": beast.fingerprint}
    with ItemWriter(tmp_path / "pgt.h5", "shic/maps", params={}, sources={}, attrs=attrs) as writer:
        for item in ItemReader(maps[0], "shic/maps"):
            writer.add(item.name, **{**item.arrays, "encoded": np.zeros(9, np.uint8)})
    run(beast, [tmp_path / "pgt.h5", maps[1]], tmp_path / "model.safetensors")
    assert "goes on without photos: all 3 inputs failed" in caplog.text
    assert (tmp_path / "model.safetensors").exists()


def test_a_photo_with_an_empty_mask_is_left_out(
    beast: Template, maps: list[Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    attrs, empty = {"labels": "pseudo", "template": beast.fingerprint}, True
    with ItemWriter(tmp_path / "pgt.h5", "shic/maps", params={}, sources={}, attrs=attrs) as writer:
        for item in ItemReader(maps[0], "shic/maps"):
            writer.add(item.name, **{**item.arrays, "mask": item.mask & (not empty)})
            empty = False
    settings = TrainConfig(**{**CONFIG.params(), "fits": 9})
    run(beast, [tmp_path / "pgt.h5", maps[1]], tmp_path / "model.safetensors", settings)
    assert "its mask is empty" in caplog.text
    assert (
        len(ItemReader(tmp_path / "model.fits.h5", "shic/maps")) == len(ItemReader(maps[0], "shic/maps")) - 1
    )


def test_photos_of_one_name_in_two_files_are_two(beast: Template, maps: list[Path], tmp_path: Path) -> None:
    shutil.copy(maps[0], tmp_path / "more.h5")
    settings = TrainConfig(**{**CONFIG.params(), "fits": 99})
    run(beast, [maps[0], tmp_path / "more.h5", maps[1]], tmp_path / "model.safetensors", settings)
    names = ItemReader(tmp_path / "model.fits.h5", "shic/maps").names
    assert len(names) == 8 and {name.split("/")[0] for name in names} == {"pgt", "more"}


def test_no_file_of_the_users_is_replaced(beast: Template, maps: list[Path], tmp_path: Path) -> None:
    """It is said before the first epoch. Fits of an earlier training are replaced."""
    own = tmp_path / "model.fits.h5"
    shutil.copy(maps[0], own)
    given = (beast, [own, maps[1]], tmp_path / "model.safetensors", CONFIG, torch.device("cpu"))
    with pytest.raises(InputError, match="is a file to learn from"):
        train(*given, sources={}, overwrite=True)
    with pytest.raises(ShicError, match=r"model.fits.h5: is there already and is kept"):
        train(beast, maps, *given[2:], sources={})
    assert own.read_bytes() == maps[0].read_bytes()
    assert not list(tmp_path.glob("*.checkpoint"))
    run(beast, maps, tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    before = own.read_bytes()
    train(beast, maps, *given[2:], seed=1, sources={})
    assert own.read_bytes() != before


def test_fits_that_are_lost_in_a_later_epoch_are_not_made_by_another_map(
    beast: Template, maps: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setattr(trainer_module, "SECOND", 0.7)  # two epochs
    target, own = tmp_path / "model.safetensors", Trainer.run_epoch

    def stopped(trainer: Trainer, *given: object) -> dict[str, float]:
        if trainer.epoch == 4:
            raise KeyboardInterrupt
        return own(trainer, *given)

    monkeypatch.setattr(Trainer, "run_epoch", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(beast, maps, target)
    monkeypatch.setattr(Trainer, "run_epoch", own)
    (tmp_path / "model.fits.h5").unlink()
    train(beast, maps, target, CONFIG, torch.device("cpu"), sources={})
    assert "goes on without photos" in caplog.text and not (tmp_path / "model.fits.h5").exists()


def test_no_fits_without_photos_or_by_wish(beast: Template, maps: list[Path], tmp_path: Path) -> None:
    """Synthetic pictures alone, or --fits 0, make one round. Fits without photos are refused."""
    for given, fits in ((maps[1:], -1), (maps, 0)):
        run(beast, given, tmp_path / "model.safetensors", TrainConfig(**{**CONFIG.params(), "fits": fits}))
    assert not (tmp_path / "model.fits.h5").exists()
    with pytest.raises(SettingError, match="--fits 3: there are no photos"):
        run(beast, maps[1:], tmp_path / "model.safetensors")


def test_the_second_round_begins_with_half_of_the_step_size(beast: Template, maps: list[Path]) -> None:
    """The cosine falls to zero over the first round, and again over the second."""
    config = TrainConfig(**{**CONFIG.params(), "epochs": 20, "rate": 1.0})
    readers = [ItemReader(path, "shic/maps") for path in maps]
    trainer = Trainer.make(beast, readers, config, torch.device("cpu"), 0)
    assert trainer.total == 25
    found = [trainer.rate(epoch) for epoch in (0, 10, 19.999, 20, 22.5, 25)]
    assert found == pytest.approx([1, 0.5, 0, 0.5, 0.25, 0], abs=1e-4)
