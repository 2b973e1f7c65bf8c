"""Synthetic pictures with exact labels (sec. 3.5): the template seen from somewhere, painted by a generator,
labelled by its projection.

Axes: K vertices, F faces, S by S pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shic_cli import __version__
from shic_cli.base.devices import chance
from shic_cli.base.errors import Failures, InputError, PictureError, SettingError, ShicError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import SynthConfig
from shic_cli.files import pictures
from shic_cli.files.atomic import Journal
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import Template
from shic_cli.files.photos import decode, encode, list_images, listing
from shic_cli.files.shards import WHOLE, Finished, Part
from shic_cli.parts import registry
from shic_cli.parts.maskers.make import make_masker
from shic_cli.stages.synth_frames import Framer, Picture
from shic_cli.surface.poses import Limb, Poser
from shic_cli.surface.viewpoints import photo_azimuths

log = logging.getLogger("shic")

GIVE_UP = 5  # pictures that fail one after the other: the next ones would too


class Synthesizer(Framer):
    """Makes pictures of a mesh, `verts` (K, 3) and `faces` (F, 3); a picture depends on the generator `rng`
    that it is asked with alone.
    """

    def __init__(
        self, verts: np.ndarray, faces: np.ndarray, config: SynthConfig, device: torch.device, weights: Path | None = None,
        limbs: Sequence[Limb] = (), azimuths: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        config = settled(config, device, weights)
        super().__init__(verts, faces, config, device, limbs, azimuths)
        self.generator = registry.make(
            "generators", config.generator, device=device, weights=weights, config=config
        )

    def make(self, rng: np.random.Generator, verts: np.ndarray | None = None) -> Picture:
        """One picture, from a viewpoint of the settings' ranges; `verts` (K, 3) is a pose of the mesh, in its
        vertex order.

        PictureError when the generator gives none.
        """
        frame = self.frame(rng, verts)
        side = self.generator.side(self.config.size)
        fragments = self.render(frame, side)
        return self.label(frame, self.generator(self.scene(frame, side, fragments), rng), fragments)


def settled(config: SynthConfig, device: torch.device, weights: Path | None = None) -> SynthConfig:
    """`config` with `auto` replaced: the generator that this machine can use, and the views and the erosion
    that it is made for.
    """
    auto = "" if config.class_name.strip() else "classless generators"
    name = registry.resolve("generators", config.generator, device, weights, auto)
    part = registry.find("generators", registry.Spec.parse(name).name)
    views = getattr(part, "views", "any") if config.views == "auto" else config.views
    erode = getattr(part, "erode", 0) if config.erode < 0 else config.erode
    return replace(config, generator=name, views=views, erode=erode)


def contact_sheet(path: Path, colors: np.ndarray, number: int = 12) -> np.ndarray:
    """The first pictures of a maps file, each beside its labels in the template's `colors` (K, 3), as one
    picture `(H, W, 3)` uint8.
    """
    items = [item for item, _ in zip(ItemReader(path, "shic/maps"), range(number), strict=False)]
    photos = [decode(item.encoded.tobytes(), item.name)[0] for item in items]
    labels = [
        pictures.color_map(photo, item.vertex, colors) for photo, item in zip(photos, items, strict=True)
    ]
    return pictures.contact_sheet(
        [image for pair in zip(photos, labels, strict=True) for image in pair], 6, side=192
    )


def picture_name(i: int) -> str:
    """What picture `i` is called in the maps file."""
    return f"synth_{i:05d}.jpg"


def synthesize(
    template: Template,
    path: Path,
    config: SynthConfig,
    device: torch.device,
    seed: int = 0,
    *,
    sources: dict[str, Any] | None = None,
    weights: Path | None = None,
    masker: str = "auto",
    photos: Path | None = None,
    overwrite: bool = False,
    track: Track = plain_track,
    part: Part = WHOLE,
) -> None:
    """Write `config.number` pictures, or `config.only`, or a `part` of them, to the maps file `path`, labels
    `synthetic`; an unfinished run goes on.

    Picture i depends on `seed` and i only, so any of them can be made again alone. Each shows a random pose
    of the template, unless `config.poses` is 0. With `config.check` those are dropped whose object is not
    where `masker` finds one. PartialError when a generator failed at some.
    """
    config = settled(config, device, weights)
    sources = dict(sources or {})
    if config.backgrounds:
        sources["backgrounds"] = listing(list_images([config.backgrounds]))
    check = Check.of(config, masker, device, weights)
    try:
        poser = Poser.of(template, config.poses, config.bodies)
        azimuths = None if photos is None else photo_azimuths(photos, template)
        maker = Synthesizer(template.verts, template.faces, config, device, weights, poser.limbs, azimuths)

        def make(i: int) -> Picture:
            rng = chance(seed, "synth", i)
            return maker.make(rng, poser(rng))

        target = Target(path, template, {**config.params(), "seed": seed}, sources, overwrite)
        collect(target, chosen(config), make, check, track=track, part=part)
    except torch.OutOfMemoryError as error:
        part = registry.find("generators", registry.Spec.parse(config.generator).name)
        hint = getattr(part, "saves_memory", "give --device cpu, or a smaller --size")
        raise ShicError(
            f"out of GPU memory in {config.generator}", hint + "; what is finished is kept"
        ) from error


def chosen(config: SynthConfig) -> list[int]:
    """The numbers of the pictures to make: `config.only`, else all of `config.number`. SettingError for one
    that is not whole.
    """
    if any(value != int(value) for value in config.only):
        raise SettingError(
            f"--only {','.join(f'{value:g}' for value in config.only)}: is not whole",
            "give pictures' numbers, 0 and up",
        )
    return sorted({int(value) for value in config.only}) or list(range(config.number))


@dataclass(frozen=True)
class Target:
    """The maps file to write: its path, the template of its labels, and what it records."""

    path: Path
    template: Template
    params: dict[str, Any]
    sources: dict[str, Any]
    overwrite: bool


@dataclass(frozen=True)
class Check:
    """Whether a picture shows its object where it was rendered: what `find` sees must overlap that by
    `least`, an IoU.
    """

    least: float
    masker: str
    find: Callable[[np.ndarray], np.ndarray]

    @classmethod
    def of(cls, config: SynthConfig, masker: str, device: torch.device, weights: Path | None) -> Check | None:
        """The check that `config` asks for, with the masker of that name; None for none."""
        if not config.check:
            return None
        find = make_masker(masker, device, weights, config.class_name)
        if find is None:
            raise SettingError("--check needs a masker", "give one with --masker")
        return cls(config.check, find.name, find)

    def overlap(self, picture: Picture) -> float:
        """The intersection over union of the object that was rendered and the one that is found; 0 where none
        is.
        """
        try:
            found = self.find(picture.rgb)
        except InputError:
            return 0.0
        return float((found & picture.mask).sum() / max((found | picture.mask).sum(), 1))


def collect(
    target: Target,
    numbers: list[int],
    make: Callable[[int], Picture],
    check: Check | None = None,
    *,
    missing: Sequence[str] = (),
    track: Track = plain_track,
    part: Part = WHOLE,
) -> None:
    """Write the pictures that `make` gives for `numbers` as the maps file `target`, or a `part` of it; an
    unfinished run goes on.

    Those that do not pass the `check` are dropped and counted, once for good: their names are kept beside the
    target until it is finished. PartialError (status 4) when `make` failed at some, or there were `missing`
    ones already.
    """
    params = {**target.params, "masker": check.masker} if check else target.params
    attrs, failures, run = {"labels": "synthetic", "template": target.template.fingerprint}, Failures(), 0
    failures.names += missing
    with (
        part.writer(
            target.path,
            "shic/maps",
            params=params,
            sources=target.sources,
            attrs=attrs,
            overwrite=target.overwrite,
        ) as out,
        Dropped(part.path(target.path), out, bool(check) and not isinstance(out, Finished)) as dropped,
    ):
        mine = part.of(sorted(numbers, key=picture_name))  # shares are runs of names
        left = [i for i in mine if picture_name(i) not in out and picture_name(i) not in dropped]
        for i in track(left, len(left), "synth"):
            try:
                picture, run = make(i), 0
            except PictureError as error:
                fault = PictureError(f"{picture_name(i)}: {error.message}", error.hint)
                failures.note(picture_name(i), fault)
                run += 1
                if run == GIVE_UP:
                    raise fault from error
                continue
            if check and check.overlap(picture) < check.least:
                dropped.add(picture_name(i))
            else:
                _add(out, picture_name(i), picture)
        if part.is_whole and not len(out) and failures.first:
            raise failures.first
        if part.is_whole and check and not len(out):
            raise InputError(
                f"all {len(dropped)} pictures were dropped by --check {check.least:g}",
                "give less, or another --masker",
            )
        if check and not isinstance(out, Finished):
            out.header["params"]["dropped"] = len(dropped)
            fact = "%d of %d pictures dropped: their object is not where it was rendered (--check %g)"
            log.info(fact, len(dropped), len(mine), check.least)
    part.end(target.path, failures, len(numbers) + len(missing), target.overwrite)


def _add(out: ItemWriter, name: str, picture: Picture) -> None:
    encoded, score = (
        np.frombuffer(encode(picture.rgb, ".jpg"), np.uint8),
        (picture.vertex >= 0).astype(np.float16),
    )
    out.add(name, encoded=encoded, mask=picture.mask, vertex=picture.vertex, score=score)


class Dropped:
    """The names of the pictures that a check dropped, kept in a journal beside `target` until that is
    finished; `out` writes it.
    """

    def __init__(self, target: Path, out: ItemWriter | Finished, wanted: bool) -> None:
        # Pictures of other settings say nothing of these: what `out` goes on from was checked when it was
        # opened.
        header, place = (
            {**out.header, "shic_version": __version__},
            target.with_name(f"{target.name}.dropped"),
        )
        self.out, self.journal = out, Journal(place, header, replace=True) if wanted else None
        if not wanted and not isinstance(out, Finished) and place.with_name(f"{place.name}.journal").exists():
            Journal(place, header, replace=True).close(
                remove=True
            )  # a killed run with a check left it, and this one has none
        self.names = {record.decode() for record in self.journal.records()} if self.journal else set()

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: str) -> None:
        """Keep one name; a crash after this line does not lose it."""
        assert self.journal is not None
        self.journal.append(name.encode())
        self.names.add(name)

    def __enter__(self) -> Dropped:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self.journal:
            self.journal.close(remove=kind is None or not len(self.out))
