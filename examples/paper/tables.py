"""Tables and galleries: figures over classes and seeds with their intervals, and pictures, as Markdown."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from common import Animal, Options

# Student's t for a 95 % interval from 2, 3, … values.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
CAPTION = (
    "Geodesic error, largest distance 228, lower is better; the paper's is the average of "
    "its classes of DensePose-LVIS."
)


@dataclass
class Row:
    """A row of a table: the paper's figure, and ours by class and seed (one seed if the answer does not
    depend on it).
    """

    label: str
    paper: str = ""
    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True)
class Ablation:
    """A row of Tables 3 to 6: how it is called there, the paper's figure, the name of its runs, what is done
    otherwise than in ALL; and a note in place of runs."""

    label: str
    paper: str
    name: str
    pseudo_gt: tuple[str, ...] = ()
    train: tuple[str, ...] = ()
    number: int = 0
    note: str = ""


ALL = Ablation("all of it", "24.9", "all")


def ablate(
    options: Options, name: str, title: str, rows: Sequence[Ablation], against: Ablation | None = None
) -> None:
    """Train and score every row for every class and seed, and write the table; changes are against one of
    `rows`, the first without.
    """
    found = {row.name: Row(row.label, row.paper, note=row.note) for row in rows}
    for seed in options.seeds:
        for animal in options.animals:
            for row in rows:
                if not row.note:
                    maps = partial(_maps, animal, row, seed)
                    found[row.name].found.setdefault(animal.name, []).append(
                        animal.run(row.name, maps, (*row.train, *options.train), seed)
                    )
    text = table(list(found.values()), options.classes, against=found[(against or rows[0]).name])
    caption = f"{CAPTION} ± is half of the 95 % interval over seeds."
    write(options, name, title, f"{text}\n{caption} {options.settings}\n")


def _maps(animal: Animal, row: Ablation, seed: int) -> list[Path]:
    return [animal.pseudo_gt(*row.pseudo_gt, number=row.number, seed=seed), animal.synth()]


def interval(values: Sequence[float], digits: int = 1) -> str:
    """The mean of `values`, and half of its 95 % interval (Student's t) if there are several."""
    half = ""
    if 1 < len(values) <= len(STUDENT) + 1:
        half = f" ± {STUDENT[len(values) - 2] * stdev(values) / len(values) ** 0.5:.{digits}f}"
    return f"{fmean(values):.{digits}f}{half}"


def over_classes(row: Row, key: str) -> list[float]:
    """For each seed the mean over the classes of the figure `key`."""
    return [fmean(each[key] for each in scores) for scores in zip(*row.found.values(), strict=True)]


def table(
    rows: Sequence[Row],
    classes: Sequence[str],
    key: str = "mean",
    scale: float = 1.0,
    against: Row | None = None,
) -> str:
    """A Markdown table: for each row the paper's figure, ours for each class and on average, and the change
    against a row, seed by seed.
    """
    several = len(classes) > 1
    head = [
        "",
        "paper",
        *classes,
        *(["average"] if several else []),
        *([f"against {against.label}"] if against else []),
    ]
    head += ["left-right"] if key == "mean" else []
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = [row.label, row.paper or "–"]
        if not row.found:
            lines.append("| " + " | ".join([*cells, row.note, *[""] * (len(head) - 3)]) + " |")
            continue
        cells += [interval([scale * each[key] for each in row.found[name]]) for name in classes]
        ours = [scale * value for value in over_classes(row, key)]
        cells += [interval(ours)] if several else []
        if against:
            base = [scale * value for value in over_classes(against, key)]
            cells.append(
                ""
                if row is against or len(base) != len(ours)
                else interval([a - b for a, b in zip(ours, base, strict=True)])
            )
        cells += [f"{100 * fmean(over_classes(row, 'left_right')):.1f} %"] if key == "mean" else []
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(options: Options, name: str, title: str, text: str) -> None:
    """Write NAME.md into the output folder and to stdout."""
    page = f"# {title}\n\n{text}"
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{name}-{options.dataset}.md").write_text(page)
    sys.stdout.write(page)


def gallery(
    options: Options, name: str, title: str, head: Sequence[str], rows: Sequence[Sequence[str | Path]]
) -> None:
    """Write a Markdown table of pictures, with paths from the output folder."""
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for row in rows:
        cells = (
            f"![]({os.path.relpath(cell, options.output)})" if isinstance(cell, Path) else cell
            for cell in row
        )
        lines.append("| " + " | ".join(cells) + " |")
    write(options, name, title, "\n".join(lines) + f"\n\n{options.settings}\n")
