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
@options.output("match.png", "The picture to write; - for stdout.", stdout=True)
@click.option(
    "--via",
    type=click.Choice(["template", "embedding"]),
    default="template",
    show_default=True,
    help="Match through the template's vertices, or by pixel embeddings alone.",
)
@click.option(
    "--points",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="The largest number of matches.",
)
@options.masks
@options.masker
@options.class_name
@options.weights
@options.device
@options.seed
@options.overwrite
@options.as_json
def command(
    a: str,
    b: str,
    model: Path,
    output: Path,
    via: str,
    points: int,
    masks: MasksConfig,
    masker: str,
    class_name: str,
    weights: Path | None,
    device: str,
    seed: int,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Match the images A and B through the template (Fig. 7).

    It writes a picture; with --json, `matches` is a list of [[xa, ya], [xb, yb], score]. Of many candidates
    it takes those that return nearest to their start in A, spread over the object.
    """
    from shic_cli.base.devices import chance, resolve_device
    from shic_cli.cli.console import write_picture
    from shic_cli.cli.ending import Ending
    from shic_cli.files.atomic import check_target
    from shic_cli.files.photo_lists import list_images
    from shic_cli.stages.match import Paths, correspondences, make_side, picture
    from shic_cli.stages.predict import Predictor, mask_source

    if as_json and str(output) == "-":
        raise click.UsageError("--json and -o - both write to stdout")
    end, torch_device = Ending(as_json), resolve_device(device)
    image_a, image_b = (list_images([name])[0] for name in (a, b))
    predictor = Predictor(model, torch_device, weights=weights)
    if str(output) != "-":
        check_target(output, overwrite)
    source = mask_source(predictor, masks, masker, weights, class_name)
    source.prepare([image_a, image_b])
    photos = source.read(image_a), source.read(image_b)
    paths = Paths(predictor.surface.verts, predictor.surface.faces)
    sides = make_side(predictor, photos[0], via, paths), make_side(predictor, photos[1], via, paths)
    matches = correspondences(*sides, photos[0].mask, points, chance(seed, "match"))
    with end:
        write_picture(output, picture(photos, sides, matches), overwrite)
        end.wrote(output)
        end.details = {"matches": matches.as_json()}
