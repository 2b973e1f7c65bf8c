"""`shic view`."""

from __future__ import annotations

from pathlib import Path

import click

from shic_cli.base.result_settings import ViewConfig
from shic_cli.base.settings import MasksConfig
from shic_cli.cli import options


@click.command("view")
@click.argument("files", metavar="MAPS...|MODEL", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--template",
    type=click.Path(path_type=Path),
    help="A template or a model.  [default: model.safetensors or template.h5]",
)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    help="DensePose points in a COCO or LVIS JSON file, or named points in a keypoint JSON: show them, and"
    " each map's errors. Needs the template itself.",
)
@click.option(
    "--only",
    metavar="PATTERN",
    multiple=True,
    help="Photos whose names fit, as in '*_01.jpg'; may be repeated.",
)
@options.settings(ViewConfig)
@options.output("view.html", "The page to write.")
@options.port
@options.browser
@options.masker
@options.class_name
@options.weights
@options.device
@options.overwrite
@options.as_json
def command(
    files: tuple[Path, ...], template: Path | None, annotations: Path | None, only: tuple[str, ...],
    config: ViewConfig, output: Path, port: int, browser: bool, masker: str, class_name: str,
    weights: Path | None, device: str, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Look at maps with the mouse: the mesh beside the photos, in one page that works without a network.

    Point at a pixel of a photo, or at the mesh: the vertex is shown on the mesh and in every photo. A photo
    says "not in view" where no pixel lies within --near of the point along the surface. Several MAPS files of
    one template are shown side by side. Press ? in the page for its keys.

    With a MODEL the page is served on this machine alone, and predicts the photos that are dropped on it.
    """
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.evaluation.on_page import add_points
    from shic_cli.files.arrays import read_template
    from shic_cli.files.layouts import Surface
    from shic_cli.learning.model_file import find_surface
    from shic_cli.stages import view

    if any(path.suffix == ".safetensors" for path in files):
        model, *others = files
        if others or annotations:
            raise click.UsageError(
                "a MODEL is viewed alone: its page predicts the photos that are dropped on it"
            )
        if as_json:
            raise click.UsageError("a MODEL's page is served and not written: leave out --json")
        _serve(model, config, port, browser, masker, class_name, weights, device)
        return
    held = read_template(template or Path("template.h5")) if annotations else None
    page = view.open_page(files, Surface.of(held) if held else find_surface(template), only, config)
    if annotations and held:
        add_points(page, annotations, held)
    with Ending(as_json) as end:
        view.write_view(output, page, overwrite, track)
        end.wrote(output)
        end.facts = {"photos": len(page.names)}
        end.holds = f"{len(page.names)} of {page.total} photos" if len(page.names) < page.total else ""
        end.look = f"{output} in a browser"
    if browser:
        options.open_page(output)


def _serve(
    model: Path, config: ViewConfig, port: int, browser: bool, masker: str, class_name: str,
    weights: Path | None, device: str,
) -> None:  # fmt: skip
    from shic_cli.base.devices import resolve_device
    from shic_cli.stages.predict import Predictor, mask_source
    from shic_cli.stages.view import ModelServer

    where = resolve_device(device)
    predictor = Predictor(model, where, weights=weights)
    masks = mask_source(predictor, MasksConfig(), masker, weights, class_name)
    options.serve(ModelServer(predictor, masks, model.name, config, port).server, browser)
