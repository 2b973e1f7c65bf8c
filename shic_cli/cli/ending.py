"""How a command ends: one line that says what it wrote, what to look at and what comes next, or JSON."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

from shic_cli.base.progress import duration
from shic_cli.files.shards import Part

log = logging.getLogger("shic")


class Ending:
    """Says at the end of a `with` block what a command wrote, also where only some inputs failed.

    `wrote` names the files, the main one first. `facts` are counts by name, `holds` tells in words what is in
    the files, and `details` are what only the JSON has. `look` is what to look at, and `next` the command
    that comes next. With `as_json` one JSON object goes to stdout: `written`, the facts and details,
    `failed`, `seconds`.
    """

    says_next: ClassVar[bool] = True  # false while one command runs others

    def __init__(self, as_json: bool = False) -> None:
        self.as_json, self.began = as_json, time.monotonic()
        self.paths: list[Path] = []
        self.facts: dict[str, int] = {}
        self.details: dict[str, Any] = {}
        self.holds = self.look = self.next = ""

    def wrote(self, *paths: Path | None) -> None:
        """Note files or folders that the command writes; None stands for one that was not asked for."""
        self.paths += [path for path in paths if path is not None and path not in self.paths]

    def __enter__(self) -> Ending:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        from shic_cli.base.errors import PartialError

        if (error is None or isinstance(error, PartialError)) and Part.of_rank().is_first:
            self._tell(error.names if isinstance(error, PartialError) else [])

    def _tell(self, failed: list[str]) -> None:
        from shic_cli.base.errors import counted
        from shic_cli.cli.console import emit_json

        written = [path for path in self.paths if path.exists()]
        facts = self._facts(written)
        seconds = time.monotonic() - self.began
        if self.as_json:
            emit_json(
                {
                    "written": [str(path) for path in written],
                    **facts,
                    **self.details,
                    **({"failed": failed} if "failed" not in self.details else {}),
                    "seconds": round(seconds, 2),
                }
            )
        if not written:
            return
        counts = [counted(number, name) for name, number in facts.items()]
        said = ", ".join([*([self.holds] if self.holds else counts), *_size(written), duration(seconds)])
        guides = (("look at", self.look), ("next", self.next if self.says_next else ""))
        steps = [f"{what}: {step}" for what, step in guides if step]
        log.info("%s", "; ".join([f"wrote {' and '.join(map(str, written))}: {said}", *steps]))

    def _facts(self, written: list[Path]) -> dict[str, int]:
        """The counts that were given, else those of the main file."""
        if self.facts or not written or written[0].suffix != ".h5":
            return self.facts
        from shic_cli.stages.info import counts

        return counts(written[0])


@contextmanager
def without_next() -> Iterator[None]:
    """No command of the block says what comes next: who runs them says it."""
    Ending.says_next = False
    try:
        yield
    finally:
        Ending.says_next = True


def _size(paths: list[Path]) -> list[str]:
    """The size of the files among `paths`, in words."""
    size = sum(path.stat().st_size for path in paths if path.is_file())
    if not size:
        return []
    return [f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{max(1, round(size / 1e3))} kB"]
