"""The report of `shic eval geodesic`: one HTML page that holds its pictures, so one file can be sent."""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shic_cli.base.errors import InputError
from shic_cli.base.packages import needed, require
from shic_cli.base.settings import GEODESIC_MAXIMUM
from shic_cli.files.atomic import atomic, check_target
from shic_cli.files.photos import Crop, decode, encode
from shic_cli.files.pictures import color_map, dots, heat_colors

if TYPE_CHECKING:
    from shic_cli.evaluation.geodesic import Scored
    from shic_cli.files.items import ItemReader

PAGE = "report.html"  # the template of the page, beside this file
SHOWN = 4  # each row shows at most so many worst and so many best images
SIDE = 288  # pixels; the side of a tile
BIN = 10.0  # geodesic distance; the width of the histogram's bars
SCALE = GEODESIC_MAXIMUM / 2  # errors from here up have the last colour
PLOTTED = 20_000  # the plot of left and right shows about this many points at most


@dataclass(frozen=True)
class Row:
    """One set of predictions: its objects, their `summary`, and its maps, None if it has no pictures."""

    name: str
    scored: Sequence[Scored]
    summary: dict[str, Any]
    maps: ItemReader | None


def prepare(folder: Path, overwrite: bool) -> Path:
    """The path of the page in `folder`, which is created.

    ShicError if the page exists and is kept, MissingError without the package for its plots.
    """
    require("matplotlib", "--report")
    folder.mkdir(parents=True, exist_ok=True)
    check_target(folder / "index.html", overwrite)
    return folder / "index.html"


def write_report(
    path: Path, rows: Sequence[Row], annotations: str, colors: np.ndarray, overwrite: bool
) -> None:
    """Write the page of `rows`, scored at the points of the file `annotations`.

    `colors` `(K, 3)` uint8 are the template's. InputError if a photo in a maps file can't be read or differs
    from its map in size.
    """
    import jinja2

    sections = [_section(row, colors) for row in rows]
    text = (Path(__file__).parent / PAGE).read_text(encoding="utf-8")
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(text)
    with atomic(path, overwrite) as partial:
        html = page.render(
            sections=sections,
            annotations=annotations,
            scale=_scale_picture(),
            largest=GEODESIC_MAXIMUM,
            half=SCALE,
        )
        partial.write_text(html, encoding="utf-8")


def _section(row: Row, colors: np.ndarray) -> dict[str, Any]:
    """The values that the page shows of one row."""
    images: dict[str, list[Scored]] = defaultdict(list)
    for entry in row.scored:
        if len(entry.error):
            images[entry.points.name].append(entry)
    drawn = {name: objects for name, objects in images.items() if objects[0].item is not None}
    error, mirrored = _errors(row.scored)
    return {
        "name": row.name,
        "summary": row.summary,
        "classes": {**row.summary["classes"], "all": row.summary}
        if len(row.summary["classes"]) > 1
        else row.summary["classes"],
        "missing": sorted(name for name in images if name not in drawn),
        "plots": data_uri(encode(_plots(error, mirrored))),
        **_cards(drawn, row.maps, colors),
    }


def _errors(entries: Sequence[Scored]) -> tuple[np.ndarray, np.ndarray]:
    """The errors of all points of `entries`, and the errors of their mirrored answers, both `(P,)`."""
    return (
        np.concatenate([entry.error for entry in entries]),
        np.concatenate([entry.mirrored for entry in entries]),
    )


def _cards(
    drawn: dict[str, list[Scored]], maps: ItemReader | None, colors: np.ndarray
) -> dict[str, list[dict[str, Any]]]:
    """The cards of the `worst` and of the `best` images; none if there are no maps."""
    if maps is None:
        return {"worst": [], "best": []}
    means = {name: float(_errors(objects)[0].mean()) for name, objects in drawn.items()}
    order = sorted(means, key=lambda name: (means[name], name))
    best = order[: min(SHOWN, (len(order) + 1) // 2)]
    worst = order[len(best) :][: -SHOWN - 1 : -1]
    return {
        "worst": [_card(name, drawn[name], maps, colors) for name in worst],
        "best": [_card(name, drawn[name], maps, colors) for name in best],
    }


def _card(name: str, objects: list[Scored], maps: ItemReader, colors: np.ndarray) -> dict[str, Any]:
    """The figures and the picture of one image."""
    error, mirrored = _errors(objects)
    return {
        "name": name,
        "points": len(error),
        "mean": float(error.mean()),
        "worst": float(error.max()),
        "swapped": int(swapped(error, mirrored).sum()),
        "picture": data_uri(encode(_tiles(objects, maps, colors, error), ".jpg"), "jpeg"),
    }


def swapped(error: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """Bool `(P,)`: the points at which left and right are confused.

    There the mirrored answer has less than half the error.
    """
    return mirrored < error / 2


def _tiles(objects: list[Scored], maps: ItemReader, colors: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Three tiles side by side, cut around the object: photo, colour map, points coloured by their errors."""
    name = objects[0].item
    assert name is not None  # only images with a prediction have a card
    item = maps[name]
    rgb, _ = decode(item.encoded.tobytes(), item.name)
    if item.vertex.shape != rgb.shape[:2]:
        raise InputError(
            f"{maps.path}: {item.name}: the map and the image differ in size", "make the maps file again"
        )
    yx = np.concatenate([entry.points.yx for entry in objects])
    around = item.mask.copy()
    around[tuple(yx[(yx < around.shape).all(1)].T)] = True
    crop = Crop.around(around)
    photo, labels = (crop.cut(picture, SIDE) for picture in (rgb, color_map(rgb, item.vertex, colors)))
    places = crop.to_crop(yx, SIDE)
    return np.concatenate(
        [photo, labels, dots((photo * 0.5).astype(np.uint8), places, heat_colors(error / SCALE))], 1
    )


def _plots(error: np.ndarray, mirrored: np.ndarray) -> np.ndarray:
    """`(H, W, 3)` uint8: the histogram of errors, and each point's error against its mirrored answer's."""
    with needed("--report"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.6), dpi=100, layout="constrained")
    canvas, (bars, points) = FigureCanvasAgg(figure), figure.subplots(1, 2, width_ratios=(2, 1))
    edges = np.append(np.arange(0, GEODESIC_MAXIMUM, BIN), GEODESIC_MAXIMUM + 0.5)
    shares = np.histogram(error, edges)[0] / len(error)
    bars.bar(edges[:-1], shares, width=np.diff(edges), align="edge", color="#4878a8", edgecolor="white")
    for value, name, style in ((error.mean(), "mean", "-"), (np.median(error), "median", "--")):
        bars.axvline(value, color="#222222", linestyle=style, linewidth=1, label=f"{name} {value:.1f}")
    bars.set(xlabel="geodesic error", ylabel="share of points", xlim=(0, GEODESIC_MAXIMUM))
    bars.legend(frameon=False)
    step = -(-len(error) // PLOTTED)
    wrong = swapped(error, mirrored)
    for chosen, color in ((~wrong, "#4878a8"), (wrong, "#c8443c")):
        points.scatter(
            error[chosen][::step], mirrored[chosen][::step], s=4, alpha=0.4, color=color, linewidths=0
        )
    points.plot((0, GEODESIC_MAXIMUM), (0, GEODESIC_MAXIMUM / 2), color="#222222", linewidth=0.8)
    points.set(
        xlabel="error",
        ylabel="error when mirrored",
        xlim=(0, GEODESIC_MAXIMUM),
        ylim=(0, GEODESIC_MAXIMUM),
        aspect="equal",
    )
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _scale_picture() -> str:
    """The colours of the errors from 0 to SCALE, as a data URI."""
    return data_uri(encode(np.broadcast_to(heat_colors(np.linspace(0, 1, 240)), (12, 240, 3)).copy()))


def data_uri(picture: bytes, kind: str = "png") -> str:
    """A data URI that holds the bytes of a picture file."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
