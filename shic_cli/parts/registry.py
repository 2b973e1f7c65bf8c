"""The parts that a user can swap, by name: extractors, renderers, generators and maskers.

A part is a class that keeps the contract of its kind (extractors/contract.py and so on; docs/contracts.md).
The built-in parts are named below. Another package adds its own by an entry point in the group
`shic.extractors`, `shic.renderers`, `shic.generators` or `shic.maskers`. A part is imported when its name is
asked for, not before.

A part is asked for as `name`, `name:argument` or `name:argument,option=value,...`, for example
`vit:FOLDER,layer=9,facet=key`, and made as `Part(argument, device=device, **options)`. Its options are the
keyword parameters of its constructor; a value gets the type of the parameter's default.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import logging
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from shic_cli.base.errors import MissingError, SettingError, ShicError, UnfinishedError, lacks_memory
from shic_cli.base.packages import require
from shic_cli.parts.contract import Contract, PartDefaults, check_part, completed, said

if TYPE_CHECKING:
    from shic_cli.parts.extractors.contract import Extractor
    from shic_cli.parts.generators.contract import Generator, GeneratorDefaults
    from shic_cli.parts.maskers.contract import Masker, MaskerDefaults
    from shic_cli.parts.renderers.contract import Renderer

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
        "cnn": "shic_cli.parts.extractors.cnn:Cnn",
        "mobilenet": "shic_cli.parts.extractors.cnn:Mobilenet",
        "sd": "shic_cli.parts.extractors.sd:Sd",
        "sd-dino": "shic_cli.parts.extractors.sd_dino:SdDino",
        "dift": "shic_cli.parts.extractors.sd:Dift",
        "diy-sc": "shic_cli.parts.extractors.diy_sc:DiySc",
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

# What `auto` tries, best first; a list "... on cpu" takes the place of another on that kind of device. The
# last of each needs neither weights nor an optional package. An encoder is an extractor that is frozen below
# a trained map; a small one does there. `picture` serves only where synthetic pictures teach what its pixels
# show. On a CPU a convolutional decoder learns from thousands of pictures for a day.
AUTO: dict[str, tuple[str, ...]] = {
    "extractors": ("diy-sc", "sd-dino", "dinov3", "dinov2", "silhouette"),
    "encoders": ("dinov3-small", "dinov2-small", "picture+mobilenet", "picture"),
    "encoders on cpu": ("picture+mobilenet", "picture"),
    "photo encoders": ("dinov3-small", "dinov2-small", "silhouette"),
    "renderers": ("pytorch3d", "warp"),
    "generators": ("controlnet-depth", "plain"),
    "classless generators": ("plain",),  # where no class is named; a prompt would need one
    "maskers": ("grounded-sam", "grabcut"),
    "classless maskers": ("grabcut",),  # where no class is named
}

# Keyword parameters of a constructor that commands fill in. They are no options of the part, and only a
# constructor that has them gets them; `device` is given to all.
GIVEN = ("device", "weights", "class_name", "config")


@dataclass(frozen=True)
class Spec:
    """A part as the user asks for it: its `name`, the text after the colon, and its options as typed."""

    name: str
    argument: str
    options: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Spec:
        """The parts of `name[:argument][,option=value...]`.

        SettingError when an option has no value, or is given twice.
        """
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


def contract_of(kind: str) -> Contract:
    """The contract of `kind`: extractors, renderers, generators or maskers."""
    return importlib.import_module(f"shic_cli.parts.{kind}.contract").CONTRACT


@overload
def find(kind: Literal["generators"], name: str) -> type[GeneratorDefaults]: ...
@overload
def find(kind: Literal["maskers"], name: str) -> type[MaskerDefaults]: ...
@overload
def find(kind: str, name: str) -> type[PartDefaults]: ...
def find(kind: str, name: str) -> type[PartDefaults]:
    """The class of the part `name`, with the contract's defaults for what it lacks.

    SettingError with the nearest names if there is no such part, MissingError if it can't be imported, and
    PartError if its module raises another error or its class lacks a method.
    """
    if name in PARTS[kind]:
        module, _, attribute = PARTS[kind][name].partition(":")
        return completed(getattr(importlib.import_module(module), attribute), name, contract_of(kind))
    for point in entry_points(group=f"shic.{kind}", name=name):
        return completed(_loaded(point, contract_of(kind)), name, contract_of(kind))
    near = difflib.get_close_matches(name, names(kind), n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise SettingError(
        f"there is no {kind[:-1]} {name!r}", f"{hint}there are: auto, {', '.join(names(kind))}"
    )


def _loaded(point: EntryPoint, contract: Contract) -> type:
    """The class that an entry point names; MissingError for a failed import, PartError for another fault."""
    try:
        part = point.load()
    except ImportError as error:
        raise MissingError(
            f"{contract.kind[:-1]} {point.name}: {point.value} can't be imported ({error})",
            f"reinstall the package that adds it; {contract.hint}",
        ) from error
    except Exception as error:  # the module of another package may raise anything
        fault = f"importing it raises {said(error)}"
        raise contract.error(point.name, point.value, fault) from error
    if not isinstance(part, type):
        raise contract.error(point.name, point.value, f"is of type {type(part).__name__}, not a class")
    return part


def resolve(
    kind: str,
    name: str,
    device: object = "cpu",
    weights: Path | None = None,
    auto: str = "",
    level: int = logging.INFO,
) -> str:
    """The name that `name` stands for: itself, or for `auto` the best part that can be used on `device`.

    `auto` names the list of AUTO to try; "" is the list of `kind`. What was taken is logged at `level`.
    """
    if name != "auto":
        return name
    where = str(device).partition(":")[0]
    for candidate in AUTO.get(f"{auto or kind} on {where}", AUTO[auto or kind]):
        parts = [find(kind, each) for each in candidate.split("+")]
        if any(where in part.slow_on for part in parts):
            log.debug("%s: auto passed %s over: it is slow on %s", kind[:-1], candidate, where)
            continue
        try:
            for part in parts:
                _require_packages(part, candidate)
                part.check(weights)
        except MissingError as error:
            # A download that was begun and not finished is told loudly: its user wants that part.
            loud = logging.WARNING if isinstance(error, UnfinishedError) else logging.DEBUG
            passed_over = "%s: auto passed %s over: %s; %s"
            log.log(loud, passed_over, kind[:-1], candidate, error.message, error.hint)
            continue
        log.log(level, "%s: auto took %s", (auto or kind).split()[-1][:-1], candidate)
        return candidate
    raise AssertionError(f"the last of AUTO[{auto or kind!r}] can always be used")


@overload
def make(
    kind: Literal["extractors"],
    name: str,
    *,
    device: object = "cpu",
    weights: Path | None = None,
    **options: Any,
) -> Extractor: ...
@overload
def make(
    kind: Literal["renderers"],
    name: str,
    *,
    device: object = "cpu",
    weights: Path | None = None,
    **options: Any,
) -> Renderer: ...
@overload
def make(
    kind: Literal["generators"],
    name: str,
    *,
    device: object = "cpu",
    weights: Path | None = None,
    **options: Any,
) -> Generator: ...
@overload
def make(
    kind: Literal["maskers"],
    name: str,
    *,
    device: object = "cpu",
    weights: Path | None = None,
    **options: Any,
) -> Masker: ...
def make(kind: str, name: str, *, device: object = "cpu", weights: Path | None = None, **options: Any) -> Any:
    """A part made by `name`, `name:argument` or `name:argument,option=value`, checked against its contract.

    MissingError (status 3) when it lacks a package or its weights, SettingError when it has no such option,
    PartError when it does not keep its contract.
    """
    spec = Spec.parse(resolve(kind, name, device, weights))
    part, contract = find(kind, spec.name), contract_of(kind)
    _require_packages(part, f"{kind[:-1]} {spec.name}")
    if not spec.argument and not set(spec.options) & set(part.folders):  # `check` knows its own weights alone
        part.check(weights)
    taken = inspect.signature(part).parameters
    given = {"weights": weights, **options}
    given = {key: value for key, value in given.items() if key in taken or key not in GIVEN}
    known = {
        key: parameter.default
        for key, parameter in taken.items()
        if parameter.kind is parameter.KEYWORD_ONLY and key not in (*GIVEN, *given)
    }
    for key, default in known.items():
        if not isinstance(default, str | int | float | tuple):
            fault = (
                f"the default of its option {key} is {default!r}, not a text, a number, yes or no, or a tuple"
            )
            raise contract.error(spec.name, part, fault)
    given |= {key: _convert(name, key, value, known) for key, value in spec.options.items()}
    made = _made(part, spec, contract, {"device": device, **given})
    check_part(made, spec.name, contract)
    return made


def _require_packages(part: type[PartDefaults], wanted: str) -> None:
    """MissingError, which says that `wanted` needs it, if a package that `part` imports is not installed."""
    for module in part.packages:
        require(module, wanted)


def _made(part: Any, spec: Spec, contract: Contract, given: dict[str, Any]) -> Any:
    """`part` made as `spec` says; PartError for what the constructor of another package's part raises."""
    if spec.name in PARTS[contract.kind]:
        return part(spec.argument, **given)
    try:
        return part(spec.argument, **given)
    except ShicError:
        raise
    except Exception as error:  # the part of another package may raise anything
        if lacks_memory(error):
            raise
        fault = f"making it with {', '.join(given)} raises {said(error)}"
        raise contract.error(spec.name, part, fault) from error


def spell(part: type[Any], argument: str, options: dict[str, Any]) -> str:
    """How a part is asked for: `name[:argument][,option=value...]`, without the options at their default."""
    taken = inspect.signature(part).parameters
    changed = [f",{key}={_example(value)}" for key, value in options.items() if value != taken[key].default]
    return part.name + (f":{argument}" if argument else "") + "".join(changed)


def _convert(name: str, key: str, text: str, known: dict[str, Any]) -> Any:
    """The value of an option, of the type of its default in `known`.

    The items of a tuple are whole numbers separated by `/`.
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
