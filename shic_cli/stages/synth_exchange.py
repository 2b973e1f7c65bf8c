"""Depth pictures for a generator elsewhere, and its painted pictures back as a maps file (sec. 3.5).

The labels are exact, because each picture is painted over a known projection.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shic_cli.base.devices import chance
from shic_cli.base.errors import InputError, PictureError, SettingError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.recipes import by_recipe
from shic_cli.base.settings import CONTROLNET_ERODE, CONTROLNET_VIEWS, SynthConfig
from shic_cli.files.atomic import Journal, atomic, check_target
from shic_cli.files.layouts import Template
from shic_cli.files.photo_lists import ImageFile, list_images, listing
from shic_cli.files.photos import decode, encode
from shic_cli.parts import registry
from shic_cli.parts.generators.conditions import Conditioner
from shic_cli.stages.synth import chosen, posed
from shic_cli.stages.synth_frames import Framer, Picture
from shic_cli.stages.synth_writing import Check, Labelled, Target, collect, picture_name
from shic_cli.surface.poses import Poser
from shic_cli.surface.viewpoints import view_of

log = logging.getLogger("shic")

LIST = "conditions.json"
FORMAT = "shic/conditions"
KEYS = {"template": str, "seed": int, "side": int, "params": dict, "pictures": list}
# Settings that don't concern the geometry; they come from the command line when pictures are read back.
READING = ("size", "erode", "check", "only")


def write_conditions(
    template: Template,
    folder: Path,
    config: SynthConfig,
    device: torch.device,
    seed: int = 0,
    *,
    weights: Path | None = None,
    overwrite: bool = False,
    track: Track = plain_track,
) -> None:
    """Write into `folder` the depth pictures that controlnet-depth would get, as PNG, and conditions.json.

    conditions.json lists each picture's prompts and seed, and the settings that `read_pictures` needs. An
    unfinished run continues.
    """
    config = _depth_settings(config)
    options = registry.Spec.parse(config.generator).options
    depth = {"depth": options["depth"]} if "depth" in options else {}
    conditioner = Conditioner(config, device, weights, **depth)
    framer = Framer(template.verts, template.faces, config, device)
    poser = Poser.of(template, config.poses, config.bodies)
    side = conditioner.side(config.size)
    header = {
        "format": FORMAT,
        "template": template.fingerprint,
        "seed": seed,
        "side": side,
        "params": config.params(),
    }
    if config.backgrounds:
        header["backgrounds"] = listing(list_images([config.backgrounds]))
    folder.mkdir(parents=True, exist_ok=True)
    check_target(folder / LIST, overwrite)
    journal, done, finished = Journal(folder / LIST, header, replace=overwrite), {}, False
    try:
        (folder / LIST).unlink(missing_ok=True)  # from here on it would list other pictures
        done = {entry["name"]: entry for entry in map(json.loads, journal.records())}
        left = [i for i in chosen(config) if _depth_name(i) not in done]
        for i in track(left, len(left), "depth"):
            entry = _write_depth(
                folder / _depth_name(i), framer, poser, conditioner, chance(seed, "synth", i)
            )
            journal.append(json.dumps(entry).encode())
            done[entry["name"]] = entry
        with journal.finishing() as partial:
            partial.write_text(
                json.dumps({**header, "pictures": [done[name] for name in sorted(done)]}, indent=1) + "\n",
                "utf-8",
            )
        finished = True
    finally:
        journal.close(remove=finished or not done)


def _write_depth(
    path: Path, framer: Framer, poser: Poser, conditioner: Conditioner, rng: np.random.Generator
) -> dict[str, Any]:
    """Write one depth picture; its entry in conditions.json."""
    frame = framer.frame(rng, poser(rng))
    condition = conditioner(framer.scene(frame, conditioner.side(framer.config.size)), rng)
    data = encode(condition.picture)
    with atomic(path) as partial:
        partial.write_bytes(data)
    return {
        "name": path.name,
        "prompt": condition.prompt,
        "negative": condition.negative,
        "seed": condition.seed,
        "view": view_of(frame.azimuth, frame.elevation),
        "azimuth": round(frame.azimuth, 3),
        "elevation": round(frame.elevation, 3),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def read_pictures(
    template: Template,
    folder: Path,
    path: Path,
    config: SynthConfig,
    device: torch.device,
    *,
    sources: dict[str, Any] | None = None,
    weights: Path | None = None,
    masker: str = "auto",
    overwrite: bool = False,
    track: Track = plain_track,
) -> None:
    """Write the pictures in `folder` to the maps file `path`.

    Another program painted them from the depth pictures of the same names. conditions.json, which was written
    with those, has to be in the folder too. Of `config` only --size, --erode, --check and --only count.
    Missing pictures are counted, and pictures of a wrong size are named; both lead to PartialError (status
    4).
    """
    recorded = _read_list(folder, template)
    config = _settings(folder / LIST, recorded["params"], config)
    framer = Framer(template.verts, template.faces, config, device)
    poser = Poser.of(template, config.poses, config.bodies)
    files = {image.path.stem: image for image in list_images([str(folder)])}
    listed = {Path(entry["name"]).stem: entry["sha256"] for entry in recorded["pictures"]}
    wanted = (
        {i: Path(picture_name(i)).stem for i in chosen(config)}
        if config.only
        else {_number(stem): stem for stem in listed}
    )
    if unknown := [stem for stem in wanted.values() if stem not in listed]:
        raise InputError(f"{folder / LIST}: lists no {unknown[0]}", "give --only numbers that it lists")

    def make(i: int) -> Picture:
        rgb = _read_painted(files[wanted[i]], listed[wanted[i]], recorded["side"])
        rng = chance(recorded["seed"], "synth", i)
        return framer.label(framer.frame(rng, poser(rng)), rgb)

    missing = [picture_name(i) for i, stem in wanted.items() if stem not in files]
    if missing:
        log.warning("%s: lacks %d of %d pictures", folder, len(missing), len(wanted))
    if len(missing) == len(wanted):
        raise InputError(
            f"{folder}: holds none of the {len(wanted)} pictures that {LIST} lists",
            f"name them like {next(iter(listed))}.png",
        )
    sources = {**(sources or {}), "images": listing(list(files.values()))}
    target = Target(path, template, {**config.params(), "seed": recorded["seed"]}, sources, overwrite)
    present = [i for i, stem in wanted.items() if stem in files]
    check = Check.of(config, masker, device, weights)
    collect(
        target,
        present,
        lambda numbers: (Labelled.attempt(make, i) for i in numbers),
        check,
        missing=missing,
        track=track,
    )


def _read_painted(image: ImageFile, depth_hash: str, side: int) -> np.ndarray:
    """The painted picture `(side, side, 3)` uint8; PictureError if it can't be used.

    `depth_hash` is the hash of its depth picture, which is not a painted one.
    """
    data = image.read()
    if hashlib.sha256(data).hexdigest() == depth_hash:
        raise PictureError(
            f"{image.path} is the depth picture itself", "give the folder of the painted pictures"
        )
    try:
        rgb, _ = decode(data, str(image.path))
    except InputError as error:
        raise PictureError(error.message, error.hint) from error
    height, width = rgb.shape[:2]
    if (height, width) != (side, side):
        fact = f"{image.path} is {width} by {height} pixels, its depth picture {side} by {side}"
        raise PictureError(fact, "paint at that size")
    return rgb


def _depth_settings(config: SynthConfig) -> SynthConfig:
    """`config` for the depth pictures of controlnet-depth, whether or not its weights are here.

    SettingError for another generator.
    """
    config = posed(by_recipe(config))
    name = "controlnet-depth" if config.generator == "auto" else config.generator
    if registry.Spec.parse(name).name != "controlnet-depth":
        raise SettingError(
            f"--generator {name}: takes no depth pictures",
            "give --generator controlnet-depth, or leave it out",
        )
    views = CONTROLNET_VIEWS if config.views == "auto" else config.views
    return replace(
        config, generator=name, views=views, erode=CONTROLNET_ERODE if config.erode < 0 else config.erode
    )


def _settings(path: Path, params: dict[str, Any], given: SynthConfig) -> SynthConfig:
    """The settings with which the depth pictures were made, except those of READING, which `given` has.

    InputError if `params` are no such settings.
    """
    usual = json.loads(json.dumps(SynthConfig().params()))
    for name, value in usual.items():
        kinds = (int, float) if isinstance(value, (int, float)) else type(value)
        if not isinstance(params.get(name), kinds):
            raise InputError(
                f"{path}: its setting {name} is {params.get(name)!r}",
                "take the one that `shic synth --depth-only` wrote",
            )
    values: dict[str, Any] = {
        name: tuple(params[name]) if isinstance(params[name], list) else params[name] for name in usual
    }
    try:
        made = SynthConfig(**values)
    except SettingError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from error
    own: dict[str, Any] = {name: getattr(given, name) for name in READING}
    if given.erode < 0:
        own["erode"] = made.erode
    return replace(made, **own)


def _read_list(folder: Path, template: Template) -> dict[str, Any]:
    """The content of conditions.json in `folder`.

    InputError if it is missing, is no list of depth pictures, or belongs to another template.
    """
    path = folder / LIST
    try:
        content = json.loads(path.read_text("utf-8"))
        if (
            content["format"] != FORMAT
            or not all(isinstance(content[key], kind) for key, kind in KEYS.items())
            or content["seed"] < 0
        ):
            raise ValueError("it is not a list of depth pictures")
        for entry in content["pictures"]:
            _ = _number(Path(entry["name"]).stem), entry["sha256"]
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: there is no such file",
            "copy the one that `shic synth --depth-only` wrote with the depth pictures to this folder",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: can't be read ({error})", "take the one that `shic synth --depth-only` wrote"
        ) from error
    if content["template"] != template.fingerprint:
        raise InputError(
            f"{path}: its depth pictures show another template", "give the template that they were made with"
        )
    return content


def _depth_name(i: int) -> str:
    """The name of the depth picture of picture `i`."""
    return Path(picture_name(i)).with_suffix(".png").name


def _number(stem: str) -> int:
    """The number of a picture, from its name without the suffix; ValueError for any other name."""
    number = int(stem.rpartition("_")[2])
    if stem != Path(picture_name(number)).stem:
        raise ValueError(f"{stem} does not name a picture")
    return number
