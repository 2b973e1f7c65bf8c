"""The second round of `shic train`: it learns from photos too, by the bodies that are fitted to them.

The map of the first round knows the template's own shape alone. The bodies that its predictions are fitted to
have one pose and one set of limbs, so that their labels are better than the predictions.
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shic_cli.base.devices import chance
from shic_cli.base.errors import Failures, InputError, ShicError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.ranks import gather
from shic_cli.base.result_settings import FitConfig
from shic_cli.files.items import Item, ItemReader, ItemWriter
from shic_cli.files.mask_sources import Photo
from shic_cli.files.photos import decode
from shic_cli.learning.trainer import Trainer
from shic_cli.stages.fit import fit
from shic_cli.stages.predict import Predictor

log = logging.getLogger("shic")

SHARE = 0.25  # share of the fitted photos among the pictures of the second round
COPIES = 80  # the most copies of a photo among them
OVERLAP = 0.6  # a body that overlaps its mask by less is not learned from


@dataclass(frozen=True)
class SecondRound:
    """The photos of the second round and its files: `run` says what the training is made by.

    The fitted maps stay beside the model `target`, as STEM.fits.h5.
    """

    photos: Sequence[ItemReader]
    target: Path
    run: dict[str, Any]
    weights: Path | None = None
    track: Track = plain_track

    def begin(self, trainer: Trainer) -> None:
        """Add the photos to the trainer's examples, after the first round; the first rank fits them."""
        if trainer.team.is_first and not self._is_made():
            self._make(trainer)
        gather(None)  # wait until the file is there
        if self._is_made():
            reader = ItemReader(self.fits, "shic/maps")
            wanted = SHARE / (1 - SHARE) * len(trainer.examples) / len(reader)
            trainer.examples.add(reader, min(max(round(wanted), 1), COPIES))

    @property
    def fits(self) -> Path:
        """The maps file of the fitted photos."""
        return self.target.with_suffix(".fits.h5")

    @property
    def _source(self) -> dict[str, dict[str, str]]:
        digest = hashlib.sha256(json.dumps(self.run, sort_keys=True).encode()).hexdigest()
        return {"training": {"path": self.target.name, "sha256": digest}}

    def _is_made(self) -> bool:
        """Whether an earlier run with the same settings and sources fitted all photos."""
        if not self.fits.is_file():
            return False
        try:
            return self._source.items() <= ItemReader(self.fits, "shic/maps").header.sources.items()
        except InputError:  # a damaged file, which is made again
            return False

    def _make(self, trainer: Trainer) -> None:
        """Predict the maps of the photos, and fit the template's body to each."""
        maps = self.target.with_suffix(".photos.h5")
        try:
            self._predict(trainer, maps)
            fit(
                ItemReader(maps, "shic/maps"), trainer.template, self.fits,
                FitConfig(pictures=False, least=OVERLAP, drop=True), seed=trainer.seed,
                sources=self._source, overwrite=True, track=self.track, workers=None,
            )  # fmt: skip
        except ShicError as error:
            if error.stops_all:
                raise
            log.warning("second round: %s", error)
        maps.unlink(missing_ok=True)
        found = len(ItemReader(self.fits, "shic/maps")) if self._is_made() else 0
        where = f": {self.fits}" if found else ""
        log.info("second round: learning from %d photos, which a body fits%s", found, where)

    def _predict(self, trainer: Trainer, path: Path) -> None:
        """Write the maps of random photos, as many as the settings name."""
        known = copy.deepcopy(trainer.map).eval().requires_grad_(False)
        saved = replace(trainer.saved({}), map=known)
        trainer.map.to(trainer.device)
        predictor = Predictor(self.target, trainer.device, weights=self.weights, saved=saved)
        names = [(reader, name) for reader in self.photos for name in reader.names]
        number = min(trainer.config.fits, len(names))
        chosen = sorted(chance(trainer.seed, "fits").choice(len(names), number, replace=False).tolist())
        attrs, failures = {"labels": "predicted", "template": trainer.template.fingerprint}, Failures()
        with ItemWriter(
            path, "shic/maps", params={}, sources=self._source, attrs=attrs, overwrite=True
        ) as writer:
            for reader, name in (names[place] for place in chosen):
                if name not in writer:
                    with failures.catch(name):
                        photo = _photo(reader[name])
                        writer.add(name, **photo.kept, **predictor.predict(photo)._asdict())
            failures.check(number)


def _photo(item: Item) -> Photo:
    """The photo of an image of a maps file."""
    data = item.encoded.tobytes()
    return Photo(item.name, data, decode(data, item.name)[0], item.mask, item.arrays.get("void"))
