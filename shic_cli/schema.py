"""The four kinds of HDF5 file: their layouts, checked readers and writers. No other module opens an .h5.

Axes: K vertices, F faces, T texture coordinates, M vertices of the mesh file, Q eigenvectors, N views, H by W pixels,
D channels, h by w cells. Every file has the root attributes `format`, `format_version`, `shic_version`, `params` (JSON of the
settings) and `sources` (JSON: role -> path and content hash); further attributes are named in LAYOUTS.
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

from shic_cli import __version__
from shic_cli.errors import InputError, ShicError
from shic_cli.locks import NO_LOCKS
from shic_cli.outputs import Journal, Sink, atomic

VERSION = 1


@dataclass(frozen=True)
class Field:
    """One data set: its dtype, its axes by letter (a number is a fixed size), what it holds, and whether a file may lack it."""

    dtype: str
    axes: tuple[str | int, ...]
    doc: str
    optional: bool = False


@dataclass(frozen=True)
class Layout:
    """One kind of file: data sets at the root, data sets of each group in `items`, extra root attributes, who makes it."""

    fields: dict[str, Field]
    items: dict[str, Field]
    attrs: tuple[str, ...]
    maker: str


LAYOUTS: dict[str, Layout] = {
    "shic/template": Layout(
        fields={
            "verts": Field("f4", ("K", 3), "centred, longest side 1, +y up, +z front"),
            "faces": Field("i4", ("F", 3), "vertex numbers, counter-clockwise from outside"),
            "eigenvectors": Field("f4", ("K", "Q"), "of the Laplace-Beltrami operator, without the constant one"),
            "eigenvalues": Field("f4", ("Q",), "ascending"),
            "geodesic": Field("f4", ("K", "K"), "distances, symmetric, largest 228"),
            "mirror": Field("i4", ("K",), "the vertex across the mirror plane"),
            "colors": Field("u1", ("K", 3), "a distinct smooth colour for each vertex, RGB"),
            "uv": Field("f4", ("T", 2), "texture coordinates, (0, 0) at the bottom left"),
            "face_uv": Field("i4", ("F", 3), "each face corner's row of uv"),
            "source_to_vertex": Field("i4", ("M",), "nearest vertex of every vertex of the mesh file"),
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
            "face": Field("i4", ("N", "H", "W"), "face number, -1 for none"),
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
            "pca_mean": Field("f4", ("C",), "what was taken from features of length C before `pca_basis`", optional=True),
            "pca_basis": Field("f4", ("C", "D"), "principal components in columns, the one of largest variance first", optional=True),
        },
        items={
            "feature": Field("f2", ("D", "h", "w"), "unit vectors"),
            "mask": Field("b1", ("H", "W"), "the object, in the photo's pixels"),
            "crop": Field("i4", (3,), "top, left and side of the square that the features cover, in the photo's pixels"),
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
            "vertex": Field("i4", ("H", "W"), "vertex number, -1 for none"),
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
    found = file.attrs.get("format")
    if found not in LAYOUTS:
        raise InputError(f"{path}: is no file of shic's (no known `format`)", f"make one with `{LAYOUTS[kind or 'shic/template'].maker}`")
    if kind is not None and found != kind:
        raise InputError(f"{path}: expected {kind}, found {found}", f"make one with `{LAYOUTS[kind].maker}`")
    version = int(file.attrs.get("format_version", 0))
    if version != VERSION:
        raise InputError(f"{path}: format_version is {version}, this shic reads {VERSION}", f"make it again with `{LAYOUTS[found].maker}`")
    try:
        params, sources = (json.loads(file.attrs[name]) for name in ("params", "sources"))
        attrs = {name: str(file.attrs[name]) for name in LAYOUTS[found].attrs}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: a root attribute is damaged ({error})", f"make it again with `{LAYOUTS[found].maker}`") from error
    if "labels" in attrs and attrs["labels"] not in LABELS:
        raise InputError(f"{path}: labels is {attrs['labels']!r}, expected one of {', '.join(LABELS)}", "correct that attribute")
    return Header(found, version, str(file.attrs.get("shic_version")), params, sources, attrs)


def _open(path: Path | str) -> h5py.File:
    """The file, opened for reading; without HDF5's lock where the file system has none: shic never changes a file that is in place."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return h5py.File(path, "r", locking=False)


@contextmanager
def opened(path: Path | str, kind: str | None = None) -> Iterator[tuple[h5py.File, Header]]:
    """The file, opened for reading and checked to be of `kind`, with its header."""
    try:
        file = _open(path)
    except BlockingIOError as error:
        raise InputError(f"{path}: another program has it open for writing", "wait for it to end") from error
    except FileNotFoundError as error:
        raise InputError(
            f"{path}: there is no such file", f"make one with `{LAYOUTS[kind].maker}`" if kind else "check the path"
        ) from error
    except OSError as error:
        raise InputError(f"{path}: can't be read as HDF5", "it is another kind of file, or was cut off") from error
    with file:
        yield file, read_header(file, path, kind)


def check_fields(group: h5py.Group, fields: dict[str, Field], path: Path | str, sizes: dict[str, int]) -> None:
    """InputError naming the first data set of `group` that is missing, a link, or of another dtype or size; fills `sizes`."""
    for name, field in fields.items():
        if field.optional and name not in group:
            continue
        where = f"{path}: {group.name.rstrip('/')}/{name}"
        link = group.get(name, getlink=True)
        if not isinstance(link, h5py.HardLink) or not isinstance(group[name], h5py.Dataset):
            raise InputError(f"{where} is missing", "the file is damaged or was made by another program; make it again")
        data = group[name]
        if data.dtype != np.dtype(field.dtype):
            raise InputError(f"{where} is {data.dtype}, expected {np.dtype(field.dtype)}", "make the file again")
        if len(data.shape) != len(field.axes):
            raise InputError(f"{where} has {len(data.shape)} axes, expected {len(field.axes)}", "make the file again")
        for axis, size in zip(field.axes, data.shape, strict=True):
            expected = axis if isinstance(axis, int) else sizes.setdefault(axis, size)
            if size != expected:
                raise InputError(f"{where} has {size} on its axis {axis}, expected {expected}", "make the file again")


def read_arrays(path: Path | str, kind: str) -> tuple[dict[str, np.ndarray], Header]:
    """All root data sets of a file of `kind`, checked."""
    with opened(path, kind) as (file, header):
        check_fields(file, LAYOUTS[kind].fields, path, {})
        return {name: _read(file, name, path) for name in LAYOUTS[kind].fields if name in file}, header


def _read(group: h5py.Group, name: str, path: Path | str) -> np.ndarray:
    try:
        array = group[name][()]
    except OSError as error:
        raise InputError(f"{path}: {group.name}/{name} can't be read", "the file is damaged; make it again") from error
    return _finite(array, f"{path}: {group.name.rstrip('/')}/{name}")


def _finite(array: np.ndarray, where: str) -> np.ndarray:
    """`array`; InputError if a number in it is not finite, so that none goes from one stage to the next."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{where} holds numbers that are not finite", "what computed them is at fault; nothing can be made from them")
    return array


def read_template(path: Path | str) -> Template:
    """The template in `path`, its indices checked; InputError if it is none."""
    arrays, header = read_arrays(path, "shic/template")
    template = Template(**arrays, mirror_axis=header.attrs["mirror_axis"])
    bounds = {
        "faces": len(template.verts),
        "mirror": len(template.verts),
        "source_to_vertex": len(template.verts),
        "face_uv": len(template.uv),
    }
    for name, bound in bounds.items():
        check_indices(getattr(template, name), bound, f"{path}: {name}")
    return template


def check_indices(array: np.ndarray, bound: int, where: str, lowest: int = 0) -> None:
    """InputError if `array` holds a number outside `lowest` to `bound` - 1."""
    if array.size and (array.min() < lowest or array.max() >= bound):
        raise InputError(f"{where} holds numbers outside {lowest} to {bound - 1}", "the file is damaged; make it again")


def write_arrays(
    path: Path, kind: str, arrays: dict[str, np.ndarray], *, params: dict, sources: dict, attrs: dict[str, str], overwrite: bool
) -> None:
    """Write a file of `kind` with root data sets, whole or not at all."""
    with atomic(Path(path), overwrite) as partial, _created(partial) as (file, _):
        _write_header(file, kind, params, sources, attrs)
        _write_fields(file, LAYOUTS[kind].fields, arrays, str(path))


@contextmanager
def _created(path: Path) -> Iterator[tuple[h5py.File, Sink]]:
    """A new file and what it is written through; whatever happens, HDF5 is left with nothing that it still wants to write."""
    with Sink(path) as sink:
        file = h5py.File(path, "w", driver="fileobj", fileobj=sink)
        try:
            yield file, sink
            file.close()
        except BaseException as error:
            sink.drop(error)
            file.close()
            raise


def _write_header(file: h5py.File, kind: str, params: dict, sources: dict, attrs: dict[str, str]) -> None:
    if missing := set(LAYOUTS[kind].attrs) - set(attrs):
        raise ValueError(f"{kind} needs the attributes {sorted(missing)}")
    file.attrs.update({"format": kind, "format_version": VERSION, "shic_version": __version__, **attrs})
    file.attrs.update({"params": json.dumps(params), "sources": json.dumps(sources)})


def _write_fields(group: h5py.Group, fields: dict[str, Field], arrays: dict[str, np.ndarray], where: str) -> None:
    for name, field in fields.items():
        array = _finite(np.ascontiguousarray(arrays[name], np.dtype(field.dtype)), f"{where}: {name}")
        packed = {} if name == "encoded" or array.size == 0 else {"compression": "gzip", "compression_opts": 1, "shuffle": True}
        group.create_dataset(name, data=array, track_times=False, **packed)


class ItemWriter:
    """Writes a file of one group an image, resumable: give the same target, params and sources and it goes on.

    Use as a context manager; `name in writer` says that an earlier run finished that image. When the block ends well the file is
    put in place; otherwise the journal beside the target keeps what is finished. `root`: data sets for the file's root, by name.
    """

    def __init__(
        self, path: Path | str, kind: str, *, params: dict, sources: dict, attrs: dict, overwrite: bool = False, root: dict | None = None
    ) -> None:
        self.path, self.kind, self.root = Path(path), kind, root or {}
        self.header = {"kind": kind, "params": params, "sources": sources, "attrs": attrs}
        self.journal = Journal(self.path, {**self.header, "shic_version": __version__}, replace=overwrite)
        self.names: dict[str, None] = {}
        for record in self.journal.records():
            with h5py.File(io.BytesIO(record), "r") as file:
                self.names[str(file["item"].attrs["name"])] = None

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
            _write_fields(group, LAYOUTS[self.kind].items, arrays, name)
        self.journal.append(buffer.getvalue())
        self.names[name] = None

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
        if not self.names:
            raise ShicError(f"{self.path}: there is nothing to write", "")
        order = {name: i for i, name in enumerate(sorted(self.names))}
        with self.journal.finishing() as partial, _created(partial) as (file, sink):
            _write_header(file, self.kind, self.header["params"], self.header["sources"], self.header["attrs"])
            _write_fields(file, {name: LAYOUTS[self.kind].fields[name] for name in self.root}, self.root, str(self.path))
            items = file.create_group("items")
            for record in self.journal.records():
                with h5py.File(io.BytesIO(record), "r") as one:
                    one.copy("item", items, f"{order[str(one['item'].attrs['name'])]:08d}")
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


def _state(path: Path | str) -> tuple[int, ...] | None:
    """What changes when the file is replaced or changed; None where there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


class ItemReader:
    """Reads a file of one group an image: `names`, `header`, `reader[name]` and iteration; every item is checked when read."""

    def __init__(self, path: Path | str, kind: str) -> None:
        self.path, self.kind, self.state = path, kind, _state(path)
        with opened(path, kind) as (file, self.header):
            group = file.get("items")
            if not isinstance(group, h5py.Group):
                raise InputError(f"{path}: /items is missing", f"make it again with `{LAYOUTS[kind].maker}`")
            self.keys: dict[str, str] = {}
            for key in group:
                if not isinstance(group.get(key, getlink=True), h5py.HardLink) or not isinstance(group[key], h5py.Group):
                    raise InputError(f"{path}: /items/{key} is not a group of this file", "the file is damaged; make it again")
                self.keys[str(group[key].attrs.get("name", key))] = key

    @property
    def names(self) -> list[str]:
        return list(self.keys)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, name: str) -> Item:
        with _open(self.path) as file:
            if _state(self.path) != self.state:
                raise InputError(f"{self.path}: was replaced while it was being read", "give the same line again")
            group = file["items"][self.keys[name]]
            fields = LAYOUTS[self.kind].items
            check_fields(group, fields, self.path, {})
            return Item(name, {field: _read(group, field, self.path) for field in fields})

    def __iter__(self) -> Iterator[Item]:
        return (self[name] for name in self.keys)


def describe(path: Path | str) -> dict[str, Any]:
    """What a file is: kind, fields with their shapes, settings, sources and attributes, as JSON values."""
    with opened(path) as (file, header):
        layout = LAYOUTS[header.kind]
        check_fields(file, layout.fields, path, {})
        held = {name: file[name] for name in layout.fields if name in file}
        fields = {
            name: {"dtype": str(each.dtype), "shape": list(each.shape), "holds": layout.fields[name].doc} for name, each in held.items()
        }
        if layout.items:
            reader = ItemReader(path, header.kind)
            for name in reader.names[:1]:
                _ = reader[name]  # checks it
            fields["items"] = {"count": len(reader), "fields": {name: field.doc for name, field in layout.items.items()}}
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
