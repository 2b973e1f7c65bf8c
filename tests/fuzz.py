"""Mutated files of every sort through what the commands do with them: each must end well or in a ShicError.

    python tests/fuzz.py --number 10000 --kind model          # the long run, one sort
    python tests/fuzz.py --kind model --only 1234 --keep here # one input again, its file kept

A failure is any other exception, 10 seconds of the processor or 60 on the clock, 2 GB of memory, the end of
the process, or a file outside of the output folder. Inputs run in a forked child under limits; after a
failure the next child goes on. Input `i` of a sort is the same every time.
"""

from __future__ import annotations

import argparse
import faulthandler
import logging
import mmap
import os
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import torch
from fuzz_inputs import mutate, traps
from fuzz_stages import STAGES, hurry, make_seeds

from shic_cli.base.errors import ShicError

SECONDS = 10  # of the processor
# seconds on the clock: a machine that is shared may give little time, and who waits for something takes none
PATIENCE = 60
MEMORY = 2 << 30  # bytes more than before
BATCH = 500  # inputs a child
WELL, REFUSED, FAILED = 0, 1, 2


@dataclass
class Report:
    """What became of the inputs of one sort."""

    sort: str
    tried: int = 0
    well: int = 0
    refused: int = 0
    failures: dict[int, str] = field(default_factory=dict)

    def __str__(self) -> str:
        same = Counter(text.strip().splitlines()[-1] for text in self.failures.values())
        lines = [
            f"{self.sort}: {self.tried} tried, {self.well} ended well, {self.refused} were refused,"
            f" {len(self.failures)} failed"
        ]
        for text, count in same.most_common():
            numbers = [i for i, failure in self.failures.items() if failure.strip().endswith(text)]
            lines.append(f"  {count} times, as {numbers[:5]}: {text}")
        return "\n".join(lines)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch and OpenCV; a process that is forked here keeps it."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


class Fuzzer:
    """Runs the inputs of a sort; `folder` holds the seeds, the traps and what the inputs write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seeds = make_seeds(folder / "seeds")
        self.shared = mmap.mmap(-1, 1 << 16)
        for name in ("work/out", "escape"):
            (folder / name).mkdir(parents=True)
        traps(folder)

    def run(self, sort: str, numbers: range, say: Callable[[str], None] = lambda text: None) -> Report:
        """Try the inputs of these numbers."""
        report, at, said = Report(sort), numbers.start, 0
        started = time.monotonic()
        while at < numbers.stop:
            end = min(at + BATCH, numbers.stop)
            at = self._batch(sort, at, end, report)
            if report.tried // BATCH > said or at == numbers.stop:
                said = report.tried // BATCH
                say(f"{report}\n  {report.tried / (time.monotonic() - started):.0f} a second")
        return report

    def _batch(self, sort: str, start: int, end: int, report: Report) -> int:
        """Inputs `start` to `end` in one child; the number that the next one starts with."""
        self.shared[:28] = struct.pack("<qqqi", start, 0, 0, 0)
        with _one_thread():  # a forked process would wait for ever for the threads of its parent
            child = os.fork()
            if not child:
                self._child(sort, start, end)
        _, status = os.waitpid(child, 0)
        at, well, refused, length = struct.unpack("<qqqi", self.shared[:28])
        report.well, report.refused = report.well + well, report.refused + refused
        report.tried += at - start
        if status == 0:
            return at
        text = self.shared[28 : 28 + length].decode(errors="replace")
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            hangs = {
                signal.SIGALRM: f"hang, {PATIENCE} s on the clock",
                signal.SIGPROF: f"hang, {SECONDS} s of the processor",
            }
            text = hangs.get(number, f"killed by {signal.Signals(number).name}")
        report.failures[at] = text or f"the process ended with {os.waitstatus_to_exitcode(status)}"
        report.tried += 1
        return at + 1

    def _child(self, sort: str, start: int, end: int) -> None:
        """Never comes back."""
        hurry()
        faulthandler.disable()  # a crash is this child's answer, not a page on a terminal
        null = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(null, stream)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (size + 2 * MEMORY, -1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        well = refused = number = 0
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(start, end):
            self.shared[:28] = struct.pack("<qqqi", number, well, refused, 0)
            how, text = self.attempt(sort, number)
            if how == FAILED:
                data = text.encode(errors="replace")[-60_000:]
                self.shared[24 : 28 + len(data)] = struct.pack("<i", len(data)) + data
                os._exit(1)
            well, refused = well + (how == WELL), refused + (how == REFUSED)
            if (
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before > MEMORY >> 14
            ):  # the system remembers the most: start anew
                break
        self.shared[:28] = struct.pack("<qqqi", number + 1, well, refused, 0)
        os._exit(0)

    def attempt(self, sort: str, number: int, keep: Path | None = None) -> tuple[int, str]:
        """How input `number` ends, and what was said."""
        work, escape, out = self.folder / "work", self.folder / "escape", self.folder / "work" / "out"
        for each in (*escape.iterdir(), *out.iterdir(), *work.glob("mutated*")):
            shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
        os.chdir(out)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        signal.alarm(PATIENCE)
        how, text = WELL, ""
        try:
            path = mutate(sort, self.seeds[sort], work, number)
            if keep is not None:
                shutil.copy(path, keep / f"{sort}-{number}{path.suffix}")
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            for stage in STAGES[sort]:
                try:
                    stage(path, self.folder / "seeds")
                except ShicError as error:
                    how, text = REFUSED, f"{error.exit_code}: {error}"
        except BaseException:
            return FAILED, traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.alarm(0)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        if grown > MEMORY:
            return FAILED, f"took {grown >> 20} MiB"
        if outside := [*escape.iterdir(), *self._strays()]:
            return FAILED, f"wrote {outside}"
        return how, text

    def _strays(self) -> Iterator[Path]:
        known = {"seeds", "work", "escape", "trap.fifo", "other.h5"}
        yield from (path for path in self.folder.iterdir() if path.name not in known)
        yield from (
            path
            for path in (self.folder / "work").iterdir()
            if path.name != "out" and not path.name.startswith("mutated")
        )


def say(text: str) -> None:
    """Write a line to stdout at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kind", choices=[*STAGES, "all"], default="all")
    parser.add_argument("--number", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--only", type=int, help="one input, in this process, with its traceback")
    parser.add_argument("--keep", type=Path, help="a folder for the mutated file of --only")
    given = parser.parse_args()
    keep = given.keep.resolve() if given.keep else None
    logging.getLogger("shic").setLevel(logging.CRITICAL)
    warnings.simplefilter("ignore")
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        fuzzer = Fuzzer(Path(folder))
        for sort in STAGES if given.kind == "all" else [given.kind]:
            if given.only is not None:
                sys.stdout.write(f"{fuzzer.attempt(sort, given.only, keep)[1] or 'ended well'}\n")
                continue
            report = fuzzer.run(sort, range(given.start, given.start + given.number), say)
            failed += len(report.failures)
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
