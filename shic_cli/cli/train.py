"""`shic train`."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import click

from shic_cli.base.training_settings import TrainConfig
from shic_cli.cli import options

log = logging.getLogger("shic")

DEFAULTS = (Path("pgt.h5"), Path("synth.h5"))  # those that exist are used if no MAPS are given


@click.command("train")
@click.argument("maps", nargs=-1, type=click.Path(path_type=Path), metavar="[MAPS]...")
@options.output("model.safetensors", "The model file to write.")
@options.template
@options.settings(TrainConfig)
@options.weights
@options.device
@options.seed
@options.overwrite
@options.as_json
def command(
    maps: tuple[Path, ...],
    output: Path,
    template: Path,
    config: TrainConfig,
    weights: Path | None,
    device: str,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Learn the canonical map from maps files (sec. 3.6).

    MAPS are files of `shic pseudo-gt` or `shic synth`, or your own labels. The default is pgt.h5 and
    synth.h5, if they exist.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.files.arrays import read_template, source
    from shic_cli.files.atomic import atomic
    from shic_cli.files.photos import encode
    from shic_cli.files.pictures import loss_plot
    from shic_cli.stages.train import train

    end, torch_device, surface = Ending(as_json), resolve_device(device), read_template(template)
    paths = list(maps) or [path for path in DEFAULTS if path.exists()] or [DEFAULTS[0]]
    if not maps and paths == [DEFAULTS[1]]:
        log.info("there is no %s: training on %s alone", *DEFAULTS)
    sources = {"template": source(template)} | {str(path): source(path) for path in paths if path.exists()}

    curves = output.with_suffix(".losses.png")

    def plot(history: list[dict[str, float]]) -> None:
        with atomic(curves) as file:
            file.write_bytes(encode(loss_plot(history)))

    tracked = partial(track, quicker="a smaller --epochs, or fewer pictures (shic synth --number),")
    shared: dict[str, Any] = {"weights": weights, "overwrite": overwrite, "last": plot, "track": tracked}
    with end:
        end.wrote(output, curves, output.with_suffix(".log.csv"))
        end.look, end.next = (
            str(curves),
            "shic predict imgs/" + options.unless_default("model", output, "model.safetensors"),
        )
        history = train(surface, paths, output, config, torch_device, seed=seed, sources=sources, **shared)
        end.facts = {"epochs": len(history)}
        end.details = {"losses": history[-1] if history else {}}
