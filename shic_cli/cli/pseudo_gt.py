"""`shic pseudo-gt`."""

from __future__ import annotations

from functools import partial
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
    "--views", type=click.Path(path_type=Path), help="Views that `shic render` made.  [default: rendered now]"
)
@click.option("--heatmap", metavar="IMAGE:X,Y", help="Draw only Fig. 3 for this pixel, beside the output.")
@options.contact_sheet("some of the photos beside their maps")
@options.settings(PseudoGtConfig)
@options.weights
@options.device
@options.shard
@options.workers
@options.overwrite
@options.as_json
def command(
    inputs: tuple[str, ...],
    output: Path,
    template: Path,
    masks: MasksConfig,
    masker: str,
    class_name: str,
    views: Path | None,
    heatmap: str | None,
    contact_sheet: Path | None,
    config: PseudoGtConfig,
    weights: Path | None,
    device: str,
    part: Part,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Match every object pixel of photos to the template, without training (Eq. 2).

    INPUT is an image, a folder, a glob, a .txt list, a video, `-` for a list on stdin, or a features file.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.files.arrays import read_template, source
    from shic_cli.files.items import ItemReader
    from shic_cli.files.photo_lists import list_images
    from shic_cli.learning.views import read_views
    from shic_cli.parts.maskers.make import make_masks
    from shic_cli.stages import pseudo_gt

    is_features = len(inputs) == 1 and inputs[0].endswith(".h5")
    images = ItemReader(inputs[0], "shic/features") if is_features else list_images(inputs)
    if heatmap:
        _check_heatmap(images, masks, heatmap, part)
    end, torch_device, surface = Ending(as_json), resolve_device(device), read_template(template)
    options.check_sheet(contact_sheet, part, overwrite)
    mask_source = make_masks(masks, masker, torch_device, weights, class_name)
    sources = {"template": source(template)} | ({"views": source(views)} if views else {})
    tracked = partial(track, quicker="--azimuths 8, or --shard on several machines,")
    shared: dict[str, Any] = {"weights": weights, "track": tracked}
    if views:
        shared["views"] = read_views(views, torch_device)
    if heatmap and not isinstance(images, ItemReader):
        from shic_cli.stages import heatmap as fig3

        picture = output.with_suffix(".heatmap.png")
        with end:
            fig3.write_heatmap(surface, images, mask_source, heatmap, picture, config, torch_device, **shared)
            end.wrote(picture)
        return
    shared |= {"sources": sources, "overwrite": overwrite, "part": part, "workers": workers}
    with end, options.drawing(contact_sheet, output, surface.colors, overwrite):
        end.wrote(options.written(part, output), contact_sheet)
        end.look = str(contact_sheet or f"`shic view {output}`")
        end.next = options.joined(part, output) or _next(template)
        pseudo_gt.pseudo_gt(surface, images, mask_source, output, config, torch_device, **shared)


def _next(template: Path) -> str:
    """The command that comes next."""
    if Path("synth.h5").exists():
        return "shic train" + options.unless_default("template", template, "template.h5")
    return "shic synth" + ("" if str(template) == "template.h5" else f" {template}")


def _check_heatmap(images: Any, masks: MasksConfig, heatmap: str, part: Part) -> None:
    """Check --heatmap before the template is read and its views are rendered."""
    from shic_cli.stages.heatmap import check_pixel

    if not isinstance(images, list):
        raise click.UsageError("--heatmap needs photos; give them in place of the features file")
    if not part.is_whole:
        raise click.UsageError("--heatmap draws one photo, which can't be split")
    check_pixel(images, masks, heatmap)
