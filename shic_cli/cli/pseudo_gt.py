"""`shic pseudo-gt`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shic_cli.base.settings import MasksConfig, PseudoGtConfig
from shic_cli.cli import options

if TYPE_CHECKING:
    from shic_cli.files.shards import Part


@click.command("pseudo-gt")
@options.inputs
@options.output("pgt.h5", "The maps file to write.")
@options.template
@options.masks
@options.masker
@options.class_name
@click.option(
    "--views",
    type=click.Path(path_type=Path),
    help="Views made by `shic render`.  [default: rendered as needed]",
)
@click.option("--heatmap", metavar="IMAGE:X,Y", help="Only draw Fig. 3 for this pixel, beside the output.")
@options.settings(PseudoGtConfig)
@options.weights
@options.device
@options.shard
@options.overwrite
def command(
    inputs: tuple[str, ...], output: Path, template: Path, masks: MasksConfig, masker: str, class_name: str, views: Path | None,
    heatmap: str | None, config: PseudoGtConfig, weights: Path | None, device: str, part: Part, overwrite: bool,
) -> None:  # fmt: skip
    """Match every object pixel of photos to the template, without training (Eq. 2).

    INPUT is an image, a folder, a glob, a .txt list, a video, `-` for a list on stdin, or a features file.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.files.arrays import read_template, source
    from shic_cli.files.items import ItemReader
    from shic_cli.files.photos import list_images
    from shic_cli.learning.views import read_views
    from shic_cli.parts.maskers.make import make_masks
    from shic_cli.stages import heatmap as fig3
    from shic_cli.stages import pseudo_gt

    images = (
        ItemReader(inputs[0], "shic/features")
        if len(inputs) == 1 and inputs[0].endswith(".h5")
        else list_images(inputs)
    )
    if heatmap:
        _check_heatmap(images, masks, heatmap, part)
    where = resolve_device(device)
    given, loaded = make_masks(masks, masker, where, weights, class_name), read_template(template)
    sources = {"template": source(template)} | ({"views": source(views)} if views else {})
    shared = {"views": read_views(views, where) if views else None, "weights": weights, "track": track}
    if heatmap:
        fig3.write_heatmap(
            loaded, images, given, heatmap, output.with_suffix(".heatmap.png"), config, where, **shared
        )
        return
    pseudo_gt.pseudo_gt(
        loaded,
        images,
        given,
        output,
        config,
        where,
        sources=sources,
        overwrite=overwrite,
        part=part,
        **shared,
    )


def _check_heatmap(images: Any, masks: MasksConfig, heatmap: str, part: Part) -> None:
    """Say what is wrong with --heatmap before the template is read and its views are rendered."""
    from shic_cli.stages.heatmap import check_pixel

    if not isinstance(images, list):
        raise click.UsageError("--heatmap needs photos: a features file holds none to read again")
    if not part.is_whole:
        raise click.UsageError("--heatmap draws one photo, which is not split")
    check_pixel(images, masks, heatmap)
