"""The right to write a file, held by one process at a time, on file systems with locks and without.

Where the file system has locks, `.NAME.lock` beside the target is locked (flock). Such a lock ends with its
process, however that ends. Where it has none (some network and container mounts), the process that comes
first creates `.NAME.owner`, which says which process that is, and touches it every BEAT seconds. Another
process takes the lock over if the owner is gone from this machine, or has not touched the file for STALE
seconds. The library filelock does both; this module chooses which, and turns its errors into ShicError.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from shic_cli.base.errors import ShicError

if TYPE_CHECKING:
    from filelock import SoftFileLease

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}  # errors of flock where there are no locks
BEAT, STALE = 20.0, 300.0  # seconds
PAUSE = 0.05  # seconds between two attempts


class Lock:
    """Holds the right to write `target` until `release`; waits up to `wait` seconds for it.

    ShicError if another run still holds it then.
    """

    def __init__(self, target: Path, wait: float = 0.0) -> None:
        from filelock import FileLock, Timeout

        self.target = target
        self.path, self.owner = (target.with_name(f".{target.name}.{end}") for end in ("lock", "owner"))
        self.lease: SoftFileLease | None = None  # only on a file system without locks
        self.file = FileLock(self.path, thread_local=False, poll_interval=PAUSE, fallback_to_soft=False)
        try:
            try:
                self.file.acquire(timeout=wait)
            except OSError as error:
                if isinstance(error, PermissionError) and self.path.exists():
                    fact = f"{target}: another user's run is writing it, or was killed"
                    hint = f"wait for it to end; if none runs, remove {self.path.name} beside it"
                    raise ShicError(fact, hint) from error
                if error.errno not in NO_LOCKS:
                    raise
                self.path.unlink(missing_ok=True)
                self.lease = self._lease(wait)
        except Timeout as error:
            hint = "wait for it to end, or write to another file"
            if self.owner.exists():  # which a run on a machine that is gone leaves behind
                hint = f"wait for it to end; if none runs, remove {self.owner.name} beside it"
            raise ShicError(f"{target}: another run is writing it{self._who()}", hint) from error

    def _lease(self, wait: float) -> SoftFileLease:
        """The owner's file, created and kept fresh; Timeout if another process holds it all that time."""
        from filelock import SoftFileLease

        lease = SoftFileLease(
            self.owner, lease_duration=STALE, heartbeat_interval=BEAT, thread_local=False, poll_interval=PAUSE
        )
        self._remove_stale()
        lease.acquire(timeout=wait)
        return lease

    def _remove_stale(self) -> None:
        """Remove the owner's file if it was not touched for STALE seconds.

        It is moved aside and read again before that, because another process may have taken it over just now.
        """
        with suppress(OSError):
            content = self.owner.read_bytes()
            if self._age() <= STALE:
                return
            aside = self.owner.with_name(f"{self.owner.name}.{os.getpid()}")
            os.rename(self.owner, aside)
            if aside.read_bytes() == content:
                aside.unlink()
            else:
                os.rename(aside, self.owner)

    def _age(self) -> float:
        """Seconds since the owner's file was touched, by the clock of the file system."""
        probe = self.owner.with_name(f"{self.owner.name}.{os.getpid()}.probe")
        try:
            probe.write_bytes(b"")
            return probe.stat().st_mtime - self.owner.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _who(self) -> str:
        with suppress(OSError, ValueError, KeyError):
            lines = self.owner.read_text("utf-8").splitlines()
            entries = dict(line.split("=", 1) for line in lines if "=" in line)
            return f" (process {int(entries['pid'])} on {entries['host']})"
        return ""

    def check(self) -> None:
        """ShicError if another run has taken the lock over, which happens when this process was suspended."""
        if self.lease is None:
            return
        with suppress(OSError):
            if f"token={self.lease.token}\n" in self.owner.read_text("utf-8"):
                return
        fact = f"{self.target}: another run has taken it over, because this one was suspended"
        raise ShicError(fact, "give the same line again")

    def release(self) -> None:
        """Release the lock and remove its file."""
        if self.lease is not None:
            self.lease.release()
        if self.file.is_locked:
            with suppress(OSError):
                self.path.unlink()  # a process that waits notices that the file it has open was removed
            self.file.release()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def has_locks(folder: Path) -> bool:
    """Whether the file system of `folder` has locks: whether a locked file can't be locked once more."""
    from filelock import FileLock, Timeout

    path = folder / f".shic.{os.getpid()}.lock"
    one, other = (FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False) for _ in range(2))
    try:
        with one, other:
            return False
    except Timeout:
        return True
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        return False
    finally:
        path.unlink(missing_ok=True)
