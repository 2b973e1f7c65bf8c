"""`shic demo`."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import shlex
from pathlib import Path
from typing import Any

import click

from shic_cli.base.result_settings import DemoConfig
from shic_cli.cli import options


@click.command("demo")
@click.argument("folder", default="shic-demo", type=click.Path(path_type=Path))
@options.settings(DemoConfig)
@options.device
@options.seed
@options.overwrite
@options.as_json
@click.pass_context
def command(
    context: click.Context,
    folder: Path,
    config: DemoConfig,
    device: str,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Run the whole pipeline in FOLDER on a self-made example, and print each command that it runs.

    The photos are pictures of a posed T-Rex with exact labels. The demo ends with a table, summary.png, and
    view.html, where a click on a photo marks its place on the mesh and in every other photo.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.files.atomic import atomic
    from shic_cli.files.photos import encode
    from shic_cli.stages import demo

    end, torch_device = Ending(as_json), resolve_device(device)
    demo.prepare_folder(folder, overwrite)
    truth = demo.write_example(folder, config, torch_device, seed, track)
    _say(f"$ cd {shlex.quote(str(folder))}")
    with contextlib.chdir(folder):
        outputs = {line: _run(line, context) for line in demo.lines(config, list(truth), device, seed)}
    figures = demo.figures(folder, *(json.loads(text) for line, text in outputs.items() if "--json" in line))
    with atomic(folder / "summary.png") as partial:
        partial.write_bytes(encode(demo.summary(folder, truth)))
    (folder / demo.BEGUN).unlink(missing_ok=True)
    _show(figures)
    with end:
        end.wrote(folder, folder / "summary.png", folder / "view.html")
        end.details, end.look = figures, f"{folder / 'summary.png'}, and click in {folder / 'view.html'}"


def _run(line: str, context: click.Context) -> str:
    """Print and run one command line; its output on stdout."""
    from shic_cli.cli import group

    _say(f"$ {line}")
    volume = context.parent.params if context.parent else {}
    flags = ["-v"] * volume.get("verbose", 0) + ["-q"] * volume.get("quiet", 0)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        group.main([*flags, *shlex.split(line)[1:]], prog_name="shic", standalone_mode=False)
    if "--json" not in line:  # the table at the end shows the figures
        _say(out.getvalue().rstrip())
    return out.getvalue()


def _say(text: str) -> None:
    """Print a line to stderr, unless -q was given."""
    if text and logging.getLogger("shic").isEnabledFor(logging.INFO):
        click.echo(text, err=True)


def _show(figures: dict[str, Any]) -> None:
    """Print the table of the demo's scores."""
    from shic_cli.cli.console import table

    rows = [
        (
            name.replace("_", "-"),
            f"{score['mean']:.1f}",
            "{:.1f} to {:.1f}".format(*score["ci95"]) if "ci95" in score else "",
        )
        for name, score in figures.items()
    ]
    table("Test photos", ("", "geodesic error of 228", "95 % interval"), rows)
