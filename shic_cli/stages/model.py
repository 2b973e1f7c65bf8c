"""The Python API: a trained model, and maps as arrays (`import shic_cli as shic`).

Pictures are RGB u1 `(H, W, 3)`, masks b1 `(H, W)`, positions (y, x) with pixel centres at integers. Every
array may be a numpy array or a torch tensor; numpy arrays come back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from shic_cli.base.devices import chance, resolve_device
from shic_cli.base.errors import InputError, SettingError
from shic_cli.base.settings import PredictConfig
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import Surface
from shic_cli.files.mask_checks import check_mask
from shic_cli.files.mask_sources import Photo
from shic_cli.files.photos import decode, encode
from shic_cli.files.pictures import color_map
from shic_cli.stages.match import Matches, Paths, ThroughTemplate, correspondences
from shic_cli.stages.predict import Predictor
from shic_cli.surface.surface_points import SurfacePoints


@dataclass(frozen=True)
class Map:
    """A picture and its map: `rgb`, `mask`, `vertex` i4 `(H, W)` (-1 for none) and `score` f4 `(H, W)`.

    `surface` is the template that the vertices belong to; None if it is not known, as in a maps file.
    `uncertainty` f4 `(H, W)` is the expected distance along the surface between the vertex and the right one,
    by the model's own probabilities; the largest distance is 228. None for maps that no model predicted.
    """

    rgb: np.ndarray
    mask: np.ndarray
    vertex: np.ndarray
    score: np.ndarray
    surface: Surface | None = field(default=None, repr=False)
    uncertainty: np.ndarray | None = None

    @property
    def colors(self) -> np.ndarray:
        """The picture u1 `(H, W, 3)` with each pixel in its vertex's colour, as `shic predict` draws it."""
        return color_map(self.rgb, self.vertex, self._surface().colors)

    @property
    def points(self) -> np.ndarray:
        """The point of the template's surface f4 `(H, W, 3)` that each pixel shows; NaN where it shows none.

        Units are the template's: its longest side is 1. Points lie between vertices, as a texture needs them.
        """
        surface = self._surface()
        points = np.full((*self.vertex.shape, 3), np.nan, np.float32)
        face, bary = SurfacePoints(surface)(self.vertex)
        points[self.vertex >= 0] = np.einsum("pi,pij->pj", bary, surface.verts[surface.faces[face]])
        return points

    def _surface(self) -> Surface:
        if self.surface is None:
            raise SettingError("this map does not know its template", "give read_maps the template's surface")
        return self.surface


class Model:
    """A trained model on one device. `load` makes it."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    @property
    def surface(self) -> Surface:
        """The template's surface: `verts` f4 `(K, 3)`, `faces` i4 `(F, 3)`, `mirror`, `colors`, `uv`."""
        return self.predictor.surface

    def predict(self, rgb: Any, mask: Any = None) -> Map:
        """The Map of a picture, with the same numbers as `shic predict` (Eq. 3).

        `mask` marks the object; a model that finds it by itself needs none. InputError if the mask is empty,
        full, or of another size.
        """
        photo = self._photo(rgb, mask)
        vertex, score, uncertainty = self.predictor.predict(photo)
        return Map(photo.rgb, photo.mask, vertex, score, self.surface, uncertainty)

    def embed(self, rgb: Any, mask: Any = None) -> np.ndarray:
        """The embedding f4 `(H, W, D)` of each pixel of the object, 0 elsewhere; `mask` as in `predict`."""
        photo = self._photo(rgb, mask)
        pixels = np.argwhere(photo.mask)
        values = self.predictor.embed(photo).at(pixels).float().cpu().numpy()
        embeddings = np.zeros((*photo.mask.shape, values.shape[1]), np.float32)
        embeddings[photo.mask] = values
        return embeddings

    def match(self, a: Map, b: Map, number: int = 20, seed: int = 0) -> Matches:
        """At most `number` positions `(P, 2)` of A and of B that show the same point, as in `shic match`."""
        side_a = ThroughTemplate("a", a.vertex, a.score, self._paths)
        side_b = ThroughTemplate("b", b.vertex, b.score, self._paths)
        return correspondences(side_a, side_b, a.mask, number, chance(seed, "match"))

    @cached_property
    def _paths(self) -> Paths:
        return Paths(self.surface.verts, self.surface.faces)

    def _photo(self, rgb: Any, mask: Any) -> Photo:
        picture = np.ascontiguousarray(np.asarray(rgb))
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            found = f"{picture.dtype} {picture.shape}"
            raise InputError(f"rgb is {found}, expected uint8 (H, W, 3)", "give RGB values from 0 to 255")
        if mask is None:
            if self.predictor.needs_mask:
                raise SettingError("this model needs a mask", "give predict(rgb, mask) the object's pixels")
            mask = self.predictor.find_mask(picture)
        mask = check_mask(np.asarray(mask).astype(bool), picture.shape, "the picture")
        return Photo("picture", b"", picture, mask)


def load(path: Path | str, device: str = "auto", weights: Path | str | None = None, **settings: Any) -> Model:
    """The Model in a file made by `shic train` or `shic models import`.

    `device` is `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; `weights` a folder of foundation models; `settings`
    are those of `shic predict` (`flip="on"`, `estimate="median"`). InputError if the file is no model.
    """
    folder = None if weights is None else Path(weights)
    return Model(Predictor(Path(path), resolve_device(device), PredictConfig(**settings), folder))


class Maps(Mapping[str, Map]):
    """The maps of a file by the pictures' names; each is read when it is asked for."""

    def __init__(self, path: Path | str, surface: Surface | None = None) -> None:
        self.reader, self.surface = ItemReader(path, "shic/maps"), surface
        self.labels, self.template = (self.reader.header.attrs[name] for name in ("labels", "template"))
        if surface is not None and self.template not in ("", surface.fingerprint):
            raise InputError(
                f"{path}: was made with another template", "give the template that it was made with"
            )

    def __getitem__(self, name: str) -> Map:
        item = self.reader[name]
        rgb, _ = decode(item.encoded.tobytes(), name)
        held = item.arrays.get("uncertainty")
        uncertainty = None if held is None else held.astype(np.float32)
        return Map(rgb, item.mask, item.vertex, item.score.astype(np.float32), self.surface, uncertainty)

    def __iter__(self) -> Iterator[str]:
        return iter(self.reader.names)

    def __len__(self) -> int:
        return len(self.reader)


def read_maps(path: Path | str, surface: Surface | None = None) -> Maps:
    """The maps in a file of kind shic/maps: a mapping from each picture's name to its Map."""
    return Maps(path, surface)


def write_maps(
    path: Path | str,
    maps: Mapping[str, Map],
    labels: str = "annotated",
    surface: Surface | None = None,
    overwrite: bool = False,
) -> None:
    """Write `maps`, by the pictures' names, as a maps file that `train`, `eval`, `remap` and `view` take.

    `labels` is `pseudo`, `synthetic`, `predicted` or `annotated`; `surface` is the template of the vertices.
    The file is written whole or not at all.
    """
    attrs = {"labels": labels, "template": "" if surface is None else surface.fingerprint}
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=attrs, overwrite=overwrite) as writer:
        for name, one in maps.items():
            encoded = np.frombuffer(encode(np.asarray(one.rgb)), np.uint8)
            arrays = {"vertex": one.vertex, "score": one.score, "uncertainty": one.uncertainty}
            writer.add(name, encoded=encoded, mask=one.mask, **arrays)
