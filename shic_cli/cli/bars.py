"""How far a command is: a bar on a terminal, elsewhere a plain line now and then."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from shic_cli.base.progress import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

T = TypeVar("T")
log = logging.getLogger("shic")

EVERY = 30.0  # seconds between two plain lines
FIRST = 5.0  # seconds of work after which the time left can be told
LONG = 60.0  # seconds; less is not told before it is over
HOURS = 3600.0  # seconds left from which on a quicker choice is named


class Pace:
    """How many of `total` items are done, how fast they are, and how long the others will take."""

    def __init__(self, total: int, name: str, status: Callable[[], str] | None, start: int) -> None:
        self.total, self.name, self.status = total, name, status
        self.start = self.done = start
        self.began = 0.0  # when the first item was done; that one may have taken longer than the others

    def step(self) -> None:
        """Count one item."""
        self.done += 1
        self.began = self.began or time.monotonic()

    @property
    def rate(self) -> float:
        """Items a second; 0 while it is not known."""
        passed = time.monotonic() - self.began
        return (self.done - self.start - 1) / passed if self.began and passed > 0 else 0.0

    @property
    def left(self) -> float:
        """Seconds left; 0 while it is not known."""
        return (self.total - self.done) / self.rate if self.rate else 0.0

    def said(self) -> str:
        """Rate, time left and the status, as far as they are known."""
        rate = (
            "" if not self.rate else f"{self.rate:.1f}/s" if self.rate >= 1 else f"{1 / self.rate:.1f} s each"
        )
        left = f"{duration(self.left)} left" if self.left else ""
        return ", ".join(filter(None, (rate, left, self.status() if self.status else "")))


class Display:
    """What a process shows of its progress on stderr: one live display, or plain lines.

    `wrote` is when the last plain line came, and `told` are the works whose time was told.
    """

    def __init__(self) -> None:
        self.progress: Progress | None = None
        self.running = 0
        self.wrote: float | None = None
        self.told: set[str] = set()

    @property
    def console(self) -> Console | None:
        """The console of the live display, through which all else must be written while it is there."""
        return self.progress.console if self.progress else None

    def restart(self) -> None:
        """Forget what an earlier command of this process showed; a display that is there stays."""
        if self.progress is None:
            self.wrote, self.told = None, set()

    def close(self) -> None:
        """Remove the bars, if there are any."""
        if self.progress:
            self.progress.stop()
        self.progress, self.running = None, 0

    def tell(self, pace: Pace, quicker: str, on_terminal: bool) -> None:
        """Log once how long the work will take; without a terminal how far it is too, every EVERY seconds."""
        now, work = time.monotonic(), pace.name.partition(" ")[0]
        self.wrote = now if self.wrote is None else self.wrote
        is_known = pace.done - pace.start >= 3 and now - pace.began >= FIRST and pace.left >= LONG
        announces = is_known and work not in self.told
        if announces or (not on_terminal and now - self.wrote >= EVERY):
            hint = f"; {quicker} is quicker" if quicker and announces and pace.left >= HOURS else ""
            said = pace.said()
            log.info("%s: %d of %d%s%s", pace.name, pace.done, pace.total, f", {said}" if said else "", hint)
            self.wrote = now
            self.told |= {work} if announces else set()

    def open(self) -> Progress:
        """The live display, with one more user."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        if self.progress is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TextColumn("{task.fields[said]}", style="cyan"),
            )
            self.progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self.progress.start()
        self.running += 1
        return self.progress

    def leave(self) -> None:
        """Take one user from the live display; the last one removes it."""
        self.running -= 1
        if self.running <= 0:
            self.close()


DISPLAY = Display()  # a process has one stderr


def track(
    items: Iterable[T],
    total: int,
    description: str,
    status: Callable[[], str] | None = None,
    start: int = 0,
    quicker: str = "",
) -> Iterator[T]:
    """`items`, with a bar or plain lines on stderr; nothing with -q. See `Track` for the arguments.

    `quicker` names what to give for less work, for those who would wait for hours.
    """
    if log.level >= logging.WARNING:
        yield from items
        return
    pace = Pace(total, description, status, start)
    if not sys.stderr.isatty():
        for item in items:
            yield item
            pace.step()
            DISPLAY.tell(pace, quicker, on_terminal=False)
        return
    progress: Any = DISPLAY.open()
    task = progress.add_task(description, total=total, completed=start, said="")
    try:
        for item in items:
            yield item
            pace.step()
            progress.update(task, completed=pace.done, said=pace.said())
            DISPLAY.tell(pace, quicker, on_terminal=True)
    finally:
        progress.remove_task(task)
        DISPLAY.leave()
