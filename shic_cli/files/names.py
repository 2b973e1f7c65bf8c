"""Maps files beside other files: which template they are of, and which of their names is meant."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from shic_cli.base.errors import InputError
from shic_cli.files.checks import check_name
from shic_cli.files.items import ItemReader

if TYPE_CHECKING:
    pass

log = logging.getLogger("shic")


def picture_path(folder: Path, name: str, suffix: str) -> Path:
    """Where the picture of the image `name` goes below `folder`; InputError if the name, which a file gives,
    leads out of it.
    """
    return (folder / check_name(name, str(folder))).with_suffix(suffix)


def check_template(maps: ItemReader, fingerprint: str) -> None:
    """InputError if the maps file says that it was made with another template; a warning if it does not say."""
    found = maps.header.attrs["template"]
    if not found:
        log.warning("%s: does not say which template it was made with; taken to be this one", maps.path)
    elif found != fingerprint:
        raise InputError(
            f"{maps.path}: was made with another template ({found[:8]}, this one is {fingerprint[:8]})",
            "give the template that it was made with",
        )


def meet(wanted: Iterable[str], have: Sequence[str], stems: bool = False) -> dict[str, str | None]:
    """For each name of `wanted` the same one of `have`: the exact name, else the file's name without folders,
    with `stems` also without its ending; None where there is none. InputError if two could be meant."""
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
