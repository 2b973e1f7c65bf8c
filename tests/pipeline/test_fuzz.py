"""A short run of the fuzzer over every sort of input, and that it sees what it looks for. The long run is
tests/fuzz.py itself.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fuzz
import numpy as np
import pytest
from fuzz_stages import STAGES

NUMBER = 25


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[fuzz.Fuzzer]:
    level, here = logging.getLogger("shic").level, Path.cwd()
    logging.getLogger("shic").setLevel(logging.CRITICAL)
    yield fuzz.Fuzzer(tmp_path_factory.mktemp("fuzz"))
    logging.getLogger("shic").setLevel(level)
    os.chdir(here)


@pytest.mark.parametrize("sort", STAGES)
def test_mutated_files_end_well_or_in_an_error_of_ours(fuzzer: fuzz.Fuzzer, sort: str) -> None:
    report = fuzzer.run(sort, range(NUMBER))
    assert not report.failures, str(report)
    assert report.tried == NUMBER == report.well + report.refused
    assert report.refused  # else nothing was mutated


@pytest.mark.parametrize("sort", STAGES)
def test_the_seeds_themselves_are_good(
    fuzzer: fuzz.Fuzzer, sort: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is refused that was not mutated: else everything behind the first check would go untried."""
    for i, seed in enumerate(fuzzer.seeds[sort]):
        (tmp_path / str(i)).mkdir()
        monkeypatch.chdir(tmp_path / str(i))
        for stage in STAGES[sort]:
            try:
                stage(seed, fuzzer.folder / "seeds")
            except fuzz.ShicError:
                assert sort == "image" and stage.__name__ == "use_mask"  # a photo is no mask


def _trap(fifo: str = "../../trap.fifo") -> None:
    with open(fifo):
        pass


BAD: dict[str, tuple[Callable[..., object], str]] = {
    "raises": (lambda *_: 1 // 0, "ZeroDivisionError"),
    "exits": (lambda *_: os._exit(7), "ended with 7"),
    "crashes": (lambda *_: os.kill(os.getpid(), signal.SIGSEGV), "SIGSEGV"),
    "hangs": (lambda *_: time.sleep(9), "hang, 2 s on the clock"),
    "never ends": (lambda *_: [None for _ in iter(int, 1)], "hang, 1 s of the processor"),
    "opens what it must not": (lambda *_: _trap(), "hang"),
    "takes memory": (lambda *_: np.ones(3 << 24), "took"),
    "takes all memory": (lambda *_: np.ones(1 << 40), "MemoryError"),
    "writes elsewhere": (lambda *_: Path("../../escape/x").touch(), "wrote"),
}


@pytest.mark.parametrize("name", BAD)
def test_the_fuzzer_sees_what_it_looks_for(
    fuzzer: fuzz.Fuzzer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, said = BAD[name]
    monkeypatch.setitem(
        fuzz.STAGES, "csv", [lambda path, seeds: stage() if "third" in marks(fuzzer) else None]
    )
    monkeypatch.setattr(fuzz, "SECONDS", 5 if "memory" in name else 1)
    monkeypatch.setattr(fuzz, "PATIENCE", 20 if name in ("takes memory", "never ends") else 2)
    monkeypatch.setattr(fuzz, "MEMORY", 1 << 28)
    monkeypatch.setattr(fuzz, "mutate", lambda sort, seeds, work, number: marks(fuzzer, number) or seeds[0])
    report = fuzzer.run("csv", range(4))
    assert list(report.failures) == [2] and said in report.failures[2]
    assert report.tried == 4 and report.well == 3


def marks(fuzzer: fuzz.Fuzzer, number: int | None = None) -> list[str]:
    """Notes which input it is: the third one goes wrong."""
    note = fuzzer.folder / "seeds" / "note"
    if number is not None:
        note.write_text("third" if number == 2 else "")
        return []
    return [note.read_text()]
