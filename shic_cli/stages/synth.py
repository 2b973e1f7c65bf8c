"""Synthetic pictures with exact labels (sec. 3.5): a generator paints a view of the template.

The labels come from the template's projection. Axes: K vertices, F faces, S by S pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shic_cli.base.devices import chance
from shic_cli.base.errors import PictureError, SettingError, ShicError, lacks_memory
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.recipes import by_recipe
from shic_cli.base.settings import SynthConfig
from shic_cli.base.workers import number_of, spread
from shic_cli.files.layouts import Template
from shic_cli.files.photo_lists import list_images, listing
from shic_cli.files.shards import WHOLE, Part
from shic_cli.parts import registry
from shic_cli.stages.photo_bodies import read_bodies
from shic_cli.stages.photo_coats import read_coats
from shic_cli.stages.synth_frames import Framer, Picture
from shic_cli.stages.synth_writing import Check, Labelled, Target, collect
from shic_cli.surface.limbs import Limb, list_limbs
from shic_cli.surface.poses import Poser
from shic_cli.surface.viewpoints import photo_azimuths, seen_from

log = logging.getLogger("shic")

# What -1 stands for.
USUAL = {
    "poses": 1.0,
    "bodies": 1.0,
    "like_photos": 0.5,
    "photo_coats": 0.5,
    "photo_poses": 0.5,
    "level": 0.7,
}


class Synthesizer(Framer):
    """Makes pictures of a mesh with `verts` `(K, 3)` and `faces` `(F, 3)`.

    A picture depends only on the random generator `rng` with which it is made.
    """

    def __init__(
        self,
        verts: np.ndarray,
        faces: np.ndarray,
        config: SynthConfig,
        device: torch.device,
        weights: Path | None = None,
        limbs: Sequence[Limb] = (),
        azimuths: np.ndarray | None = None,
        coats: np.ndarray | None = None,
    ) -> None:
        config = settled(config, device, weights)
        super().__init__(verts, faces, config, device, limbs, azimuths, coats)
        self.generator = registry.make(
            "generators", config.generator, device=device, weights=weights, config=config
        )

    def make(self, rng: np.random.Generator, verts: np.ndarray | None = None) -> Picture:
        """One picture from a random viewpoint; PictureError if the generator gives none.

        `verts` `(K, 3)` is a pose of the mesh, in its vertex order.
        """
        frame = self.frame(rng, verts)
        side = self.generator.side(self.config.size)
        fragments = self.render(frame, side)
        return self.label(frame, self.generator(self.scene(frame, side, fragments), rng), fragments)


def settled(config: SynthConfig, device: torch.device, weights: Path | None = None) -> SynthConfig:
    """`config` with a value for every setting that is left open.

    The generator is one that this machine can use; the views and the erosion are those that the generator is
    made for, or the recipe's.
    """
    config = by_recipe(config)
    auto = "" if config.class_name.strip() else "classless generators"
    name = registry.resolve("generators", config.generator, device, weights, auto)
    generator = registry.find("generators", registry.Spec.parse(name).name)
    views = generator.views if config.views == "auto" else config.views
    erode = generator.erode if config.erode < 0 else config.erode
    return posed(replace(config, generator=name, views=views, erode=erode))


def posed(config: SynthConfig) -> SynthConfig:
    """`config` with a value for each of the settings in USUAL."""
    return replace(config, **{name: value for name, value in USUAL.items() if getattr(config, name) < 0})


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
    workers: int | None = 1,
) -> None:
    """Write `config.number` pictures, or those of `config.only`, or a `part`, to the maps file `path`.

    The labels are `synthetic`. An unfinished run continues. Picture i depends on `seed` and i only, so each
    can be made again alone. It shows a random body and pose of the template, unless `config.poses` is 0, and
    some are seen from where the photos of the maps file `photos` are, wear their coats, and are posed like
    the bodies in them. With `config.check`, pictures are dropped if their object is not where `masker` finds
    one. On a CPU so many processes as `workers` paint, or as many as pay if it is None, if the generator is
    small; this makes no difference to the file. PartialError if a generator failed for some.
    """
    asked, config = config.photo_poses > 0, settled(config, device, weights)
    sources = dict(sources or {})
    if config.backgrounds:
        sources["backgrounds"] = listing(list_images([config.backgrounds]))
    check = Check.of(config, masker, device, weights)
    try:
        poser = Poser.of(template, config.poses, config.bodies)
        # half of the bytes of the table of distances, which is much to hand over, are enough for bodies
        poser = replace(poser, template=replace(template, geodesic=template.geodesic.astype(np.float16)))
        azimuths = coats = None
        if photos is not None:
            azimuths, coats = photo_azimuths(photos, template), read_coats(photos, template)
            log.info(f"{photos}: coats of {len(coats)} photos, which see the {seen_from(azimuths)}")
            if config.poses and config.photo_poses:
                seen = read_bodies(photos, template, needed=asked)
                poser = replace(poser, seen=seen, share=config.photo_poses)
        given = (template.faces, poser, config, device, weights, seed, azimuths, coats)

        def make(numbers: Sequence[int]) -> Iterator[Labelled | PictureError]:
            if config.poses:
                log.info(
                    "limbs that bend: %s", list_limbs(poser.limbs) or "none, so the template stays as it is"
                )
            spreads = is_small(config) and device.type == "cpu"
            alone = "" if spreads else "only --device cpu and a small generator, as plain is, take more"
            return spread(painter, given, numbers, number_of(workers, len(numbers), alone=alone))

        target = Target(path, template, {**config.params(), "seed": seed}, sources, overwrite)
        collect(target, chosen(config), make, check, track=track, part=part)
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        generator = registry.find("generators", registry.Spec.parse(config.generator).name)
        hint = f"{generator.saves_memory}; what is finished is kept"
        raise ShicError(f"out of GPU memory in {config.generator}", hint) from error


def is_small(config: SynthConfig) -> bool:
    """Whether the generator of the settled `config` paints within a moment on a CPU."""
    return registry.find("generators", registry.Spec.parse(config.generator).name).small


def painter(
    faces: np.ndarray,
    poser: Poser,
    config: SynthConfig,
    device: torch.device,
    weights: Path | None,
    seed: int,
    azimuths: np.ndarray | None = None,
    coats: np.ndarray | None = None,
) -> Callable[[int], Labelled | PictureError]:
    """A function that makes the picture of a number."""
    maker = Synthesizer(poser.template.verts, faces, config, device, weights, poser.limbs, azimuths, coats)

    def make(i: int) -> Picture:
        rng = chance(seed, "synth", i)
        return maker.make(rng, poser(rng))

    return partial(Labelled.attempt, make)


def chosen(config: SynthConfig) -> list[int]:
    """The numbers of the pictures to make: `config.only`, or else all of `config.number`.

    SettingError if one is not a whole number.
    """
    if any(value != int(value) for value in config.only):
        raise SettingError(
            f"--only {','.join(f'{value:g}' for value in config.only)}: is not a whole number",
            "give pictures' numbers, 0 and up",
        )
    return sorted({int(value) for value in config.only}) or list(range(config.number))
