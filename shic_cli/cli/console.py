"""Progress, logs and tables on stderr, data on stdout; no progress where stderr is no terminal."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from shic_cli.files.shards import Part

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")


class _Handler(logging.Handler):
    """Writes `shic: message` lines to stderr; warnings and errors keep their level's name."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        click.echo(f"shic: {level}{record.getMessage()}", err=True)


def configure(verbosity: int) -> None:
    """Send the library's log to stderr: notes by default, all messages from 1 on, only errors below 0."""
    logger = logging.getLogger("shic")
    logger.handlers = [_Handler()]
    logger.propagate = False
    level = logging.DEBUG if verbosity > 0 else logging.ERROR if verbosity < 0 else logging.INFO
    # Of torchrun's ranks only the first one writes notes; the others write warnings and errors.
    logger.setLevel(level if Part.of_rank().is_first else max(level, logging.WARNING))


def track(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """`items`, with a progress bar on stderr (rate, time left); none without a terminal or with -q."""
    if not sys.stderr.isatty() or logging.getLogger("shic").level >= logging.WARNING:
        yield from items
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "", style="cyan")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        yield from progress.track(items, total=total, description=description)


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stderr."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        grid.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        grid.add_row(*row)
    Console(stderr=True).print(grid)


def write_picture(path: Path, rgb: np.ndarray, overwrite: bool) -> None:
    """Write `rgb` `(H, W, 3)` uint8 to `path`, in the format of its suffix; as PNG to stdout for `-`."""
    from shic_cli.base.errors import InputError
    from shic_cli.files.atomic import atomic
    from shic_cli.files.photos import WRITTEN, encode

    if str(path) == "-":
        sys.stdout.buffer.write(encode(rgb))
        return
    if path.suffix.lower() not in WRITTEN:
        raise InputError(
            f"{path}: has no ending that says which kind of picture",
            f"give one of {' '.join(sorted(WRITTEN))}",
        )
    with atomic(path, overwrite) as partial:
        partial.write_bytes(encode(rgb, path.suffix.lower()))


def emit_json(value: Any) -> None:
    """One JSON value on stdout."""
    click.echo(json.dumps(value, indent=2))
