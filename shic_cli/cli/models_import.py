"""`shic models import`."""

from __future__ import annotations

from pathlib import Path

import click

from shic_cli.cli import options
from shic_cli.config import ReleaseConfig


@click.command("import", short_help="Turn the authors' released weights into a model file.")
@click.argument("model", type=click.Path(path_type=Path), metavar="CLASS.pth")
@click.argument("cse", type=click.Path(path_type=Path), metavar="CLASS_cse.pth")
@click.argument("lbo", type=click.Path(path_type=Path), metavar="CLASS_lbo.pth")
@click.option("--mesh", type=click.Path(path_type=Path), required=True, help="The mesh of the class that came with them.")
@options.output("", "The model file to write.  [default: CLASS.safetensors]")
@options.settings(ReleaseConfig)
@options.overwrite
def command(model: Path, cse: Path, lbo: Path, mesh: Path, output: Path | None, config: ReleaseConfig, overwrite: bool) -> None:
    """Turn a class of the authors' released weights into a model file, encoder and all.

    Its template is that of `shic template prep MESH --vertices 0`. The files are read as tensors only; code in them is not run.
    """
    from shic_cli.model import save_model
    from shic_cli.outputs import check_target
    from shic_cli.release import import_release

    output = output or Path(f"{model.stem}.safetensors")
    check_target(output, overwrite)
    save_model(output, import_release(model, cse, lbo, mesh, config), overwrite)
