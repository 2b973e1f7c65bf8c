"""`shic predict`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shic_cli.base.settings import MasksConfig, PredictConfig
from shic_cli.cli import options

if TYPE_CHECKING:
    from shic_cli.files.shards import Part


@click.command("predict")
@options.inputs
@options.output(
    "", "The maps file to write.  [default: IMAGE.maps.h5 for one image, else predictions.maps.h5]"
)
@options.path_option("model", "model.safetensors", "The trained model: a file, or OWNER/NAME after a pull.")
@click.option(
    "--remap", "texture", help="Also lay a texture over each image: a picture, or checker, colors or grid."
)
@click.option("--heatmap", metavar="IMAGE:X,Y", help="Draw only Fig. 10 for this pixel, beside the output.")
@options.masks
@options.masker
@options.class_name
@options.contact_sheet("some of the photos beside their maps")
@options.settings(PredictConfig)
@options.weights
@options.device
@options.shard
@options.workers
@options.overwrite
@options.as_json
def command(
    inputs: tuple[str, ...],
    output: Path | None,
    model: Path,
    texture: str | None,
    heatmap: str | None,
    contact_sheet: Path | None,
    masks: MasksConfig,
    masker: str,
    class_name: str,
    config: PredictConfig,
    weights: Path | None,
    device: str,
    part: Part,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Map every object pixel of images to the template: a maps file, and colour pictures beside it.

    INPUT is an image, a folder, a glob, a .txt list, a video, or `-` for a list on stdin.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.files.arrays import source
    from shic_cli.files.photo_lists import list_images
    from shic_cli.stages.heatmap import check_pixel, write_trained_heatmap
    from shic_cli.stages.predict import Predictor, mask_source, predict
    from shic_cli.stages.prediction_pictures import Pictures

    end, images = Ending(as_json), list_images(inputs)
    if heatmap and not part.is_whole:
        raise click.UsageError("--heatmap draws one photo, which can't be split")
    if heatmap:
        check_pixel(images, masks, heatmap)
    predictor = Predictor(model, resolve_device(device), config, weights)
    options.check_sheet(contact_sheet, part, overwrite)
    single = len(images) == 1
    output = output or Path(f"{Path(images[0].name).stem}.maps.h5" if single else "predictions.maps.h5")
    masks_of_photos = mask_source(predictor, masks, masker, weights, class_name)
    if heatmap:
        target = output.with_name(output.name.removesuffix(".h5").removesuffix(".maps") + ".heatmap.png")
        with end:
            write_trained_heatmap(predictor, images, masks_of_photos, heatmap, target)
            end.wrote(target)
        return
    drawn = {"wanted": config.pictures, "unsure": config.unsure}
    pictures = Pictures(output, predictor.surface, texture, predictor.device, single=single, **drawn)
    tracked = partial(track, quicker="--flip off --estimate mode, or a GPU,")
    shared: dict[str, Any] = {"overwrite": overwrite, "pictures": pictures, "workers": workers}
    shared |= {"sources": {"model": source(predictor.path)}, "track": tracked, "part": part}
    with end, options.drawing(contact_sheet, output, predictor.surface.colors, overwrite):
        film = f"shic export {output} -o {images[0].path.stem}.colors.mp4" if images[0].video else ""
        end.next = options.joined(part, output) or film or f"shic view {output}"
        try:
            predict(predictor, images, masks_of_photos, output, **shared)
        finally:
            end.wrote(options.written(part, output), *pictures.written, contact_sheet)
            end.look = str(contact_sheet or next(reversed(pictures.written), ""))
