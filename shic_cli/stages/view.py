"""`shic view`: the mesh beside the photos, as one page that needs no server; and the page of a model, which
predicts the photos that are dropped on it."""

from __future__ import annotations

import fnmatch
import io
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shic_cli.base.errors import Failures, InputError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.result_settings import ViewConfig
from shic_cli.files.alpha import cut_out
from shic_cli.files.atomic import atomic
from shic_cli.files.items import Item, ItemReader
from shic_cli.files.layouts import LAYOUTS, Surface
from shic_cli.files.mask_checks import check_mask
from shic_cli.files.mask_sources import MaskSource, Photo
from shic_cli.files.names import check_template
from shic_cli.files.photos import decode
from shic_cli.stages.local_server import Answer, LocalServer, Request
from shic_cli.stages.page import mean_of, photo_data, surface_data, write_page

if TYPE_CHECKING:
    from shic_cli.stages.predict import Predictor

log = logging.getLogger("shic")


@dataclass(frozen=True)
class PagePoint:
    """An annotated point beside a map: the pixel, the right vertex, the map's (-1: none), the geodesic error,
    and whether the map mixes up left and right there.

    A point may have a name; one whose right vertex is not known (-1) has no error.
    """

    x: int
    y: int
    truth: int
    found: int
    error: float | None
    swapped: bool
    name: str = ""


@dataclass(frozen=True)
class Layer:
    """A maps file of a page: its `label`, and by photo the annotated points, where there are any."""

    label: str
    maps: ItemReader
    points: dict[str, list[PagePoint]] = field(default_factory=dict)


@dataclass(frozen=True)
class Page:
    """What a page shows: the photos `names`, of `total`, on `surface`."""

    layers: list[Layer]
    surface: Surface
    names: list[str]
    total: int
    config: ViewConfig


def open_page(paths: Sequence[Path], surface: Surface, only: Sequence[str], config: ViewConfig) -> Page:
    """The page of maps files. InputError if they are not of `surface`, or no photo is called like `only`."""
    layers = open_layers(paths, surface)
    names, total = choose(layers, config, only)
    return Page(layers, surface, names, total, config)


def open_layers(paths: Sequence[Path], surface: Surface) -> list[Layer]:
    """The maps files of a page; InputError if one of them is of another template than `surface`."""
    names = [path.name for path in paths]
    labels = [path.name if names.count(path.name) == 1 else str(path) for path in paths]
    layers = [Layer(label, ItemReader(path, "shic/maps")) for label, path in zip(labels, paths, strict=True)]
    made = {layer.maps.header.attrs["template"]: layer.label for layer in layers}
    made.pop("", None)
    if len(made) > 1:
        raise InputError(
            f"{' and '.join(made.values())}: were made with two templates", "view each with its own template"
        )
    for layer in layers:
        check_template(layer.maps, surface.fingerprint)
    return layers


def choose(layers: Sequence[Layer], config: ViewConfig, only: Sequence[str]) -> tuple[list[str], int]:
    """The names of the photos to show, and how many there are: of all layers, or those that fit a pattern of
    `only`, in the order of `config.first`, at most `config.most`. InputError if no name fits."""
    names = sorted({name for layer in layers for name in layer.maps.names})
    total = len(names)
    if only:
        names = [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in only)]
    if not names:
        raise InputError(
            f"none of {total} photos is called like {' or '.join(only)}", "patterns are like '*01.jpg'"
        )
    if len(names) > config.most and config.first == "unsure":
        names.sort(key=lambda name: _sureness(name, layers))
    if len(names) > config.most and config.first == "spread":
        step = len(names) / config.most
        names = [names[int(i * step)] for i in range(config.most)]
    return sorted(names[: config.most]), total


def _sureness(name: str, layers: Sequence[Layer]) -> float:
    """How sure a photo's map is, in the first layer that has it: minus its mean uncertainty, or where the
    file has none its mean score.
    """
    item = next(layer.maps[name] for layer in layers if name in layer.maps.keys)
    unsure = mean_of(item, "uncertainty")
    return (mean_of(item, "score") or 0.0) if unsure is None else -unsure


def write_view(path: Path, page: Page, overwrite: bool, track: Track = plain_track) -> None:
    """Write the page, in place of an earlier one too: it holds nothing that is not in the maps.

    A photo that can't be used is named and left out; PartialError says how many.
    """
    failures, photos = Failures(len(page.names)), []

    def bodies() -> Iterator[dict]:
        for name in track(page.names, len(page.names), "view"):
            with failures.catch(name):
                listed, body = _photo(name, page)
                photos.append(listed)
                yield body
        failures.check(len(page.names))

    title = ", ".join(layer.label for layer in page.layers)
    replaced = overwrite or is_page(path)
    with atomic(path, replaced) as partial, open(partial, "w", encoding="utf-8") as stream:
        write_page(stream, "view", title, bodies(), lambda: _data(page, photos), served=False)
    failures.report(len(page.names))


def is_page(path: Path) -> bool:
    """Whether `path` is a page that `shic view` wrote."""
    try:
        with path.open("rb") as file:
            head = file.read(8192)
    except OSError:
        return False
    return b'name="generator" content="shic ' in head and b"shic view</title>" in head


def _photo(name: str, page: Page) -> tuple[dict, dict]:
    """What the page holds of a photo: see photo_data; the annotated points are beside the maps."""
    items = [layer.maps[name] if name in layer.maps.keys else None for layer in page.layers]
    paths = [str(layer.maps.path) for layer in page.layers]
    listed, body = photo_data(items, paths, page.surface, page.config.side)
    points = [layer.points.get(name, []) for layer in page.layers]
    for figures, here in zip(listed["layers"], points, strict=True):
        if figures is None:
            continue
        figures["points"] = len(here)
        if known := [(point.error, point.swapped) for point in here if point.error is not None]:
            figures["error"], figures["swapped"] = map(float, np.mean(known, axis=0))
    return listed, body | {"points": [[asdict(point) for point in here] for here in points]}


def _data(page: Page, photos: list[dict]) -> dict[str, Any]:
    """What the page holds beside the photos' own data."""
    return {
        "layers": [
            {"label": layer.label, "kind": layer.maps.header.attrs["labels"]} for layer in page.layers
        ],
        "photos": photos,
        "total": page.total,
        "near": page.config.near,
        "surface": surface_data(page.surface),
    }


class ModelServer:
    """The page of a model: `server` answers with the page, and with the map of each photo that it is sent."""

    def __init__(
        self, predictor: Predictor, masks: MaskSource, label: str, config: ViewConfig, port: int
    ) -> None:
        self.predictor, self.masks, self.label, self.config = predictor, masks, label, config
        self.one_at_a_time = threading.Lock()
        routes = {("GET", ""): self._page, ("POST", "predict"): self._predict}
        self.server = LocalServer(port, routes)

    def _page(self, request: Request) -> Answer:
        layers = [{"label": self.label, "kind": "predicted"}]
        surface = surface_data(self.predictor.surface)
        data = {
            "layers": layers,
            "photos": [],
            "total": 0,
            "near": self.config.near,
            "surface": surface,
            "served": True,
        }
        stream = io.StringIO()
        write_page(stream, "view", self.label, (), lambda: data, served=True)
        return Answer.html(stream.getvalue())

    def _predict(self, request: Request) -> Answer:
        """The photo in the request's body, predicted; the name that it is given is only shown."""
        name = request.query.get("name", "photo")[-200:]
        with self.one_at_a_time:
            rgb, alpha = decode(request.body, name)
            cut = cut_out(alpha).mask
            mask = self._mask(rgb, name) if cut is None else cut
            photo = Photo(name, request.body, rgb, check_mask(mask, rgb.shape, name))
            predicted = self.predictor.predict(photo)
        held = {
            name: values.astype(LAYOUTS["shic/maps"].items[name].dtype)
            for name, values in predicted._asdict().items()
        }
        item = Item(name, {"encoded": np.frombuffer(request.body, np.uint8), "mask": mask, **held})
        listed, body = photo_data([item], [name], self.predictor.surface, self.config.side)
        return Answer.json({"photo": listed, "body": {**body, "points": [[]]}})

    def _mask(self, rgb: np.ndarray, name: str) -> np.ndarray:
        if self.masks.masker is None:
            raise InputError(f"{name}: has no mask", "give a PNG that is cut out, or start with a --masker")
        mask = self.masks.masker(rgb)
        if not mask.any():
            raise InputError(
                f"{name}: no object was found in it", "give a PNG that is cut out, or another --masker"
            )
        return mask
