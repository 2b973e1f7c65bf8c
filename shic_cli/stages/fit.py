"""`shic fit`: the template's body fitted to the map of each photo, and the map that this body gives."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

from shic_cli.base.devices import chance
from shic_cli.base.errors import Failures
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.result_settings import FitConfig
from shic_cli.files.arrays import source
from shic_cli.files.atomic import atomic
from shic_cli.files.checks import check_indices
from shic_cli.files.items import Item, ItemReader, ItemWriter
from shic_cli.files.layouts import Surface, Template
from shic_cli.files.names import check_template, picture_path
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
from shic_cli.surface.poses import find_limbs
from shic_cli.surface.rig import Rig

log = logging.getLogger("shic")

POINTS = 600  # vertices that stand for the whole body
LEAST = 0.5  # a body that overlaps the mask by less than this does not fit
FRAME = 1.3  # width of the square that the body is drawn in, in sides of the object
PIXELS = 320  # a side of it
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
    template_source: dict[str, str] | None = None,
    overwrite: bool = False,
    track: Track = plain_track,
    part: Part = WHOLE,
) -> list[Path]:
    """Write the maps file of `maps`, with the fitted body's vertices where the map is unsure.

    The folder of the pictures comes back, if any were drawn.

    Scores and uncertainties stay those of the map.

    Beside it, for each photo, STEM.fit.png shows the body over the photo, and STEM.fit.glb holds its mesh.
    A photo that no body fits keeps its map, and is named.
    """
    check_template(maps, template.fingerprint)
    fitter, folder = (
        Fitter.of(template, config.renderer),
        path.parent / path.name.removesuffix(".h5").removesuffix(".maps"),
    )
    failures, drawn = Failures(), False
    sources = {"maps": source(maps.path)} | ({"template": template_source} if template_source else {})
    attrs = {"labels": maps.header.attrs["labels"], "template": template.fingerprint}
    params = {**config.params(), "seed": seed}
    names = part.of(maps.names)
    with ItemWriter(
        path, "shic/maps", params=params, sources=sources, attrs=attrs, overwrite=overwrite, part=part
    ) as writer:
        left = [name for name in names if name not in writer]
        for name in track(left, len(left), "fit"):
            with failures.catch(name):
                item = maps[name]
                check_indices(item.vertex, len(template.verts), f"{name}: vertex", lowest=-1)
                body = _fit_item(fitter, item, seed)
                writer.add(name, **_arrays(item, body, config))
                if body is not None and config.pictures:
                    _write(folder, item, body, Surface.of(template))
                    drawn = True
        failures.check(len(names))
    writer.end(failures, len(names))
    return [folder] if drawn else []


def _fit_item(fitter: Fitter, item: Item, seed: int) -> Body | None:
    """The body of a photo, None if none fits."""
    known = item.vertex >= 0
    if known.sum() < 2:
        log.warning("%s: its map has hardly a pixel and is kept", item.name)
        return None
    uncertainty = _uncertainty(item)
    body = fitter.fit(item.vertex, uncertainty, item.mask, seed)
    if body.overlap < LEAST:
        log.warning("%s: no body fits (overlap %.2f), its map is kept", item.name, body.overlap)
        return None
    return body


def _uncertainty(item: Item) -> np.ndarray:
    """The uncertainty `(H, W)` of a map, 0 if its file has none."""
    found = item.arrays.get("uncertainty")
    return np.zeros(item.vertex.shape, np.float32) if found is None else found.astype(np.float32)


def _arrays(item: Item, body: Body | None, config: FitConfig) -> dict[str, np.ndarray]:
    """The arrays of a photo to write: its own, with the body's vertices where the map is unsure."""
    arrays = dict(item.arrays)
    if body is not None:
        unsure = (item.vertex < 0) | (_uncertainty(item) >= config.unsure)
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


def _write(folder: Path, item: Item, body: Body, surface: Surface) -> None:
    """Write the picture and the mesh of a photo's body."""
    rgb = decode(item.encoded.tobytes(), item.name)[0]
    posed = replace(surface, verts=body.verts)
    for suffix, data in (
        (".fit.png", encode(color_map(rgb, body.vertex, surface.colors))),
        (".fit.glb", export_mesh.mesh_bytes(export_mesh.colored(posed, surface.colors), ".glb")),
    ):
        target = picture_path(folder, item.name, suffix)
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic(target) as partial:
            partial.write_bytes(data)
