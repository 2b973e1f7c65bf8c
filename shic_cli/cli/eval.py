"""`shic eval`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shic_cli.base.settings import GeodesicConfig, PckConfig
from shic_cli.cli import options

if TYPE_CHECKING:
    import torch

    from shic_cli.parts.maskers.make import Masker

GEODESIC_FIGURES = ("images", "points", "mean", "median", "ci95", "gps", "left_right")
GPS_FIGURES = ("ap", "ap50", "ap75", "ap_medium", "ap_large", "ar", "ar50", "ar75")
PCK_FIGURES = ("alpha", "pairs", "keypoints", "pck", "ci95")
MEANS = ("mean_of_classes", "mean_by_pairs", "mean_of_kinds")
baseline = click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice(["chance", "position"]),
    help="A row for what needs no look; may be repeated.",
)
surface = click.option(
    "--template",
    type=click.Path(path_type=Path),
    help="A template or a model.  [default: model.safetensors or template.h5]",
)


@click.group("eval")
def command() -> None:
    """Score maps: geodesic error, keypoint transfer (sec. 4.3)."""


@command.command("geodesic")
@click.argument("predictions", type=click.Path(path_type=Path), nargs=-1)
@click.option(
    "--annotations",
    type=click.Path(path_type=Path),
    required=True,
    help="DensePose points in a COCO or LVIS JSON file.",
)
@baseline
@options.template
@options.settings(GeodesicConfig)
@click.option(
    "--report",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write a page of it, DIR/index.html.",
)
@options.overwrite
@options.seed
@options.as_json
def geodesic(
    predictions: tuple[Path, ...], annotations: Path, baselines: tuple[str, ...], template: Path, config: GeodesicConfig,
    report: Path | None, overwrite: bool, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Geodesic error of PREDICTIONS at annotated points; the largest distance on the mesh is 228.

    Each is a maps file (a pgt.h5 is the zero-shot row) or another program's points: a .csv with the columns
    image, x, y, vertex and perhaps score, or an .npz with these arrays; x and y in pixels of the photo from
    its top left corner, vertices of the mesh file from 0. A point takes the answer in its pixel or beside it.
    Several make one table.

    The interval is a bootstrap over images; left_right is the share of points whose mirrored answer is less
    than half as wrong. What is missing counts at the largest distance.

    Baselines: chance, any vertex for each point; position, the vertex at the point's place in the object's
    box, in the box of the template seen from its left.

    --gps: an object's GPS is the mean of exp(-d^2 / (2 kappa^2)) over its points, kappa 25.5 (0.255 where the
      largest distance is
    2.28), 0 for a point without an answer. AP and AR are over GPS 0.5 to 0.95 in steps of 0.05, precision
      read at 101 recalls, the
    mean over classes; medium is an area of 32^2 to 96^2 pixels, large is above. Each object has the one
      prediction in its own box: an
    image that is missing costs recall, a prediction below the threshold costs precision too. Predictions are
      ranked by the mean score
    in the box; equal ones keep the order of the annotations.

    --report: one HTML page that holds its pictures: the table, how the errors are distributed, the worst and
      the best images with
    their maps, left and right mixed up.
    """
    from shic_cli.cli.console import track
    from shic_cli.evaluation import report as reports
    from shic_cli.evaluation.baselines import make_vertices
    from shic_cli.evaluation.geodesic import open_predictions, scored, summary
    from shic_cli.evaluation.gps import with_precision
    from shic_cli.files.annotations import read_annotations
    from shic_cli.files.arrays import read_template

    _some_row(predictions, baselines)
    page = reports.prepare(report, overwrite) if report else None
    points, held = read_annotations(annotations, config.dp_scale), read_template(template)
    rows = {label: open_predictions(path, held) for label, path in _labels(predictions).items()}
    rows |= {name: make_vertices(name, held, seed) for name in baselines}
    found = {name: scored(each, points, held, track) for name, each in rows.items()}
    results = {name: summary(each, seed) for name, each in found.items()}
    if config.gps:
        results = {name: with_precision(result, found[name]) for name, result in results.items()}
    if page:
        shown = [
            reports.Row(name, found[name], results[name], getattr(rows[name], "maps", None)) for name in rows
        ]
        reports.write_report(page, shown, str(annotations), held.colors, overwrite)
    _show(results, "geodesic error", GEODESIC_FIGURES)
    if config.gps:
        _show(results, "average precision over GPS", GPS_FIGURES)
    _emit(results, as_json)


@command.command("pck")
@click.argument("targets", metavar="MODEL|MAPS|CSV...", type=click.Path(path_type=Path), nargs=-1)
@click.option(
    "--keypoints",
    type=click.Path(path_type=Path),
    required=True,
    help="Plain keypoint JSON, or a PF-PASCAL csv.",
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    help="Only pairs of this class; may be repeated. One alone is what --masker looks for.",
)
@click.option("--images", help="The annotated photos, where a model is scored, or nothing that holds them.")
@options.masks
@options.masker
@baseline
@surface
@options.settings(PckConfig)
@options.weights
@options.device
@options.seed
@options.as_json
def pck(
    targets: tuple[Path, ...], keypoints: Path, classes: tuple[str, ...], images: str | None, masks: Path | None, masker: str,
    baselines: tuple[str, ...], template: Path | None, config: PckConfig, weights: Path | None, device: str, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Keypoint transfer between photos by maps files, by models on --images, or as another program did it.

    A CSV is like PF-PASCAL's (source_image, target_image, XA, YA, XB, YB; coordinates separated by
    semicolons), with the program's answers as XB and YB. A point is right when it is strictly nearer than
    alpha times the longer side of the target image, which is the side of the padded image. Several targets
    make one table.

    The interval is a bootstrap over the pairs of a csv, or over the images of a JSON, every two of which are
    a pair. Classes: each by its keypoints, then the mean over classes and the mean by number of pairs.

    Baselines: chance, any pixel of the target's mask; position, the same place in the box of the target's
    mask as in the source's.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.evaluation import pck as library
    from shic_cli.evaluation.baselines import make_pixels
    from shic_cli.evaluation.external import GivenPairs
    from shic_cli.files.keypoints import read_pairs
    from shic_cli.parts.maskers.make import make_masker

    _some_row(targets, baselines)
    where = resolve_device(device)
    looker = make_masker(masker, where, weights, classes[0] if len(classes) == 1 else "")
    pairs, results, held = read_pairs(keypoints, classes), {}, {}
    labels = _labels(targets)
    given = {label: GivenPairs(path) for label, path in labels.items() if path.suffix == ".csv"}
    for label, path in labels.items():
        for name, via in _ways(label, path, config.via).items():
            one = replace(config, via=via)
            sides = _sides(pairs, path, images, masks, looker, template, one, weights, where)
            held |= {photo: side.mask for photo, side in sides.items()}
            results[name] = library.pck(pairs, sides, one, seed, track)
    transfers = given | {name: make_pixels(name, held, seed) for name in baselines}
    if transfers and not held:
        held |= _masks(pairs, images, masks, looker)
    for name, transfer in transfers.items():
        results[name] = library.score(pairs, transfer, held, config, seed, track)
    named = [name for label, path in labels.items() for name in _ways(label, path, config.via) or (label,)]
    results = {name: results[name] for name in (*named, *baselines)}  # in the order in which they were given
    ways = [
        result["via"] for result in results.values() if "via" in result
    ]  # another program's answers and baselines have none
    _show(results, f"PCK via {ways[0]}" if len(results) == len(ways) == 1 else "PCK", PCK_FIGURES)
    _emit(results, as_json)


def _some_row(files: tuple[Path, ...], baselines: tuple[str, ...]) -> None:
    if not files and not baselines:
        raise click.UsageError("nothing to score: name a file of predictions, or a --baseline")


def _labels(paths: tuple[Path, ...]) -> dict[str, Path]:
    """Each path by its file name, or as it was given where two files have one name."""
    names = [path.name for path in paths]
    return {path.name if names.count(path.name) == 1 else str(path): path for path in paths}


def _ways(label: str, path: Path, via: str) -> dict[str, str]:
    """The rows of a target and the way of each; another program's answers have none, and a maps file has no
    embeddings.
    """
    if path.suffix == ".csv":
        return {}
    if via != "both":
        return {label: via}
    return {
        f"{label} via {way}": way
        for way in ("template", "embedding")
        if way == "template" or path.suffix == ".safetensors"
    }


def _sides(
    pairs: list, target: Path, images: str | None, masks: Path | None, masker: Masker | None, template: Path | None, config: PckConfig,
    weights: Path | None, device: torch.device,
) -> dict[str, Any]:  # fmt: skip
    from shic_cli.cli.console import track
    from shic_cli.evaluation import pck as library
    from shic_cli.files.items import ItemReader
    from shic_cli.files.photos import list_images
    from shic_cli.learning.model_file import find_surface
    from shic_cli.stages.predict import Predictor, mask_source

    if target.suffix != ".safetensors":
        if config.via == "embedding":
            raise click.UsageError("--via embedding needs a model: a maps file holds no embeddings")
        return library.sides_of_maps(
            pairs, ItemReader(target, "shic/maps"), find_surface(template), config.protocol, track
        )
    if images is None:
        raise click.UsageError("a model is scored on photos: name their folder with --images")
    predictor = Predictor(target, device, weights=weights)
    used = mask_source(predictor, masks, masker)
    return library.sides_of_model(
        pairs, list_images([images]), used, predictor, config.via, config.protocol, track
    )


def _masks(pairs: list, images: str | None, masks: Path | None, masker: Masker | None) -> dict[str, Any]:
    from shic_cli.cli.console import track
    from shic_cli.evaluation.pck import masks_of_images
    from shic_cli.files.photos import MaskSource, list_images

    if images is None:
        raise click.UsageError(
            "the photos' sizes and masks are wanted: name their folder with --images, or a maps file"
        )
    return masks_of_images(pairs, list_images([images]), MaskSource(masks, masker), track)


def _emit(results: dict[str, dict], as_json: bool) -> None:
    """One result as it is, several under `rows`."""
    from shic_cli.cli.console import emit_json

    if as_json:
        result = next(iter(results.values()))
        emit_json(result if len(results) == 1 else {"metric": result["metric"], "rows": results})


def _show(results: dict[str, dict], title: str, figures: tuple[str, ...]) -> None:
    """A table on stderr: a row a result, or, of one result, a row a class."""
    from shic_cli.cli.console import table

    result = next(iter(results.values()))
    classes = result.get("classes", {})
    rows = results
    if len(results) == 1 and classes:
        rows = {**classes, "all": result} if len(classes) > 1 else {next(iter(classes)): result}
    lines = [(label, row | each) for label, row in rows.items() for each in row.get("alphas", ({},))]
    columns = (*figures, *(key for key in MEANS if any(row.get(key) is not None for _, row in lines)))
    table(
        title,
        ["", *columns],
        [[label, *(_format(row.get(key, "")) for key in columns)] for label, row in lines],
    )


def _format(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return " to ".join(map(_format, value))
    return (
        f"{value:.3g}"
        if isinstance(value, float) and abs(value) < 1
        else f"{value:.2f}"
        if isinstance(value, float)
        else str(value)
    )
