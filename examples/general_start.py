"""The weights that `shic train --start animals` begins with: one U-Net trained on many classes at once.

    seed=50
    for mesh in *.glb *.obj; do
        seed=$((seed + 1)); mkdir ${mesh%.*}
        (cd ${mesh%.*} && shic template prep ../$mesh && shic synth --number 1200 --seed $seed)
    done
    python general_start.py */ -o animals.safetensors

Each FOLDER has a template.h5 and a synth.h5. With one seed for all, the animals would be held alike, before
the same backgrounds. Every step takes pictures of one class. The classes share the U-Net, and each has its
own vertex embeddings, which are not kept. The tensors are written in half precision.

The file in the package comes from nineteen meshes by Quaternius (CC0), so it is CC0 too. Eleven are rigged:
donkey, wolf, bull, alpaca, stag, husky, deer, velociraptor, triceratops, parasaurolophus and apatosaurus.
Eight are of older packs: zebra, dog, cat, sheep, llama, pig, pug and rat. These have 300 to 2,000 vertices
and were made smooth (trimesh's `subdivide_loop`, twice, the rat's once); dog and cat need `--front +x`.
Horse, ShibaInu, cow, fox, T-Rex and stegosaurus were left out, because results are measured on them.

It was trained in four parts, each beginning with the one before (`--start`): 14,000 steps on ten animals
whose far legs were darker, which photos do not show; 9,000 steps on 8,000 pictures without that; 16,000 steps
on 22,800 pictures of nineteen animals, with one seed for all of them; and 14,000 steps on 22,800 pictures as
the lines above make them, in which heads and legs bend that `synth` did not find before. The last part took
27 minutes of two hyperthreads, some of them beside other work.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import click
import numpy as np
import torch

from shic_cli.base.devices import ahead
from shic_cli.base.training_settings import TrainConfig
from shic_cli.files.arrays import read_template
from shic_cli.files.items import ItemReader
from shic_cli.learning.batches import Example
from shic_cli.learning.model_file import write_tensors
from shic_cli.learning.start import DECODER
from shic_cli.learning.trainer import Trainer

WARM = 100  # steps in which the step size grows to its full value
Job = tuple[Trainer, list[int], list[Example]]


class Shared:
    """Adam for the embeddings of one class, together with `common`, Adam for the U-Net of all classes."""

    def __init__(self, own: torch.optim.Adam, common: torch.optim.Adam) -> None:
        self.parts, self.param_groups = (own, common), own.param_groups + common.param_groups

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad()

    def step(self) -> None:
        for part in self.parts:
            part.step()


def trainers(folders: list[Path], start: str) -> list[Trainer]:
    """A trainer for each folder; they share the first one's U-Net, which begins as `--start` says."""
    config = TrainConfig(encoder="picture", start=start)
    made = []
    for folder in folders:
        readers = [ItemReader(folder / "synth.h5", "shic/maps")]
        template = read_template(folder / "template.h5")
        made.append(Trainer.make(template, readers, config, torch.device("cpu"), seed=1))
        click.echo(f"{folder}: {len(made[-1].examples)} pictures")
    common = torch.optim.Adam(made[0].map.decoder.parameters())
    for trainer in made:
        trainer.map.decoder = made[0].map.decoder
        trainer.map.train()
        trainer.optimizer = Shared(torch.optim.Adam([trainer.map.C]), common)  # pyright: ignore
    return made


def jobs(made: list[Trainer], steps: int) -> Iterator[Callable[[], Job]]:
    """What makes the batch of each step: the classes by turns, in a new order each round."""
    rng = np.random.default_rng(0)
    order = np.arange(len(made))
    left: list[list[int]] = [[] for _ in made]
    epochs = [-1] * len(made)

    def job(number: int, batch: list[int], epoch: int) -> Job:
        return made[number], batch, made[number].examples.get_all(batch, epoch)

    for step in range(steps):
        if step % len(made) == 0:
            order = rng.permutation(len(made))
        number = int(order[step % len(made)])
        size = made[number].config.batch
        if len(left[number]) < size:
            left[number] = rng.permutation(len(made[number].examples)).tolist()
            epochs[number] += 1
        batch, left[number] = left[number][:size], left[number][size:]
        yield partial(job, number, batch, epochs[number])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("-o", "--output", type=Path, default=Path("animals.safetensors"))
    parser.add_argument("--steps", type=int, default=14_000)
    parser.add_argument("--start", default="none", help="as in shic train: none, animals or a model")
    arguments = parser.parse_args()
    made = trainers(arguments.folders, arguments.start)
    rate, begun, generator = made[0].config.rate, time.monotonic(), torch.Generator().manual_seed(0)
    recent: list[tuple[float, float]] = []
    for step, (trainer, batch, found) in enumerate(ahead(jobs(made, arguments.steps)), 1):
        share = step / arguments.steps
        for group in trainer.optimizer.param_groups:
            group["lr"] = rate * min(1, step / WARM) * (1 + math.cos(math.pi * share)) / 2
        losses = trainer._step(batch, found, generator)
        recent.append((losses["synthetic"], losses["near"]))
        if step % 200 == 0 or step == arguments.steps:
            synthetic, near = np.mean(recent, 0)
            seconds = time.monotonic() - begun
            click.echo(f"{step} {seconds:.0f} s: synthetic {synthetic:.3f}, near {near:.3f}")
            recent = []
            write(arguments.output, made[0], step)


def write(path: Path, trainer: Trainer, step: int) -> None:
    """Write the U-Net as it is after `step` steps."""
    tensors = {
        DECODER + name: value.half().contiguous() for name, value in trainer.map.decoder.state_dict().items()
    }
    write_tensors(path, tensors, {"format": "shic/start", "steps": str(step), "licence": "CC0 1.0"})


if __name__ == "__main__":
    main()
