"""`shic demo`."""

from __future__ import annotations

import contextlib
import io
import logging
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from shic_cli.base.result_settings import DemoConfig
from shic_cli.cli import options

log = logging.getLogger("shic")


@click.command("demo")
@click.argument("folder", default="shic-demo", type=click.Path(path_type=Path))
@options.settings(DemoConfig)
@options.device
@options.seed
@click.option("--overwrite", is_flag=True, help="Replace an earlier demo in FOLDER.")
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
    """Run the whole pipeline on a self-made example, and print each command that it runs.

    All files go to FOLDER, which is shic-demo if none is named. A demo that was stopped goes on when the same
    line is given again.

    The photos are pictures of a posed T-Rex with exact labels. The demo ends with a table, summary.png, and
    view.html, where a click on a photo marks its place on the mesh and in every other photo.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.files.photos import encode
    from shic_cli.stages import demo

    end, torch_device = Ending(as_json), resolve_device(device)
    settings, picture = {**asdict(config), "seed": seed, "device": device}, folder / demo.SUMMARY
    with demo.opened(folder, settings, overwrite) as done:
        truth = demo.write_example(folder, config, torch_device, seed, track, is_there=bool(done.outputs))
        lines = demo.lines(config, list(truth), device, seed)
        if done.outputs:
            log.info("demo: going on after %d of %d lines", len(done.outputs), len(lines))
        _say(f"$ cd {shlex.quote(str(folder))}")
        for line in lines:
            if line not in done.outputs:
                done.add(line, _run(line, folder, context))
        figures = demo.figures(folder, *done.figures())
        with done.journal.finishing() as partial:
            partial.write_bytes(encode(demo.summary(folder, truth)))
    _show(figures)
    with end:
        end.wrote(folder, picture, folder / "view.html")
        end.details, end.look = figures, f"{picture}, and click in {folder / 'view.html'}"


def _run(line: str, folder: Path, context: click.Context) -> str:
    """Print one command line, and run it in `folder`; its output on stdout.

    It may replace what it finds, which is its own from before it was interrupted.
    """
    from shic_cli.cli import group
    from shic_cli.cli.ending import without_next
    from shic_cli.stages.demo import SCORE

    _say(f"$ {line}")
    volume = context.parent.params if context.parent else {}
    flags = ["-v"] * volume.get("verbose", 0) + ["-q"] * volume.get("quiet", 0)
    words, is_score = shlex.split(line)[1:], line.startswith(SCORE)
    replace = {"overwrite": True}
    usual = {words[0]: {**replace, words[1]: replace}}  # a command's, or those of a command below it
    with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as out, without_next():
        words = [*flags, *words, *(["--json"] if is_score else [])]
        group.main(words, prog_name="shic", standalone_mode=False, default_map=usual)
    if not is_score:  # the table that it prints shows the figures
        _say(out.getvalue().rstrip())
    return out.getvalue()


def _say(text: str) -> None:
    """Print a line to stderr, unless -q was given."""
    if text and log.isEnabledFor(logging.INFO):
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
