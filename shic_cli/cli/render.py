"""`shic render`."""

from __future__ import annotations

from pathlib import Path

import click

from shic_cli.cli import options
from shic_cli.config import RenderConfig


@click.command("render")
@click.argument("template", type=click.Path(path_type=Path), default="template.h5")
@options.output("views.h5", "The views file to write.")
@options.settings(RenderConfig)
@click.option(
    "--contact-sheet", type=click.Path(path_type=Path), help="PNG to write: all the views side by side."
)
@options.device
@options.overwrite
def command(
    template: Path,
    output: Path,
    config: RenderConfig,
    contact_sheet: Path | None,
    device: str,
    overwrite: bool,
) -> None:
    """Render views of TEMPLATE (template.h5 if none is given) from all around."""
    from dataclasses import replace

    from shic_cli import registry, render, schema
    from shic_cli.cli.console import track
    from shic_cli.devices import resolve_device
    from shic_cli.outputs import check_target

    for target in filter(None, (output, contact_sheet)):
        check_target(target, overwrite)
    where = resolve_device(device)
    config = replace(config, renderer=registry.resolve("renderers", config.renderer, where))
    views = render.render_views(schema.read_template(template), config, where, track=track)
    sources = {"template": schema.source(template)}
    render.write_views(output, views, params=config.params(), sources=sources, overwrite=overwrite)
    if contact_sheet:
        render.write_contact_sheet(contact_sheet, views, config, overwrite)
