"""`shic render`."""

from __future__ import annotations

from pathlib import Path

import click

from shic_cli.base.settings import RenderConfig
from shic_cli.cli import options


@click.command("render")
@click.argument("template", type=click.Path(path_type=Path), default="template.h5")
@options.output("views.h5", "The views file to write.")
@options.settings(RenderConfig)
@click.option(
    "--contact-sheet", type=click.Path(path_type=Path), help="Also write a PNG with all views side by side."
)
@options.device
@options.overwrite
@options.as_json
def command(
    template: Path,
    output: Path,
    config: RenderConfig,
    contact_sheet: Path | None,
    device: str,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Render views of TEMPLATE (default: template.h5) from all around."""
    from dataclasses import replace

    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.files.arrays import read_template, source
    from shic_cli.files.atomic import check_target
    from shic_cli.learning.views import write_views
    from shic_cli.parts import registry
    from shic_cli.stages.render import render_views, write_contact_sheet

    end, torch_device, surface = Ending(as_json), resolve_device(device), read_template(template)
    for target in filter(None, (output, contact_sheet)):
        check_target(target, overwrite)
    config = replace(config, renderer=registry.resolve("renderers", config.renderer, torch_device))
    views = render_views(surface, config, torch_device, track=track)
    sources = {"template": source(template)}
    with end:
        write_views(output, views, params=config.params(), sources=sources, overwrite=overwrite)
        if contact_sheet:
            write_contact_sheet(contact_sheet, views, config, overwrite)
        end.wrote(output, contact_sheet)
        end.look, end.next = str(contact_sheet or ""), f"shic pseudo-gt imgs/ --views {output}"
