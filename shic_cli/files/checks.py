"""Checks of what files hold: names, JSON values and arrays, before any other code sees them."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from shic_cli.base.errors import InputError

if TYPE_CHECKING:
    from shic_cli.files.layouts import Field

log = logging.getLogger("shic")

LONGEST = 1024  # characters of a name, with its folders


def check_name(name: Any, where: str) -> str:
    """`name` itself, if it is a path below a folder: relative, without `..` and printable; else InputError.

    Pictures are written under names that come from files, so no name may lead out of their folder.
    """
    path = PurePosixPath(name) if isinstance(name, str) else PurePosixPath()
    leads_out = path.is_absolute() or ".." in path.parts or not path.name
    if (
        leads_out
        or not name.isprintable()
        or len(name) > LONGEST
        or max(len(part.encode()) for part in path.parts) > 200
    ):
        raise InputError(
            f"{where}: {str(name)[:80]!r} is no name for a file below a folder", "make the file again"
        )
    return name


def check_regular(path: Path | str) -> None:
    """InputError if `path` is a named pipe or a device, on which libraries wait without end."""
    with suppress(OSError):
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise InputError(f"{path}: is a named pipe or a device, not a file", "write it to a file first")


def unreadable(root: Path) -> Callable[[OSError], None]:
    """What a walk below `root` does about a folder that can't be read.

    InputError if it is `root`; a folder below is left out, with a warning.
    """

    def tell(error: OSError) -> None:
        fact = f"{error.filename}: can't be read ({error.strerror})"
        if Path(error.filename) == root:
            raise InputError(fact, "check who may read it") from error
        log.warning("%s: is left out", fact)

    return tell


def parse_json(text: str | bytes, where: str) -> Any:
    """The JSON value in `text`; InputError if it is not JSON, is nested too deep, or holds half a character.

    Half of a surrogate pair can't be written to any file.
    """
    try:
        value = json.loads(text)
        if (
            (b"\\u" in text) if isinstance(text, bytes) else ("\\u" in text)
        ):  # only an escape makes half a pair
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise InputError(f"{where}: is not JSON ({reason})", "check that the file is whole") from error


def check_axes(shape: tuple[int, ...], field: Field, where: str, sizes: dict[str, int]) -> None:
    """InputError if `shape` is not that of `field`; `sizes` holds the known axes, and gets new ones."""
    if len(shape) != len(field.axes):
        raise InputError(f"{where} has {len(shape)} axes, expected {len(field.axes)}", "make the file again")
    for axis, size in zip(field.axes, shape, strict=True):
        expected = axis if isinstance(axis, int) else sizes.setdefault(axis, size)
        if size != expected:
            raise InputError(
                f"{where} has {size} on its axis {axis}, expected {expected}", "make the file again"
            )


def check_finite(array: np.ndarray, where: str, hint: str = "the file is damaged; make it again") -> None:
    """InputError if `array` holds NaN or infinity, so that none gets from one stage to the next."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{where} holds numbers that are not finite", hint)


def check_values(array: np.ndarray, field: Field, where: str) -> None:
    """InputError if `array` holds a value that `field` may not hold."""
    if array.size and (array.min() < field.low or array.max() > field.high):
        limits = f"{field.low:g} to {field.high:g}" if np.isfinite(field.high) else f"{field.low:g} and up"
        raise InputError(f"{where} holds numbers outside {limits}", "the file is damaged; make it again")


def check_indices(array: np.ndarray, bound: int, where: str, lowest: int = 0) -> None:
    """InputError if `array` holds a number outside `lowest` to `bound` - 1."""
    if array.size and (array.min() < lowest or array.max() >= bound):
        raise InputError(
            f"{where} holds numbers outside {lowest} to {bound - 1}", "the file is damaged; make it again"
        )


def check_surface(surface: Any, where: str) -> None:
    """InputError unless all indices of a surface exist and its vertices and edges have an extent."""
    for name, bound in (("faces", surface.verts), ("mirror", surface.verts), ("face_uv", surface.uv)):
        check_indices(getattr(surface, name), len(bound), f"{where}: {name}")
    edges = surface.verts[surface.faces[:, :2]]
    if (
        not len(edges)
        or not np.ptp(surface.verts, axis=0).max() > 0.1
        or not (edges[:, 0] != edges[:, 1]).any()
    ):
        raise InputError(f"{where}: verts and faces are no surface", "the file is damaged; make it again")


def whole_number(text: Any, where: str, low: int, high: int, hint: str = "") -> int:
    """The whole number from `low` to `high` that `text` says, in the digits 0 to 9, or that it is;
    InputError for anything else, however long.
    """
    is_text = isinstance(text, str) and re.fullmatch(r"\s*[+-]?[0-9]{1,19}\s*", text)
    is_number = isinstance(text, int) and not isinstance(text, bool)
    if (is_text or is_number) and low <= (number := int(text)) <= high:
        return number
    raise InputError(
        f"{where}: {shorten(text)} is no whole number from {low} to {high}", hint or "correct it in the file"
    )


def real_number(text: Any, where: str, low: float, high: float, hint: str = "") -> float:
    """The number from `low` to `high` that `text` says or is; InputError for anything else, NaN too."""
    try:
        number = (
            float(text) if isinstance(text, (int, float, str)) and not isinstance(text, bool) else math.nan
        )
    except (ValueError, OverflowError):
        number = math.nan
    if low <= number <= high:
        return number
    raise InputError(
        f"{where}: {shorten(text)} is no number from {low:g} to {high:g}", hint or "correct it in the file"
    )


def shorten(value: Any, most: int = 40) -> str:
    """`value` as a message shows it, at most `most` characters of it."""
    if isinstance(value, int) and abs(value) >= 10**most:
        return f"a number of more than {most} digits"
    text = str(value)
    return text if len(text) <= most else f"{text[:most]}…"
