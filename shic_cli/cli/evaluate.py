"""`shic eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from shic_cli.cli import options
from shic_cli.config import PckConfig

GEODESIC_FIGURES = ("images", "points", "mean", "median", "ci95", "gps", "left_right")
PCK_FIGURES = ("alpha", "pairs", "keypoints", "pck", "ci95")
surface = click.option(
    "--template", type=click.Path(path_type=Path), help="A template or a model.  [default: model.safetensors or template.h5]"
)


@click.group("eval")
def command() -> None:
    """Score maps: geodesic error, keypoint transfer (sec. 4.3)."""


@command.command("geodesic")
@click.argument("maps", type=click.Path(path_type=Path))
@click.option("--annotations", type=click.Path(path_type=Path), required=True, help="DensePose points in a COCO or LVIS JSON file.")
@options.template
@options.seed
@options.as_json
def geodesic(maps: Path, annotations: Path, template: Path, seed: int, as_json: bool) -> None:
    """Geodesic error of the MAPS file at annotated points; the largest distance on the mesh is 228.

    The interval is a bootstrap over images; left_right is the share of points whose mirrored answer is less than half as wrong.
    """
    from shic_cli import evaluate
    from shic_cli.cli.console import track
    from shic_cli.schema import ItemReader, read_template

    points = evaluate.read_annotations(annotations)
    result = evaluate.geodesic(ItemReader(maps, "shic/maps"), points, read_template(template), seed, track)
    rows = {**result["classes"], "all": result} if len(result["classes"]) > 1 else {next(iter(result["classes"])): result}
    _show(result, "geodesic error", GEODESIC_FIGURES, rows, as_json)


@command.command("pck")
@click.argument("target", metavar="MODEL|MAPS", type=click.Path(path_type=Path))
@click.option("--keypoints", type=click.Path(path_type=Path), required=True, help="Plain keypoint JSON, or a PF-PASCAL csv.")
@click.option("--images", help="The annotated photos, where a model is scored.")
@options.masks
@options.masker
@options.class_name
@surface
@options.settings(PckConfig)
@options.weights
@options.device
@options.seed
@options.as_json
def pck(
    target: Path, keypoints: Path, images: str | None, masks: Path | None, masker: str, class_name: str, template: Path | None,
    config: PckConfig, weights: Path | None, device: str, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Keypoint transfer between photos by a maps file, or by a model on --images."""
    from shic_cli import evaluate
    from shic_cli.cli.console import track
    from shic_cli.maps import find_surface
    from shic_cli.schema import ItemReader

    pairs = evaluate.read_pairs(keypoints)
    if target.suffix == ".safetensors":
        sides = _sides_of_model(pairs, target, images, masks, masker, class_name, config, weights, device)
    elif config.via == "embedding":
        raise click.UsageError("--via embedding needs a model: a maps file holds no embeddings")
    else:
        sides = evaluate.sides_of_maps(pairs, ItemReader(target, "shic/maps"), find_surface(template), track)
    result = evaluate.pck(pairs, sides, config, seed, track)
    _show(result, f"PCK via {config.via}", PCK_FIGURES, {target.name: result}, as_json)


def _sides_of_model(
    pairs: list, model: Path, images: str | None, masks: Path | None, masker: str, class_name: str, config: PckConfig,
    weights: Path | None, device: str,
) -> dict[str, Any]:  # fmt: skip
    from shic_cli import evaluate
    from shic_cli.cli.console import track
    from shic_cli.devices import resolve_device
    from shic_cli.images import list_images, make_masker
    from shic_cli.predict import Predictor, mask_source

    if images is None:
        raise click.UsageError("a model is scored on photos: name their folder with --images")
    where = resolve_device(device)
    predictor = Predictor(model, where, weights=weights)
    used = mask_source(predictor, masks, make_masker(masker, where, weights, class_name))
    return evaluate.sides_of_model(pairs, list_images([images]), used, predictor, config.via, track)


def _show(result: dict, title: str, figures: tuple[str, ...], rows: dict[str, dict], as_json: bool) -> None:
    from shic_cli.cli.console import emit_json, table

    table(title, ["", *figures], [[name, *(_format(row.get(key, "")) for key in figures)] for name, row in rows.items()])
    if as_json:
        emit_json(result)


def _format(value: Any) -> str:
    if isinstance(value, list):
        return " to ".join(map(_format, value))
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1 else f"{value:.2f}" if isinstance(value, float) else str(value)
