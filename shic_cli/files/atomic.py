"""Files that appear whole or not at all, and journals from which an interrupted run goes on.

Everything is written to a partial file beside the target, under a lock, and then renamed to the target. A
long run appends each finished item to `TARGET.journal`. When the same command is given again, it keeps the
finished items; an incomplete last record is cut off. The journal is removed once the target is in place. If
the run is killed just before that, the last record of the journal says that the target is finished.
"""

from __future__ import annotations

import json
import os
import stat
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from shic_cli.base.errors import InputError, ShicError, TargetError
from shic_cli.files.locks import Lock

RECORD = struct.Struct("<4sQI")  # magic, length and CRC-32 of the payload that follows
MAGIC = b"SHJ1"
MARK = struct.Struct("<4sQqI")  # magic, size and modification time (ns) of the finished target, CRC-32
MARKED = b"SHJE"
BUSY = 5.0 if sys.platform == "win32" else 0.0  # seconds that a rename waits for who has the target open
PATIENCE = 10.0  # seconds that a short write waits for another run to end
KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe", stat.S_IFLNK: "a symbolic link in a circle"}


def check_file_name(name: str | Path) -> None:
    """Raise InputError if the target `name` is empty or names a folder: `.`, `..` or `folder/`."""
    if not str(name):
        raise InputError("the name of the file to write is empty", "give a file name with -o")
    if os.path.basename(str(name)) in ("", ".", ".."):
        raise InputError(f"{name}: names a folder, not a file", "give a file name with -o")


def check_there(*paths: Path | None) -> None:
    """InputError if a file to read is missing; called before `check_target`, so that it is said first."""
    for path in paths:
        if path and not path.exists():
            raise InputError(f"{path}: there is no such file", "check the path")


def check_target(path: Path, overwrite: bool) -> Path:
    """The file to write for the target `path`: the one that a symbolic link points to, else `path` itself.

    ShicError if the file exists and `overwrite` is false. InputError if `path` is a folder, a named pipe or a
    device, which are never replaced, TargetError if its folder can't be written to.
    """
    check_file_name(path)
    file = Path(os.path.realpath(path)) if path.is_symlink() else path
    try:
        status = file.lstat()
    except (FileNotFoundError, NotADirectoryError):
        status = None
    if status and not stat.S_ISREG(status.st_mode):
        kind = KINDS.get(stat.S_IFMT(status.st_mode), "a device")
        raise InputError(f"{path}: is {kind}", "give a file name with -o")
    if status and not overwrite:
        tidy(file)
        raise ShicError(f"{path}: is there already and is kept", "give --overwrite, or another name")
    check_folder(file.parent)
    if status and not _may_replace(status, file.parent.stat()):
        raise TargetError(f"{path}: belongs to another user, who alone may replace it", "give another name")
    return file


def check_folder(folder: Path) -> None:
    """TargetError if no file can be made in `folder`."""
    if not folder.is_dir():
        raise TargetError(
            f"{folder}: there is no such folder to write to", f"make it with `mkdir -p {folder}`"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        named = folder if folder.parts else folder.absolute()  # "." would say nothing
        raise TargetError(f"{named}: can't be written to", "name a file in another folder with -o")


def _may_replace(file: os.stat_result, folder: os.stat_result) -> bool:
    """Whether this user may replace `file`: in a folder as /tmp (sticky) only who owns either may."""
    user = getattr(os, "geteuid", int)()  # Windows has no such folders
    return not folder.st_mode & stat.S_ISVTX or user in (0, file.st_uid, folder.st_uid)


def _beside(target: Path) -> tuple[Path, Path, Path]:
    """The partial file, the journal and the checkpoint of a target."""
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    journal, checkpoint = (target.with_name(f"{target.name}.{end}") for end in ("journal", "checkpoint"))
    return partial, journal, checkpoint


def tidy(target: Path) -> None:
    """Remove what a run that was killed after finishing `target` left beside it.

    Files that another run still needs are kept.
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
    """Whether the journal ends with a mark that matches `target`: its run was complete.

    OSError if there is no journal, or one that is shorter than a mark.
    """
    with open(journal, "rb") as file:
        file.seek(-MARK.size, os.SEEK_END)
        data, status = file.read(), target.stat()
    magic, size, changed, crc = MARK.unpack(data)
    is_mark = magic == MARKED and crc == zlib.crc32(data[:-4])
    return is_mark and (size, changed) == (status.st_size, status.st_mtime_ns)


@contextmanager
def atomic(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """The path of a partial file to write to, which replaces `path` when the block ends without an error.

    If the block raises, the partial file is removed and `path` stays as it was. A symbolic link stays; the
    file that it points to is replaced.
    """
    path = Path(path)
    file = check_target(path, overwrite)
    with Lock(file, PATIENCE):
        check_target(path, overwrite)  # another run may have made it in the meantime
        with replacing(file, path) as partial:
            yield partial


@contextmanager
def replacing(
    file: Path, path: Path | None = None, last: Callable[[Path], None] | None = None
) -> Iterator[Path]:
    """As `atomic`, for a caller that holds the lock of `file`; errors name `path`.

    `last` is called with the finished partial file before it is renamed. The partial file of a target has
    always the same name, and one that a killed run left is removed first: it may be another user's.
    """
    partial = _beside(file)[0]
    try:
        partial.unlink(missing_ok=True)
        yield partial
        os.umask(umask := os.umask(0))  # the umask can only be read by setting it
        partial.chmod(0o666 & ~umask)  # some libraries write files that only the owner may read
        if last is not None:
            last(partial)
        _rename(partial, file)
    except OSError as error:
        error.filename = str(path or file)
        raise
    finally:
        partial.unlink(missing_ok=True)


def _rename(partial: Path, file: Path) -> None:
    """Rename `partial` to `file`. Windows refuses while `file` is open: wait up to BUSY seconds."""
    end = time.monotonic() + BUSY
    while True:
        try:
            os.replace(partial, file)
            return
        except PermissionError:  # such as a virus scanner, or a viewer of pictures
            if time.monotonic() >= end:
                raise
        time.sleep(0.1)


class Sink:
    """A new file that h5py writes through. It keeps a write error for `check` and hides it from HDF5.

    HDF5 can't give up a file that it failed to write, for example on a full disk: it tries again when the
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
        buffer[count:] = bytes(len(buffer) - count)  # zeros for what could not be written
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
        """Nothing to do: the file is not buffered."""

    def drop(self, error: BaseException) -> None:
        """Discard everything that is written from now on."""
        self.error = self.error or error

    def check(self) -> None:
        """Raise the error that a write met."""
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
    """An append-only file of records beside `target`, which is locked until `close`.

    `header` describes the run. A journal with the same header is continued. One with another header starts
    again when `replace` is true; else ShicError names the first setting that differs.
    `continued` says which of the two it was; `checkpoint` is the path of a file that belongs to the journal.
    """

    def __init__(self, target: Path, header: dict[str, Any], replace: bool = False) -> None:
        self.target, self.place = target, check_target(target, replace)
        _, self.path, self.checkpoint = _beside(self.place)
        self.lock = Lock(self.place)
        try:
            check_target(target, replace)  # another run may have finished it in the meantime
            self.file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 - closed by close()
            self.end = 0
            self._open(json.loads(json.dumps(header)), replace)
        except BaseException:
            self.lock.release()
            raise

    def _open(self, header: dict[str, Any], replace: bool) -> None:
        first = next(self._scan(), None)
        self.continued = False
        difference = first_difference(json.loads(first), header) if first else ""
        if first is None or (difference and replace):
            self.checkpoint.unlink(missing_ok=True)  # first, so that it never lies beside a newer journal
            self._truncate(0)
            self.append(json.dumps(header).encode())
            return
        if difference:
            self.file.close()
            raise ShicError(
                f"{self.target}: an unfinished run is there with other settings ({difference})",
                "give the same settings to go on, or --overwrite to start again",
            )
        self.continued = True
        for _ in self._scan():
            pass
        self._truncate(self.end)

    def _scan(self) -> Iterator[bytes]:
        """The whole records in turn; afterwards `end` is the end of the last whole one."""
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
        """Add one record. If the process dies while it is written, the next run cuts it off."""
        self.lock.check()
        try:
            _write_all(self.file, RECORD.pack(MAGIC, len(payload), zlib.crc32(payload)) + payload)
        except OSError as error:
            self._truncate(self.end)
            error.filename = str(self.target)
            raise
        self.end += RECORD.size + len(payload)

    def records(self) -> Iterator[bytes]:
        """The records after the header, in the order in which they were added."""
        scan = self._scan()
        next(scan)
        yield from scan

    @contextmanager
    def finishing(self) -> Iterator[Path]:
        """The path of the target's partial file, which replaces the target when the block ends well.

        The journal is marked as complete just before that.
        """
        with replacing(self.place, self.target, self._mark) as partial:
            yield partial

    def _mark(self, partial: Path) -> None:
        self.lock.check()
        status = partial.stat()
        mark = MARK.pack(MARKED, status.st_size, status.st_mtime_ns, 0)[:-4]
        self._truncate(self.end)
        _write_all(self.file, mark + zlib.crc32(mark).to_bytes(4, "little"))

    def close(self, remove: bool = False) -> None:
        """Close the journal and release its lock; `remove` deletes it and its checkpoint."""
        try:
            if remove:
                with suppress(OSError), open(self.place, "rb") as target:
                    os.fsync(target.fileno())  # only then is the journal no longer needed
                self.checkpoint.unlink(missing_ok=True)
                self.file.close()  # Windows does not remove a file that is open
                self.path.unlink(missing_ok=True)
        finally:
            self.file.close()
            self.lock.release()


def first_difference(old: Any, new: Any, where: str = "") -> str:
    """`name: old, now new` for the first entry in which two JSON values differ; empty if they are equal."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            path = f"{where}.{key}" if where else key
            if difference := first_difference(old.get(key), new.get(key), path):
                return difference
        return ""
    return "" if old == new else f"{where}: {old!r}, now {new!r}"
