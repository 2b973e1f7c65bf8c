"""The second round of `shic train`: it learns from photos too, by the bodies that are fitted to them.

The map of the first round knows the template's own shape alone. The bodies that its predictions are fitted to
have one pose and one set of limbs, so that their labels are better than the predictions. New synthetic
pictures are posed like them: their labels are right even where a body took one leg for another.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from shic_cli import __version__
from shic_cli.base.devices import chance
from shic_cli.base.errors import Failures, InputError, SettingError, ShicError, TargetError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.ranks import gather
from shic_cli.base.result_settings import FitConfig
from shic_cli.base.settings import SynthConfig
from shic_cli.files.atomic import check_target
from shic_cli.files.items import Item, ItemReader, ItemWriter
from shic_cli.files.mask_sources import Photo
from shic_cli.files.photos import decode
from shic_cli.learning.trainer import Trainer
from shic_cli.stages.fit import fit
from shic_cli.stages.predict import Predictor
from shic_cli.stages.synth import is_small, synthesize

log = logging.getLogger("shic")

POSED = 0.5  # pictures posed like these bodies, as a share of the synthetic pictures of the first round
SHARE = 0.25  # share of the fitted photos among the pictures of the second round
COPIES = 80  # the most copies of a photo among them
OVERLAP = 0.6  # a body that overlaps its mask by less is not learned from


@dataclass(frozen=True)
class SecondRound:
    """The photos of the second round and its files: `run` says what the training is made by.

    The fitted maps stay beside the model `target`, as STEM.fits.h5. The pictures posed like them are there
    until the training ends.
    """

    photos: Sequence[ItemReader]
    target: Path
    run: dict[str, Any]
    weights: Path | None = None
    track: Track = plain_track

    @property
    def growth(self) -> float:
        """About how many times as many pictures as the first round it has."""
        return (1 + POSED) / (1 - SHARE)

    def check(self, readers: Sequence[ItemReader], overwrite: bool) -> None:
        """InputError if the file of the fitted maps is one of `readers`; ShicError if a file that no training
        made is in its place, unless it may be overwritten.
        """
        if any(Path(reader.path).resolve() == self.fits.resolve() for reader in readers):
            fact = f"{self.fits}: is a file to learn from, and the fitted maps would take its place"
            raise InputError(fact, "name another model with -o")
        if not self._is_made():
            check_target(self.fits, overwrite or self._is_of_training())

    def begin(self, trainer: Trainer) -> None:
        """Add photos and pictures posed like them to the trainer's examples, after the first round.

        The first rank makes them. A round that has begun without fits goes on without them: those of a later
        map would be others.
        """
        if trainer.team.is_first and not self._is_made():
            if trainer.epoch > trainer.config.epochs:
                log.warning("second round: it goes on without photos: %s is not as it was", self.fits)
            else:
                self._make(trainer)
        if trainer.team.is_first:
            self._maps.unlink(missing_ok=True)
            if self._is_made():
                self._paint(trainer)
        gather(None)  # wait until the files are there
        if self._is_made():
            if self._posed.exists():
                trainer.examples.add(ItemReader(self._posed, "shic/maps"), 1)
            reader = ItemReader(self.fits, "shic/maps")
            wanted = SHARE / (1 - SHARE) * len(trainer.examples) / len(reader)
            trainer.examples.add(reader, min(max(round(wanted), 1), COPIES))

    def end(self) -> None:
        """Remove the file that is needed until the training has ended."""
        self._posed.unlink(missing_ok=True)

    @property
    def fits(self) -> Path:
        """The maps file of the fitted photos."""
        return self.target.with_suffix(".fits.h5")

    @property
    def _maps(self) -> Path:
        """The maps that the bodies are fitted to, which are there for as long as that takes."""
        return self.target.with_name(f".{self.target.name}.photos.h5")

    @property
    def _posed(self) -> Path:
        """The synthetic pictures that are posed like the bodies in photos."""
        return self.target.with_name(f".{self.target.name}.posed.h5")

    @property
    def _source(self) -> dict[str, dict[str, str]]:
        made_by = json.dumps({**self.run, "shic_version": __version__}, sort_keys=True)
        digest = hashlib.sha256(made_by.encode()).hexdigest()
        return {"training": {"path": self.target.name, "sha256": digest}}

    def _is_made(self) -> bool:
        """Whether an earlier run with the same settings and sources fitted all photos."""
        return self._source.items() <= _sources(self.fits).items()

    def _is_of_training(self) -> bool:
        """Whether the file of the fitted maps is one of a training, which another may replace."""
        return "training" in _sources(self.fits)

    def _make(self, trainer: Trainer) -> None:
        """Predict the maps of the photos, and fit the template's body to each."""
        try:
            self._predict(trainer, self._maps)
            fit(
                ItemReader(self._maps, "shic/maps"), trainer.template, self.fits,
                FitConfig(pictures=False, least=OVERLAP, drop=True), seed=trainer.seed,
                sources=self._source, overwrite=True, track=self.track, workers=None,
            )  # fmt: skip
        except ShicError as error:
            if error.stops_all:
                raise
            said = error.message.removeprefix(f"{self._maps}: ")
            log.warning("second round: it goes on without photos: %s", said)
        if self._is_made():
            found = len(ItemReader(self.fits, "shic/maps"))
            log.info("second round: photos that a body fits: %d, in %s", found, self.fits)

    def _paint(self, trainer: Trainer) -> None:
        """Paint pictures that are posed like the bodies in the photos, as those of the first round were made.

        None are painted where those show the template at rest, or where their generator takes long, or where
        a stopped run has painted them.
        """
        if self._source.items() <= _sources(self._posed).items():
            return
        self._posed.unlink(missing_ok=True)
        first = [reader for reader, _ in trainer.examples.entries if is_synthetic(reader)]
        made = first[0].header.params if first else {}
        try:
            config = like(made, number=max(1, round(POSED * len(first))))
            if config is None or not (config.poses and is_small(config)):
                return
            log.info("second round: painting %d pictures posed like these bodies", config.number)
            synthesize(
                trainer.template, self._posed, config, torch.device("cpu"), made["seed"] + 1,
                sources=self._source, photos=self.fits, overwrite=True, track=self.track, workers=None,
            )  # fmt: skip
        except ShicError as error:
            if isinstance(error, TargetError):
                raise
            log.warning("second round: no pictures are posed like these bodies: %s", error.message)

    def _predict(self, trainer: Trainer, path: Path) -> None:
        """Write the maps of random photos, as many as the settings name."""
        known = copy.deepcopy(trainer.map).eval().requires_grad_(False)
        saved = replace(trainer.saved({}), map=known)
        trainer.map.to(trainer.device)
        predictor = Predictor(self.target, trainer.device, weights=self.weights, saved=saved)
        names = [(reader, name) for reader in self.photos for name in reader.names]
        seen = Counter(name for _, name in names)
        number = min(trainer.config.fits, len(names))
        chosen = sorted(chance(trainer.seed, "fits").choice(len(names), number, replace=False).tolist())
        attrs, failures = {"labels": "predicted", "template": trainer.template.fingerprint}, Failures()
        with ItemWriter(
            path, "shic/maps", params={}, sources=self._source, attrs=attrs, overwrite=True
        ) as writer:
            for reader, name in (names[place] for place in chosen):
                called = name if seen[name] == 1 else f"{reader.path.stem}/{name}"
                if called not in writer:
                    with failures.catch(called):
                        photo = _photo(reader[name])
                        writer.add(called, **photo.kept, **predictor.predict(photo)._asdict())
            failures.check(number)


def _photo(item: Item) -> Photo:
    """The photo of an image of a maps file; InputError if its mask is empty or of another size."""
    data = item.encoded.tobytes()
    rgb = decode(data, item.name)[0]
    if rgb.shape[:2] != item.mask.shape:
        raise InputError(f"{item.name}: its mask has another size than the photo", "make the maps file again")
    if not item.mask.any():
        raise InputError(f"{item.name}: its mask is empty", "make the maps file again without it")
    return Photo(item.name, data, rgb, item.mask, item.arrays.get("void"))


def _sources(path: Path) -> dict[str, Any]:
    """What a maps file was made from; nothing where there is none, or a damaged one."""
    try:
        return ItemReader(path, "shic/maps").header.sources if path.is_file() else {}
    except InputError:
        return {}


def is_synthetic(reader: ItemReader) -> bool:
    """Whether the pictures of a maps file are synthetic."""
    return reader.header.attrs["labels"] == "synthetic"


def like(made: dict[str, Any], number: int) -> SynthConfig | None:
    """The settings in the params `made` of a file of `shic synth`, for `number` pictures posed like photos.

    None if the params are not those of `shic synth`.
    """
    names = {field.name for field in fields(SynthConfig)} - {"only", "check"}
    if not {"generator", "poses", "seed"} <= made.keys():
        return None
    values = {name: made[name] for name in names & made.keys()}
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    try:
        return SynthConfig(**{**values, "number": number, "photo_poses": 1.0})
    except SettingError:
        return None
