"""`shic match`."""

from __future__ import annotations

from pathlib import Path

import click

from shic_cli.base.settings import MasksConfig
from shic_cli.cli import options


@click.command("match")
@click.argument("a")
@click.argument("b")
@options.path_option("model", "model.safetensors", "The trained model.")
@options.output("match.png", "The picture to write; - for stdout.")
@click.option(
    "--via",
    type=click.Choice(["template", "embedding"]),
    default="template",
    show_default=True,
    help="Through vertices or not.",
)
@click.option("--points", type=click.IntRange(min=1), default=20, show_default=True, help="Matches to show.")
@options.masks
@options.masker
@options.class_name
@options.weights
@options.device
@options.seed
@options.overwrite
@options.as_json
def command(
    a: str, b: str, model: Path, output: Path, via: str, points: int, masks: MasksConfig, masker: str, class_name: str,
    weights: Path | None, device: str, seed: int, overwrite: bool, as_json: bool,
) -> None:  # fmt: skip
    """Match the images A and B through the template (Fig. 7): a picture, and with --json a list of [[xa, ya],
    [xb, yb], score].

    Of many candidates those are taken that lead back from B to where they started in A, well spread.
    """
    from shic_cli.base.devices import chance, resolve_device
    from shic_cli.cli.console import emit_json, write_picture
    from shic_cli.files.atomic import check_target
    from shic_cli.files.photos import list_images
    from shic_cli.stages.match import Paths, correspondences, make_side, picture
    from shic_cli.stages.predict import Predictor, mask_source

    if as_json and str(output) == "-":
        raise click.UsageError("--json and -o - both write to stdout")
    if str(output) != "-":
        check_target(output, overwrite)
    where = resolve_device(device)
    predictor = Predictor(model, where, weights=weights)
    source = mask_source(predictor, masks, masker, weights, class_name)
    images = [list_images([name])[0] for name in (a, b)]
    source.prepare(images)
    photos = tuple(map(source.read, images))
    paths = Paths(predictor.surface.verts, predictor.surface.faces)
    sides = tuple(make_side(predictor, photo, via, paths) for photo in photos)
    matches = correspondences(*sides, photos[0].mask, points, chance(seed, "match"))
    write_picture(output, picture(photos, sides, matches), overwrite)
    if as_json:
        emit_json(matches.as_json())
