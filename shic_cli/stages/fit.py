"""`shic fit`: the template's body fitted to the map of each photo, and the map that this body gives."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from shic_cli.base.devices import chance
from shic_cli.base.errors import Failures, InputError, ShicError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.result_settings import FitConfig
from shic_cli.base.workers import number_of, one_thread, spread
from shic_cli.files.arrays import source
from shic_cli.files.atomic import atomic
from shic_cli.files.checks import check_indices
from shic_cli.files.items import Item, ItemReader, ItemWriter
from shic_cli.files.layouts import Surface, Template
from shic_cli.files.names import check_template, picture_path
from shic_cli.files.photo_lists import is_photo
from shic_cli.files.photos import decode, encode
from shic_cli.files.pictures import color_map
from shic_cli.files.shards import WHOLE, Part
from shic_cli.learning.transport import spread_vertices
from shic_cli.learning.views import pixel_vertex
from shic_cli.parts import registry
from shic_cli.parts.renderers.contract import Renderer
from shic_cli.stages import export_mesh
from shic_cli.surface.body_fit import Fitted, Observed, fit_body
from shic_cli.surface.cameras import Cameras
from shic_cli.surface.limbs import find_limbs
from shic_cli.surface.rig import Rig

log = logging.getLogger("shic")

POINTS = 600  # vertices that stand for the whole body
FRAME = 1.3  # width of the square that the body is drawn in, in sides of the object
PIXELS = 320  # a side of it
LEAST_PHOTOS = 2  # for which a process pays: it starts in the time of half a photo
PICTURE, MESH = ".fit.png", ".fit.glb"  # the endings of the files of a photo
AWAY = 100.0  # how far off the camera is; from there it is as good as orthographic


class Body(NamedTuple):
    """The body of a photo: its vertices `(K, 3)`, its map `(H, W)`, and its overlap with the mask in 0..1."""

    verts: np.ndarray
    vertex: np.ndarray
    overlap: float


@dataclass(frozen=True)
class Fitter:
    """Fits a template's body to maps; `points` are spread over it."""

    template: Template
    rig: Rig
    points: torch.Tensor
    renderer: Renderer

    @classmethod
    def of(cls, template: Template, renderer: str = "auto") -> Fitter:
        """The fitter of a template; a template without limbs is said."""
        limbs = find_limbs(template)
        if not limbs:
            log.warning("the template has no limbs: its trunk alone is bent")
        points = torch.from_numpy(spread_vertices(template.geodesic, POINTS))
        made = registry.make("renderers", renderer, device="cpu")
        return cls(template, Rig.of(template, limbs), points, made)

    def fit(self, vertex: np.ndarray, uncertainty: np.ndarray, mask: np.ndarray, seed: int) -> Body:
        """The body that explains the map `vertex` `(H, W)`, -1 for none, with its `uncertainty` best."""
        seen = Observed.of(vertex, uncertainty, chance(seed, "fit"))
        found = fit_body(self.rig, seen, self.points)
        verts = self.rig(found.bends)[0]
        drawn = self._draw(verts, found, seen, mask.shape)
        both = (drawn >= 0) & mask
        return Body(verts.numpy(), drawn, float(both.sum() / ((drawn >= 0) | mask).sum()))

    def _draw(self, verts: torch.Tensor, found: Fitted, seen: Observed, shape: tuple[int, ...]) -> np.ndarray:
        """The vertex `(H, W)` that the body shows at each pixel of the photo, -1 for none."""
        camera = Cameras(
            found.rotation[None],
            torch.tensor([[0, 0, AWAY]]),
            torch.tensor([2 * found.scale * AWAY / FRAME]),
            -2 * found.shift.flip(0)[None] / FRAME,
        )
        faces = torch.from_numpy(self.template.faces).long()
        square = pixel_vertex(self.renderer(verts, faces, camera, PIXELS), faces)[0].numpy().astype(np.int32)
        rows, columns = (
            ((np.arange(length) - middle) / (seen.side * FRAME) + 0.5) * PIXELS - 0.5
            for length, middle in zip(shape, seen.middle, strict=True)
        )
        framed = np.pad(square, 1, constant_values=-1)
        inside = [each.round().astype(int).clip(-1, PIXELS) + 1 for each in (rows, columns)]
        return framed[np.ix_(*inside)]


def fit(
    maps: ItemReader,
    template: Template,
    path: Path,
    config: FitConfig,
    *,
    seed: int = 0,
    sources: dict[str, dict[str, str]] | None = None,
    overwrite: bool = False,
    track: Track = plain_track,
    part: Part = WHOLE,
    workers: int | None = 1,
) -> list[Path]:
    """Write the maps file of `maps`, with the fitted body's vertices where the map is unsure.

    The folder of the pictures comes back, if any were drawn. Scores and uncertainties stay those of the map.
    Beside it, for each photo, STEM.fit.png shows the body over the photo, and STEM.fit.glb holds its mesh.
    A photo that no body fits keeps its map, and is named. So many processes as `workers` fit, or as many as
    pay if it is None; this makes no difference to the files.

    InputError if the pictures would lie among photos, or if no body fits any photo and none is kept.
    """
    check_template(maps, template.fingerprint)
    folder = path.parent / path.name.removesuffix(".h5").removesuffix(".maps")
    if config.pictures:
        _check_folder(folder, path)
    sources = {"maps": source(maps.path), **(sources or {})}
    attrs = {"labels": "fitted", "template": template.fingerprint}
    params = {**config.params(), "seed": seed}
    names = part.of(maps.names)
    failures, drawn = Failures(len(names)), False
    writing = ItemWriter(
        path, "shic/maps", params=params, sources=sources, attrs=attrs, overwrite=overwrite, part=part
    )
    with one_thread(), writing as writer:
        left = [name for name in names if name not in writer]
        number = number_of(workers, len(left), LEAST_PHOTOS)
        fits = spread(_photo_fitter, (maps, template, config, seed), left, number)
        for name, done in zip(left, track(fits, len(left), "fit"), strict=True):
            with failures.catch(name):
                if isinstance(done, ShicError):
                    raise done
                if done.note:
                    log.warning("%s: %s", name, done.note)
                if done.note and config.drop:
                    writer.drop(name)
                    continue
                _write(folder, name, done.pictures)
                writer.add(name, **done.arrays)
                drawn = drawn or bool(done.pictures)
        failures.check(len(names))
        if part.is_whole and not len(writer):
            fact = f"{maps.path}: no body fits any of its {len(names)} photos"
            raise InputError(fact, "look at its maps with `shic view`, or give a smaller --least")
        if not writer.finished and config.drop:
            writer.header["params"]["dropped"] = len(writer.dropped)
    writer.end(failures, len(maps.names))
    return [folder] if drawn else []


def _check_folder(folder: Path, path: Path) -> None:
    """InputError if pictures in `folder` would take the place of the file `path`, or lie among photos."""
    if folder == path:
        fact = f"{path}: its pictures would lie in a folder of this name"
        raise InputError(fact, "name a file that ends in .h5, or give --no-pictures")
    photos = (each for each in folder.rglob("*") if is_photo(each.name))
    if folder.is_dir() and any(not each.name.endswith(PICTURE) for each in photos):
        fact = f"{folder}: holds photos, and the pictures would lie among them"
        raise InputError(fact, "name another output, as in -o bodies.maps.h5, or give --no-pictures")


class Done(NamedTuple):
    """What the fit of a photo gives: the arrays of its map, its files by their endings, and what to say."""

    arrays: dict[str, np.ndarray]
    pictures: dict[str, bytes]
    note: str


def _photo_fitter(
    maps: ItemReader, template: Template, config: FitConfig, seed: int
) -> Callable[[str], Done | ShicError]:
    """A function that fits the photo of a name, and returns the error where it can't."""
    return partial(_attempt, Fitter.of(template, config.renderer), maps, config, seed)


def _attempt(fitter: Fitter, maps: ItemReader, config: FitConfig, seed: int, name: str) -> Done | ShicError:
    try:
        item = maps[name]
        check_indices(item.vertex, len(fitter.template.verts), f"{name}: vertex", lowest=-1)
        body, note = _fit_item(fitter, item, config, seed)
        drawn = {} if body is None or not config.pictures else _drawn(item, body, Surface.of(fitter.template))
        return Done(_arrays(item, body, config), drawn, note)
    except ShicError as error:
        return error


def _fit_item(fitter: Fitter, item: Item, config: FitConfig, seed: int) -> tuple[Body | None, str]:
    """The body of a photo, or None and the reason if none fits."""
    known, what = item.vertex >= 0, "it is left out" if config.drop else "its map is kept"
    if known.sum() < 2:
        return None, f"its map has hardly a pixel, {what}"
    uncertainty = _uncertainty(item, 0)
    body = fitter.fit(item.vertex, uncertainty, item.mask, seed)
    if body.overlap < config.least:
        return None, f"no body fits (overlap {body.overlap:.2f}), {what}"
    return body, ""


def _uncertainty(item: Item, unknown: float) -> np.ndarray:
    """The uncertainty `(H, W)` of a map, `unknown` if its file has none."""
    found = item.arrays.get("uncertainty")
    return np.full(item.vertex.shape, unknown, np.float32) if found is None else found.astype(np.float32)


def _arrays(item: Item, body: Body | None, config: FitConfig) -> dict[str, np.ndarray]:
    """The arrays of a photo to write: its own and the body, whose vertices are those of the map where it is
    unsure, or everywhere if it does not say how sure it is.
    """
    arrays = {name: values for name, values in item.arrays.items() if name != "body"}
    if body is not None:
        arrays["body"] = body.verts
        unsure = (item.vertex < 0) | (_uncertainty(item, np.inf) >= config.unsure)
        arrays["vertex"] = np.where(item.mask & unsure, spread_out(body.vertex), item.vertex).astype(np.int32)
    return arrays


def spread_out(vertex: np.ndarray) -> np.ndarray:
    """The map `vertex` `(H, W)` with the value of the nearest pixel that has one wherever it is -1."""
    empty = (vertex < 0).astype(np.uint8)
    labels = np.asarray(
        cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1], np.int64
    )
    nearest = np.zeros(labels.max() + 1, np.int32)
    nearest[labels[empty == 0]] = vertex[empty == 0]
    return nearest[labels]


def _drawn(item: Item, body: Body, surface: Surface) -> dict[str, bytes]:
    """The picture and the mesh of a photo's body, by the endings of their files."""
    rgb = decode(item.encoded.tobytes(), item.name)[0]
    posed = replace(surface, verts=body.verts)
    return {
        PICTURE: encode(color_map(rgb, body.vertex, surface.colors)),
        MESH: export_mesh.mesh_bytes(export_mesh.colored(posed, surface.colors), ".glb"),
    }


def _write(folder: Path, name: str, pictures: dict[str, bytes]) -> None:
    """Write the files of a photo."""
    for suffix, data in pictures.items():
        target = picture_path(folder, name, suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as partial_file:
            partial_file.write_bytes(data)
