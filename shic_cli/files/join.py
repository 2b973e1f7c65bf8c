"""One file from the parts that --shard wrote, in the memory of one image; their data are not unpacked."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py

from shic_cli import __version__
from shic_cli.base.errors import InputError
from shic_cli.base.progress import Track, plain_track
from shic_cli.files import hdf5
from shic_cli.files.arrays import Header, checked_fields, opened, read_arrays, write_fields, write_header
from shic_cli.files.atomic import atomic, check_target, first_difference
from shic_cli.files.checks import check_name
from shic_cli.files.layouts import LAYOUTS
from shic_cli.files.shards import NAME, Part, whole_path


def join(paths: Sequence[Path], output: Path, overwrite: bool = False, track: Track = plain_track) -> None:
    """Write the file that one process would have written, from its parts. The parts are kept.

    InputError when a part is missing or given twice, or when parts differ in settings, sources, template or
    the version of shic.
    """
    check_target(output, overwrite)
    headers = _in_order(paths)
    if part := next((path for path in headers if output.exists() and path.samefile(output)), None):
        raise InputError(f"{part}: is a part, and would be replaced", "name another file with -o")
    first, header = next(iter(headers.items()))
    layout = LAYOUTS[header.kind]
    root = read_arrays(first, header.kind)[0]
    with atomic(output, overwrite) as partial, hdf5.created(partial) as (file, sink):
        write_header(file, header.kind, _merged(headers.values()), header.sources, header.attrs)
        write_fields(file, {name: layout.fields[name] for name in root}, root, str(output))
        items, last, count = file.create_group("items"), "", 0
        for path in track(list(headers), len(headers), "join"):
            arrays = read_arrays(path, header.kind)[0]
            if any((arrays[name] != root[name]).any() for name in arrays):
                fact = f"{path}: its basis is not that of {first}"
                raise InputError(fact, "make it again with the same settings")
            for name, group in _items(path, header.kind):
                if name <= last:
                    raise InputError(
                        f"{path}: {name} is not in its share", "make it again with the same photos"
                    )
                group.file.copy(group, items, f"{count:08d}")
                sink.check()
                last, count = name, count + 1
        if not count:
            fact = f"{output}: its {len(headers)} parts hold nothing"
            raise InputError(fact, "look at what was said when they were made")


def is_finished(path: Path, wanted: dict[str, Any], overwrite: bool) -> bool:
    """Whether the part `path` is there and was made by a run that `wanted` describes.

    InputError if it was made by another run and is not to be overwritten.
    """
    if not path.exists():
        return False
    wanted = json.loads(json.dumps(wanted | {"shic_version": __version__}))
    difference = first_difference(_settings(read_header(path)), wanted)
    if difference and not overwrite:
        fact = f"{path}: is there with other settings ({difference})"
        raise InputError(fact, "remove it, or give --overwrite")
    return not difference


def read_header(path: Path) -> Header:
    """The header of a part; InputError if the file is no part."""
    with opened(path) as (_, header):
        shard: Any = header.params.get("shard")
        is_pair = isinstance(shard, list) and [type(number) for number in shard] == [int, int]
        if not is_pair or not 1 <= shard[0] <= shard[1]:
            raise InputError(f"{path}: is no part of a file", "give files that were made with --shard")
        if not LAYOUTS[header.kind].items:
            raise InputError(f"{path}: {header.kind} has no parts", "give files that were made with --shard")
    return header


def _settings(header: Header) -> dict[str, Any]:
    """What describes a run in its journal: the header without the number of dropped pictures, a result."""
    params = {key: value for key, value in header.params.items() if key != "dropped"}
    described = {"kind": header.kind, "params": params, "sources": header.sources, "attrs": header.attrs}
    return described | {"shic_version": header.shic_version}


def _in_order(paths: Sequence[Path]) -> dict[Path, Header]:
    """The headers of all parts in the order of their shares; InputError unless they make up one file."""
    if missing := next((path for path in paths if not path.exists()), None):
        raise InputError(f"{missing}: is missing", "make it with its --shard, then join again")
    by_number: dict[int, Path] = {}
    headers = {path: read_header(path) for path in dict.fromkeys(paths)}
    first = next(iter(headers))
    count = headers[first].params["shard"][1]
    for path, header in headers.items():
        number = header.params["shard"][0]
        other = by_number.setdefault(number, path)
        if other != path:
            raise InputError(f"{path}: is part {number} like {other}", "give each part once")
        if difference := first_difference(_common(headers[first]), _common(header)):
            fact = f"{path}: has other settings than {first} ({difference})"
            raise InputError(fact, "make all parts of a file with the same command")
    for number in range(1, count + 1):
        if number not in by_number:
            known = NAME.fullmatch(first.name)
            name = Part(number, count).path(whole_path(first)) if known else f"part {number} of {count}"
            raise InputError(f"{name}: is missing", f"make it with --shard {number}/{count}, then join again")
    return {by_number[number]: headers[by_number[number]] for number in range(1, count + 1)}


def _common(header: Header) -> dict[str, Any]:
    """What all parts of a file have in common."""
    settings = _settings(header)
    return settings | {"params": settings["params"] | {"shard": header.params["shard"][1]}}


def _merged(headers: Iterable[Header]) -> dict[str, Any]:
    """The settings of the whole file: those of its parts, with their dropped pictures added up."""
    params: dict[str, Any] = {}
    for header in headers:
        dropped = params.get("dropped", 0)
        params = {key: value for key, value in header.params.items() if key != "shard"}
        if "dropped" in params:
            params["dropped"] += dropped
    return params


def _items(path: Path, kind: str) -> Iterator[tuple[str, h5py.Group]]:
    """The name and the group of every image of a part, in order.

    InputError if a group holds anything but the data sets of its kind.
    """
    fields = LAYOUTS[kind].items
    needed = {name for name, field in fields.items() if not field.optional}
    with opened(path, kind) as (file, _):
        items = hdf5.member(file, "items", h5py.Group, f"{path}: /items")
        for number in range(0 if items is None else len(items)):
            where = f"{path}: /items/{number:08d}"
            group = items and hdf5.member(items, f"{number:08d}", h5py.Group, where)
            if group is None or not needed <= set(group) <= set(fields) or set(group.attrs) != {"name"}:
                raise InputError(f"{where} is not as shic writes it", hdf5.AGAIN)
            checked_fields(group, fields, where, {})
            yield check_name(hdf5.attribute(group, "name", where), where), group
