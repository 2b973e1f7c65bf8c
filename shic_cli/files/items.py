"""Files with one group for each image: a writer that can be interrupted, and a reader that checks."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from shic_cli import __version__
from shic_cli.base.errors import Failures, InputError, PartialError, ShicError
from shic_cli.files import hdf5
from shic_cli.files.arrays import checked_fields, opened, read_fields, write_fields, write_header
from shic_cli.files.atomic import Journal, check_target
from shic_cli.files.checks import check_name
from shic_cli.files.join import is_finished, join, read_header
from shic_cli.files.layouts import LAYOUTS
from shic_cli.files.shards import WHOLE, Part

DROPPED = b"dropped "  # begins the journal's record of an image that is not written


def packed(kind: str, name: str, arrays: dict[str, np.ndarray | None]) -> bytes:
    """The record of an image `name` in the journal of a file of `kind`; InputError if an array can't be."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        group = file.create_group("item")
        group.attrs["name"] = name
        write_fields(group, LAYOUTS[kind].items, arrays, name)
    return buffer.getvalue()


class ItemWriter:
    """Writes a file with one group for each image, or a `part` of it; an interrupted run goes on.

    Use it as a context manager. `name in writer` says that an earlier run with the same target, params and
    sources finished that image. When the block ends well, the file is put in place; otherwise the journal
    beside the target keeps the finished images. `root` holds the data sets at the file's root, by name.
    """

    def __init__(
        self,
        path: Path | str,
        kind: str,
        *,
        params: dict[str, Any],
        sources: dict[str, Any],
        attrs: dict[str, str],
        overwrite: bool = False,
        root: dict[str, np.ndarray] | None = None,
        part: Part = WHOLE,
    ) -> None:
        self.whole, self.part, self.overwrite = Path(path), part, overwrite
        self.path, self.kind, self.root = part.path(self.whole), kind, root or {}
        if not part.is_whole:
            check_target(self.whole, overwrite)
            params = {**params, "shard": [part.number, part.count]}
        self.header = {"kind": kind, "params": params, "sources": sources, "attrs": attrs}
        self.names: set[str] = set()  # of the finished images
        self.dropped: set[str] = set()
        # --overwrite is about the whole file: a rank's part with the same settings is used all the same.
        may_be_finished = not part.is_whole and (part.ranked or not overwrite)
        self.finished = may_be_finished and is_finished(self.path, self.header, overwrite)
        if not self.finished:
            self._open_journal()

    def _open_journal(self) -> None:
        made_by = {**self.header, "shic_version": __version__}
        self.journal = Journal(self.path, made_by, replace=self.overwrite)
        for record in self.journal.records():
            if record.startswith(DROPPED):
                self.dropped.add(record.removeprefix(DROPPED).decode())
            else:
                with h5py.File(io.BytesIO(record), "r") as file:
                    self.names.add(str(file["item"].attrs["name"]))

    def __contains__(self, name: str) -> bool:
        return self.finished or name in self.names or name in self.dropped

    def __len__(self) -> int:
        return len(self.names)

    def add(self, name: str, **arrays: np.ndarray | None) -> None:
        """Keep one finished image; a crash after this call does not lose it."""
        self.keep(name, packed(self.kind, name, arrays))

    def keep(self, name: str, record: bytes) -> None:
        """Keep the finished image `name`, of which `record` is what `packed` gave, as `add` does."""
        self.journal.append(record)
        self.names.add(name)

    def drop(self, name: str) -> None:
        """Note that the image `name` is done and not written; a crash after this call does not lose it."""
        self.journal.append(DROPPED + name.encode())
        self.dropped.add(name)

    def __enter__(self) -> ItemWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if self.finished:
            return
        try:
            if kind is None:
                self._finish()
                self.finished = True
        finally:
            self.journal.close(remove=self.finished or not self.names)

    def _finish(self) -> None:
        if not self.names and self.part.is_whole:  # a share may have no image, or none that can be used
            raise ShicError(f"{self.path}: there is nothing to write", "")
        places = {name: i for i, name in enumerate(sorted(self.names))}
        fields, header = LAYOUTS[self.kind].fields, self.header
        with self.journal.finishing() as partial, hdf5.created(partial) as (file, sink):
            write_header(file, self.kind, header["params"], header["sources"], header["attrs"])
            write_fields(file, {name: fields[name] for name in self.root}, self.root, str(self.path))
            items = file.create_group("items")
            for record in self.journal.records():
                if record.startswith(DROPPED):
                    continue
                with h5py.File(io.BytesIO(record), "r") as one:
                    one.copy("item", items, f"{places[str(one['item'].attrs['name'])]:08d}")
                sink.check()

    def end(self, failures: Failures, total: int) -> None:
        """Report the failed images of `total`, after the block; under torchrun join the parts of all ranks.

        PartialError (status 4) if some failed, also if they did so when an earlier run wrote this part.
        """
        if self.part.ranked and not self.part.is_whole:
            self._join(failures, total)
            return
        share = len(self.part.of(range(total)))
        failures.report(share)
        if not self.part.is_whole:
            written = len(ItemReader(self.path, self.kind)) + read_header(self.path).params.get("dropped", 0)
            if written < share:
                fact = f"{self.path}: {share - written} of {share} inputs failed when it was made"
                raise PartialError(fact, "the rest is written; give --overwrite to try them again")

    def _join(self, failures: Failures, total: int) -> None:
        from shic_cli.base.ranks import connect, gather  # here, because it imports torch

        connect(self.part.count)
        shares = gather((failures.names, failures.first))
        if not self.part.is_first:
            return
        failures.names = [name for names, _ in shares for name in names]
        failures.first = next((first for _, first in shares if first), None)
        failures.check(total)
        parts = [Part(number, self.part.count).path(self.whole) for number in range(1, self.part.count + 1)]
        join(parts, self.whole, self.overwrite)
        for part in parts:
            part.unlink()
        failures.report(total)


@dataclass(frozen=True)
class Item:
    """One image of a features or maps file: its `name`, and the arrays of its layout as attributes."""

    name: str
    arrays: dict[str, np.ndarray]

    def __getattr__(self, key: str) -> np.ndarray:
        try:
            return self.__dict__["arrays"][key]
        except KeyError:
            raise AttributeError(key) from None


class ItemReader:
    """Reads a file with one group for each image: `names`, `header`, `reader[name]` and iteration.

    An image is read and checked each time that it is asked for; InputError names what is wrong with it.
    """

    def __init__(self, path: Path | str, kind: str) -> None:
        self.path, self.kind, self.state = path, kind, hdf5.state(path)
        self.keys: dict[str, str] = {}  # the name of each image, and that of its group
        with opened(path, kind) as (file, self.header):
            items = hdf5.member(file, "items", h5py.Group, f"{path}: /items")
            if items is None:
                raise InputError(f"{path}: /items is missing", f"make it again with `{LAYOUTS[kind].maker}`")
            with hdf5.damaged(f"{path}: /items"):
                keys = list(items)
            for key in keys:
                where = f"{path}: /items/{key}"
                name = hdf5.attribute(hdf5.known_group(items, key, where), "name", where)
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
                fact = f"{self.path}: was replaced while it was being read"
                raise InputError(fact, "give the same line again")
            where, items = f"{where}/{self.keys[name]}", hdf5.known_group(file, "items", where)
            group = hdf5.known_group(items, self.keys[name], where)
            return Item(name, read_fields(group, LAYOUTS[self.kind].items, where))

    def __iter__(self) -> Iterator[Item]:
        return (self[name] for name in self.keys)


def describe(path: Path | str) -> dict[str, Any]:
    """What a file is, as JSON values: kind, fields with their shapes, settings, sources and attributes."""
    with opened(path) as (file, header):
        layout = LAYOUTS[header.kind]
        fields: dict[str, Any] = {
            name: {"dtype": str(data.dtype), "shape": list(data.shape), "holds": layout.fields[name].doc}
            for name, data in checked_fields(file, layout.fields, f"{path}: ", {}).items()
        }
        if layout.items:
            reader = ItemReader(path, header.kind)
            for name in reader.names[:1]:
                _ = reader[name]  # checks it
            held = {name: field.doc for name, field in layout.items.items()}
            fields["items"] = {"count": len(reader), "fields": held}
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
