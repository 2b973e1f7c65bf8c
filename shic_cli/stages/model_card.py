"""The card of a model: what a repository of the hub says about it, and shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from shic_cli.base.errors import InputError
from shic_cli.files.checks import check_indices
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Surface
from shic_cli.files.names import check_template
from shic_cli.files.photos import decode, encode
from shic_cli.files.pictures import color_map, contact_sheet
from shic_cli.learning.model_file import load_model
from shic_cli.parts.weights import MODEL_FILE
from shic_cli.stages.template_pictures import sides_picture

PICTURE, SHOWN, SIDE = "picture.jpg", 4, 256  # of the photos in the picture
FIGURES = ("images", "points", "mean", "median", "ci95", "pairs", "pck")  # of what `shic eval --json` says


@dataclass(frozen=True)
class Card:
    """What its author says about a model: the `repository` OWNER/NAME, the `licence` by its name on the hub,
    and perhaps a maps file whose first photos are shown, results of `shic eval --json`, and a text.
    """

    repository: str
    licence: str
    maps: Path | None = None
    scores: tuple[Path, ...] = ()
    about: str = ""


def files(model: Path, card: Card) -> dict[str, Path | bytes]:
    """The files of a model's repository by their names: the model, its settings, the card and its picture.

    InputError if the file is no model that can be used, or what the card shows can't be read.
    """
    saved = load_model(model)
    picture = _picture(saved.surface, card.maps)
    settings = {"model_type": "shic", "library_name": "shic", **saved.meta}
    return {
        MODEL_FILE: model,
        "config.json": json.dumps(settings, indent=2).encode(),
        "README.md": _text(saved.meta, saved.surface, card).encode(),
        PICTURE: encode(picture, ".jpg"),
    }


def write_files(folder: Path, held: dict[str, Path | bytes]) -> None:
    """Write the files of a repository to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in held.items():
        (folder / name).write_bytes(content.read_bytes() if isinstance(content, Path) else content)


def _picture(surface: Surface, maps: Path | None) -> np.ndarray:
    """The template from four sides `(H, W, 3)`, and below it photos of a maps file with their colours."""
    sides = sides_picture(surface, SIDE)
    if maps is None:
        return sides
    reader, tiles = ItemReader(maps, "shic/maps"), []
    check_template(reader, surface.fingerprint)
    for name in reader.names[:SHOWN]:
        item = reader[name]
        rgb, _ = decode(item.encoded.tobytes(), name)
        check_indices(item.vertex, len(surface.verts), f"{maps}: {name}: vertex", lowest=-1)
        if rgb.shape[:2] != item.vertex.shape:
            raise InputError(
                f"{maps}: {name}: the map and the image differ in size", "make the maps file again"
            )
        tiles += [rgb, color_map(rgb, item.vertex, surface.colors)]
    sheet = contact_sheet(tiles, 4, side=SIDE)
    width = sheet.shape[1]
    return np.concatenate([cv2.resize(sides, (width, width // 4), interpolation=cv2.INTER_AREA), sheet])


def _text(meta: dict[str, Any], surface: Surface, card: Card) -> str:
    """The card as Markdown, with the metadata that the hub reads above it."""
    name, kind = card.repository.rpartition("/")[2], meta.get("class") or "one class of object"
    head = {"license": card.licence, "library_name": "shic", "tags": ["shic", "dense-correspondence"]}
    return "\n".join(
        [
            "---",
            *(f"{key}: {json.dumps(value)}" for key, value in head.items()),
            "---",
            f"# {name}",
            "",
            f"![The template, and maps of photos]({PICTURE})",
            "",
            f"A dense map from photos of {kind} to a template of {len(surface.verts)} vertices, trained with"
            f" `shic` {meta.get('shic_version')}. The same colour is the same point of the template.",
            *(["", card.about] if card.about else []),
            "",
            "## Use",
            "",
            "```sh",
            f"shic models pull {card.repository}",
            f"shic predict photos/ --model {card.repository}",
            "```",
            "",
            "```python",
            "import shic_cli as shic",
            "",
            f'model = shic.load("{card.repository}")',
            "found = model.predict(rgb, mask)  # found.vertex: each pixel's vertex, -1 for none",
            "```",
            "",
            "## Figures",
            "",
            *(_scores(card.scores) or ["None were given."]),
            "",
            "## Settings",
            "",
            *_settings(meta),
            "",
            f"Licence: {card.licence}. The file holds tensors and text alone; nothing in it is run.",
            "",
        ]
    )


def _scores(paths: tuple[Path, ...]) -> list[str]:
    """A table of the results in the files that `shic eval --json` wrote; InputError for another file."""
    rows = []
    for path in paths:
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            results = held.get("rows", {path.stem: held})
            rows += [(label, result["metric"], result) for label, result in results.items()]
        except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
            raise InputError(
                f"{path}: holds no results ({error})", "give what `shic eval ... --json` printed"
            ) from error
    if not rows:
        return []
    columns = [key for key in FIGURES if any(key in result for *_, result in rows)]
    lines = [f"| | metric | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for label, metric, result in rows:
        values = [_cell(result.get(key)) for key in columns]
        lines.append(f"| {_plain(label)} | {_plain(metric)} | {' | '.join(values)} |")
    return [*lines, "", "Geodesic errors are of 228, the largest distance on the template; lower is better."]


def _settings(meta: dict[str, Any]) -> list[str]:
    """A table of the settings that the model was trained with, and of its final losses."""
    params = meta.get("params")
    rows = dict(params) if isinstance(params, dict) else {}
    losses = meta.get("losses")
    if isinstance(losses, dict):
        rows |= {f"final loss: {name}": value for name, value in losses.items()}
    if not rows:
        return ["The model file names none."]
    return ["| setting | value |", "|---|---|", *(f"| {_plain(key)} | {_cell(rows[key])} |" for key in rows)]


def _cell(value: Any) -> str:
    """A value of a table."""
    if isinstance(value, list):
        return " to ".join(map(_cell, value))
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else _plain(value)


def _plain(value: Any) -> str:
    """`value` as text that stays in its cell, and is no markup."""
    text = " ".join(str(value).split())
    return "".join(f"\\{mark}" if mark in "|<>`*_[]\\" else mark for mark in text)
