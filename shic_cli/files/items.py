"""Files of one group an image: a resumable writer, and a reader that checks every item when it is read."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from shic_cli import __version__
from shic_cli.base.errors import InputError, ShicError
from shic_cli.files import hdf5
from shic_cli.files.arrays import _read, checked_fields, opened, write_fields, write_header
from shic_cli.files.atomic import Journal
from shic_cli.files.checks import check_name
from shic_cli.files.layouts import LAYOUTS


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
