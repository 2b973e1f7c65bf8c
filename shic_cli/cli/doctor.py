"""`shic doctor`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from shic_cli.cli import options


@click.command("doctor")
@click.option("--full", is_flag=True, help="Import the packages too that take seconds, to see if they work.")
@options.weights
@options.as_json
@click.pass_context
def command(context: click.Context, full: bool, weights: Path | None, as_json: bool) -> None:
    """Check this machine and installation: versions, devices, optional parts, weights, disk, locks.

    Add the output to a bug report; it holds no tokens. If something is broken, the exit status is 1, and one
    line names each fault with its fix.
    """
    from shic_cli.cli.console import emit_json, wrapped
    from shic_cli.stages.doctor import examine

    report = examine(Path.cwd(), weights, full)
    if as_json:
        emit_json(report.as_json())
    else:
        for section, values in report.sections.items():
            click.echo(f"{section}:")
            for name, value in values.items():
                click.echo(wrapped(f"  {name}: {_shown(name, value)}", 4, sys.stdout))
    for what, fix in report.faults:
        click.echo(f"shic: error: {what}: {fix}", err=True)
    context.exit(1 if report.faults else 0)


def _shown(name: str, value: Any) -> str:
    """A value as one line; bytes as gigabytes."""
    if isinstance(value, dict):
        parts = [
            _shown(key, entry) if key in ("version", "error") else f"{key} {_shown(key, entry)}"
            for key, entry in value.items()
        ]
        return ", ".join(filter(None, parts)) or "no"
    if isinstance(value, list):
        return "; ".join(_shown(name, entry) for entry in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name in ("free", "memory"):
        return f"{value / 1e9:.1f} GB"
    return "no" if value is None or (value == "" and name not in ("version", "error")) else str(value)
