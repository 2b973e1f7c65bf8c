"""The right to write a file, held by one process at a time, on file systems with locks and without.

Where the file system has locks, `.NAME.lock` beside the target is locked (flock): the lock ends with its
process, whatever happens. Where it has none (some network and container mounts), `.NAME.owner` is created by
whoever comes first and says who that is. Its owner touches it every BEAT seconds; one whose process is gone
from this machine, or that was not touched for STALE seconds, is taken over.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from pathlib import Path
from typing import BinaryIO

from shic_cli.base.errors import ShicError

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # what flock says where there are none
BEAT, STALE = 20.0, 300.0  # seconds
PAUSE = 0.05  # seconds between two tries


class Lock:
    """Holds the right to write `target` until `release`, for at most `wait` seconds waiting for it; ShicError
    if another run has it.
    """

    def __init__(self, target: Path, wait: float = 0.0) -> None:
        self.target = target
        self.path, self.owner = (target.with_name(f".{target.name}.{end}") for end in ("lock", "owner"))
        self.file: BinaryIO | None = None
        self.beat: threading.Event | None = None  # set to end the thread that touches `owner`
        self.token = json.dumps(
            {"host": socket.gethostname(), "pid": os.getpid(), "started": _started(os.getpid())}
        ).encode()
        until = time.monotonic() + wait
        while not self._take():
            if time.monotonic() >= until:
                hint = "wait for it to end, or write to another file"
                raise ShicError(f"{target}: another run is writing it{self._who()}", hint)
            time.sleep(PAUSE)

    def _take(self) -> bool:
        file = open(self.path, "a+b")  # noqa: SIM115 - lives as long as the lock
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        except OSError as error:
            file.close()
            if error.errno not in NO_LOCKS:
                raise
            self.path.unlink(missing_ok=True)
            return self._take_owner()
        if not _is_at(
            file, self.path
        ):  # its holder has removed it: the lock of a file that nobody else finds
            file.close()
            return False
        self.file = file
        return True

    def _take_owner(self) -> bool:
        try:
            with open(self.owner, "xb") as file:
                file.write(self.token)
        except FileExistsError:
            return self._remove_stale() and self._take_owner()
        self.beat = threading.Event()
        threading.Thread(target=_touch, args=(self.owner, self.beat), daemon=True).start()
        return True

    def _remove_stale(self) -> bool:
        """Remove the owner's file if its owner is gone. It is moved away and read again first: another run
        may have been quicker.
        """
        with contextlib.suppress(OSError):
            found = self.owner.read_bytes()
            if not _is_gone(found, self._age()):
                return False
            aside = self.owner.with_name(f"{self.owner.name}.{os.getpid()}")
            os.rename(self.owner, aside)
            if aside.read_bytes() != found:
                os.rename(aside, self.owner)
            else:
                aside.unlink()
                return True
        return False

    def _age(self) -> float:
        """Seconds since the owner's file was touched, by the file system's own clock."""
        probe = self.owner.with_name(f"{self.owner.name}.{os.getpid()}.probe")
        try:
            probe.write_bytes(b"")
            return probe.stat().st_mtime - self.owner.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _who(self) -> str:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            owner = json.loads(self.owner.read_bytes())
            return f" (process {owner['pid']} on {owner['host']})"
        return ""

    def check(self) -> None:
        """ShicError if another run has taken the lock over, which it does when this process stood still for
        long.
        """
        with contextlib.suppress(FileNotFoundError):
            if self.beat is None or self.owner.read_bytes() == self.token:
                return
        raise ShicError(
            f"{self.target}: another run has taken it over, since this one stood still",
            "give the same line again",
        )

    def release(self) -> None:
        """Give the right up and remove the lock's file."""
        if self.beat is not None:
            self.beat.set()
            with contextlib.suppress(OSError):
                if self.owner.read_bytes() == self.token:
                    self.owner.unlink()
            self.beat = None
        if self.file is not None:
            with contextlib.suppress(OSError):
                self.path.unlink()
            self.file.close()
            self.file = None

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False


def _touch(path: Path, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        with contextlib.suppress(OSError):
            os.utime(path)


def _is_gone(found: bytes, age: float) -> bool:
    """Whether the owner that wrote `found`, `age` seconds after it last gave a sign of life, has ended."""
    if age > STALE:
        return True
    try:
        owner = json.loads(found)
        here, pid, started = owner["host"] == socket.gethostname(), int(owner["pid"]), owner["started"]
    except (ValueError, KeyError, TypeError):
        return False  # it is being written
    if not here:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return _started(pid) != started  # another process has its number by now


def _started(pid: int) -> str:
    """When a process started, in ticks; empty where the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def has_locks(folder: Path) -> bool:
    """Whether the file system of `folder` has locks: whether a second opening of a locked file is kept out."""
    path = folder / f".shic.{os.getpid()}.lock"
    try:
        with open(path, "a+b") as one, open(path, "a+b") as other:
            fcntl.flock(one, fcntl.LOCK_EX | fcntl.LOCK_NB)
            try:
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    finally:
        path.unlink(missing_ok=True)
