"""Train the canonical map with the five losses of sec. 3.6.

The data are photos with pseudo-labels and synthetic pictures.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

from shic_cli.base.errors import InputError, SettingError, counted
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.ranks import connect, gather
from shic_cli.base.training_settings import TrainConfig
from shic_cli.files.atomic import Journal, check_target
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.files.shards import Part
from shic_cli.learning.model_file import write_model
from shic_cli.learning.start import start_source
from shic_cli.learning.trainer import NATURAL, Trainer
from shic_cli.stages.second_round import SecondRound
from shic_cli.stages.train_log import TrainLog

T = TypeVar("T")
log = logging.getLogger("shic")


def open_maps(paths: list[Path], template: Template, config: TrainConfig) -> list[ItemReader]:
    """Return readers of the maps files that `config` uses.

    InputError if a file is for another template, or if no file with pictures is left.
    """
    readers = []
    for path in paths:
        reader = ItemReader(path, "shic/maps")
        if reader.header.attrs["template"] not in ("", template.fingerprint):
            raise InputError(
                f"{path}: its labels are for another template", "make it again with this template"
            )
        if "shard" in reader.header.params:
            log.warning(
                "%s: is a part, with a share of the pictures alone; `shic join` makes the whole of all parts",
                path,
            )
        synthetic = reader.header.attrs["labels"] == "synthetic"
        if config.synthetic_images if synthetic else config.natural_images:
            readers.append(reader)
    if not any(map(len, readers)):
        raise InputError(
            "there are no pictures to train on", "give maps files made by `shic pseudo-gt` or `shic synth`"
        )
    return readers


def train(
    template: Template,
    maps: list[Path],
    path: Path,
    config: TrainConfig,
    device: torch.device,
    *,
    seed: int = 0,
    sources: dict[str, Any],
    weights: Path | None = None,
    overwrite: bool = False,
    last: Callable[[list[dict[str, float]]], None] | None = None,
    track: Track = plain_track,
) -> list[dict[str, float]]:
    """Train on maps files, write the model, and return the losses of every epoch by name.

    `last` is called with these losses before the model is put in place. A checkpoint beside the target is
    kept after every epoch. A run with the same settings and sources resumes training from it.
    """
    readers = open_maps(maps, template, config)
    check_target(path, overwrite)
    connect(Part.of_rank().count)
    trainer = Trainer.make(template, readers, config, device, seed, weights)
    if not any(trainer.weight(name) for name in (*NATURAL, "synthetic")):
        raise SettingError("every loss has weight 0", "give one of them a weight")
    trainer.check_team()
    sources = sources | start_source(trainer.config.start)
    run = {
        "params": trainer.config.params(),
        "encoder": trainer.examples.encoder.fingerprint,
        "seed": seed,
        "sources": sources,
    }
    second = _second_round(trainer, readers, path, run, weights, track)
    if second is not None:
        second.check(readers, overwrite)
    if trainer.team.is_first:
        _train_first(trainer, Journal(path, run, replace=overwrite), sources, second, last, track)
    else:
        _train_along(trainer, second)
    return trainer.history


def _second_round(
    trainer: Trainer,
    readers: list[ItemReader],
    path: Path,
    run: dict[str, Any],
    weights: Path | None,
    track: Track,
) -> SecondRound | None:
    """The second round of a training, or None if there is none."""
    photos = [reader for reader in readers if reader.header.attrs["labels"] == "pseudo"]
    if not trainer.config.fits:
        return None
    if not photos:
        fact = f"--fits {trainer.config.fits}: there are no photos of `shic pseudo-gt` among the maps"
        raise SettingError(fact, "name pgt.h5 too, or give --fits 0")
    return SecondRound(photos, path, run, weights, track)


def _train_first(
    trainer: Trainer,
    journal: Journal,
    sources: dict[str, Any],
    second: SecondRound | None,
    last: Callable[[list[dict[str, float]]], None] | None,
    track: Track,
) -> None:
    """Train to the end as the only rank or the first rank.

    This rank writes the checkpoints and the model.
    """
    done = False
    try:
        checkpoint = journal.checkpoint if journal.checkpoint.exists() else None
        gather(checkpoint)
        if checkpoint:
            trainer.load_checkpoint(checkpoint)
            log.info("going on after epoch %d of %d", trainer.epoch, trainer.total)
        gather(None)  # wait until the other ranks have read it, before it is replaced
        with TrainLog(journal.target, trainer.epoch) as rows:
            for means in _epochs(trainer, second, track):
                rows.add(trainer.epoch, trainer.rate(trainer.epoch), means)
                said = " ".join(f"{name} {value:.4f}" for name, value in means.items())
                log.debug("epoch %d: %s", trainer.epoch, said)
                trainer.save_checkpoint(journal.checkpoint)
        if last is not None:
            last(trainer.history)
        with journal.finishing() as partial:
            write_model(partial, trainer.saved(sources))
        if second is not None:
            second.end()
        done = True
    finally:
        journal.close(remove=done)


def _train_along(trainer: Trainer, second: SecondRound | None) -> None:
    """Train to the end as any rank except the first."""
    if checkpoint := gather(None)[0]:
        trainer.load_checkpoint(checkpoint)
    gather(None)
    for _ in _epochs(trainer, second, plain_track):
        pass


def _epochs(trainer: Trainer, second: SecondRound | None, track: Track) -> Iterator[dict[str, float]]:
    """Train until the last epoch and yield the mean losses of each epoch."""
    total, first = trainer.total, trainer.config.epochs
    steps = math.ceil(len(trainer.examples) / trainer.config.batch)
    later = steps if second is None else math.ceil(steps * second.growth)
    plan = counted(len(trainer.examples), "pictures"), counted(steps, "steps"), counted(total, "epochs")
    log.info("training on %s, %s an epoch, %s", *plan)
    done = steps * min(trainer.epoch, first) + later * max(trainer.epoch - first, 0)

    def along(
        items: Iterable[T], _: int, description: str, status: Callable[[], str] | None = None, start: int = 0
    ) -> Iterable[T]:
        """Track the steps of one epoch as a part of all steps, so that the time left is that of all."""
        left = steps * max(first - trainer.epoch, 0) + later * (total - max(trainer.epoch, first))
        return track(items, done + left, description, status, done)

    while trainer.epoch < total:
        if second is not None and trainer.epoch >= first:
            second.begin(trainer)
            second, later = None, math.ceil(len(trainer.examples) / trainer.config.batch)
        yield trainer.run_epoch(along)
        done += steps if trainer.epoch <= first else later
