"""Writes synthetic pictures as a maps file: which ones, checked by a masker, resumable."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shic_cli.base.errors import Failures, InputError, PictureError, SettingError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import SynthConfig
from shic_cli.files.items import ItemWriter
from shic_cli.files.layouts import Template
from shic_cli.files.photos import encode
from shic_cli.files.shards import WHOLE, Part
from shic_cli.parts.maskers.make import make_masker

if TYPE_CHECKING:
    from shic_cli.stages.synth_frames import Picture

log = logging.getLogger("shic")

GIVE_UP = 5  # pictures; if so many fail one after the other, the next ones would fail too


def picture_name(i: int) -> str:
    """The name of picture `i` in the maps file."""
    return f"synth_{i:05d}.jpg"


@dataclass(frozen=True)
class Target:
    """The maps file to write: its path, the template of its labels, and what it records."""

    path: Path
    template: Template
    params: dict[str, Any]
    sources: dict[str, Any]
    overwrite: bool


@dataclass(frozen=True)
class Labelled:
    """What is written of a picture `rgb` `(S, S, 3)` uint8: `encoded`, its `mask` and `vertex` `(S, S)`."""

    rgb: np.ndarray
    encoded: bytes
    mask: np.ndarray
    vertex: np.ndarray

    @classmethod
    def attempt(cls, make: Callable[[int], Picture], number: int) -> Labelled | PictureError:
        """The picture that `make` gives for `number`, or the error that it raises."""
        try:
            picture = make(number)
        except PictureError as error:
            return error
        return cls(picture.rgb, encode(picture.rgb, ".jpg"), picture.mask, picture.vertex)


@dataclass(frozen=True)
class Check:
    """A check that a picture shows its object where it was rendered.

    The IoU of the rendered object and the one that the masker `find` sees must be at least `least`.
    """

    least: float
    masker: str
    find: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def of(cls, config: SynthConfig, masker: str, device: torch.device, weights: Path | None) -> Check | None:
        """The check that `config` asks for, with the masker of that name; None if it asks for none."""
        if not config.check:
            return None
        find = make_masker(masker, device, weights, config.class_name)
        if find is None:
            raise SettingError("--check needs a masker", "give one with --masker")
        return cls(config.check, find.name, find)

    def overlap(self, picture: Labelled) -> float:
        """The IoU of the rendered object and the one that the masker finds; 0 if it finds none."""
        try:
            mask = self.find(picture.rgb)
        except InputError:
            return 0.0
        return float((mask & picture.mask).sum() / max((mask | picture.mask).sum(), 1))


def collect(
    target: Target,
    numbers: list[int],
    make: Callable[[Sequence[int]], Iterable[Labelled | PictureError]],
    check: Check | None = None,
    *,
    missing: Sequence[str] = (),
    track: Track = plain_track,
    part: Part = WHOLE,
) -> None:
    """Write the pictures that `make` gives for `numbers` to the maps file `target`, or a `part` of them.

    `make` gets the numbers that are left, and gives a picture or an error for each of them, in their order.

    An unfinished run continues. Pictures that don't pass the `check` are dropped and counted; their names are
    kept beside the target until it is finished, so that they are not made again. PartialError (status 4) if
    `make` failed for some, or if some were `missing` from the start.
    """
    params = {**target.params, "masker": check.masker} if check else target.params
    attrs, failures, run = {"labels": "synthetic", "template": target.template.fingerprint}, Failures(), 0
    failures.names += missing
    settings: dict[str, Any] = {
        "params": params,
        "sources": target.sources,
        "attrs": attrs,
        "overwrite": target.overwrite,
    }
    with ItemWriter(target.path, "shic/maps", **settings, part=part) as out:
        share = part.of(sorted(numbers, key=picture_name))  # a share is a run of names
        left = [i for i in share if picture_name(i) not in out]
        for i, picture in zip(left, track(make(left), len(left), "synth"), strict=True):
            if isinstance(picture, PictureError):
                fault = PictureError(f"{picture_name(i)}: {picture.message}", picture.hint)
                failures.note(picture_name(i), fault)
                run += 1
                if run == GIVE_UP:
                    raise fault from picture
                continue
            run = 0
            if check and check.overlap(picture) < check.least:
                out.drop(picture_name(i))
            else:
                _add(out, picture_name(i), picture)
        if part.is_whole and not len(out) and failures.first:
            raise failures.first
        if part.is_whole and check and not len(out):
            raise InputError(
                f"all {len(out.dropped)} pictures were dropped by --check {check.least:g}",
                "give a smaller --check, or another --masker",
            )
        if check and not out.finished:
            out.header["params"]["dropped"] = len(out.dropped)
            fact = "%d of %d pictures dropped: their object is not where it was rendered (--check %g)"
            log.info(fact, len(out.dropped), len(share), check.least)
    out.end(failures, len(numbers) + len(missing))


def _add(out: ItemWriter, name: str, picture: Labelled) -> None:
    """Add one picture with its labels to the file."""
    encoded, score = np.frombuffer(picture.encoded, np.uint8), (picture.vertex >= 0).astype(np.float16)
    out.add(name, encoded=encoded, mask=picture.mask, vertex=picture.vertex, score=score)
