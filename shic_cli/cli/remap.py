"""`shic remap`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from shic_cli.cli import options

if TYPE_CHECKING:
    import numpy as np


@click.command("remap")
@click.argument("maps", type=click.Path(path_type=Path))
@click.option("--texture", required=True, help="A picture file, or checker, colors or grid.")
@click.option(
    "--template",
    type=click.Path(path_type=Path),
    help="A template or a model.  [default: model.safetensors or template.h5]",
)
@options.output(
    "",
    "A picture (of one image), a folder, or - for stdout.  [default: beside MAPS]",
    folder=True,
    stdout=True,
)
@click.option(
    "--opacity",
    type=click.FloatRange(0, 1),
    default=0.9,
    show_default=True,
    help="Opacity of the texture over the photo.",
)
@options.device
@options.workers
@options.overwrite
@options.as_json
def command(
    maps: Path,
    texture: str,
    template: Path | None,
    output: Path | None,
    opacity: float,
    device: str,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Lay a texture over the photos of the MAPS file.

    The picture of one image goes to STEM.remap.png beside MAPS; those of several go to a folder named like
    MAPS.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track, write_picture
    from shic_cli.cli.ending import Ending
    from shic_cli.files.items import ItemReader
    from shic_cli.files.names import picture_path
    from shic_cli.files.photo_lists import SUFFIXES
    from shic_cli.learning.model_file import find_surface
    from shic_cli.stages.remap import load_texture, remap, remap_into

    if as_json and str(output) == "-":
        raise click.UsageError("--json and -o - both write to stdout")
    end, where = Ending(as_json), resolve_device(device)
    reader, surface = ItemReader(maps, "shic/maps"), find_surface(template)
    as_file = output is not None and (str(output) == "-" or output.suffix.lower() in SUFFIXES)
    if as_file and len(reader) > 1:
        raise click.UsageError(f"{maps} holds {len(reader)} images: name a folder with -o")
    beside = maps.parent / ("" if len(reader) == 1 else maps.name.removesuffix(".h5").removesuffix(".maps"))
    if len(reader) > 1:
        shared = {"overwrite": overwrite, "track": track, "workers": workers}
        with end:
            end.facts = {"photos": len(reader)}
            end.wrote(output or beside)
            remap_into(output or beside, reader, surface, texture, opacity, where, **shared)
        return

    def write(name: str, picture: np.ndarray) -> None:
        target = output if output and as_file else picture_path(output or beside, name, ".remap.png")
        if not as_file:
            target.parent.mkdir(parents=True, exist_ok=True)
        write_picture(target, picture, overwrite)
        end.wrote(target)

    with end:
        remap(reader, surface, load_texture(texture, surface), write, opacity, where, track)
