"""Depth pictures for a generator elsewhere, and the pictures that it painted from them back as a maps file
with exact labels (sec. 3.5).
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from shic_cli.base.devices import chance
from shic_cli.base.errors import InputError, PictureError, SettingError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import CONTROLNET_ERODE, CONTROLNET_VIEWS, SynthConfig
from shic_cli.files.atomic import Journal, atomic, check_target
from shic_cli.files.layouts import Template
from shic_cli.files.photos import decode, encode, list_images, listing
from shic_cli.parts import registry
from shic_cli.parts.generators.conditions import Conditioner
from shic_cli.stages.synth import Check, Target, chosen, collect, picture_name
from shic_cli.stages.synth_frames import Framer, Picture
from shic_cli.surface.poses import Poser
from shic_cli.surface.viewpoints import view_of

log = logging.getLogger("shic")

LIST = "conditions.json"
FORMAT = "shic/conditions"
KEYS = {"template": str, "seed": int, "side": int, "params": dict, "pictures": list}
# Settings that are not of the geometry: they are taken from the command line when pictures are read back.
READING = ("size", "erode", "check", "only")


def write_conditions(
    template: Template, folder: Path, config: SynthConfig, device: torch.device, seed: int = 0, *, weights: Path | None = None,
    overwrite: bool = False, track: Track = plain_track,
) -> None:  # fmt: skip
    """Write the depth pictures that `synthesize` would give to controlnet-depth into `folder`, as PNG, and
    conditions.json.

    That lists each picture's prompts and seed, with the settings that `read_pictures` needs. An unfinished
    run goes on.
    """
    config = _depth_settings(config)
    spec = registry.Spec.parse(config.generator)
    conditioner = Conditioner(
        config, device, weights, **{key: spec.options[key] for key in ("depth",) if key in spec.options}
    )
    framer, poser = (
        Framer(template.verts, template.faces, config, device),
        Poser.of(template, config.poses, config.bodies),
    )
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
        (folder / LIST).unlink(missing_ok=True)  # from here on the pictures are no longer those that it lists
        done = {each["name"]: each for each in map(json.loads, journal.records())}
        left = [i for i in chosen(config) if _depth_name(i) not in done]
        for i in track(left, len(left), "depth"):
            rng = chance(seed, "synth", i)
            frame = framer.frame(rng, poser(rng))
            told = conditioner(framer.scene(frame, side), rng)
            data = encode(told.picture)
            with atomic(folder / _depth_name(i)) as partial:
                partial.write_bytes(data)
            view = view_of(frame.azimuth, frame.elevation)
            said = {
                "name": _depth_name(i),
                "prompt": told.prompt,
                "negative": told.negative,
                "seed": told.seed,
                "view": view,
            }
            said |= {
                "azimuth": round(frame.azimuth, 3),
                "elevation": round(frame.elevation, 3),
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            journal.append(json.dumps(said).encode())
            done[said["name"]] = said
        with journal.finishing() as partial:
            partial.write_text(
                json.dumps({**header, "pictures": [done[name] for name in sorted(done)]}, indent=1) + "\n"
            )
        finished = True
    finally:
        journal.close(remove=finished or not done)


def read_pictures(
    template: Template, folder: Path, path: Path, config: SynthConfig, device: torch.device, *, sources: dict[str, Any] | None = None,
    weights: Path | None = None, masker: str = "auto", overwrite: bool = False, track: Track = plain_track,
) -> None:  # fmt: skip
    """Write the pictures in `folder`, painted elsewhere from the depth pictures of the same names, to the
    maps file `path`.

    conditions.json, which was written with those, has to be beside them. Of `config` count --size, --erode,
    --check and --only. Pictures that are not there are counted, others of a wrong size are named:
    PartialError (status 4).
    """
    said = _read_list(folder, template)
    config = _settings(folder / LIST, said["params"], config)
    framer, poser = (
        Framer(template.verts, template.faces, config, device),
        Poser.of(template, config.poses, config.bodies),
    )
    files = {each.path.stem: each for each in list_images([str(folder)])}
    listed = {Path(each["name"]).stem: each["sha256"] for each in said["pictures"]}
    wanted = (
        {i: Path(picture_name(i)).stem for i in chosen(config)}
        if config.only
        else {_number(stem): stem for stem in listed}
    )
    if unknown := [stem for stem in wanted.values() if stem not in listed]:
        raise InputError(f"{folder / LIST}: lists no {unknown[0]}", "give numbers that it lists with --only")

    def make(i: int) -> Picture:
        stem = wanted[i]
        data = files[stem].read()
        if hashlib.sha256(data).hexdigest() == listed[stem]:
            raise PictureError(
                f"{files[stem].path} is the depth picture itself",
                "give the folder of what was painted from them",
            )
        try:
            rgb, _ = decode(data, str(files[stem].path))
        except InputError as error:
            raise PictureError(error.message, error.hint) from error
        if rgb.shape[:2] != (said["side"], said["side"]):
            height, width = rgb.shape[:2]
            raise PictureError(
                f"{files[stem].path} is {width} by {height} pixels, its depth {said['side']} a side",
                "paint at that size",
            )
        rng = chance(said["seed"], "synth", i)
        return framer.label(framer.frame(rng, poser(rng)), rgb)

    missing = [picture_name(i) for i, stem in wanted.items() if stem not in files]
    if missing:
        log.warning("%d of %d pictures are not in %s", len(missing), len(wanted), folder)
    if len(missing) == len(wanted):
        raise InputError(
            f"{folder}: holds none of the {len(wanted)} pictures that {LIST} lists",
            f"name them like {next(iter(listed))}.png",
        )
    sources = {**(sources or {}), "images": listing(list(files.values()))}
    target = Target(path, template, {**config.params(), "seed": said["seed"]}, sources, overwrite)
    here, check = (
        [i for i, stem in wanted.items() if stem in files],
        Check.of(config, masker, device, weights),
    )
    collect(target, here, make, check, missing=missing, track=track)


def _depth_settings(config: SynthConfig) -> SynthConfig:
    """`config` for depth pictures: of controlnet-depth, whether or not its weights are here. SettingError for
    another generator.
    """
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
    """The settings that the depth pictures were made with, but for those of READING, which are `given`;
    InputError if they are none.
    """
    usual = json.loads(json.dumps(SynthConfig().params()))
    for name, value in usual.items():
        kinds = (int, float) if isinstance(value, (int, float)) else type(value)
        if not isinstance(params.get(name), kinds):
            raise InputError(
                f"{path}: its setting {name} is {params.get(name)!r}",
                "take the one that `shic synth --depth-only` wrote",
            )
    try:
        made = SynthConfig(
            **{
                name: tuple(params[name]) if isinstance(params[name], list) else params[name]
                for name in usual
            }
        )
    except SettingError as error:
        raise InputError(f"{path}: {error.message}", error.hint) from error
    own = {name: getattr(given, name) for name in READING} | (
        {"erode": made.erode} if given.erode < 0 else {}
    )
    return replace(made, **own)


def _read_list(folder: Path, template: Template) -> dict[str, Any]:
    """What conditions.json in `folder` says; InputError when it is not there, is no such list, or is of
    another template.
    """
    path = folder / LIST
    try:
        said = json.loads(path.read_text())
        if (
            said["format"] != FORMAT
            or not all(isinstance(said[key], kind) for key, kind in KEYS.items())
            or said["seed"] < 0
        ):
            raise ValueError("it is no list of depth pictures")
        for each in said["pictures"]:
            _ = _number(Path(each["name"]).stem), each["sha256"]
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: there is no such file",
            "copy the one that `shic synth --depth-only` wrote with the depth pictures to there",
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: can't be read ({error})", "take the one that `shic synth --depth-only` wrote"
        ) from error
    if said["template"] != template.fingerprint:
        raise InputError(
            f"{path}: its depth pictures are of another template", "give the template that they were made of"
        )
    return said


def _depth_name(i: int) -> str:
    return Path(picture_name(i)).with_suffix(".png").name


def _number(stem: str) -> int:
    """The number of a picture, from its name without the ending; ValueError when it is no picture's."""
    number = int(stem.rpartition("_")[2])
    if stem != Path(picture_name(number)).stem:
        raise ValueError(f"{stem} is no picture's name")
    return number
