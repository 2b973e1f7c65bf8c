"""`shic fit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from shic_cli.base.result_settings import FitConfig
from shic_cli.cli import options

if TYPE_CHECKING:
    from shic_cli.files.shards import Part


@click.command("fit")
@click.argument("maps", type=click.Path(path_type=Path))
@options.template
@options.output("", "The maps file to write.  [default: NAME.fit.maps.h5 beside MAPS]")
@options.settings(FitConfig)
@options.seed
@options.shard
@options.workers
@options.overwrite
@options.as_json
def command(
    maps: Path,
    template: Path,
    output: Path | None,
    config: FitConfig,
    seed: int,
    part: Part,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Fit the template's body to each photo of the MAPS file: a posed mesh, and a map of one body.

    The map keeps its vertices where it is sure, and takes those of the body elsewhere. For each photo
    STEM.fit.png shows the body over the photo, and STEM.fit.glb is its mesh.
    """
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.files.arrays import read_template, source
    from shic_cli.files.items import ItemReader
    from shic_cli.stages.fit import fit

    end, reader, shape = Ending(as_json), ItemReader(maps, "shic/maps"), read_template(template)
    output = output or maps.with_name(f"{maps.name.removesuffix('.h5').removesuffix('.maps')}.fit.maps.h5")
    shared = {"overwrite": overwrite, "track": track, "part": part, "seed": seed, "workers": workers}
    with end:
        end.next = options.joined(part, output) or f"shic view {maps} {output}"
        pictures = fit(reader, shape, output, config, sources={"template": source(template)}, **shared)
        end.wrote(options.written(part, output), *pictures)
        end.look = str(next(iter(pictures), ""))
