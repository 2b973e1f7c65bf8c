"""Writing without loss: atomic targets, and a journal that a killed run leaves behind and the next one reads.

A target appears whole or not at all: everything is written to a partial file beside it and renamed, under a
lock. A long run appends each finished item to `TARGET.journal`; a torn last record is cut off when the same
command is given again, and the finished items are kept. When the target is in place the journal goes; of a
run that was killed between the two, its last mark tells that it is over.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from shic_cli.base.errors import InputError, ShicError
from shic_cli.files.locks import Lock

RECORD = struct.Struct("<4sQI")  # magic, length, CRC-32 of what follows
MAGIC = b"SHJ1"
MARK = struct.Struct("<4sQqI")  # magic, size and time of change (ns) of the finished target, CRC-32 of these
MARKED = b"SHJE"
PATIENCE = 10.0  # seconds that a short write waits for another one's end


def check_target(path: Path, overwrite: bool) -> None:
    """Raise ShicError if `path` is there already and `overwrite` was not asked for, or if it can't be written
    to.
    """
    if path.exists() and not overwrite:
        _tidy(path)
        raise ShicError(f"{path}: is there already and is kept", "give --overwrite, or another name")
    if path.is_dir():
        raise InputError(f"{path}: is a folder", "give a file name with -o")
    if not path.parent.is_dir():
        raise InputError(
            f"{path.parent}: there is no such folder to write to", f"make it with `mkdir -p {path.parent}`"
        )
    if not os.access(path.parent, os.W_OK | os.X_OK):
        where = path.parent if path.parent != Path() else Path.cwd()
        raise InputError(f"{where}: can't be written to", "name a file in another folder with -o")


def _beside(target: Path) -> tuple[Path, Path, Path]:
    """The partial file, the journal and the checkpoint of a target."""
    return tuple(
        target.with_name(name)
        for name in (
            f".{target.stem}.partial{target.suffix}",
            f"{target.name}.journal",
            f"{target.name}.checkpoint",
        )
    )


def _tidy(target: Path) -> None:
    """Remove what a run left beside `target` that was killed when it had put it in place; leave what another
    run needs.
    """
    partial, journal, checkpoint = _beside(target)
    if not any(path.exists() for path in (partial, journal, target.with_name(f".{target.name}.lock"))):
        return
    with suppress(ShicError, OSError), Lock(target):
        partial.unlink(missing_ok=True)
        if _is_over(journal, target):
            checkpoint.unlink(missing_ok=True)
            journal.unlink()


def _is_over(journal: Path, target: Path) -> bool:
    """Whether the last that the journal says is that `target`, as it is there, was finished from it."""
    try:
        with open(journal, "rb") as file:
            file.seek(-MARK.size, os.SEEK_END)
            data, found = file.read(), target.stat()
        magic, size, changed, crc = MARK.unpack(data)
    except (OSError, struct.error):
        return False
    return (
        magic == MARKED
        and crc == zlib.crc32(data[:-4])
        and (size, changed) == (found.st_size, found.st_mtime_ns)
    )


@contextmanager
def atomic(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """A partial file's path to write to; it becomes `path` when the block ends well and is removed when it
    does not.
    """
    path = Path(path)
    check_target(path, overwrite)
    with Lock(path, PATIENCE):
        check_target(path, overwrite)  # another run may have made it meanwhile
        with replacing(path) as partial:
            yield partial


@contextmanager
def replacing(path: Path, last: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """As `atomic`, for who holds the lock; `last` gets the finished partial file before it is put in place.

    Its name is always the same, so that what a killed run left is used again.
    """
    partial = _beside(path)[0]
    try:
        yield partial
        os.umask(umask := os.umask(0))  # there is no other way to ask for it
        partial.chmod(0o666 & ~umask)  # some libraries write files that nobody else may read
        if last is not None:
            last(partial)
        os.replace(partial, path)
    except OSError as error:
        error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


class Sink:
    """A new file for h5py to write through: an error is kept for `check` and not shown to HDF5.

    HDF5 can't give up a file that it could not write to the end (a full disk): it tries again when the
    process ends, and crashes.
    """

    def __init__(self, path: Path) -> None:
        self.file = open(path, "w+b", buffering=0)  # noqa: SIM115 - closed by __exit__
        self.error: BaseException | None = None

    def write(self, data: memoryview) -> int:
        try:
            if self.error is None:
                _write_all(self.file, data)
        except OSError as error:
            self.error = error
        return len(data)

    def readinto(self, buffer: memoryview) -> int:
        count = self.file.readinto(buffer)
        buffer[count:] = bytes(len(buffer) - count)  # beyond what could be written
        return len(buffer)

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(place, whence)

    def tell(self) -> int:
        return self.file.tell()

    def truncate(self, size: int) -> None:
        try:
            if self.error is None:
                self.file.truncate(size)
        except OSError as error:
            self.error = error

    def flush(self) -> None:
        """Nothing is held back."""

    def drop(self, error: BaseException) -> None:
        """Let all that is still written go nowhere."""
        self.error = self.error or error

    def check(self) -> None:
        """Raise what went wrong."""
        if self.error is not None:
            raise self.error

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.file.close()
        if isinstance(self.error, OSError) or kind is None:
            self.check()


def _write_all(file: Any, data: bytes | memoryview) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


class Journal:
    """An append-only file of records beside `target`, which is locked meanwhile; `header` says what made
    them.

    An existing journal whose header equals `header` goes on. One with another header is started again if
    `replace`, else ShicError names the first setting that differs. `checkpoint` is the path of a file that
    goes with the journal.
    """

    def __init__(self, target: Path, header: dict[str, Any], replace: bool = False) -> None:
        self.target, (_, self.path, self.checkpoint) = target, _beside(target)
        check_target(target, replace)
        self.lock = Lock(target)
        try:
            check_target(target, replace)  # another run may have finished it meanwhile
            self.file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - lives as long as the object
            self.end = 0
            self._open(target, json.loads(json.dumps(header)), replace)
        except BaseException:
            self.lock.release()
            raise

    def _open(self, target: Path, header: dict[str, Any], replace: bool) -> None:
        first = next(self._scan(), None)
        difference = first_difference(json.loads(first), header) if first else ""
        if first is None or (difference and replace):
            self.checkpoint.unlink(
                missing_ok=True
            )  # before there is a journal that it would seem to belong to
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
        self.lock.check()
        try:
            _write_all(self.file, RECORD.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload)
        except OSError as error:
            self._truncate(self.end)
            error.filename = str(self.target)
            raise
        self.end += RECORD.size + len(payload)

    def records(self) -> Iterator[bytes]:
        """The records after the header, in the order of writing."""
        scan = self._scan()
        next(scan)
        yield from scan

    @contextmanager
    def finishing(self) -> Iterator[Path]:
        """The target's partial file, to write; it is put in place when the block ends well, and the journal
        is marked as over.
        """
        with replacing(self.target, self._mark) as partial:
            yield partial

    def _mark(self, partial: Path) -> None:
        self.lock.check()
        found = partial.stat()
        mark = MARK.pack(MARKED, found.st_size, found.st_mtime_ns, 0)[:-4]
        self._truncate(self.end)
        _write_all(self.file, mark + zlib.crc32(mark).to_bytes(4, "little"))

    def close(self, remove: bool = False) -> None:
        """Close the journal and give up its lock; `remove` it, and the checkpoint, when its target is in
        place.
        """
        try:
            if remove:
                with suppress(OSError), open(self.target, "rb") as target:
                    os.fsync(target.fileno())  # the journal is all there is until the target is on the disk
                self.checkpoint.unlink(missing_ok=True)
                self.path.unlink(missing_ok=True)
            self.file.close()
        finally:
            self.lock.release()


def first_difference(old: Any, new: Any, where: str = "") -> str:
    """`name: old, now new` for the first leaf in which two JSON values differ, empty when they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if found := first_difference(old.get(key), new.get(key), f"{where}.{key}" if where else key):
                return found
        return ""
    return "" if old == new else f"{where}: {old!r}, now {new!r}"
