"""`shic features`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shic_cli.base.settings import FeatureConfig, MasksConfig
from shic_cli.cli import options

if TYPE_CHECKING:
    from shic_cli.files.shards import Part


@click.command("features")
@options.inputs
@options.output("features.h5", "The features file to write.")
@options.masks
@options.masker
@options.class_name
@click.option(
    "--basis",
    type=click.Path(path_type=Path),
    help="A features file of views that was made with --pca; project to its components.",
)
@options.settings(FeatureConfig)
@options.weights
@options.device
@options.shard
@options.overwrite
@options.as_json
def command(
    inputs: tuple[str, ...],
    output: Path,
    masks: MasksConfig,
    masker: str,
    class_name: str,
    basis: Path | None,
    config: FeatureConfig,
    weights: Path | None,
    device: str,
    part: Part,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Compute an extractor's features of photos, or of the views in a views file.

    INPUT is an image, a folder, a glob, a .txt list, a video, `-` for a list on stdin, or a views file.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.files.arrays import source
    from shic_cli.files.photo_lists import list_images
    from shic_cli.learning.views import read_views
    from shic_cli.parts.maskers.make import make_masks
    from shic_cli.stages.features import write_photo_features, write_view_features

    end, torch_device = Ending(as_json), resolve_device(device)
    tracked = partial(track, quicker="--shard on several machines")
    shared: dict[str, Any] = {"basis": basis, "weights": weights, "overwrite": overwrite, "track": tracked}
    end.wrote(options.written(part, output))
    if len(inputs) == 1 and inputs[0].endswith(".h5"):
        if not part.is_whole:
            raise click.UsageError("views can't be split: use --shard and torchrun for photos only")
        views = Path(inputs[0])
        sources = {"views": source(views)} | ({"basis": source(basis)} if basis else {})
        with end:
            write_view_features(
                read_views(views, torch_device), output, config, torch_device, sources=sources, **shared
            )
        return
    mask_source = make_masks(masks, masker, torch_device, weights, class_name)
    images = list_images(inputs)
    with end:
        end.next = options.joined(part, output) or f"shic pseudo-gt {output}"
        write_photo_features(images, mask_source, output, config, torch_device, part=part, **shared)
