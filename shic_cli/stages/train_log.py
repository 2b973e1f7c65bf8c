"""Keeps the losses of every epoch beside the model while it is trained: a CSV file, and TensorBoard's."""

from __future__ import annotations

import csv
import time
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any

from shic_cli.learning.trainer import NATURAL

COLUMNS = ("epoch", "seconds", "rate", "total", *NATURAL, "synthetic", "near", "foreground")


class TrainLog:
    """Writes a row for each epoch to `MODEL.log.csv`.

    The columns are the epoch, its seconds, the step size after it, and the mean losses; a loss that does not
    apply is empty. Where the package tensorboard is installed, `MODEL.tensorboard/` gets the same.

    Of an earlier run the rows up to the epoch `done` are kept.
    """

    def __init__(self, model: Path, done: int) -> None:
        self.path, self.began = model.with_suffix(".log.csv"), time.monotonic()
        rows = _rows(self.path, done) if done else []
        with self.path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        self.board = _board(model.with_suffix(".tensorboard"), done)

    def add(self, epoch: int, rate: float, means: dict[str, float]) -> None:
        """Add the row of an epoch, counted from 1."""
        now = time.monotonic()
        row: dict[str, object] = {"epoch": epoch, "seconds": f"{now - self.began:.2f}", "rate": f"{rate:.6g}"}
        row |= {name: f"{value:.6g}" for name, value in means.items() if name in COLUMNS}
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow([row.get(name, "") for name in COLUMNS])
        if self.board is not None:
            for name, value in {
                "rate": rate,
                **{f"loss/{name}": value for name, value in means.items()},
            }.items():
                self.board.add_scalar(name, value, epoch)
            self.board.flush()
        self.began = now

    def __enter__(self) -> TrainLog:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.board is not None:
            self.board.close()


def _rows(path: Path, done: int) -> list[list[str]]:
    """The rows of an earlier run's first `done` epochs; none if the file is another program's."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        header, *rows = list(csv.reader(file)) or [[]]
    known = tuple(header) == COLUMNS
    return [row for row in rows if known and row and row[0].isdigit() and int(row[0]) <= done]


def _board(folder: Path, done: int) -> Any:
    """TensorBoard's writer to `folder`, or None without the package.

    The curves of an earlier run go, where the run begins anew.
    """
    if find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    if not done:
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
    return SummaryWriter(str(folder))
