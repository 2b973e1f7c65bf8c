"""`shic eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shic_cli.base.result_settings import GeodesicConfig, PckConfig
from shic_cli.base.settings import MasksConfig
from shic_cli.cli import options

if TYPE_CHECKING:
    from shic_cli.evaluation.geodesic import Predictions
    from shic_cli.files.layouts import Template

GEODESIC_FIGURES = ("images", "points", "mean", "median", "ci95", "gps", "left_right")
GPS_FIGURES = ("ap", "ap50", "ap75", "ap_medium", "ap_large", "ar", "ar50", "ar75")
PCK_FIGURES = ("alpha", "pairs", "keypoints", "pck", "ci95")
HEADINGS = {
    "ci95": "95 %",
    "left_right": "left/\nright",
    "keypoints": "points",
    "mean_of_classes": "mean of\nclasses",
    "mean_by_pairs": "mean by\npairs",
    "mean_of_kinds": "mean of\nkinds",
    "ap_medium": "ap\nmedium",
    "ap_large": "ap\nlarge",
}  # of the columns whose names are long
MEANS = ("mean_of_classes", "mean_by_pairs", "mean_of_kinds")
baseline = click.option(
    "--baseline",
    "baselines",
    multiple=True,
    type=click.Choice(["chance", "position"]),
    help="Add a row for a baseline that does not look at the photos; may be repeated.",
)
surface = click.option(
    "--template",
    type=click.Path(path_type=Path),
    help="A template or a model.  [default: model.safetensors or template.h5]",
)


@click.group("eval")
def command() -> None:
    """Score maps by their geodesic error or by keypoint transfer (sec. 4.3)."""


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
    help="Write a page with the results, DIR/index.html.",
)
@options.overwrite
@options.seed
@options.as_json
def geodesic(
    predictions: tuple[Path, ...],
    annotations: Path,
    baselines: tuple[str, ...],
    template: Path,
    config: GeodesicConfig,
    report: Path | None,
    overwrite: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Geodesic error of PREDICTIONS at annotated points; the largest distance on the mesh is 228.

    Each of the PREDICTIONS is a maps file or another program's points; several make one table. A pgt.h5 gives
    the zero-shot row. Points are a .csv with the columns image, x, y, vertex and optionally score, or an .npz
    with these arrays. x and y are pixels of the photo from its top left corner; vertices are those of the
    mesh file, counted from 0. An annotated point takes the nearest answer in its pixel or beside it.

    The interval is a bootstrap over images. left_right is the share of points whose mirrored answer has less
    than half the error. A missing prediction counts as an error of the largest distance.

    The baseline chance takes a random vertex for each point. The baseline position takes the vertex at the
    point's place in the object's box; the template's box is that of its left side.

    --gps: an object's GPS is the mean of exp(-d^2 / (2 kappa^2)) over its points, where kappa is 25.5 (0.255
    where the largest distance is 2.28); a point without an answer counts 0. AP and AR are over GPS 0.5 to
    0.95 in steps of 0.05, with precision read at 101 recalls, and are means over classes. A medium object has
    an area of 32^2 to 96^2 pixels, a large one more. Each object has one prediction, the one in its own box:
    a missing image costs recall, and a prediction below the threshold costs precision too, that of a size
    only if its box has this size. Predictions are ranked by the mean score in the box; equal ones keep the
    order of the annotations.

    --calibration: the points of each maps file in ten groups of equal size by stated uncertainty, from the
    surest on, and the mean error of each; the scale that would make the mean uncertainty the mean error; and
    Spearman's rank correlation of uncertainty and error, over points and over the means of photos.

    --report: one HTML page that holds its pictures. It shows the table, the distribution of the errors, the
    worst and the best images with their maps, and the points at which left and right are confused.
    """
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.evaluation import report as reports
    from shic_cli.evaluation.calibration import calibration
    from shic_cli.evaluation.geodesic import scored, summary
    from shic_cli.evaluation.gps import with_precision
    from shic_cli.files.annotations import read_annotations
    from shic_cli.files.arrays import read_template
    from shic_cli.files.atomic import check_there

    _some_row(predictions, baselines)
    check_there(*predictions, annotations)
    page = reports.prepare(report, overwrite) if report else None
    points, surface = read_annotations(annotations, config.dp_scale), read_template(template)
    rows = _rows(predictions, baselines, surface, seed)
    entries = {name: scored(row, points, surface, track) for name, row in rows.items()}
    results = {name: summary(objects, seed) for name, objects in entries.items()}
    if config.gps:
        results = {name: with_precision(result, entries[name]) for name, result in results.items()}
    if config.calibration:
        results = {
            name: {**result, "calibration": calibration(maps, entries[name])}
            if (maps := getattr(rows[name], "maps", None))
            else result
            for name, result in results.items()
        }
    if page:
        sections = [
            reports.Row(name, entries[name], results[name], getattr(rows[name], "maps", None))
            for name in rows
        ]
        reports.write_report(page, sections, str(annotations), surface.colors, overwrite)
    _show(results, "geodesic error", GEODESIC_FIGURES)
    if config.gps:
        _show(results, "average precision over GPS", GPS_FIGURES)
    for name, result in results.items():
        if "calibration" in result:
            _show_calibration(name, result["calibration"])
    if not report:
        _emit(results, as_json)
        return
    with Ending(as_json) as end:
        end.wrote(report / "index.html")
        end.details, end.look = _joined(results), f"{report / 'index.html'} in a browser"


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
    help="Score only pairs of this class; may be repeated. If there is only one, --masker looks for it.",
)
@click.option("--images", help="The annotated photos; needed for a model, or if no maps file is scored.")
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
    targets: tuple[Path, ...],
    keypoints: Path,
    classes: tuple[str, ...],
    images: str | None,
    masks: MasksConfig,
    masker: str,
    baselines: tuple[str, ...],
    template: Path | None,
    config: PckConfig,
    weights: Path | None,
    device: str,
    seed: int,
    as_json: bool,
) -> None:
    """Keypoint transfer between photos, by maps files, by models on --images, or by another program.

    Another program's answers are a CSV like PF-PASCAL's (source_image, target_image, XA, YA, XB, YB;
    coordinates separated by semicolons), with the answers as XB and YB. A keypoint is right if it is strictly
    nearer than alpha times the longer side of the target image, which is the side of the padded image.
    Several targets make one table.

    The interval is a bootstrap over the pairs of a csv. In a JSON every two images are a pair, and the
    bootstrap draws images. Each class is scored by its keypoints; then come the mean over classes and the
    mean weighted by the number of pairs.

    The baseline chance takes a random pixel of the target's mask. The baseline position takes the same place
    in the box of the target's mask as in the source's.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track
    from shic_cli.evaluation.pck_targets import Photos, TargetScorer
    from shic_cli.files.keypoints import read_pairs

    _some_row(targets, baselines)
    torch_device = resolve_device(device)
    photos = Photos(images, masks, masker, classes[0] if len(classes) == 1 else "")
    pairs = read_pairs(keypoints, classes)
    scorer = TargetScorer(pairs, photos, config, torch_device, template, weights, seed, track)
    results = scorer.score(_labels(targets), baselines)
    ways = [result["via"] for result in results.values() if "via" in result]  # only maps and models have one
    _show(results, f"PCK via {ways[0]}" if len(results) == len(ways) == 1 else "PCK", PCK_FIGURES)
    _emit(results, as_json)


def _some_row(files: tuple[Path, ...], baselines: tuple[str, ...]) -> None:
    """UsageError if there is nothing to score."""
    if not files and not baselines:
        raise click.UsageError("nothing to score: name a file of predictions, or a --baseline")


def _rows(
    paths: tuple[Path, ...], baselines: tuple[str, ...], template: Template, seed: int
) -> dict[str, Predictions]:
    """The rows of the table of geodesic errors, by name: files of predictions, then baselines."""
    from shic_cli.evaluation.baselines import make_vertices
    from shic_cli.evaluation.geodesic import open_predictions

    files = {label: open_predictions(path, template) for label, path in _labels(paths).items()}
    return files | {name: make_vertices(name, template, seed) for name in baselines}


def _labels(paths: tuple[Path, ...]) -> dict[str, Path]:
    """Each path by its file name, or by the path itself if two files have the same name."""
    names = [path.name for path in paths]
    return {path.name if names.count(path.name) == 1 else str(path): path for path in paths}


def _emit(results: dict[str, dict], as_json: bool) -> None:
    """Print the results as JSON: one as it is, several under `rows`."""
    from shic_cli.cli.console import emit_json

    if as_json:
        emit_json(_joined(results))


def _joined(results: dict[str, dict]) -> dict[str, Any]:
    """The results as one JSON object: one as it is, several under `rows`."""
    result = next(iter(results.values()))
    return result if len(results) == 1 else {"metric": result["metric"], "rows": results}


def _show(results: dict[str, dict], title: str, figures: tuple[str, ...]) -> None:
    """Print a table to stderr: one row for each result, or for each class of a single result."""
    from shic_cli.cli.console import table

    result = next(iter(results.values()))
    classes = result.get("classes", {})
    rows = results
    if len(results) == 1 and classes:
        rows = {**classes, "all": result} if len(classes) > 1 else {next(iter(classes)): result}
    lines = [(label, row | at_alpha) for label, row in rows.items() for at_alpha in row.get("alphas", ({},))]
    columns = (*figures, *(key for key in MEANS if any(row.get(key) is not None for _, row in lines)))
    cells = [_cells(key, [row.get(key, "") for _, row in lines]) for key in columns]
    names = [label for label, _ in lines]
    table(title, ["", *(HEADINGS.get(key, key) for key in columns)], list(zip(names, *cells, strict=True)))


def _show_calibration(name: str, found: dict[str, Any]) -> None:
    """Print the calibration of a maps file to stderr, a row for each bin."""
    from shic_cli.cli.console import table

    columns = ("points", "stated", "error")
    cells = [_cells(key, [row[key] for row in found["bins"]]) for key in columns]
    numbers = [str(i) for i in range(1, len(found["bins"]) + 1)]
    table(f"{name}: calibration", ["", *columns], list(zip(numbers, *cells, strict=True)))
    figures = ", ".join(f"{key} {_cells(key, [found[key]])[0] or '-'}" for key in found if key != "bins")
    click.echo(figures, err=True)


def _cells(key: str, values: list[Any]) -> list[str]:
    """The column `key` of a table, with as many decimals in each cell; an interval is `low to high`."""
    numbers = [
        number
        for value in values
        for number in (value if isinstance(value, list) else [value])
        if isinstance(number, float)
    ]
    digits = 3 if max(map(abs, numbers), default=0) <= 1 else 2  # of a share, of a distance
    if key == "alpha":  # was given, and is not rounded
        digits = max((len(f"{number:.10f}".rstrip("0").partition(".")[2]) for number in numbers), default=0)

    def cell(value: Any) -> str:
        if isinstance(value, list):
            return " to ".join(map(cell, value))
        return f"{value:.{digits}f}" if isinstance(value, float) else "" if value is None else str(value)

    return [cell(value) for value in values]
