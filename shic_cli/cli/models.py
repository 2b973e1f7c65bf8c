"""`shic models`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from shic_cli.base.result_settings import ReleaseConfig
from shic_cli.cli import options


@click.group("models")
def command() -> None:
    """List and fetch models, say where they are, and share your own.

    No other command fetches or sends anything. NAME is a model of `shic models list`, an extractor (sd-dino,
    sd, dift, dinov2, dinov3), a generator (controlnet-depth), or a repository of the hub, OWNER/NAME.
    """


@command.command("list", short_help="List the models and say which are here.")
@options.weights
@options.as_json
def list_(weights: Path | None, as_json: bool) -> None:
    """List the models with their licences and sizes, and say which are on this machine."""
    from shic_cli.cli.console import emit_json, table
    from shic_cli.parts.pull import size, summary
    from shic_cli.parts.weights import BUNDLES, MODELS

    models = summary(list(MODELS), weights)
    if as_json:
        emit_json({"models": models, "bundles": BUNDLES})
        return
    rows = [("NAME", "HERE", "ABOUT", "LICENCE", "FOR")]
    for model in models:
        licence = model["licence"] + (" (to be accepted)" if model["gated"] else "")
        here = "yes" if model["folder"] else "no"
        rows.append((model["name"], here, size(model["megabytes"] * 1e6), licence, model["purpose"]))
    if sys.stdout.isatty():
        table("", rows[0], rows[1:], sys.stdout)
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


@command.command("pull", short_help="Fetch models.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@options.weights
@options.as_json
def pull(names: tuple[str, ...], weights: Path | None, as_json: bool) -> None:
    """Fetch models and print the folder of each; only safetensors and settings are fetched, never pickles.

    A pull that was stopped continues with the files that are missing. HF_HOME, HF_HUB_CACHE, HF_TOKEN and
    HF_ENDPOINT have their usual meaning.
    """
    import logging

    from shic_cli.cli.ending import Ending
    from shic_cli.parts.pull import pull
    from shic_cli.parts.weights import expand, repository_of

    progress = sys.stderr.isatty() and logging.getLogger("shic").isEnabledFor(logging.INFO)
    wanted = expand(names)
    for name in wanted:
        repository_of(name)  # this raises for an unknown name before anything is fetched
    with Ending(as_json) as end:
        for name in wanted:
            folder = pull(name, weights, progress=progress)
            end.wrote(folder)
            if not as_json:
                click.echo(folder)


@command.command("path", short_help="Print the folder of a model.")
@click.argument("name")
@options.weights
def path(name: str, weights: Path | None) -> None:
    """Print the folder of a model, one line for each if NAME needs several; status 3 if one is not here."""
    from shic_cli.parts.weights import expand, locate

    for model in expand([name]):
        click.echo(locate(model, weights))


@command.command("push", short_help="Put a trained model on the hub.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("repository", metavar="OWNER/NAME")
@click.option("--licence", required=True, help="The model's licence by its name on the hub, as in cc0-1.0.")
@click.option(
    "--maps", type=click.Path(path_type=Path), help="Show the first photos of this maps file on the card."
)
@click.option(
    "--scores",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Figures for the card: what `shic eval --json` printed; may be repeated.",
)
@click.option("--about", default="", help="A text for the card.")
@click.option("--private", is_flag=True, help="Make the repository private, if it has to be made.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Only write the files there, to look at them or to publish them elsewhere.",
)
def push(
    model: Path,
    repository: str,
    licence: str,
    maps: Path | None,
    scores: tuple[Path, ...],
    about: str,
    private: bool,
    folder: Path | None,
) -> None:
    """Put MODEL on the hub with a card: a picture, figures, settings, licence, and how to use it.

    Others then fetch it with `shic models pull OWNER/NAME`, and use it with --model OWNER/NAME. What is sent
    is the model, which is safetensors, the card and its picture, and settings as JSON. The model and its
    settings name the files that it was trained on. The token is that of `hf auth login`, or HF_TOKEN.
    """
    import logging
    import sys

    from shic_cli.parts.push import check_repository, push
    from shic_cli.stages.model_card import Card, files, write_files

    card = Card(check_repository(repository), licence, maps, scores, about)
    held = files(model, card)
    if folder:
        write_files(folder, held)
        click.echo(folder)
        return
    progress = sys.stderr.isatty() and logging.getLogger("shic").isEnabledFor(logging.INFO)
    click.echo(push(repository, held, private=private, progress=progress))


@command.command("import", short_help="Turn the authors' released weights into a model file.")
@click.argument("model", type=click.Path(path_type=Path), metavar="CLASS.pth")
@click.argument("cse", type=click.Path(path_type=Path), metavar="CLASS_cse.pth")
@click.argument("lbo", type=click.Path(path_type=Path), metavar="CLASS_lbo.pth")
@click.option(
    "--mesh",
    type=click.Path(path_type=Path),
    required=True,
    help="The mesh of the class from the same release.",
)
@options.output("", "The model file to write.  [default: CLASS.safetensors]")
@options.settings(ReleaseConfig)
@options.overwrite
@options.as_json
def import_(
    model: Path, cse: Path, lbo: Path, mesh: Path, output: Path | None, config: ReleaseConfig,
    overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Turn a class of the authors' released weights into a model file that carries its encoder.

    Its template is that of `shic template prep MESH --vertices 0`. The files are read as tensors only; code
    in them is not run.
    """
    from shic_cli.cli.ending import Ending
    from shic_cli.files.atomic import check_target
    from shic_cli.learning.model_file import save_model
    from shic_cli.stages.import_release import import_release

    output = output or Path(f"{model.stem}.safetensors")
    check_target(output, overwrite)
    with Ending(as_json) as end:
        save_model(output, import_release(model, cse, lbo, mesh, config), overwrite)
        end.wrote(output)
        end.next = "shic predict imgs/" + options.unless_default("model", output, "model.safetensors")
