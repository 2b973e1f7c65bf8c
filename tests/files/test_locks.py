"""Two at once: of two writers one is refused or waits, a reader never meets a mixture, and what serves where
there are no locks.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from shic_cli.base.errors import InputError, ShicError
from shic_cli.files import atomic as outputs
from shic_cli.files import locks
from shic_cli.files.atomic import Journal, atomic
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.locks import Lock

ATTRS = {"labels": "pseudo", "template": "x"}


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no locks, as some network mounts say it."""

    def flock(file: object, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)


def write(path: Path, names: str, value: int, **more: object) -> ItemWriter:
    """A maps file with an image for each letter of `names`, every vertex `value`."""
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=ATTRS, **more) as writer:
        for name in names:
            arrays = {"mask": np.ones((9, 9)), "vertex": np.full((9, 9), value), "score": np.ones((9, 9))}
            writer.add(name, encoded=np.full(9, value), **arrays)
    return writer


BOTH = pytest.mark.parametrize("kind", ["with locks", "without"])


@BOTH
def test_one_at_a_time_and_nothing_stays(tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    if kind == "without":
        request.getfixturevalue("without_locks")
    first = Lock(tmp_path / "a.h5")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "sleep", lambda seconds: pytest.fail("it waited"))
        with pytest.raises(ShicError, match="another run is writing it"):
            Lock(tmp_path / "a.h5")
    with Lock(tmp_path / "b.h5"):
        pass
    first.check()
    first.release()
    with Lock(tmp_path / "a.h5"):
        pass
    assert os.listdir(tmp_path) == []


@BOTH
def test_a_short_write_waits_for_the_other_one(
    tmp_path: Path, request: pytest.FixtureRequest, kind: str
) -> None:
    if kind == "without":
        request.getfixturevalue("without_locks")
    first = Lock(tmp_path / "a.txt")
    threading.Timer(0.3, first.release).start()
    with atomic(tmp_path / "a.txt") as partial:
        partial.write_text("second")
    assert os.listdir(tmp_path) == ["a.txt"]


def test_who_came_second_keeps_what_the_first_made(tmp_path: Path) -> None:
    first = Lock(tmp_path / "a.txt")

    def finish() -> None:
        (tmp_path / "a.txt").write_text("first")
        first.release()

    threading.Timer(0.3, finish).start()
    with pytest.raises(ShicError, match="is there already"), atomic(tmp_path / "a.txt", overwrite=False):
        raise AssertionError
    assert (tmp_path / "a.txt").read_text() == "first"


def test_a_lock_whose_holder_has_removed_it_is_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The holder ends between another's opening and locking: that one must not hold the lock of a file that
    nobody finds.
    """
    first, real = Lock(tmp_path / "a.h5"), fcntl.flock

    def flock(file: object, how: int) -> None:
        first.release()
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ShicError):
        Lock(tmp_path / "a.h5")
    with Lock(tmp_path / "a.h5"), pytest.raises(ShicError):
        Lock(tmp_path / "a.h5")


def owner(folder: Path, **changed: object) -> Path:
    """The owner's file that this process would write, with `changed` entries."""
    with Lock(folder / ".model.h5"):
        path = folder / "..model.h5.owner"
        entries = dict(line.split("=", 1) for line in path.read_text().splitlines()[1:])
    lines = [f"{key}={value}" for key, value in {**entries, "token": "another", **changed}.items()]
    path = folder / ".a.h5.owner"
    path.unlink(missing_ok=True)
    path.write_text("\n".join(["filelock/2", *lines, ""]))
    return path


def ended_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


@pytest.mark.parametrize(
    "why", ["its process has ended", "its number went to another", "it gave no sign of life for long"]
)
def test_the_owner_that_is_gone_is_taken_over(tmp_path: Path, without_locks: None, why: str) -> None:
    if why == "its process has ended":
        owner(tmp_path, pid=ended_pid())
    elif why == "its number went to another":
        owner(tmp_path, start="1")
    else:
        long_ago = time.time() - locks.STALE - 60
        os.utime(owner(tmp_path, host="elsewhere"), (long_ago, long_ago))
    with Lock(tmp_path / "a.h5"):
        assert f"pid={os.getpid()}\n" in (tmp_path / ".a.h5.owner").read_text()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "why", ["elsewhere", "elsewhere, and here its number has ended", "here", "another user's"]
)
def test_the_owner_that_may_live_is_named(
    tmp_path: Path, without_locks: None, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    changed = {"host": "elsewhere"} if "elsewhere" in why else {}
    before = owner(tmp_path, **changed, **({"pid": ended_pid()} if "ended" in why else {})).read_text()

    def kill(pid: int, number: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if why == "another user's":
        monkeypatch.setattr(os, "kill", kill)
    with pytest.raises(ShicError, match=r"another run is writing it \(process \d+ on "):
        Lock(tmp_path / "a.h5")
    assert (tmp_path / ".a.h5.owner").read_text() == before and os.listdir(tmp_path) == [".a.h5.owner"]


@pytest.mark.parametrize("old", [locks.STALE - 5, -3600])
def test_an_owner_elsewhere_is_stale_after_some_minutes_alone(
    tmp_path: Path, without_locks: None, old: float
) -> None:
    """Nor is it when its clock, or that of the file server, goes ahead."""
    path = owner(tmp_path, host="elsewhere")
    moment = time.time() - old
    os.utime(path, (moment, moment))
    with pytest.raises(ShicError, match="another run is writing it") as caught:
        Lock(tmp_path / "a.h5")
    assert caught.value.hint.endswith("if none runs, remove .a.h5.owner beside it")
    assert os.listdir(tmp_path) == [".a.h5.owner"]


def test_a_stale_owner_that_another_process_takes_over_just_now_stays(
    tmp_path: Path, without_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read once more after it was moved aside, and put back."""
    path, real, long_ago = owner(tmp_path, host="elsewhere"), os.rename, time.time() - locks.STALE - 60
    os.utime(path, (long_ago, long_ago))

    def rename(old: Path, new: Path) -> None:
        monkeypatch.undo()
        path.write_text(path.read_text().replace("elsewhere", "a third"))
        real(old, new)

    monkeypatch.setattr(os, "rename", rename)
    lock = Lock.__new__(Lock)
    lock.owner = path
    lock._remove_stale()
    assert "host=a third\n" in path.read_text() and os.listdir(tmp_path) == [path.name]


def test_an_owner_gives_signs_of_life(
    tmp_path: Path, without_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "BEAT", 0.02)
    with Lock(tmp_path / "a.h5"):
        os.utime(tmp_path / ".a.h5.owner", (0, 0))
        until = time.monotonic() + 5
        while (tmp_path / ".a.h5.owner").stat().st_mtime == 0:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_run_that_stood_still_writes_no_more(tmp_path: Path, without_locks: None) -> None:
    journal = Journal(tmp_path / "a.h5", {})
    journal.append(b"one")
    owner(tmp_path, host="elsewhere")  # another machine took it over meanwhile
    with pytest.raises(ShicError, match="taken it over"):
        journal.append(b"two")
    with pytest.raises(ShicError, match="taken it over"), journal.finishing() as partial:
        partial.write_bytes(b"")
    journal.close()
    assert not (tmp_path / "a.h5").exists() and (tmp_path / ".a.h5.owner").exists()


WRITER = """
import sys, time
from pathlib import Path
import numpy as np
from shic_cli.files.items import ItemWriter
attrs = {"labels": "pseudo", "template": "x"}
with ItemWriter(Path("a.h5"), "shic/maps", params={}, sources={}, attrs=attrs) as writer:
    print("writing", flush=True)
    sys.stdin.readline()
    ones = np.ones((9, 9))
    writer.add("first", encoded=np.ones(9), mask=ones, vertex=ones, score=ones)
"""


def test_of_two_processes_one_is_refused_and_the_file_is_the_others(tmp_path: Path) -> None:
    line = [sys.executable, "-c", WRITER]
    with subprocess.Popen(
        line, cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "writing\n"
        with pytest.raises(ShicError, match="another run is writing it"):
            write(tmp_path / "a.h5", "ab", 2)
        with pytest.raises(ShicError, match="another run is writing it"):
            write(tmp_path / "a.h5", "ab", 2, overwrite=True)
        process.communicate("go\n")
    assert process.returncode == 0 and ItemReader(tmp_path / "a.h5", "shic/maps").names == ["first"]
    with pytest.raises(ShicError, match="is there already"):
        write(tmp_path / "a.h5", "ab", 2)
    assert os.listdir(tmp_path) == ["a.h5"]


def test_a_command_is_refused_in_two_lines(folder: Path, shic) -> None:
    with Lock(folder / "pgt.h5"):
        status, _, err = shic(
            "pseudo-gt", "imgs", "--azimuths", "2", "--elevations", "0", "--extractor", "silhouette"
        )
    assert (
        status == 1
        and "pgt.h5: another run is writing it\n  wait" in err
        and not (folder / "pgt.h5").exists()
    )


def test_a_reader_never_meets_a_mixture(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", "ab", 1)
    reader = ItemReader(tmp_path / "a.h5", "shic/maps")
    assert reader["a"].vertex.max() == 1
    with ItemWriter(
        tmp_path / "a.h5", "shic/maps", params={"other": 1}, sources={}, attrs=ATTRS, overwrite=True
    ) as writer:
        arrays = {"mask": np.ones((9, 9)), "vertex": np.full((9, 9), 2), "score": np.ones((9, 9))}
        writer.add("a", encoded=np.ones(9), **arrays)
        assert reader["b"].vertex.max() == 1  # as long as it is not finished, the old one is there
    with pytest.raises(InputError, match="was replaced while it was being read"):
        _ = reader["a"]
    assert ItemReader(tmp_path / "a.h5", "shic/maps")["a"].vertex.max() == 2


def test_a_file_that_another_program_writes_to_is_refused_as_such(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", "a", 1)
    program = "import h5py, sys; f = h5py.File('a.h5', 'r+'); print('open', flush=True); sys.stdin.readline()"
    environment = {**os.environ, "HDF5_USE_FILE_LOCKING": "TRUE"}
    line = [sys.executable, "-c", program]
    with subprocess.Popen(
        line, cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        process.stdout.readline()
        with pytest.raises(InputError, match="another program has it open for writing"):
            ItemReader(tmp_path / "a.h5", "shic/maps")
        process.communicate("\n")
    assert len(ItemReader(tmp_path / "a.h5", "shic/maps")) == 1


def test_files_are_read_where_there_are_no_locks(
    tmp_path: Path, without_locks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = h5py.File

    def file(path: object, mode: str, **given: object) -> h5py.File:
        if mode == "r" and isinstance(path, Path) and given.get("locking", True):
            raise OSError(errno.ENOLCK, "unable to lock file")
        return real(path, mode, **given)

    monkeypatch.setattr(h5py, "File", file)
    write(tmp_path / "a.h5", "ab", 1)
    assert ItemReader(tmp_path / "a.h5", "shic/maps")["b"].vertex.max() == 1
    assert os.listdir(tmp_path) == ["a.h5"]


SHIM = """
#include <errno.h>
int flock(int fd, int how) { errno = ENOLCK; return -1; }
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler to take flock away with")
def test_a_machine_without_flock_writes_and_reads_all_the_same(tmp_path: Path) -> None:
    """flock fails for every library of a process: Python's, and HDF5's own."""
    (tmp_path / "shim.c").write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", "shim.so", "shim.c"], cwd=tmp_path, check=True)
    environment = {**os.environ, "LD_PRELOAD": str(tmp_path / "shim.so")}
    environment.pop("HDF5_USE_FILE_LOCKING", None)
    reading = (
        "from shic_cli.files.items import ItemReader\nprint(ItemReader('a.h5', "
        "'shic/maps')['first'].vertex.max())"
    )
    program = f"import sys, io\nsys.stdin = io.StringIO()\n{WRITER}\n{reading}"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "writing\n1\n", "")
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "shim.c", "shim.so"]


def test_hdf5_without_locks_makes_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HDF5_USE_FILE_LOCKING", "FALSE")
    program = f"import sys, io\nsys.stdin = io.StringIO()\n{WRITER}"
    assert (
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, stdout=subprocess.DEVNULL).returncode
        == 0
    )
    with Lock(tmp_path / "a.h5"), pytest.raises(ShicError, match="another run"):
        write(tmp_path / "a.h5", "ab", 2, overwrite=True)
    assert ItemReader(tmp_path / "a.h5", "shic/maps").names == ["first"]


def test_locks_are_told_from_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locks.has_locks(tmp_path)
    monkeypatch.setattr(fcntl, "flock", lambda file, how: None)  # says yes to everybody
    assert not locks.has_locks(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", sorted(locks.NO_LOCKS))
def test_a_file_system_that_says_it_has_none_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """As one of three errors; the library must not lock in another way by itself for any of them."""

    def flock(file: object, how: int) -> None:
        raise OSError(number, "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    assert not locks.has_locks(tmp_path) and os.listdir(tmp_path) == []
    with Lock(tmp_path / "a.h5"), pytest.raises(ShicError, match=r"another run is writing it \(process \d+"):
        Lock(tmp_path / "a.h5")
    assert os.listdir(tmp_path) == []


def test_a_lock_file_that_is_gone_before_it_is_removed_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a network mount another machine may be the one that removes it."""

    def flock(file: object, how: int) -> None:
        next(iter(tmp_path.glob(".*.lock"))).unlink()
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with Lock(tmp_path / "a.h5"):
        assert os.listdir(tmp_path) == [".a.h5.owner"]


def test_the_time_without_a_sign_of_life_is_the_one_that_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "results" / "promises.md").read_text()
    assert locks.STALE == 300 and "no sign of life for five minutes" in " ".join(page.split())
    assert 0 < locks.BEAT < locks.STALE / 3  # two beats may be late


def test_what_a_run_left_that_was_killed_at_the_very_end_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between putting the target in place and removing the journal: the next run finds both."""
    monkeypatch.setattr(Journal, "close", lambda journal, remove=False: journal.lock.file.release())
    write(tmp_path / "a.h5", "ab", 1)
    assert sorted(os.listdir(tmp_path)) == [".a.h5.lock", "a.h5", "a.h5.journal"]
    monkeypatch.undo()
    with pytest.raises(ShicError, match="is there already"):
        outputs.check_target(tmp_path / "a.h5", overwrite=False)
    assert os.listdir(tmp_path) == ["a.h5"]


def test_the_journal_of_an_unfinished_run_beside_an_older_target_stays(tmp_path: Path) -> None:
    write(tmp_path / "a.h5", "ab", 1)
    with (
        pytest.raises(KeyboardInterrupt),
        ItemWriter(tmp_path / "a.h5", "shic/maps", params={}, sources={}, attrs=ATTRS, overwrite=True) as one,
    ):
        arrays = {"mask": np.ones((9, 9)), "vertex": np.full((9, 9), 2), "score": np.ones((9, 9))}
        one.add("a", encoded=np.ones(9), **arrays)
        raise KeyboardInterrupt
    with pytest.raises(ShicError, match="is there already"):
        write(tmp_path / "a.h5", "ab", 1)
    assert sorted(os.listdir(tmp_path)) == ["a.h5", "a.h5.journal"]


def test_the_lock_file_of_another_user_is_named_and_other_errors_are_told_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refused(path: object, *rest: int, **more: object) -> int:
        if str(path).endswith(".lock"):
            raise PermissionError(errno.EACCES, "refused", str(path))
        return real(path, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refused)
        with pytest.raises(PermissionError):  # of the folder
            Lock(tmp_path / "a.h5")
        (tmp_path / ".a.h5.lock").write_bytes(b"")
        with pytest.raises(ShicError, match=r"a\.h5: another user's run is writing it") as caught:
            Lock(tmp_path / "a.h5")
        assert "remove .a.h5.lock beside it" in caught.value.hint

    def broken(file: object, how: int) -> None:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(fcntl, "flock", broken)
    for ask in (lambda: Lock(tmp_path / "b.h5"), lambda: locks.has_locks(tmp_path)):
        with pytest.raises(OSError, match="broken"):
            ask()
