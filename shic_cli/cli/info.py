"""`shic info`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from shic_cli.cli import options


@click.command("info")
@click.argument("file", type=click.Path(path_type=Path))
@options.as_json
def command(file: Path, as_json: bool) -> None:
    """Describe FILE: its kind, fields, settings and sources."""
    from shic_cli.cli.console import emit_json, wrapped
    from shic_cli.stages.info import describe

    description = describe(file)
    if as_json:
        emit_json(description)
        return
    for name, value in description.items():
        if isinstance(value, dict):
            click.echo(f"{name}:")
            for key, item in value.items():
                click.echo(wrapped(f"  {key}: {item}", 4, sys.stdout))
        else:
            click.echo(wrapped(f"{name}: {value}", 2, sys.stdout))
