"""`shic train`."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from shic_cli.base.settings import TrainConfig
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
def command(
    maps: tuple[Path, ...],
    output: Path,
    template: Path,
    config: TrainConfig,
    weights: Path | None,
    device: str,
    seed: int,
    overwrite: bool,
) -> None:
    """Learn the canonical map from maps files (sec. 3.6).

    MAPS are files of `shic pseudo-gt` or `shic synth`, or your own labels. The default is pgt.h5 and
    synth.h5, if they exist.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.files.arrays import read_template, source
    from shic_cli.files.atomic import atomic
    from shic_cli.files.photos import encode
    from shic_cli.files.pictures import loss_plot
    from shic_cli.stages.train import train

    torch_device, surface = resolve_device(device), read_template(template)
    paths = list(maps) or [path for path in DEFAULTS if path.exists()] or [DEFAULTS[0]]
    if not maps and paths == [DEFAULTS[1]]:
        log.info("there is no %s: training on %s alone", *DEFAULTS)
    sources = {"template": source(template)} | {str(path): source(path) for path in paths if path.exists()}

    def plot(history: list[dict[str, float]]) -> None:
        with atomic(output.with_suffix(".losses.png")) as partial:
            partial.write_bytes(encode(loss_plot(history)))

    train(
        surface,
        paths,
        output,
        config,
        torch_device,
        seed=seed,
        sources=sources,
        weights=weights,
        overwrite=overwrite,
        last=plot,
        track=track,
    )
