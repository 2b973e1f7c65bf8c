"""The four kinds of HDF5 file: their layouts, checked readers and writers. No other module opens an .h5;
hdf5.py has the tools to.

Axes: K vertices, F faces, T texture coordinates, M vertices of the mesh file, Q eigenvectors, N views, H by W
pixels, D channels, h by w cells. Every file has the root attributes `format`, `format_version`,
`shic_version`, `params` (JSON of the settings) and `sources` (JSON: role -> path and content hash); further
attributes are named in LAYOUTS.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from shic_cli import __version__, hdf5
from shic_cli.errors import InputError, ShicError
from shic_cli.outputs import Journal, atomic
from shic_cli.untrusted import (
    check_axes,
    check_finite,
    check_indices,
    check_name,
    check_surface,
    check_values,
    parse_json,
)

VERSION = 1


@dataclass(frozen=True)
class Field:
    """One data set: its dtype, axes by letter (a number is a fixed size), what it holds, if a file may lack
    it, least and largest value.
    """

    dtype: str
    axes: tuple[str | int, ...]
    doc: str
    optional: bool = False
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True)
class Layout:
    """One kind of file: data sets at the root, data sets of each group in `items`, extra root attributes, who
    makes it.
    """

    fields: dict[str, Field]
    items: dict[str, Field]
    attrs: tuple[str, ...]
    maker: str


LAYOUTS: dict[str, Layout] = {
    "shic/template": Layout(
        fields={
            "verts": Field("f4", ("K", 3), "centred, longest side 1, +y up, +z front", low=-1, high=1),
            "faces": Field("i4", ("F", 3), "vertex numbers, counter-clockwise from outside", low=0),
            "eigenvectors": Field(
                "f4", ("K", "Q"), "of the Laplace-Beltrami operator, without the constant one"
            ),
            "eigenvalues": Field("f4", ("Q",), "ascending"),
            "geodesic": Field("f4", ("K", "K"), "distances, symmetric, largest 228", low=0, high=229),
            "mirror": Field("i4", ("K",), "the vertex across the mirror plane", low=0),
            "colors": Field("u1", ("K", 3), "a distinct smooth colour for each vertex, RGB"),
            "uv": Field("f4", ("T", 2), "texture coordinates, (0, 0) at the bottom left", low=0, high=1),
            "face_uv": Field("i4", ("F", 3), "each face corner's row of uv", low=0),
            "source_to_vertex": Field("i4", ("M",), "nearest vertex of every vertex of the mesh file", low=0),
        },
        items={},
        attrs=("mirror_axis",),
        maker="shic template prep",
    ),
    "shic/views": Layout(
        fields={
            "image": Field("u1", ("N", "H", "W", 3), "RGB"),
            "depth": Field("f4", ("N", "H", "W"), "view-space z, -1 where there is no surface"),
            "mask": Field("b1", ("N", "H", "W"), "the surface"),
            "face": Field("i4", ("N", "H", "W"), "face number, -1 for none", low=-1),
            "bary": Field("f4", ("N", "H", "W", 3), "barycentric coordinates, -1 for none"),
            "rotation": Field("f4", ("N", 3, 3), "R of X_view = X_world R + T"),
            "translation": Field("f4", ("N", 3), "T"),
            "focal": Field("f4", ("N",), "in normalised device coordinates"),
            "principal": Field("f4", ("N", 2), "x and y in normalised device coordinates"),
            "vertex_yx": Field("f4", ("N", "K", 2), "v_i(k) of Eq. 1"),
            "vertex_visible": Field("b1", ("N", "K"), "V_i"),
        },
        items={},
        attrs=("template",),
        maker="shic render",
    ),
    "shic/features": Layout(
        fields={
            "pca_mean": Field(
                "f4", ("C",), "what was taken from features of length C before `pca_basis`", optional=True
            ),
            "pca_basis": Field(
                "f4",
                ("C", "D"),
                "principal components in columns, the one of largest variance first",
                optional=True,
            ),
        },
        items={
            "feature": Field("f2", ("D", "h", "w"), "unit vectors"),
            "mask": Field("b1", ("H", "W"), "the object, in the photo's pixels"),
            "crop": Field(
                "i4", (3,), "top, left and side of the square that the features cover, in the photo's pixels"
            ),
            "encoded": Field("u1", ("B",), "the image file's own bytes"),
        },
        attrs=("extractor", "fingerprint", "template"),
        maker="shic features",
    ),
    "shic/maps": Layout(
        fields={},
        items={
            "encoded": Field("u1", ("B",), "the image file's own bytes"),
            "mask": Field("b1", ("H", "W"), "the object"),
            "vertex": Field("i4", ("H", "W"), "vertex number, -1 for none", low=-1),
            "score": Field("f2", ("H", "W"), "how sure; the similarity, or the probability, 0 for none"),
        },
        attrs=("labels", "template"),
        maker="shic pseudo-gt",
    ),
}
LABELS = ("pseudo", "synthetic", "predicted", "annotated")


@dataclass(frozen=True)
class Template:
    """`shic/template` in memory; the fields are those of its layout, as numpy arrays."""

    verts: np.ndarray
    faces: np.ndarray
    eigenvectors: np.ndarray
    eigenvalues: np.ndarray
    geodesic: np.ndarray
    mirror: np.ndarray
    colors: np.ndarray
    uv: np.ndarray
    face_uv: np.ndarray
    source_to_vertex: np.ndarray
    mirror_axis: str = "x"

    @cached_property
    def fingerprint(self) -> str:
        """Identifies the template in every file made from it: a hash of its vertices and faces."""
        return template_fingerprint(self.verts, self.faces)


def template_fingerprint(verts: np.ndarray, faces: np.ndarray) -> str:
    """SHA-256 of the vertices `(K, 3)` as f4 and the faces `(F, 3)` as i4, in hexadecimal."""
    data = np.ascontiguousarray(verts, "<f4").tobytes() + np.ascontiguousarray(faces, "<i4").tobytes()
    return hashlib.sha256(data).hexdigest()


def source(path: Path | str) -> dict[str, str]:
    """What `sources` records of a file: its path and content hash."""
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
    """The root attributes; InputError if they are not those of `kind` (any kind when None)."""
    found = hdf5.attribute(file, "format", str(path))
    if found not in LAYOUTS:
        raise InputError(
            f"{path}: is no file of shic's (no known `format`)",
            f"make one with `{LAYOUTS[kind or 'shic/template'].maker}`",
        )
    if kind is not None and found != kind:
        raise InputError(f"{path}: expected {kind}, found {found}", f"make one with `{LAYOUTS[kind].maker}`")
    names = ("format_version", "shic_version", "params", "sources", *LAYOUTS[found].attrs)
    held = {name: hdf5.attribute(file, name, str(path)) for name in names}
    version, again = held.pop("format_version"), f"make it again with `{LAYOUTS[found].maker}`"
    if version != VERSION:
        raise InputError(f"{path}: format_version is {version}, this shic reads {VERSION}", again)
    for name, value in held.items():
        if not isinstance(value, str):
            raise InputError(f"{path}: a root attribute is damaged ({name} is no text)", again)
    params, sources = (parse_json(held.pop(name), f"{path}: {name}") for name in ("params", "sources"))
    if not isinstance(params, dict) or not isinstance(sources, dict):
        raise InputError(f"{path}: a root attribute is damaged (params and sources are JSON objects)", again)
    if held.get("labels", LABELS[0]) not in LABELS:
        raise InputError(
            f"{path}: labels is {held['labels']!r}, expected one of {', '.join(LABELS)}",
            "correct that attribute",
        )
    return Header(found, version, held.pop("shic_version"), params, sources, held)


@contextmanager
def opened(path: Path | str, kind: str | None = None) -> Iterator[tuple[h5py.File, Header]]:
    """The file, opened for reading and checked to be of `kind`, with its header."""
    if kind and not Path(path).exists():
        raise InputError(f"{path}: there is no such file", f"make one with `{LAYOUTS[kind].maker}`")
    with hdf5.opened(path) as file:
        yield file, read_header(file, path, kind)


def checked_fields(
    group: h5py.Group, fields: dict[str, Field], where: str, sizes: dict[str, int]
) -> dict[str, h5py.Dataset]:
    """The data sets of `group`; InputError naming the first that is missing, a link, or of another dtype or
    size; fills `sizes`.
    """
    found = {}
    for name, field in fields.items():
        here = f"{where}/{name}"
        data = hdf5.member(group, name, h5py.Dataset, here)
        if data is None and field.optional:
            continue
        if data is None:
            raise InputError(f"{here} is missing", hdf5.AGAIN)
        hdf5.check_dataset(data, np.dtype(field.dtype), here)
        check_axes(data.shape, field, here, sizes)
        found[name] = data
    return found


def read_arrays(path: Path | str, kind: str) -> tuple[dict[str, np.ndarray], Header]:
    """All root data sets of a file of `kind`, checked."""
    with opened(path, kind) as (file, header):
        return _read(file, LAYOUTS[kind].fields, f"{path}: "), header


def _read(group: h5py.Group, fields: dict[str, Field], where: str) -> dict[str, np.ndarray]:
    """The arrays of `group`; all are checked before the first is read."""
    held = checked_fields(group, fields, where, {})
    found = {}
    for name, data in held.items():
        found[name] = hdf5.read_array(data, f"{where}/{name}")
        check_values(found[name], fields[name], f"{where}/{name}")
    return found


def read_template(path: Path | str) -> Template:
    """The template in `path`, its indices checked; InputError if it is none."""
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
    """Write a file of `kind` with root data sets, whole or not at all."""
    with atomic(Path(path), overwrite) as partial, hdf5.created(partial) as (file, _):
        write_header(file, kind, params, sources, attrs)
        write_fields(file, LAYOUTS[kind].fields, arrays, str(path))


def write_header(file: h5py.File, kind: str, params: dict, sources: dict, attrs: dict[str, str]) -> None:
    if missing := set(LAYOUTS[kind].attrs) - set(attrs):
        raise ValueError(f"{kind} needs the attributes {sorted(missing)}")
    file.attrs.update({"format": kind, "format_version": VERSION, "shic_version": __version__, **attrs})
    file.attrs.update({"params": json.dumps(params), "sources": json.dumps(sources)})


def write_fields(
    group: h5py.Group, fields: dict[str, Field], arrays: dict[str, np.ndarray], where: str
) -> None:
    for name, field in fields.items():
        array = np.ascontiguousarray(arrays[name], np.dtype(field.dtype))
        check_finite(
            array, f"{where}: {name}", "what computed them is at fault; nothing can be made from them"
        )
        packed = (
            {}
            if name == "encoded" or array.size == 0
            else {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        )
        group.create_dataset(name, data=array, track_times=False, **packed)


class ItemWriter:
    """Writes a file of one group an image, resumable: give the same target, params and sources and it goes
    on.

    Use as a context manager; `name in writer` says that an earlier run finished that image. When the block
    ends well the file is put in place; otherwise the journal beside the target keeps what is finished.
    `root`: data sets for the file's root, by name.
    """

    def __init__(
        self,
        path: Path | str,
        kind: str,
        *,
        params: dict,
        sources: dict,
        attrs: dict,
        overwrite: bool = False,
        root: dict | None = None,
    ) -> None:
        self.path, self.kind, self.root = Path(path), kind, root or {}
        self.header = {"kind": kind, "params": params, "sources": sources, "attrs": attrs}
        self.journal = Journal(self.path, {**self.header, "shic_version": __version__}, replace=overwrite)
        self.names: dict[str, int] = {}  # each with its place in the finished file
        for record in self.journal.records():
            with h5py.File(io.BytesIO(record), "r") as file:
                self.names[str(file["item"].attrs["name"])] = 0

    def __contains__(self, name: str) -> bool:
        return name in self.names

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: str, **arrays: np.ndarray) -> None:
        """Keep one finished image; a crash after this line does not lose it."""
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as file:
            group = file.create_group("item")
            group.attrs["name"] = name
            write_fields(group, LAYOUTS[self.kind].items, arrays, name)
        self.journal.append(buffer.getvalue())
        self.names[name] = 0

    def __enter__(self) -> ItemWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        done = False
        try:
            if kind is None:
                self._finish()
                done = True
        finally:
            self.journal.close(remove=done or not self.names)

    def _finish(self) -> None:
        if (
            not self.names and "shard" not in self.header["params"]
        ):  # a share may have no image, or none that can be used
            raise ShicError(f"{self.path}: there is nothing to write", "")
        self.names.update((name, i) for i, name in enumerate(sorted(self.names)))
        with self.journal.finishing() as partial, hdf5.created(partial) as (file, sink):
            write_header(file, self.kind, self.header["params"], self.header["sources"], self.header["attrs"])
            write_fields(
                file, {name: LAYOUTS[self.kind].fields[name] for name in self.root}, self.root, str(self.path)
            )
            items = file.create_group("items")
            for record in self.journal.records():
                with h5py.File(io.BytesIO(record), "r") as one:
                    one.copy("item", items, f"{self.names[str(one['item'].attrs['name'])]:08d}")
                sink.check()


@dataclass(frozen=True)
class Item:
    """One image of a features or maps file: its `name` and, by attribute, the arrays of the layout."""

    name: str
    arrays: dict[str, np.ndarray]

    def __getattr__(self, key: str) -> np.ndarray:
        try:
            return self.__dict__["arrays"][key]
        except KeyError:
            raise AttributeError(key) from None


class ItemReader:
    """Reads a file of one group an image: `names`, `header`, `reader[name]` and iteration; every item is
    checked when read.
    """

    def __init__(self, path: Path | str, kind: str) -> None:
        self.path, self.kind, self.state = path, kind, hdf5.state(path)
        self.keys: dict[str, str] = {}
        with opened(path, kind) as (file, self.header):
            group = hdf5.member(file, "items", h5py.Group, f"{path}: /items")
            if group is None:
                raise InputError(f"{path}: /items is missing", f"make it again with `{LAYOUTS[kind].maker}`")
            with hdf5.damaged(f"{path}: /items"):
                keys = list(group)
            for key in keys:
                where = f"{path}: /items/{key}"
                name = hdf5.attribute(hdf5.member(group, key, h5py.Group, where), "name", where)
                name = check_name(key if name is None else name, where)
                if self.keys.setdefault(name, key) != key:
                    raise InputError(f"{where}: is called {name}, like another", hdf5.AGAIN)

    @property
    def names(self) -> list[str]:
        return list(self.keys)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, name: str) -> Item:
        where = f"{self.path}: /items"
        with hdf5.opened(self.path, attributes=False) as file:
            if hdf5.state(self.path) != self.state:
                raise InputError(
                    f"{self.path}: was replaced while it was being read", "give the same line again"
                )
            items = hdf5.member(file, "items", h5py.Group, where)
            group = items and hdf5.member(items, self.keys[name], h5py.Group, f"{where}/{self.keys[name]}")
            if group is None:
                raise InputError(
                    f"{where}/{self.keys[name]} is missing",
                    "the file was changed meanwhile; give the same line again",
                )
            return Item(name, _read(group, LAYOUTS[self.kind].items, f"{where}/{self.keys[name]}"))

    def __iter__(self) -> Iterator[Item]:
        return (self[name] for name in self.keys)


def describe(path: Path | str) -> dict[str, Any]:
    """What a file is: kind, fields with their shapes, settings, sources and attributes, as JSON values."""
    with opened(path) as (file, header):
        layout = LAYOUTS[header.kind]
        held = checked_fields(file, layout.fields, f"{path}: ", {})
        fields = {
            name: {"dtype": str(each.dtype), "shape": list(each.shape), "holds": layout.fields[name].doc}
            for name, each in held.items()
        }
        if layout.items:
            reader = ItemReader(path, header.kind)
            for name in reader.names[:1]:
                _ = reader[name]  # checks it
            fields["items"] = {
                "count": len(reader),
                "fields": {name: field.doc for name, field in layout.items.items()},
            }
        return {
            "path": str(path),
            "kind": header.kind,
            "version": header.version,
            "shic_version": header.shic_version,
            "attributes": header.attrs,
            "fields": fields,
            "params": header.params,
            "sources": header.sources,
        }
