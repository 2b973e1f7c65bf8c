"""How the names in a maps file relate to other files: to pictures, to a template, to other names."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

from shic_cli.base.errors import InputError
from shic_cli.files.checks import check_name
from shic_cli.files.items import ItemReader

log = logging.getLogger("shic")


def picture_path(folder: Path, name: str, suffix: str) -> Path:
    """The path below `folder` for the picture of the image `name`; InputError if it would be elsewhere."""
    return (folder / check_name(name, str(folder))).with_suffix(suffix)


def check_template(maps: ItemReader, fingerprint: str) -> None:
    """InputError if the maps file was made with another template; a warning if it names none."""
    made_with = maps.header.attrs["template"]
    if not made_with:
        log.warning("%s: does not name its template; this one is assumed", maps.path)
    elif made_with != fingerprint:
        fact = f"was made with another template ({made_with[:8]}, this one is {fingerprint[:8]})"
        raise InputError(f"{maps.path}: {fact}", "give the template that it was made with")


def meet(wanted: Iterable[str], have: Sequence[str], stems: bool = False) -> dict[str, str | None]:
    """For each name of `wanted` the name of `have` that means the same image; None if there is none.

    The whole name is compared first, then the name without folders; with `stems` both also without the
    suffix. InputError if two names match.
    """
    forms: list[Callable[[str], str]] = [str, lambda name: PurePosixPath(name).name]
    if stems:
        forms += [
            lambda name: str(PurePosixPath(name)).removesuffix(PurePosixPath(name).suffix),
            lambda name: PurePosixPath(name).stem,
        ]
    indices = []
    for form in forms:
        index = defaultdict(list)
        for name in have:
            index[form(name)].append(name)
        indices.append(index)
    met: dict[str, str | None] = {}
    for name in dict.fromkeys(wanted):
        keys = [
            (index, key)
            for form, index in zip(forms, indices, strict=True)
            for key in {name: 0, form(name): 0}
        ]
        hits = next((index[key] for index, key in keys if key in index), [])
        if len(hits) > 1:
            raise InputError(
                f"{name}: could be {hits[0]} or {hits[1]}",
                "give both the same folders, so that their names agree",
            )
        met[name] = hits[0] if hits else None
    taken: dict[str, str] = {}
    for name, hit in met.items():
        if hit is not None and taken.setdefault(hit, name) != name:
            raise InputError(
                f"{hit}: could be {taken[hit]} or {name}",
                "give both the same folders, so that their names agree",
            )
    return met
