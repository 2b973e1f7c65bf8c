"""`shic info`."""

from __future__ import annotations

from pathlib import Path

import click

from shic_cli.cli import options


@click.command("info")
@click.argument("file", type=click.Path(path_type=Path))
@options.as_json
def command(file: Path, as_json: bool) -> None:
    """Describe FILE: its kind, fields, settings and sources."""
    from shic_cli.cli.console import emit_json
    from shic_cli.stages.info import describe

    description = describe(file)
    if as_json:
        emit_json(description)
        return
    for name, value in description.items():
        if isinstance(value, dict):
            click.echo(f"{name}:")
            for key, item in value.items():
                click.echo(f"  {key}: {item}")
        else:
            click.echo(f"{name}: {value}")
