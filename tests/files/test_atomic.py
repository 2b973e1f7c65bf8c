"""Writing without loss: whole targets, and journals that survive torn tails, kills, other settings and second
writers.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from shic_cli.base.errors import InputError, ShicError
from shic_cli.files import atomic as atomic_module
from shic_cli.files import hdf5
from shic_cli.files.atomic import RECORD, Journal, Sink, atomic, check_target

HEADER = {"params": {"size": 3, "views": [1, 2]}, "kind": "test"}


def journal(target: Path, **changed: object) -> Journal:
    return Journal(target, {**HEADER, **changed})


def filled(target: Path, *records: bytes) -> Path:
    """A journal with records, left behind by a run that ended early."""
    one = journal(target)
    for record in records:
        one.append(record)
    one.close()
    return one.path


def test_atomic_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    with atomic(target) as partial:
        partial.write_text("new")
        assert not target.exists() and partial.suffix == ".txt" and partial.parent == tmp_path
    assert target.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_atomic_keeps_the_old_one_when_the_block_fails(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(error), atomic(target) as partial:
        partial.write_text("half")
        raise error
    assert target.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_what_lies_under_the_partial_name_is_not_written_through(tmp_path: Path) -> None:
    """A run that was killed left it, maybe another user's; in a folder of all it may also be a trap."""
    (tmp_path / "other.txt").write_text("another's")
    (tmp_path / ".a.partial.txt").symlink_to("other.txt")
    with atomic(tmp_path / "a.txt") as partial:
        partial.write_text("new")
    assert (tmp_path / "a.txt").read_text() == "new" and (tmp_path / "other.txt").read_text() == "another's"
    assert sorted(os.listdir(tmp_path)) == ["a.txt", "other.txt"]


def test_a_file_that_its_owner_alone_may_replace_is_named_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sticky folder, as /tmp is; else the error would come when the file is put in place."""
    (tmp_path / "a.h5").write_text("old")
    tmp_path.chmod(0o1777)
    check_target(tmp_path / "a.h5", overwrite=True)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(ShicError, match=r"a\.h5: belongs to another user"):
        check_target(tmp_path / "a.h5", overwrite=True)
    check_target(tmp_path / "b.h5", overwrite=True)
    if not os.getuid():
        for path in (tmp_path, tmp_path / "a.h5"):
            os.chown(path, 7, 7)
        with pytest.raises(ShicError, match=r"a\.h5: belongs to another user"):
            check_target(tmp_path / "a.h5", overwrite=True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # the administrator
    check_target(tmp_path / "a.h5", overwrite=True)
    monkeypatch.setattr(os, "geteuid", lambda: 8)
    tmp_path.chmod(0o777)
    check_target(tmp_path / "a.h5", overwrite=True)


@pytest.mark.parametrize("days", [-400, 400])
def test_a_clock_that_was_put_back_or_forward_changes_nothing(tmp_path: Path, days: int) -> None:
    """Whatever a run left behind and however new or old it looks, the next run goes on."""
    target = tmp_path / "t.h5"
    target.write_text("old")
    one = Journal(target, HEADER, replace=True)
    one.append(b"first")
    one.checkpoint.write_bytes(b"state")
    one.close()
    for path in (target, one.path, one.checkpoint, tmp_path / ".t.h5.lock", tmp_path / ".t.partial.h5"):
        path.touch()
        os.utime(path, (time.time() + 86400 * days,) * 2)
    other = Journal(target, HEADER, replace=True)
    assert list(other.records()) == [b"first"] and other.checkpoint.read_bytes() == b"state"
    with other.finishing() as partial:
        partial.write_bytes(b"new")
    other.close(remove=True)
    assert target.read_bytes() == b"new" and os.listdir(tmp_path) == ["t.h5"]


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("")
    with pytest.raises(ShicError, match="is there already"):
        check_target(tmp_path / "there", overwrite=False)
    check_target(tmp_path / "there", overwrite=True)
    with pytest.raises(InputError, match="is a folder"):
        check_target(tmp_path, overwrite=True)
    for folder in ("none", "there"):
        with pytest.raises(InputError, match="no such folder"):
            check_target(tmp_path / folder / "a", overwrite=False)


@pytest.mark.parametrize("lacking", [os.W_OK, os.X_OK])
def test_a_folder_without_a_right_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: int
) -> None:
    """Also the one of this process, for which `.` would say nothing."""
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & lacking)
    monkeypatch.chdir(tmp_path)
    for target in (tmp_path / "a.h5", Path("a.h5")):
        with pytest.raises(InputError) as caught:
            check_target(target, overwrite=False)
        assert caught.value.message == f"{tmp_path}: can't be written to"


def test_a_journal_goes_on(tmp_path: Path) -> None:
    path = filled(tmp_path / "t.h5", b"one", b"", b"three" * 1000)
    again = journal(tmp_path / "t.h5")
    assert list(again.records()) == [b"one", b"", b"three" * 1000]
    again.append(b"four")
    assert path.read_bytes().endswith(b"four") and list(again.records())[-1] == b"four"
    again.close(remove=True)
    assert not path.exists()
    again = journal(tmp_path / "t.h5")
    path.unlink()  # somebody tidied up
    again.close(remove=True)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("cut", [1, 2, RECORD.size - 1, RECORD.size, RECORD.size + 1, RECORD.size + 2])
def test_a_torn_tail_is_cut_off(tmp_path: Path, cut: int) -> None:
    """The last record loses `cut` of its bytes: it goes, the ones before stay, and new ones are read after
    them.
    """
    path = filled(tmp_path / "t.h5", b"one", b"two")
    os.truncate(path, path.stat().st_size - cut)
    again = journal(tmp_path / "t.h5")
    assert list(again.records()) == [b"one"]
    again.append(b"new")
    again.close()
    assert list(journal(tmp_path / "t.h5").records()) == [b"one", b"new"]


@pytest.mark.parametrize(
    "tail", [b"\0" * 500, b"SHJ1", RECORD.pack(b"SHJ1", 1 << 60, 0) + b"x", RECORD.pack(b"SHJ1", 1, 7) + b"x"]
)
def test_rubbish_after_the_last_record_is_cut_off(tmp_path: Path, tail: bytes) -> None:
    path = filled(tmp_path / "t.h5", b"one")
    size = path.stat().st_size
    with open(path, "ab") as file:
        file.write(tail)
    again = journal(tmp_path / "t.h5")
    assert list(again.records()) == [b"one"] and path.stat().st_size == size


def test_a_flipped_bit_ends_the_journal_there(tmp_path: Path) -> None:
    path = filled(tmp_path / "t.h5", b"one", b"two", b"three")
    data = bytearray(path.read_bytes())
    data[data.index(b"two")] ^= 1
    path.write_bytes(data)
    assert list(journal(tmp_path / "t.h5").records()) == [b"one"]


def test_a_torn_header_starts_again(tmp_path: Path) -> None:
    path = filled(tmp_path / "t.h5", b"one")
    os.truncate(path, 20)
    assert list(journal(tmp_path / "t.h5").records()) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"params": {"size": 4, "views": [1, 2]}}, "params.size: 3, now 4"),
        ({"params": {"size": 3}}, r"params.views: \[1, 2\], now None"),
        ({"sources": {}}, "sources: None, now {}"),
    ],
)
def test_other_settings_are_named_and_nothing_is_lost(
    tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    path = filled(tmp_path / "t.h5", b"one")
    before = path.read_bytes()
    with pytest.raises(ShicError, match=said):
        journal(tmp_path / "t.h5", **changed)
    assert path.read_bytes() == before
    replaced = Journal(tmp_path / "t.h5", {**HEADER, **changed}, replace=True)
    assert list(replaced.records()) == []


def test_equal_settings_go_on_even_with_replace(tmp_path: Path) -> None:
    filled(tmp_path / "t.h5", b"one")
    assert list(Journal(tmp_path / "t.h5", HEADER, replace=True).records()) == [b"one"]


def test_tuples_and_lists_are_the_same_setting(tmp_path: Path) -> None:
    filled(tmp_path / "t.h5", b"one")
    assert list(journal(tmp_path / "t.h5", params={"size": 3, "views": (1, 2)}).records()) == [b"one"]


def test_the_second_writer_refuses(tmp_path: Path) -> None:
    first = journal(tmp_path / "t.h5")
    with pytest.raises(ShicError, match="another run is writing it"):
        journal(tmp_path / "t.h5")
    first.append(b"one")  # the first is not disturbed
    first.close()
    assert list(journal(tmp_path / "t.h5").records()) == [b"one"]


def test_a_full_disk_leaves_whole_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = journal(tmp_path / "t.h5")
    one.append(b"one")

    class Full:
        def __init__(self, file: object) -> None:
            self.file = file

        def write(self, data: bytes) -> None:
            self.file.write(data[:10])
            self.file.flush()
            raise OSError(28, "No space left on device")

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

    real = one.file
    one.file = Full(real)
    with pytest.raises(OSError, match="No space"):
        one.append(b"two")
    one.file = real
    one.append(b"three")
    one.close()
    assert list(journal(tmp_path / "t.h5").records()) == [b"one", b"three"]


WRITER = """
import sys, time
from pathlib import Path
from shic_cli.files.atomic import Journal
journal = Journal(Path(sys.argv[1]), {"kind": "test"})
for i in range(10**6):
    journal.append(i.to_bytes(4, "big") * 5000)
    print(i, flush=True)
"""


def test_killed_in_the_middle(tmp_path: Path) -> None:
    """A writer killed with no warning: every record that it reported is there, whole and in order, and its
    lock is gone.
    """
    target = tmp_path / "t.h5"
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if int(line) >= 30:
                break
        process.send_signal(signal.SIGKILL)
        process.wait()
    found = list(Journal(target, {"kind": "test"}).records())
    assert len(found) > 30
    assert found == [i.to_bytes(4, "big") * 5000 for i in range(len(found))]


def test_the_header_is_the_first_record(tmp_path: Path) -> None:
    data = filled(tmp_path / "t.h5").read_bytes()
    assert json.loads(data[RECORD.size :]) == HEADER


def test_a_written_file_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    with atomic(tmp_path / "made") as partial:
        partial.write_bytes(b"")
        partial.chmod(0o600)
    assert (tmp_path / "made").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_checkpoint_never_lies_beside_another_journal(tmp_path: Path) -> None:
    """It belongs to the journal's settings: it stays when they go on, and goes with the journal."""
    one = journal(tmp_path / "t.h5")
    one.checkpoint.write_bytes(b"state")
    one.close()
    one = journal(tmp_path / "t.h5")
    assert one.continued and one.checkpoint.read_bytes() == b"state"
    one.close()
    other = Journal(tmp_path / "t.h5", {"kind": "other"}, replace=True)
    assert not other.continued and not other.checkpoint.exists()
    other.checkpoint.write_bytes(b"state")
    other.close(remove=True)
    assert os.listdir(tmp_path) == []


def test_a_checkpoint_without_a_journal_is_nobodys(tmp_path: Path) -> None:
    (tmp_path / "t.h5.checkpoint").write_bytes(b"state")
    assert not journal(tmp_path / "t.h5").continued and not (tmp_path / "t.h5.checkpoint").exists()


def test_what_a_run_left_that_was_killed_at_its_very_end_goes_checkpoint_included(tmp_path: Path) -> None:
    one = journal(tmp_path / "t.h5")
    with one.finishing() as partial:
        partial.write_bytes(b"done")
    one.checkpoint.write_bytes(b"state")
    one.close()
    with pytest.raises(ShicError, match="is there already"):
        check_target(tmp_path / "t.h5", overwrite=False)
    assert os.listdir(tmp_path) == ["t.h5"]


def test_a_journal_that_is_shorter_than_a_mark_stays(tmp_path: Path) -> None:
    for name in ("t.h5", "t.h5.journal"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ShicError, match="is there already"):
        check_target(tmp_path / "t.h5", overwrite=False)
    assert sorted(os.listdir(tmp_path)) == ["t.h5", "t.h5.journal"]


@pytest.mark.parametrize("change", ["longer", "newer"])
def test_a_journal_whose_target_is_another_one_stays(tmp_path: Path, change: str) -> None:
    target = tmp_path / "t.h5"
    one = journal(target)
    with one.finishing() as partial:
        partial.write_bytes(b"done")
    one.close()
    moment = target.stat().st_mtime_ns
    if change == "longer":
        target.write_bytes(b"done by another")
    os.utime(target, ns=(moment, moment + (change == "newer") * 1000))
    with pytest.raises(ShicError, match="is there already"):
        check_target(target, overwrite=False)
    assert sorted(os.listdir(tmp_path)) == ["t.h5", "t.h5.journal"]


@pytest.mark.parametrize("at", ["at once", "at the end"])
def test_a_disk_that_is_full_ends_an_hdf5_file_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """HDF5 hears nothing of it, for it could not give the file up."""
    real, left = atomic_module._write_all, [0 if at == "at once" else 10_000]

    def write(file: object, data: bytes | memoryview) -> None:
        if left[0] < len(data):
            raise OSError(errno.ENOSPC, "No space left on device")
        left[0] -= len(data)
        real(file, data)

    monkeypatch.setattr(atomic_module, "_write_all", write)
    with (
        pytest.raises(OSError, match="No space left") as caught,
        atomic(tmp_path / "t.h5") as partial,
        hdf5.created(partial) as (file, _),
    ):
        file.create_dataset("x", data=np.arange(10_000))
    assert caught.value.filename == str(tmp_path / "t.h5") and os.listdir(tmp_path) == []


def test_a_sink_is_a_file_to_hdf5_until_it_has_an_error(tmp_path: Path) -> None:
    """From then on it takes everything and writes nothing, and what could not be read is zeros."""
    with pytest.raises(OSError, match="full"), Sink(tmp_path / "a") as sink:
        assert sink.write(memoryview(b"abcd")) == 4
        assert (tmp_path / "a").read_bytes() == b"abcd"  # at once
        sink.truncate(3)
        buffer = bytearray(b"xxxxx")
        assert (sink.seek(1), sink.tell(), sink.readinto(memoryview(buffer)), buffer) == (
            1,
            1,
            5,
            b"bc\0\0\0",
        )
        sink.drop(OSError(errno.ENOSPC, "full"))
        sink.drop(ValueError("another"))
        assert sink.write(memoryview(b"e")) == 1
        sink.truncate(1)
    assert (tmp_path / "a").read_bytes() == b"abc"
    with pytest.raises(KeyError), Sink(tmp_path / "b") as sink:  # the caller's own error comes through
        sink.drop(ValueError())
        raise KeyError
    with pytest.raises(ValueError, match="late"), Sink(tmp_path / "c") as sink:
        sink.drop(ValueError("late"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no such device")
def test_a_sink_keeps_the_error_of_whatever_failed(tmp_path: Path) -> None:
    for failing in (lambda sink: sink.truncate(3), lambda sink: sink.write(memoryview(b"x"))):
        with pytest.raises(OSError, match=r"No space|Invalid"), Sink(Path("/dev/full")) as sink:
            failing(sink)
