"""`shic train`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from shic_cli.base.settings import TrainConfig
from shic_cli.cli import options
from shic_cli.files.pictures import loss_plot

log = logging.getLogger("shic")

DEFAULTS = (Path("pgt.h5"), Path("synth.h5"))  # what is trained on when nothing is named, if it is here


@click.command("train")
@click.argument("maps", nargs=-1, type=click.Path(path_type=Path), metavar="[MAPS]...")
@options.output("model.safetensors", "The model file to write.")
@options.template
@options.settings(TrainConfig)
@options.weights
@options.device
@options.seed
@options.overwrite
def command(
    maps: tuple[Path, ...], output: Path, template: Path, config: TrainConfig, weights: Path | None, device: str, seed: int, overwrite: bool
) -> None:  # fmt: skip
    """Learn the canonical map from maps files (sec. 3.6).

    MAPS are files of `shic pseudo-gt`, `shic synth` or your own labels; without any, those of pgt.h5 and
    synth.h5 that are here.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.files.arrays import read_template, source
    from shic_cli.files.atomic import atomic
    from shic_cli.files.photos import encode
    from shic_cli.stages.train import train

    where, loaded = resolve_device(device), read_template(template)
    used = list(maps) or [path for path in DEFAULTS if path.exists()] or [DEFAULTS[0]]
    if not maps and used == [DEFAULTS[1]]:
        log.info("there is no %s: learning from %s alone", *DEFAULTS)
    sources = {"template": source(template)} | {str(path): source(path) for path in used if path.exists()}

    def plot(history: list[dict[str, float]]) -> None:
        with atomic(output.with_suffix(".losses.png")) as partial:
            partial.write_bytes(encode(loss_plot(history)))

    shared = {
        "seed": seed,
        "sources": sources,
        "weights": weights,
        "overwrite": overwrite,
        "last": plot,
        "track": track,
    }
    train(loaded, used, output, config, where, **shared)
