"""The interchangeable parts by name: extractors, renderers, generators and maskers.

A part is a class. Built-in ones are named below; another package adds its own by an entry point in the group
`shic.extractors`, `shic.renderers`, `shic.generators` or `shic.maskers`. Nothing is imported until its name
is asked for.

A part is asked for as `name`, `name:argument` or `name:argument,option=value,...`
(`vit:FOLDER,layer=9,facet=key`) and made as `Part(argument, device=device, **options)`: its options are the
keyword parameters of its constructor, converted to the type of their default. One that takes `weights` gets
the folder that the user keeps weights in, or None; a masker that takes `class_name` gets what --class says.
It may have a class method `check(weights)` that raises MissingError when it can't be used on this machine, a
tuple `slow_on` of the kinds of device where `auto` passes it over, and a tuple `folders` of the options that
name other weights than those that `check` looks for.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from shic_cli.base.errors import MissingError, SettingError, UnfinishedError

log = logging.getLogger("shic")

PARTS: dict[str, dict[str, str]] = {
    "extractors": {
        "silhouette": "shic_cli.parts.extractors.silhouette:Silhouette",
        "picture": "shic_cli.parts.extractors.picture:Picture",
        "vit": "shic_cli.parts.extractors.vit:Vit",
        "dinov2": "shic_cli.parts.extractors.vit:Dinov2",
        "dinov2-small": "shic_cli.parts.extractors.vit:Dinov2Small",
        "dinov2-base": "shic_cli.parts.extractors.vit:Dinov2Base",
        "dinov2-large": "shic_cli.parts.extractors.vit:Dinov2Large",
        "dinov3": "shic_cli.parts.extractors.vit:Dinov3",
        "dinov3-small": "shic_cli.parts.extractors.vit:Dinov3Small",
        "sd": "shic_cli.parts.extractors.sd:Sd",
        "sd-dino": "shic_cli.parts.extractors.sd_dino:SdDino",
        "dift": "shic_cli.parts.extractors.sd:Dift",
    },
    "renderers": {
        "pytorch3d": "shic_cli.parts.renderers.pytorch3d:Pytorch3dRenderer",
        "warp": "shic_cli.parts.renderers.warp:WarpRenderer",
    },
    "generators": {
        "plain": "shic_cli.parts.generators.plain:Plain",
        "controlnet-depth": "shic_cli.parts.generators.controlnet_depth:ControlnetDepth",
    },
    "maskers": {
        "grounded-sam": "shic_cli.parts.maskers.grounded_sam:GroundedSam",
        "semantic": "shic_cli.parts.maskers.semantic:Semantic",
        "grabcut": "shic_cli.parts.maskers.grabcut:GrabCut",
    },
}

# What `auto` tries, best first; the last of each needs neither weights nor an optional package. Encoders are
# extractors that are frozen below a trained map: there a small one does. Pixels as they are only serve where
# synthetic pictures teach what they show.
AUTO: dict[str, tuple[str, ...]] = {
    "extractors": ("sd-dino", "dinov2", "silhouette"),
    "encoders": ("dinov2-small", "picture"),
    "photo encoders": ("dinov2-small", "silhouette"),
    "renderers": ("pytorch3d", "warp"),
    "generators": ("controlnet-depth", "plain"),
    "classless generators": ("plain",),  # where no class is named: a prompt needs one
    "maskers": ("grounded-sam", "grabcut"),
    "classless maskers": ("grabcut",),  # where no class is named
}

GIVEN = (
    "device",
    "weights",
    "class_name",
)  # keyword parameters of a part that commands fill in: they are no options of it


@dataclass(frozen=True)
class Spec:
    """A part as the user asks for it: its `name`, what follows the colon, and its options as they were typed."""

    name: str
    argument: str
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Spec:
        """From `name[:argument][,option=value...]`; SettingError when an option has no value, or comes twice."""
        head, *pairs = text.split(",")
        name, _, argument = head.partition(":")
        options: dict[str, str] = {}
        for pair in pairs:
            key, given, value = pair.partition("=")
            if not given or key in options:
                fault = f"{key} is given twice" if given else f"{pair!r} is not an option with a value"
                raise SettingError(
                    f"{text}: {fault}", "write NAME:ARGUMENT,OPTION=VALUE,...; a path can't hold a comma"
                )
            options[key] = value
        return cls(name, argument, options)


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
            raise MissingError(
                f"{name}: {point.value} can't be imported ({error})", "reinstall the package that adds it"
            ) from error
    near = difflib.get_close_matches(name, names(kind), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise SettingError(
        f"there is no {kind[:-1]} {name!r}", f"{hint}there are: auto, {', '.join(names(kind))}"
    )


def check(part: type, weights: Path | None = None) -> None:
    """MissingError when `part` can't be used on this machine."""
    if hasattr(part, "check"):
        part.check(weights)


def resolve(
    kind: str, name: str, device: object = "cpu", weights: Path | None = None, auto: str = "", level: int = logging.INFO
) -> str:  # fmt: skip
    """The name that `name` stands for: itself, or for `auto` the best part that this machine can use on
    `device`.

    `auto` names the list of AUTO to try, that of `kind` unless given; what it took is logged at `level`.
    """
    if name != "auto":
        return name
    where = str(device).partition(":")[0]
    for candidate in AUTO[auto or kind]:
        part = find(kind, candidate)
        if where in getattr(part, "slow_on", ()):
            continue
        try:
            check(part, weights)
        except MissingError as error:
            loud = isinstance(error, UnfinishedError)  # who began a download wants it used
            log.log(
                logging.WARNING if loud else logging.DEBUG,
                "%s: auto passed %s over: %s; %s",
                kind[:-1],
                candidate,
                error.message,
                error.hint,
            )
            continue
        log.log(level, "%s: auto took %s", (auto or kind).split()[-1][:-1], candidate)
        return candidate
    raise AssertionError(f"the last of AUTO[{auto or kind!r}] can always be used")


def make(kind: str, name: str, *, device: object = "cpu", weights: Path | None = None, **options: Any) -> Any:
    """A part made by `name`, `name:argument` or `name:argument,option=value`.

    MissingError (status 3) when it lacks a package or its weights, SettingError when it has no such option.
    """
    spec = Spec.parse(resolve(kind, name, device, weights))
    part = find(kind, spec.name)
    if not spec.argument and not set(spec.options) & set(
        getattr(part, "folders", ())
    ):  # `check` looks for its own weights alone
        check(part, weights)
    taken = inspect.signature(part).parameters
    if "weights" in taken:
        options["weights"] = weights
    known = {
        key: each.default
        for key, each in taken.items()
        if each.kind is each.KEYWORD_ONLY and key not in (*GIVEN, *options)
    }
    options |= {key: _convert(name, key, value, known) for key, value in spec.options.items()}
    return part(spec.argument, device=device, **options)


def spell(part: type, argument: str, options: dict[str, Any]) -> str:
    """How a part is asked for: `name[:argument][,option=value...]`, without the options that are at their
    default.
    """
    taken = inspect.signature(part).parameters
    changed = [f",{key}={_example(value)}" for key, value in options.items() if value != taken[key].default]
    return part.name + (f":{argument}" if argument else "") + "".join(changed)


def _convert(name: str, key: str, text: str, known: dict[str, Any]) -> Any:
    """The option's value, of the type of its default in `known`; a tuple's items are whole numbers separated
    by `/`.
    """
    if key not in known:
        has = f"it has: {', '.join(known)}" if known else "it has none"
        raise SettingError(f"{name}: there is no option {key!r}", has)
    kind = type(known[key])
    try:
        if kind is bool:
            return {"yes": True, "no": False}[text]
        return tuple(int(item) for item in text.split("/")) if kind is tuple else kind(text)
    except (ValueError, KeyError) as error:
        wanted = {
            bool: "yes or no",
            int: "a whole number",
            float: "a number",
            tuple: "whole numbers separated by /",
        }[kind]
        raise SettingError(
            f"{name}: {key}={text} is not {wanted}", f"for example {key}={_example(known[key])}"
        ) from error


def _example(value: Any) -> str:
    if isinstance(value, bool):  # first: True is 1
        return "yes" if value else "no"
    return "/".join(map(str, value)) if isinstance(value, tuple) else str(value)
