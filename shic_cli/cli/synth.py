"""`shic synth`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shic_cli.base.settings import SynthConfig
from shic_cli.cli import options

if TYPE_CHECKING:
    from shic_cli.files.shards import Part

PHOTOS = Path("pgt.h5")  # the photos' maps where none are named


@click.command("synth")
@click.argument("template", default="template.h5", type=click.Path(path_type=Path))
@options.output("synth.h5", "The maps file to write.")
@options.contact_sheet("some of the pictures beside their labels")
@click.option(
    "--depth-only",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write only depth pictures for controlnet-depth and conditions.json (prompts, seeds), to DIR; this "
    "needs no generator.",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Read the pictures that another program painted from the depth pictures. They have the same names, "
    "and conditions.json is beside them.",
)
@click.option(
    "--photos",
    type=click.Path(path_type=Path),
    metavar="MAPS",
    help="Maps of the class's photos, which tell where photos are taken from and what coats the class has."
    " Without it pgt.h5, if it is here.",
)
@options.settings(SynthConfig)
@options.masker
@options.weights
@options.device
@options.seed
@options.shard
@options.workers
@options.overwrite
@options.as_json
def command(
    template: Path,
    output: Path,
    contact_sheet: Path | None,
    depth_only: Path | None,
    images: Path | None,
    config: SynthConfig,
    photos: Path | None,
    masker: str,
    weights: Path | None,
    device: str,
    part: Part,
    workers: int | None,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Make synthetic pictures of TEMPLATE with exact labels (sec. 3.5): a maps file for `shic train`."""
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.files.arrays import read_template, source
    from shic_cli.stages import synth, synth_exchange

    if depth_only and (images or contact_sheet):
        raise click.UsageError(
            "--depth-only writes only depth pictures: don't combine it with --images or --contact-sheet"
        )
    if not part.is_whole and (depth_only or images):
        raise click.UsageError("--depth-only and --images can't be split, because they paint nothing")
    end, torch_device, surface = Ending(as_json), resolve_device(device), read_template(template)
    options.check_sheet(contact_sheet, part, overwrite)
    tracked = partial(track, quicker="--number 1500, or --shard on several machines,")
    shared: dict[str, Any] = {"overwrite": overwrite, "track": tracked}
    if depth_only:
        with end:
            end.wrote(depth_only)
            synth_exchange.write_conditions(
                surface, depth_only, config, torch_device, seed, weights=weights, **shared
            )
        return
    wanted = config.like_photos or config.photo_coats or config.photo_poses
    seen = photos or (PHOTOS if PHOTOS.exists() and wanted else None)
    sources = {"template": source(template)} | ({"photos": source(seen)} if seen else {})
    shared |= {"sources": sources, "weights": weights, "masker": masker}
    with end, options.drawing(contact_sheet, output, surface.colors, overwrite):
        end.wrote(options.written(part, output), contact_sheet)
        end.look, end.next = str(contact_sheet or ""), options.joined(part, output) or "shic train"
        if images:
            synth_exchange.read_pictures(surface, images, output, config, torch_device, **shared)
        else:
            shared |= {"part": part, "photos": seen, "workers": workers}
            synth.synthesize(surface, output, config, torch_device, seed, **shared)
