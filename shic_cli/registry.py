"""The interchangeable parts by name: extractors, renderers, generators and maskers.

A part is a class. Built-in ones are named below; another package adds its own by an entry point in the group
`shic.extractors`, `shic.renderers`, `shic.generators` or `shic.maskers`. Nothing is imported until its name is asked for.

Every part is made as `Part(argument, device=device, **options)`, where `argument` is what follows a colon in the name that
the user gave (`vit:FOLDER`), and may have a class method `missing() -> str` that says what it lacks on this machine, and a
tuple `slow_on` of the kinds of device where `auto` passes it over.
"""

from __future__ import annotations

import difflib
import importlib
import logging
from importlib.metadata import entry_points
from typing import Any

from shic_cli.errors import MissingError, SettingError

log = logging.getLogger("shic")

PARTS: dict[str, dict[str, str]] = {
    "extractors": {"silhouette": "shic_cli.extractors.silhouette:Silhouette"},
    "renderers": {
        "pytorch3d": "shic_cli.renderers.pytorch3d:Pytorch3dRenderer",
        "warp": "shic_cli.renderers.warp:WarpRenderer",
    },
    "generators": {"plain": "shic_cli.generators.plain:Plain"},
    "maskers": {"grabcut": "shic_cli.maskers.grabcut:GrabCut"},
}

# What `auto` tries, best first; the last of each needs neither weights nor an optional package.
AUTO: dict[str, tuple[str, ...]] = {
    "extractors": ("silhouette",),
    "renderers": ("pytorch3d", "warp"),
    "generators": ("plain",),
    "maskers": ("grabcut",),
}


def names(kind: str) -> list[str]:
    """The names of every part of `kind`, the built-in ones first."""
    extra = sorted(point.name for point in entry_points(group=f"shic.{kind}"))
    return [*PARTS[kind], *(name for name in extra if name not in PARTS[kind])]


def find(kind: str, name: str) -> type:
    """The class of the part `name`; SettingError with the nearest names if there is none."""
    if name in PARTS[kind]:
        module, _, attribute = PARTS[kind][name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    for point in entry_points(group=f"shic.{kind}", name=name):
        try:
            return point.load()
        except ImportError as error:
            raise MissingError(f"{name}: {point.value} can't be imported ({error})", "reinstall the package that adds it") from error
    near = difflib.get_close_matches(name, names(kind), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise SettingError(f"there is no {kind[:-1]} {name!r}", f"{hint}there are: auto, {', '.join(names(kind))}")


def lacks(part: type) -> str:
    """What `part` lacks on this machine, empty when it can be used."""
    return part.missing() if hasattr(part, "missing") else ""


def resolve(kind: str, name: str, device: object = "cpu") -> str:
    """The name that `name` stands for: itself, or for `auto` the best part that this machine can use on `device`."""
    if name != "auto":
        return name
    parts = ((candidate, find(kind, candidate)) for candidate in AUTO[kind])
    where = str(device).partition(":")[0]
    chosen = next(candidate for candidate, part in parts if where not in getattr(part, "slow_on", ()) and not lacks(part))
    log.info("%s: auto took %s", kind[:-1], chosen)
    return chosen


def make(kind: str, name: str, *, device: str = "cpu", **options: Any) -> Any:
    """A part made by `name` or `name:argument`; MissingError (status 3) when it lacks a package or its weights."""
    base, _, argument = resolve(kind, name, device).partition(":")
    part = find(kind, base)
    if lack := lacks(part):
        raise MissingError(f"{kind[:-1]} {base}: {lack}", f"`--{kind[:-1]} auto` takes one that is here")
    return part(argument, device=device, **options)
