"""`shic annotate`."""

from __future__ import annotations

from pathlib import Path

import click

from shic_cli.base.result_settings import AnnotateConfig
from shic_cli.base.settings import MasksConfig
from shic_cli.cli import options


@click.command("annotate")
@click.argument("inputs", nargs=-1, required=True, metavar="[TEMPLATE] INPUT...")
@options.output("annotated", "The folder to write keypoints.json and annotations.json to.")
@click.option(
    "--names",
    default="",
    help="Names of the points, separated by commas, or a .txt file with one a line; the page can add more.",
)
@click.option(
    "--maps", type=click.Path(path_type=Path), help="A maps file of the photos, which suggests points."
)
@options.class_name
@options.masks
@options.settings(AnnotateConfig)
@options.port
@options.browser
def command(
    inputs: tuple[str, ...], output: Path, names: str, maps: Path | None, class_name: str, masks: MasksConfig,
    config: AnnotateConfig, port: int, browser: bool,
) -> None:  # fmt: skip
    """Click points of photos and of the mesh, in a page that is served on this machine alone.

    TEMPLATE is an .h5 file; without one it is template.h5. INPUT is an image, a folder, a glob or a .txt
    list.
    Choose a name, click its pixel, then its place on the mesh, once for all photos. Every click is saved; the
    same line goes on with what is there. Press ? in the page for its keys.

    `shic eval pck` reads keypoints.json and `shic eval geodesic` annotations.json as they are.
    """
    from shic_cli.files.arrays import read_template
    from shic_cli.files.items import ItemReader
    from shic_cli.files.mask_sources import MaskSource
    from shic_cli.files.photo_lists import list_images
    from shic_cli.stages.annotate import Annotator, Work, read_names

    template, photos = "template.h5", inputs
    if inputs[0].endswith(".h5"):
        template, *photos = inputs
    if not photos:
        raise click.UsageError("name the photos, or their folder, after the template")
    images, held = list_images(photos), read_template(template)
    output.mkdir(parents=True, exist_ok=True)
    work = Work(output, held, read_names(names), class_name or "object")
    reader = ItemReader(maps, "shic/maps") if maps else None
    with Annotator(
        work, images, reader, MaskSource(masks, class_name=class_name), config.side, port
    ) as annotator:
        click.echo(f"shic: {len(images)} photos, points go to {output}", err=True)
        options.serve(annotator.server, browser)
