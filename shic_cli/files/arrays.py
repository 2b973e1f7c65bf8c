"""Reads and writes the arrays and root attributes of the four kinds of file, checked against layouts.py."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from shic_cli import __version__
from shic_cli.base.errors import InputError
from shic_cli.files import hdf5
from shic_cli.files.atomic import atomic
from shic_cli.files.checks import (
    check_axes,
    check_finite,
    check_indices,
    check_surface,
    check_values,
    parse_json,
)
from shic_cli.files.layouts import LABELS, LAYOUTS, VERSION, Field, Template


def source(path: Path | str) -> dict[str, str]:
    """What `sources` records about a file: its path and the hash of its content; InputError for a folder."""
    if Path(path).is_dir():
        raise InputError(
            f"{path}: is a folder", "name a file; `shic pseudo-gt FOLDER` makes maps of its photos"
        )
    with open(path, "rb") as stream:
        return {"path": str(path), "sha256": hashlib.file_digest(stream, "sha256").hexdigest()}


@dataclass(frozen=True)
class Header:
    """The root attributes of a file."""

    kind: str
    version: int
    shic_version: str
    params: dict[str, Any]
    sources: dict[str, Any]
    attrs: dict[str, str]


def read_header(file: h5py.File, path: Path | str, kind: str | None = None) -> Header:
    """The root attributes; InputError if they are not those of `kind` (of any kind if that is None)."""
    actual = hdf5.attribute(file, "format", str(path))
    if not isinstance(actual, str) or actual not in LAYOUTS:
        fact = f"{path}: is no file of shic's (no known `format`)"
        raise InputError(fact, f"make one with {LAYOUTS[kind or 'shic/template'].makers}")
    if kind is not None and actual != kind:
        raise InputError(f"{path}: expected {kind}, found {actual}", f"make one with {LAYOUTS[kind].makers}")
    again = f"make it again with `{LAYOUTS[actual].maker}`"
    version = hdf5.attribute(file, "format_version", str(path))
    if version != VERSION:
        raise InputError(f"{path}: format_version is {version}, this shic reads {VERSION}", again)
    held: dict[str, str] = {}
    for name in ("shic_version", "params", "sources", *LAYOUTS[actual].attrs):
        value = hdf5.attribute(file, name, str(path))
        if not isinstance(value, str):
            raise InputError(f"{path}: a root attribute is damaged ({name} is no text)", again)
        held[name] = value
    params, sources = (parse_json(held.pop(name), f"{path}: {name}") for name in ("params", "sources"))
    if not isinstance(params, dict) or not isinstance(sources, dict):
        raise InputError(f"{path}: a root attribute is damaged (params and sources are JSON objects)", again)
    if held.get("labels") not in (None, *LABELS):
        raise InputError(
            f"{path}: labels is {held['labels']!r}, expected one of {', '.join(LABELS)}",
            "correct that attribute",
        )
    return Header(actual, VERSION, held.pop("shic_version"), params, sources, held)


@contextmanager
def opened(path: Path | str, kind: str | None = None) -> Iterator[tuple[h5py.File, Header]]:
    """The file, opened for reading, and its header; InputError if it is not of `kind`."""
    if kind and not Path(path).exists():
        raise InputError(f"{path}: there is no such file", f"make one with {LAYOUTS[kind].makers}")
    with hdf5.opened(path) as file:
        yield file, read_header(file, path, kind)


def checked_fields(
    group: h5py.Group, fields: dict[str, Field], where: str, sizes: dict[str, int]
) -> dict[str, h5py.Dataset]:
    """The data sets of `group` by name, not read yet; `sizes` gets the sizes of their axes.

    InputError names the first one that is missing, a link, or of another dtype or size.
    """
    checked = {}
    for name, field in fields.items():
        here = f"{where}/{name}"
        data = hdf5.member(group, name, h5py.Dataset, here)
        if data is None and field.optional:
            continue
        if data is None:
            raise InputError(f"{here} is missing", hdf5.AGAIN)
        hdf5.check_dataset(data, np.dtype(field.dtype), here)
        check_axes(data.shape, field, here, sizes)
        checked[name] = data
    return checked


def read_arrays(path: Path | str, kind: str) -> tuple[dict[str, np.ndarray], Header]:
    """All root data sets of a file of `kind`, checked."""
    with opened(path, kind) as (file, header):
        return read_fields(file, LAYOUTS[kind].fields, f"{path}: "), header


def read_fields(group: h5py.Group, fields: dict[str, Field], where: str) -> dict[str, np.ndarray]:
    """The arrays of `group` by name; all are checked before the first is read."""
    arrays = {}
    for name, data in checked_fields(group, fields, where, {}).items():
        arrays[name] = hdf5.read_array(data, f"{where}/{name}")
        check_values(arrays[name], fields[name], f"{where}/{name}")
    return arrays


def read_template(path: Path | str) -> Template:
    """The template in `path`; InputError if it is no template, or an index in it points nowhere."""
    arrays, header = read_arrays(path, "shic/template")
    template = Template(**arrays, mirror_axis=header.attrs["mirror_axis"])
    check_indices(template.source_to_vertex, len(template.verts), f"{path}: source_to_vertex")
    check_surface(template, str(path))
    if template.mirror_axis not in ("x", "y", "z"):
        raise InputError(f"{path}: mirror_axis is {template.mirror_axis!r}, expected x, y or z", hdf5.AGAIN)
    return template


def write_arrays(
    path: Path,
    kind: str,
    arrays: dict[str, np.ndarray],
    *,
    params: dict,
    sources: dict,
    attrs: dict[str, str],
    overwrite: bool,
) -> None:
    """Write a file of `kind` with data sets at its root, whole or not at all."""
    with atomic(Path(path), overwrite) as partial, hdf5.created(partial) as (file, _):
        write_header(file, kind, params, sources, attrs)
        write_fields(file, LAYOUTS[kind].fields, arrays, str(path))


def write_header(file: h5py.File, kind: str, params: dict, sources: dict, attrs: dict[str, str]) -> None:
    """Write the root attributes of a file of `kind`."""
    if missing := set(LAYOUTS[kind].attrs) - set(attrs):
        raise ValueError(f"{kind} needs the attributes {sorted(missing)}")
    file.attrs.update({"format": kind, "format_version": VERSION, "shic_version": __version__, **attrs})
    file.attrs.update({"params": json.dumps(params), "sources": json.dumps(sources)})


def write_fields(
    group: h5py.Group, fields: dict[str, Field], arrays: Mapping[str, np.ndarray | None], where: str
) -> None:
    """Write `arrays` as packed data sets of `group`; InputError if a number is not finite.

    A field that is optional may be missing or None.
    """
    for name, field in fields.items():
        if field.optional and arrays.get(name) is None:
            continue
        array = np.ascontiguousarray(arrays[name], np.dtype(field.dtype))
        check_finite(array, f"{where}: {name}", "the program or the part that computed them is at fault")
        packed = {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        if name == "encoded" or array.size == 0:
            packed = {}
        group.create_dataset(name, data=array, track_times=False, **packed)
