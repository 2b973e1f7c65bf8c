"""A clock for benchmarks: one thing against another, turn by turn, and the table of what was measured."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Row:
    """A line of the table: what was measured by which benchmark, and the goal in words."""

    benchmark: str
    what: str
    measured: str
    goal: str


@dataclass(frozen=True)
class Timer:
    """Times one thing against another in the same run, turn by turn, for the machine may be busy with other
    work too. Not `full`, it does everything once: that shows that it runs.
    """

    name: str
    rows: list[Row]
    full: bool

    def against(self, ours: Callable[[], Any], reference: Callable[[], Any], rounds: int = 5) -> float:
        """How many times the median time of `ours` the `reference` takes; both run once before."""
        seconds(reference), seconds(ours)
        pairs = [(seconds(reference), seconds(ours)) for _ in range(rounds if self.full else 1)]
        slow, quick = (statistics.median(times) for times in zip(*pairs, strict=True))
        return slow / quick

    def once(self, ours: Callable[[], Any], rounds: int = 1) -> float:
        """The median time of `ours` in seconds."""
        return statistics.median(seconds(ours) for _ in range(rounds if self.full else 1))

    def clock(self, ours: Callable[[], Any], rounds: int = 1) -> str:
        """How long `ours` takes by the clock, and how much of that this process computed, of all its threads
        together.
        """
        rounds, start = rounds if self.full else 1, time.process_time()
        taken = self.once(ours, rounds)
        return f"{taken:.2f} s ({(time.process_time() - start) / rounds:.2f} s of CPU time)"

    def tell(self, what: str, measured: str, goal: str) -> None:
        """Add a row to the table."""
        self.rows.append(Row(self.name, what, measured, goal))


def seconds(call: Callable[[], Any]) -> float:
    """How long `call` takes, the GPU's work included."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def peak_memory() -> dict[str, float]:
    """The most memory that this process has had, in GB: of the machine, and of a GPU where it uses one."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = {"memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9}
    if torch.cuda.is_initialized():
        peak["gpu_memory"] = torch.cuda.max_memory_allocated() / 1e9
    return peak
