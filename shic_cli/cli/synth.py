"""`shic synth`."""

from __future__ import annotations

from pathlib import Path

import click

from shic_cli.cli import options
from shic_cli.config import SynthConfig


@click.command("synth")
@click.argument("template", default="template.h5", type=click.Path(path_type=Path))
@options.output("synth.h5", "The maps file to write.")
@click.option("--contact-sheet", type=click.Path(path_type=Path), metavar="PNG", help="Draw some of the pictures beside their labels.")
@options.settings(SynthConfig)
@options.device
@options.seed
@options.overwrite
def command(
    template: Path, output: Path, contact_sheet: Path | None, config: SynthConfig, device: str, seed: int, overwrite: bool
) -> None:  # fmt: skip
    """Make synthetic pictures of TEMPLATE with exact labels (sec. 3.5): a maps file, for `shic train`."""
    from shic_cli import synth
    from shic_cli.cli.console import track
    from shic_cli.devices import resolve_device
    from shic_cli.images import encode
    from shic_cli.outputs import atomic, check_target
    from shic_cli.schema import read_template, source

    where, loaded = resolve_device(device), read_template(template)
    if contact_sheet:
        check_target(contact_sheet, overwrite)
    sources = {"template": source(template)}
    synth.synthesize(loaded, output, config, where, seed, sources=sources, overwrite=overwrite, track=track)
    if contact_sheet:
        with atomic(contact_sheet, overwrite) as partial:
            partial.write_bytes(encode(synth.contact_sheet(output, loaded.colors)))
