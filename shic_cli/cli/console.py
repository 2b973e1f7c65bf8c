"""Logs and tables on stderr, data on stdout."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import click

from shic_cli.base.errors import printable
from shic_cli.cli.bars import DISPLAY, track
from shic_cli.files.shards import Part

if TYPE_CHECKING:
    import numpy as np

__all__ = ["configure", "emit_json", "say", "table", "track", "wrapped", "write_picture"]

FULL = 100_000  # columns where nobody looks at a terminal: nothing is wrapped
log = logging.getLogger("shic")
NUMBER = 18  # characters; a longer cell is text, which may be wrapped


class _Handler(logging.Handler):
    """Writes `shic: message` lines to stderr; warnings and errors keep their level's name."""

    def emit(self, record: logging.LogRecord) -> None:
        level = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        say("\n".join(map(printable, f"shic: {level}{record.getMessage()}".split("\n"))))


class _OfLibraries(logging.Handler):
    """Passes what other libraries log on to our log, as messages that are shown with -v alone."""

    def emit(self, record: logging.LogRecord) -> None:
        log.debug("%s: %s", record.name, record.getMessage())


def say(text: str) -> None:
    """Print lines to stderr; above the bars while there are any."""
    if DISPLAY.console is None:
        click.echo(text, err=True)
    else:
        DISPLAY.console.print(text, markup=False, highlight=False, soft_wrap=True)


def configure(verbosity: int) -> None:
    """Send the library's log to stderr: notes by default, all messages from 1 on, only errors below 0."""
    DISPLAY.restart()
    log.handlers = [_Handler()]
    log.propagate = False
    level = logging.DEBUG if verbosity > 0 else logging.ERROR if verbosity < 0 else logging.INFO
    # Of torchrun's ranks only the first one writes notes; the others write warnings and errors.
    log.setLevel(level if Part.of_rank().is_first else max(level, logging.WARNING))
    _hear_libraries(aloud=verbosity > 0)


def _hear_libraries(aloud: bool) -> None:
    """Show the warnings of libraries, and what they log or print, only if `aloud`.

    Users can do nothing about them; what matters of them is said in our own words.
    """

    def warn(message: Warning | str, category: type[Warning], *_: object, **__: object) -> None:
        log.debug("%s: %s", category.__name__, message)

    warnings.showwarning = warn
    root = logging.getLogger()
    others = [handler for handler in root.handlers if not isinstance(handler, _OfLibraries)]
    root.handlers = [*others, _OfLibraries(logging.WARNING)]
    level = "WARNING" if aloud else "ERROR"
    # read when torch and OpenCV are loaded
    os.environ |= {"TORCH_CPP_LOG_LEVEL": level, "OPENCV_LOG_LEVEL": level if aloud else "SILENT"}


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], to: TextIO | None = None) -> None:
    """A table on stderr, or on the stream `to`. On a terminal too narrow for it, cells are wrapped."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    stream = to or sys.stderr
    grid = Table(
        title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0)
    )
    for i, name in enumerate(header):
        column = [row[i] for row in rows]
        is_text = i == 0 or any(len(cell) > NUMBER for cell in column)
        grid.add_column(
            name, justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text, min_width=1
        )
    for row in rows:
        grid.add_row(*row)
    console = Console(file=stream, width=None if stream.isatty() else FULL, markup=False, highlight=False)
    console.print(grid)


def wrapped(text: str, indent: int, stream: TextIO) -> str:
    """A line of text for `stream`; on a terminal it is wrapped, and goes on `indent` columns to the right."""
    if not stream.isatty():
        return text
    width = max(shutil.get_terminal_size().columns - 1, 40)
    return textwrap.fill(
        text, width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False
    )


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
