"""`shic doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from shic_cli.cli import options


@click.command("doctor")
@options.weights
@options.as_json
@click.pass_context
def command(context: click.Context, weights: Path | None, as_json: bool) -> None:
    """Check this machine and installation: versions, devices, optional parts, weights, disk, locks.

    What it prints belongs into a bug report; tokens are not in it. Exit status 1 when something is broken,
    with a fix in a line each.
    """
    from shic_cli.cli.console import emit_json
    from shic_cli.stages.doctor import examine

    report = examine(Path.cwd(), weights)
    if as_json:
        emit_json(report.as_json())
    else:
        for section, values in report.found.items():
            click.echo(f"{section}:")
            for name, value in values.items():
                click.echo(f"  {name}: {_shown(name, value)}")
    for what, fix in report.faults:
        click.echo(f"shic: error: {what}: {fix}", err=True)
    context.exit(1 if report.faults else 0)


def _shown(name: str, value: Any) -> str:
    """A value in a line; bytes as gigabytes."""
    if isinstance(value, dict):
        parts = [
            _shown(key, each) if key in ("version", "error") else f"{key} {_shown(key, each)}"
            for key, each in value.items()
        ]
        return ", ".join(filter(None, parts)) or "no"
    if isinstance(value, list):
        return "; ".join(_shown(name, each) for each in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name in ("free", "memory"):
        return f"{value / 1e9:.1f} GB"
    return "no" if value in ("", None) and name not in ("version", "error") else str(value)
