"""What a terminal, a file and a pipe get to see of progress, logs and tables."""

from __future__ import annotations

import logging
import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shic_cli.base.progress import duration
from shic_cli.cli import bars

ROOT = Path(__file__).parents[2]
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(program: str, columns: int = 80) -> str:
    """What `program` writes to a terminal of so many columns, without what moves its cursor or colours it."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": str(columns), "TERM": "xterm"}
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    said = b""
    try:
        while block := os.read(ours, 4096):
            said += block
    except OSError:  # the other side is closed
        pass
    os.close(ours)
    assert process.wait(60) == 0, said.decode()
    return ESCAPE.sub("", said.decode())


BARS = """
import logging, time
from shic_cli.cli.console import configure, track
configure(0)
log = logging.getLogger("shic")
for i in track(range(3), 3, "outer", lambda: "loss 0.5"):
    for j in track(range(4), 4, "inner"):
        time.sleep(0.06)
        log.info("a note %d%d", i, j)
    log.warning("a rather long warning that names /some/folder/and/file.png and is longer than a line %d", i)
log.info("the end")
"""


def test_log_lines_stand_alone_beside_bars() -> None:
    """A bar is redrawn below the lines; none of its characters stays on a line of the log."""
    said = on_terminal(BARS)
    assert "outer" in said and "inner" in said and "loss 0.5" in said and "━" in said
    lines = [line.rpartition("\r")[2] for line in said.replace("\r\n", "\n").split("\n")]
    notes = [line for line in lines if "note" in line or "warning" in line or "the end" in line]
    assert [line for line in notes if "note" in line] == [
        f"shic: a note {i}{j}" for i in range(3) for j in range(4)
    ]
    assert notes[-1] == "shic: the end" and sum("shic: warning: a rather long" in line for line in notes) == 3
    assert not any("━" in line or "outer" in line for line in notes)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(bars, "time", made)
    monkeypatch.setattr(bars, "DISPLAY", bars.Display())
    logger = logging.getLogger("shic")
    before = logger.propagate, logger.level
    logger.propagate, logger.level = True, logging.INFO
    caplog.set_level(logging.INFO, "shic")
    yield made
    logger.propagate, logger.level = before


def work(clock: Clock, seconds: float, total: int, name: str, quicker: str = "") -> None:
    for _ in bars.track(range(total), total, name, lambda: "loss 2.5", quicker=quicker):
        clock.now += seconds


def test_without_a_terminal_a_line_comes_every_30_seconds(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    work(clock, 2.0, 100, "predict")
    lines = caplog.messages
    # 200 s of work: once after the first steps, then every 30 s
    assert lines[0] == "predict: 4 of 100, 2.0 s each, 3 min left, loss 2.5"
    assert [int(line.split()[1]) for line in lines] == [4, 19, 34, 49, 64, 79, 94]
    assert lines[3] == "predict: 49 of 100, 2.0 s each, 2 min left, loss 2.5"


def test_short_work_says_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    work(clock, 0.1, 100, "predict")
    assert caplog.messages == []


def test_epochs_are_told_together(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    """Lines come every 30 seconds of a training too, whose epochs are shorter, and its time is told once."""
    for epoch in range(20):
        steps = bars.track(range(10), 200, f"epoch {epoch + 1}/20", None, 10 * epoch)
        for _ in steps:
            clock.now += 1
    assert caplog.messages[0] == "epoch 1/20: 6 of 200, 1.0/s, 3 min left"
    assert [line.split(",")[0] for line in caplog.messages[1:3]] == [
        "epoch 4/20: 36 of 200",
        "epoch 7/20: 66 of 200",
    ]


@pytest.mark.parametrize(("total", "is_named"), [(100, False), (10_000, True)])
def test_hours_of_work_name_the_quicker_choice(
    clock: Clock, caplog: pytest.LogCaptureFixture, total: int, is_named: bool
) -> None:
    steps = iter(bars.track(range(total), total, "train", quicker="--epochs 4"))
    for _ in range(20):
        next(steps)
        clock.now += 1
    assert ("; --epochs 4 is quicker" in caplog.messages[0]) == is_named


def test_quiet_says_nothing(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("shic").setLevel(logging.ERROR)
    work(clock, 60, 100, "predict")
    assert caplog.messages == []


def test_times_in_words() -> None:
    assert [duration(each) for each in (0.4, 59, 89, 120, 3600, 3900)] == [
        "0 s",
        "59 s",
        "89 s",
        "2 min",
        "1 h 0 min",
        "1 h 5 min",
    ]


TABLE = """
import sys
from shic_cli.cli.eval import GEODESIC_FIGURES, _show
row = {"images": 1234, "points": 123456, "mean": 24.912, "median": 8.81, "ci95": [18.921, 31.453]}
row |= {"gps": 0.712, "left_right": 0.112}
rows = {"velociraptor_left_rigged_of_a_long_name.maps.h5": row, "b.h5": row}
_show(rows, "geodesic error", GEODESIC_FIGURES)
from shic_cli.cli.models import list_
list_.main([], standalone_mode=False)
"""


def test_tables_on_80_columns_cut_nothing() -> None:
    said = on_terminal(TABLE)
    lines = said.replace("\r\n", "\n").split("\n")
    assert max(map(len, lines)) <= 80 and "…" not in said
    cells = ("24.91", "8.81", "18.92 to 31.45", "0.712", "0.112", "1234", "123456")
    assert all(sum(cell in line for line in lines) == 2 for cell in cells), said
    rows = lines[next(i for i, line in enumerate(lines) if line.startswith(" velo")) :]
    name = "".join(line.split()[0] for line in rows[: next(i for i, x in enumerate(rows) if "b.h5" in x)])
    assert name == "velociraptor_left_rigged_of_a_long_name.maps.h5", said
    from shic_cli.parts.weights import MODELS

    flat = re.sub(r"\s", "", said)
    assert all(model in flat for model in MODELS), said


def test_a_table_in_a_file_has_its_full_width(capsys: pytest.CaptureFixture[str]) -> None:
    from shic_cli.cli.console import table

    name = "velociraptor_" * 12 + ".h5"
    table("title", ["", "mean"], [[name, "24.9"], ["[b]b[/b]", "1"]])
    err = capsys.readouterr().err
    assert any(name in line and "24.9" in line for line in err.splitlines()) and "[b]b[/b]" in err
