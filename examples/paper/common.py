"""What the scripts of this folder share: the data, and chains of `shic` commands whose finished files are
kept.

The scripts know shic by its command line alone. Every file that a command makes is kept together with the
command, so that a script can be stopped and given again, and the scripts share what they have in common. A
file that another command made is never taken for it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHIC = (sys.executable, "-m", "shic_cli")
FOLDERS = {
    "densepose-lvis": "DENSEPOSE_LVIS",
    "rigged": "RIGGED",
}  # the variable that names each data set's folder
CLASSES = {"densepose-lvis": "horse,sheep,bear,zebra,cow,elephant,giraffe", "rigged": "horse,trex"}
# Of each data set the folder of the training photos, that of the annotated ones, and what is called photos in
# them.
SPLITS = {"densepose-lvis": ("ds2_train", "ds2_val", "imgs"), "rigged": ("train", "val", "images")}
SUFFIXES = {".jpg", ".jpeg", ".png"}


@dataclass(frozen=True)
class Recipe:
    """The options of the four commands that make a model, and the name of the folder where it goes."""

    name: str
    template: tuple[str, ...]
    pseudo_gt: tuple[str, ...]
    synth: tuple[str, ...]
    train: tuple[str, ...]


# Sections 3.3, 3.5 and 4.1: sd-dino, Eq. 2 as it stands there, controlnet-depth, the template at rest,
# dinov2-small, and the rest of docs/concepts/recipe.md.
PAPER = Recipe(
    "paper",
    ("--vertices", "0"),
    ("--recipe", "paper"),
    ("--recipe", "paper", "--class", "{class}"),
    ("--recipe", "paper"),
)
# Without weights: the defaults, for Tables 1 and 2 and the figures; for ablations a small one that learns
# from pseudo-labels.
WITHOUT_WEIGHTS = Recipe(
    "without-weights",
    ("--vertices", "0"),
    ("--extractor", "silhouette"),
    ("--generator", "plain"),
    ("--encoder", "picture"),
)
SMALL = Recipe(
    "small",
    ("--vertices", "1000"),
    ("--extractor", "silhouette"),
    ("--generator", "plain", "--number", "500"),
    ("--encoder", "silhouette", "--epochs", "8"),
)
QUICK = Recipe(
    "quick",
    ("--vertices", "0", "--eigenvectors", "16"),
    ("--extractor", "silhouette", "--azimuths", "4", "--elevations", "0"),
    ("--generator", "plain", "--number", "3", "--size", "64"),
    ("--encoder", "silhouette", "--epochs", "1"),
)


def shic(*words: str | Path) -> str:
    """What `shic WORDS...` prints on stdout; the script ends with the command's status if it fails."""
    line = list(map(str, words))
    sys.stderr.write(f"$ shic {shlex.join(line)}\n")
    status, out = call(line)
    if status not in (0, 4):  # 4: some inputs failed, each was named, the rest is written
        sys.exit(status)
    return out


def call(words: list[str]) -> tuple[int, str]:
    """The exit status and stdout of a command line, in a process of its own."""
    done = subprocess.run([*SHIC, *words], stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout


def kept(target: Path, words: Sequence[str | Path]) -> bool:
    """Whether `target` is there already; the script ends if another command than `words` made it."""
    if not target.exists():
        return False
    note = target.with_name(target.name + ".command")
    made_by = json.loads(note.read_text()) if note.exists() else None
    if made_by != list(map(str, words)):
        sys.exit(
            f"{target}: was made by other settings\n  remove it, or name another folder with -o; see"
            f" {note.name}"
        )
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


def photos(folder: Path) -> list[Path]:
    """The photos in a folder, in the order of their names."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


@dataclass(frozen=True)
class Animal:
    """A class of a data set: its `mesh`, the folders of the `training` photos and the `test` photos, and
    their `annotations`. Masks are in masks/ beside each folder of photos. What is made of it goes to
    `work`."""

    name: str
    mesh: Path
    training: Path
    test: Path
    annotations: Path
    work: Path
    recipe: Recipe

    @classmethod
    def find(cls, dataset: str, data: Path, name: str, work: Path, recipe: Recipe) -> Animal:
        """The class in `data`/NAME."""
        folder, (training, test, images) = data / name, SPLITS[dataset]
        mesh = next(
            (path for path in (folder / f"{name}.obj", folder / f"{name}.pkl") if path.exists()),
            folder / f"{name}.obj",
        )
        return cls(
            name,
            mesh,
            folder / training / images,
            folder / test / images,
            folder / test / "annotations.json",
            work,
            recipe,
        )

    def some(self, number: int) -> list[Path]:
        """`number` annotated photos, evenly spaced."""
        images = photos(self.test)
        return [images[i * len(images) // number] for i in range(min(number, len(images)))]

    def template(self) -> Path:
        """The template."""
        return make(self.work / "template.h5", "template", "prep", self.mesh, *self.recipe.template)

    def zero_shot(self) -> Path:
        """Pseudo-labels of the annotated photos."""
        return self.pseudo_gt(where=self.test, name="pgt-test")

    def pseudo_gt(
        self,
        *changes: str,
        where: Path | None = None,
        name: str = "pgt-train",
        number: int = 0,
        seed: int = 0,
    ) -> Path:
        """Pseudo-labels of the training photos or of those in `where`; of `number` that `seed` chooses."""
        where = where or self.training
        if number:
            name += f"-{number}-{seed}"
            chosen = random.Random(seed).sample(photos(where), number)
            where = self.work / f"{name}.txt"
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_text("".join(f"{path}\n" for path in sorted(chosen)))
        target = self.work / (name + ("-" + slug(changes) if changes else "") + ".h5")
        return make(
            target, "pseudo-gt", where, "--template", self.template(), *self.recipe.pseudo_gt, *changes
        )

    def synth(self) -> Path:
        """Synthetic pictures."""
        words = [self.name if word == "{class}" else word for word in self.recipe.synth]
        return make(self.work / "synth.h5", "synth", self.template(), *words)

    def train(self, label: str, maps: Sequence[Path], changes: Sequence[str], seed: int) -> Path:
        """A model in a folder of its own, named by `label` and `seed`."""
        words = (*maps, "--template", self.template(), *self.recipe.train, *changes, "--seed", str(seed))
        return make(self.work / "runs" / f"{label}-{seed}" / "model.safetensors", "train", *words)

    def predict(self, model: Path, images: Sequence[Path], target: Path, *changes: str) -> Path:
        """The model's maps of `images`, beside their pictures if `changes` ask for any."""
        return make(target, "predict", *images, "--model", model, *changes)

    def score(self, maps: Path, target: Path | None = None) -> dict[str, Any]:
        """What `shic eval geodesic --json` says of a maps file; kept in `target`, beside the maps
        without it.
        """
        return self.eval(
            target or maps.with_suffix(".score.json"), "geodesic", maps, "--annotations", self.annotations
        )

    def eval(self, target: Path, *words: str | Path) -> dict[str, Any]:
        """What `shic eval WORDS... --json` says; kept in `target`."""
        line = ("eval", *words, "--template", self.template(), "--json")
        if not kept(target, line):
            target.parent.mkdir(parents=True, exist_ok=True)
            keep(target, line, shic(*line))
        return json.loads(target.read_text())

    def run(
        self, label: str, maps: Callable[[], Sequence[Path]], changes: Sequence[str], seed: int
    ) -> dict[str, Any]:
        """The score of a model trained on `maps()`. It and the model are kept, its predictions are not."""
        model = self.train(label, maps(), changes, seed)
        score, predictions = model.with_name("score.json"), model.with_name("predictions.h5")
        if not score.exists():
            self.predict(model, [self.test], predictions, "--no-pictures")
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
                (int(left + x * width / 255), int(top + y * height / 255), int(vertex))
                for x, y, vertex in dots
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
        work = self.output / self.dataset / self.recipe.name
        return [Animal.find(self.dataset, self.data, name, work / name, self.recipe) for name in self.classes]

    @property
    def settings(self) -> str:
        """The settings in words, for a table's caption."""
        recipe, seeds = self.recipe, ", ".join(map(str, self.seeds))
        steps = {
            "template prep": recipe.template,
            "pseudo-gt": recipe.pseudo_gt,
            "synth": recipe.synth,
            "train": (*recipe.train, *self.train),
        }
        return (
            ", ".join(f"`shic {name} {' '.join(words)}`" for name, words in steps.items())
            + f"; seeds {seeds}."
        )


def parse(about: str, *, small: bool = False, classes: str = "", **further: dict[str, Any]) -> Options:
    """The options of a script that `about` describes. `small`: an ablation; `classes`: densepose-lvis's
    default; `further`: options.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", choices=list(FOLDERS), default="densepose-lvis")
    parser.add_argument("--data", type=Path, help="its folder; default: $DENSEPOSE_LVIS or $RIGGED")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("paper"),
        help="folder of everything that is made; default: paper",
    )
    parser.add_argument(
        "--classes", help=f"default: {classes or CLASSES['densepose-lvis']}, or {CLASSES['rigged']}"
    )
    parser.add_argument("--seeds", default="0,1,2", help="of training; default: 0,1,2")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny settings, to see that the script runs; the figures mean nothing",
    )
    for name, settings in further.items():
        parser.add_argument(f"--{name}", **settings)
    parser.add_argument(
        "train", nargs="*", metavar="-- TRAIN", help="further options of `shic train`, after --"
    )
    given = parser.parse_args()
    folder = given.data or os.environ.get(FOLDERS[given.dataset])
    if not folder:
        parser.error(
            f"name the data's folder with --data or {FOLDERS[given.dataset]}; README.md says what is in it"
        )
    names = given.classes or (
        CLASSES["rigged"] if given.dataset == "rigged" else classes or CLASSES["densepose-lvis"]
    )
    data, output = Path(folder).resolve(), given.output.resolve()
    for name in names.split(","):
        if not (data / name).is_dir():
            parser.error(f"{data / name}: there is no such folder; README.md says what is in it")
    seeds = tuple(int(seed) for seed in given.seeds.split(","))
    return Options(
        given.dataset,
        data,
        output,
        tuple(names.split(",")),
        seeds,
        given.quick,
        tuple(given.train),
        given,
        small,
    )


def heatmap(animal: Animal, figure: str, photo: Path, command: str, *words: str | Path) -> Path:
    """The picture that `--heatmap` of a command draws for the first annotated point of a photo."""
    x, y, _ = animal.points()[photo.name][0]
    maps = animal.work / figure / f"{photo.stem}.h5"
    target = maps.with_suffix(".heatmap.png")
    line = (command, photo, "-o", maps, *words, "--heatmap", f"{photo.name}:{x},{y}")
    if not kept(target, line):
        maps.parent.mkdir(parents=True, exist_ok=True)
        keep(target, line)
        shic(*line)
    return target
