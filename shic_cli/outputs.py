"""Writing without loss: atomic targets, and a journal that a killed run leaves behind and the next one reads.

A target appears whole or not at all: everything is written to a partial file beside it and renamed. A long run appends each
finished item to `TARGET.journal`; a torn last record is cut off when the same command is given again, and the finished items
are kept.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shic_cli.errors import InputError, ShicError

RECORD = struct.Struct("<4sQI")  # magic, length, CRC-32 of what follows
MAGIC = b"SHJ1"


def check_target(path: Path, overwrite: bool) -> None:
    """Raise ShicError if `path` is there already and `overwrite` was not asked for, or if it can't be written to."""
    if path.exists() and not overwrite:
        raise ShicError(f"{path}: is there already and is kept", "give --overwrite, or another name with -o")
    if path.is_dir():
        raise InputError(f"{path}: is a folder", "give a file name with -o")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent}: there is no such folder to write to", f"make it with `mkdir -p {path.parent}`")


@contextmanager
def atomic(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """A partial file's path to write to; it becomes `path` when the block ends well and is removed when it does not."""
    path = Path(path)
    check_target(path, overwrite)
    partial = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield partial
        os.umask(umask := os.umask(0))  # there is no other way to ask for it
        partial.chmod(0o666 & ~umask)  # some libraries write files that nobody else may read
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


class Journal:
    """An append-only file of records beside `target`, locked while open; `header` says what made them.

    An existing journal whose header equals `header` goes on. One with another header is started again if `replace`, else
    ShicError names the first setting that differs.
    """

    def __init__(self, target: Path, header: dict[str, Any], replace: bool = False) -> None:
        self.path = target.with_name(target.name + ".journal")
        self.file = open(self.path, "a+b")  # noqa: SIM115 - lives as long as the object
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.file.close()
            raise ShicError(f"{target}: another run is writing it", "wait for it to end, or give another name with -o") from error
        self.end = 0
        self._open(target, json.loads(json.dumps(header)), replace)

    def _open(self, target: Path, header: dict[str, Any], replace: bool) -> None:
        first = next(self._scan(), None)
        difference = _first_difference(json.loads(first), header) if first else ""
        self.fresh = first is None or bool(difference)  # nothing of an earlier run is there to go on from
        if first is None or (difference and replace):
            self._truncate(0)
            self.append(json.dumps(header).encode())
            return
        if difference:
            self.file.close()
            raise ShicError(
                f"{target}: an unfinished run is there with other settings ({difference})",
                "give the same settings to go on, or --overwrite to start again",
            )
        for _ in self._scan():
            pass
        self._truncate(self.end)

    def _scan(self) -> Iterator[bytes]:
        """The whole records in turn; `end` is where the last whole one ends."""
        self.end = 0
        while True:
            self.file.seek(self.end)
            head = self.file.read(RECORD.size)
            if len(head) < RECORD.size:
                return
            magic, length, crc = RECORD.unpack(head)
            if magic != MAGIC or self.end + RECORD.size + length > os.fstat(self.file.fileno()).st_size:
                return
            payload = self.file.read(length)
            if zlib.crc32(payload) != crc:
                return
            self.end += RECORD.size + length
            yield payload

    def _truncate(self, size: int) -> None:
        self.file.truncate(size)
        self.file.seek(0, os.SEEK_END)
        self.end = size

    def append(self, payload: bytes) -> None:
        """Add one record; whole or, if the process dies meanwhile, not at all."""
        try:
            self.file.write(RECORD.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload)
            self.file.flush()
        except OSError:
            self._truncate(self.end)
            raise
        self.end += RECORD.size + len(payload)

    def records(self) -> Iterator[bytes]:
        """The records after the header, in the order of writing."""
        self.file.flush()
        scan = self._scan()
        next(scan)
        yield from scan

    def close(self, remove: bool = False) -> None:
        """Close the journal and give up its lock; `remove` it when its target is in place."""
        if remove:
            self.path.unlink(missing_ok=True)
        self.file.close()


def _first_difference(old: Any, new: Any, where: str = "") -> str:
    """`name: old, now new` for the first leaf in which two JSON values differ, empty when they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if found := _first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else key):
                return found
        return ""
    return "" if old == new else f"{where}: {old!r}, now {new!r}"
