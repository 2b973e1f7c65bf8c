"""What the scripts of this folder share: the data, chains of `shic` commands whose finished files are kept, tables over seeds.

The scripts know shic by its command line alone. Every file that a command makes is kept together with the command, so that a script can be
stopped and given again, and the scripts share what they have in common. A file that another command made is never taken for it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

SHIC = (sys.executable, "-m", "shic_cli")
FOLDERS = {"densepose-lvis": "DENSEPOSE_LVIS", "rigged": "RIGGED"}  # the variable that names each data set's folder
CLASSES = {"densepose-lvis": "horse,sheep,bear,zebra,cow,elephant,giraffe", "rigged": "horse,trex"}
SPLITS = {"densepose-lvis": "test", "rigged": "val"}  # what the photos with annotations are called
SUFFIXES = {".jpg", ".jpeg", ".png"}
# Student's t for a 95 % interval from 2, 3, … values.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)


@dataclass(frozen=True)
class Recipe:
    """The options of the three commands that make a model."""

    pseudo_gt: tuple[str, ...]
    synth: tuple[str, ...]
    train: tuple[str, ...]


# Sections 3.3, 3.5 and 4.1; --agreement 0 is Eq. 2 as it stands there, --poses 0 the template at rest.
PAPER = Recipe(
    ("--extractor", "sd-dino", "--agreement", "0"),
    ("--generator", "controlnet-depth", "--poses", "0"),
    ("--recipe", "paper", "--encoder", "dinov2-small"),
)
# What there is without weights: all of it, for Tables 1 and 2 and the figures, and a small one that learns from pseudo-labels, for ablations.
WITHOUT_WEIGHTS = Recipe(("--extractor", "silhouette"), ("--generator", "plain"), ("--encoder", "picture"))
SMALL = Recipe(("--extractor", "silhouette"), ("--generator", "plain", "--number", "500"), ("--encoder", "silhouette", "--epochs", "8"))
QUICK = Recipe(
    ("--extractor", "silhouette", "--azimuths", "4", "--elevations", "0"),
    ("--generator", "plain", "--number", "6", "--size", "64"),
    ("--encoder", "silhouette", "--epochs", "1"),
)


def shic(*words: str | Path) -> str:
    """What `shic WORDS...` prints on stdout; the script ends with the command's status if it fails."""
    print("$ shic", *words, file=sys.stderr, flush=True)
    done = subprocess.run([*SHIC, *map(str, words)], stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 4):  # 4: some inputs failed, each was named, the rest is written
        sys.exit(done.returncode)
    return done.stdout


def kept(target: Path, words: Sequence[str | Path]) -> bool:
    """Whether `target` is there already; the script ends if another command than `words` made it."""
    if not target.exists():
        return False
    note = target.with_name(target.name + ".command")
    made_by = json.loads(note.read_text()) if note.exists() else None
    if made_by != list(map(str, words)):
        sys.exit(f"{target}: was made by other settings\n  remove it, or name another folder with -o; see {note.name}")
    return True


def keep(target: Path, words: Sequence[str | Path], text: str | None = None) -> None:
    """Note which command made `target`, which gets `text` if any is given; the note is there first."""
    target.with_name(target.name + ".command").write_text(json.dumps(list(map(str, words))))
    if text is not None:
        partial = target.with_name(target.name + ".partial")
        partial.write_text(text)
        partial.replace(target)


def make(target: Path, *words: str | Path) -> Path:
    """`target`, made by `shic WORDS... -o target` unless it is there."""
    if not kept(target, words):
        target.parent.mkdir(parents=True, exist_ok=True)
        keep(target, words)
        shic(*words, "-o", target)
    return target


def slug(words: Sequence[str]) -> str:
    """`words` as a part of a file name."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", " ".join(words)).strip("-.")


@dataclass(frozen=True)
class Animal:
    """A class of a data set in `data`: CLASS/CLASS.obj, CLASS/train and CLASS/SPLIT, each with images/ and masks/, and in SPLIT
    annotations.json. What is made of it goes to `work`."""

    name: str
    data: Path
    work: Path
    split: str
    recipe: Recipe

    @property
    def annotations(self) -> Path:
        """The DensePose points."""
        return self.data / self.split / "annotations.json"

    def photos(self, split: str = "") -> list[Path]:
        """The photos of a split in the order of their names; the annotated ones without it."""
        folder = self.data / (split or self.split) / "images"
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)

    def some(self, number: int) -> list[Path]:
        """`number` annotated photos, evenly spaced."""
        photos = self.photos()
        return [photos[i * len(photos) // number] for i in range(min(number, len(photos)))]

    def template(self) -> Path:
        """The template, with the vertices of the mesh file as they are."""
        return make(self.work / "template.h5", "template", "prep", self.data / f"{self.name}.obj", "--vertices", "0")

    def pseudo_gt(self, *changes: str, split: str = "train", number: int = 0, seed: int = 0) -> Path:
        """Pseudo-labels of a split's photos, or of `number` of the training photos that `seed` chooses."""
        where, name = self.data / split / "images", f"pgt-{split}"
        if number:
            name += f"-{number}-{seed}"
            chosen = random.Random(seed).sample(self.photos(split), number)
            where = self.work / f"{name}.txt"
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_text("".join(f"{path}\n" for path in sorted(chosen)))
        target = self.work / (name + ("-" + slug(changes) if changes else "") + ".h5")
        return make(target, "pseudo-gt", where, "--template", self.template(), *self.recipe.pseudo_gt, *changes)

    def synth(self) -> Path:
        """Synthetic pictures."""
        return make(self.work / f"synth-{slug(self.recipe.synth)}.h5", "synth", self.template(), *self.recipe.synth)

    def train(self, label: str, maps: Sequence[Path], changes: Sequence[str], seed: int) -> Path:
        """A model in a folder of its own, named by `label` and `seed`."""
        words = (*maps, "--template", self.template(), *self.recipe.train, *changes, "--seed", str(seed))
        return make(self.work / "runs" / f"{label}-{seed}" / "model.safetensors", "train", *words)

    def predict(self, model: Path, images: Sequence[Path], target: Path, *changes: str) -> Path:
        """The model's maps of `images`, beside their pictures if `changes` ask for any."""
        return make(target, "predict", *images, "--model", model, *changes)

    def score(self, maps: Path, target: Path | None = None) -> dict[str, Any]:
        """What `shic eval geodesic --json` says of a maps file; kept in `target`, beside the maps without it."""
        target = target or maps.with_suffix(".score.json")
        words = ("eval", "geodesic", maps, "--annotations", self.annotations, "--template", self.template(), "--json")
        if not kept(target, words):
            keep(target, words, shic(*words))
        return json.loads(target.read_text())

    def run(self, label: str, maps: Callable[[], Sequence[Path]], changes: Sequence[str], seed: int) -> dict[str, Any]:
        """The score of a model trained on `maps()`. It and the model are kept, its predictions are not."""
        model = self.train(label, maps(), changes, seed)
        score, predictions = model.with_name("score.json"), model.with_name("predictions.h5")
        if not score.exists():
            self.predict(model, [self.data / self.split / "images"], predictions, "--no-pictures")
        found = self.score(predictions, score)
        predictions.unlink(missing_ok=True)
        return found

    def trained(self, seed: int, *changes: str) -> Path:
        """The model of the whole method."""
        return self.train("trained", [self.pseudo_gt(), self.synth()], changes, seed)

    def points(self) -> dict[str, list[tuple[int, int, int]]]:
        """For each annotated photo its points: x and y in pixels, and the vertex."""
        data = json.loads(self.annotations.read_text())
        names, found = {each["id"]: each["file_name"] for each in data["images"]}, {}
        for each in data["annotations"]:
            left, top, width, height = each["bbox"]
            dots = zip(each.get("dp_x", ()), each.get("dp_y", ()), each.get("dp_vertex", ()), strict=True)
            found.setdefault(names[each["image_id"]], []).extend(
                (int(left + x * width / 255), int(top + y * height / 255), int(vertex)) for x, y, vertex in dots
            )
        return found


@dataclass(frozen=True)
class Options:
    """What the command line of a script says."""

    dataset: str
    data: Path
    output: Path
    classes: tuple[str, ...]
    seeds: tuple[int, ...]
    quick: bool
    train: tuple[str, ...]
    given: argparse.Namespace
    small: bool

    @property
    def recipe(self) -> Recipe:
        """The settings of the data set."""
        if self.quick:
            return QUICK
        return PAPER if self.dataset == "densepose-lvis" else SMALL if self.small else WITHOUT_WEIGHTS

    @property
    def animals(self) -> list[Animal]:
        """The classes."""
        split = SPLITS[self.dataset]
        return [Animal(name, self.data / name, self.output / self.dataset / name, split, self.recipe) for name in self.classes]

    @property
    def settings(self) -> str:
        """The settings in words, for a table's caption."""
        recipe, seeds = self.recipe, ", ".join(map(str, self.seeds))
        steps = {"pseudo-gt": recipe.pseudo_gt, "synth": recipe.synth, "train": (*recipe.train, *self.train)}
        return ", ".join(f"`shic {name} {' '.join(words)}`" for name, words in steps.items()) + f"; seeds {seeds}."


def parse(about: str, *, small: bool = False, classes: str = "", **further: dict[str, Any]) -> Options:
    """The options of a script that `about` describes. `small`: an ablation; `classes`: the default of densepose-lvis; `further`: options."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=list(FOLDERS), default="densepose-lvis")
    parser.add_argument("--data", type=Path, help="its folder; default: $DENSEPOSE_LVIS or $RIGGED")
    parser.add_argument("-o", "--output", type=Path, default=Path("paper"), help="folder of everything that is made; default: paper")
    parser.add_argument("--classes", help=f"default: {classes or CLASSES['densepose-lvis']}, or {CLASSES['rigged']}")
    parser.add_argument("--seeds", default="0,1,2", help="of training; default: 0,1,2")
    parser.add_argument("--quick", action="store_true", help="tiny settings, to see that the script runs; the figures mean nothing")
    for name, settings in further.items():
        parser.add_argument(f"--{name}", **settings)
    parser.add_argument("train", nargs="*", metavar="-- TRAIN", help="further options of `shic train`, after --")
    given = parser.parse_args()
    folder = given.data or os.environ.get(FOLDERS[given.dataset])
    if not folder:
        parser.error(f"name the data's folder with --data or {FOLDERS[given.dataset]}; README.md says what is in it")
    names = given.classes or (CLASSES["rigged"] if given.dataset == "rigged" else classes or CLASSES["densepose-lvis"])
    data, output = Path(folder).resolve(), given.output.resolve()
    for name in names.split(","):
        if not (data / name).is_dir():
            parser.error(f"{data / name}: there is no such folder; README.md says what is in it")
    seeds = tuple(int(seed) for seed in given.seeds.split(","))
    return Options(given.dataset, data, output, tuple(names.split(",")), seeds, given.quick, tuple(given.train), given, small)


@dataclass
class Row:
    """A row of a table: the paper's figure, and ours by class and seed (one seed if the answer does not depend on it)."""

    label: str
    paper: str = ""
    found: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    note: str = ""


def interval(values: Sequence[float], digits: int = 1) -> str:
    """The mean of `values`, and half of its 95 % interval (Student's t) if there are several."""
    half = ""
    if 1 < len(values) <= len(STUDENT) + 1:
        half = f" ± {STUDENT[len(values) - 2] * stdev(values) / len(values) ** 0.5:.{digits}f}"
    return f"{fmean(values):.{digits}f}{half}"


def over_classes(row: Row, key: str) -> list[float]:
    """For each seed the mean over the classes of the figure `key`."""
    return [fmean(each[key] for each in scores) for scores in zip(*row.found.values(), strict=True)]


def table(rows: Sequence[Row], classes: Sequence[str], key: str = "mean", scale: float = 1.0, against: Row | None = None) -> str:
    """A Markdown table: for each row the paper's figure, ours for each class and on average, and the change against a row, seed by seed."""
    several = len(classes) > 1
    head = ["", "paper", *classes, *(["average"] if several else []), *([f"against {against.label}"] if against else [])]
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
            cells.append("" if row is against or len(base) != len(ours) else interval([a - b for a, b in zip(ours, base, strict=True)]))
        cells += [f"{100 * fmean(over_classes(row, 'left_right')):.1f} %"] if key == "mean" else []
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def write(options: Options, name: str, title: str, text: str) -> None:
    """Write NAME.md into the output folder and to stdout."""
    page = f"# {title}\n\n{text}"
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / f"{name}-{options.dataset}.md").write_text(page)
    print(page)
