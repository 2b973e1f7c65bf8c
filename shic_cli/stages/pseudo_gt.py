"""Pseudo-ground truth: every object pixel of a photo matched to the template without training (sec. 3.3)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from shic_cli.base.errors import Failures, InputError, SettingError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import PseudoGtConfig, RenderConfig
from shic_cli.files.arrays import read_arrays, source
from shic_cli.files.atomic import check_target
from shic_cli.files.items import Item, ItemReader
from shic_cli.files.layouts import Template
from shic_cli.files.mask_sources import MaskSource
from shic_cli.files.photos import Crop, ImageFile, listing
from shic_cli.files.shards import WHOLE, Part
from shic_cli.learning import similarity
from shic_cli.learning.encode import each_photo, fit_basis, photo_features, view_features, with_basis
from shic_cli.learning.pca import Projected
from shic_cli.learning.views import Views
from shic_cli.parts.extractors.make import make_extractor
from shic_cli.stages.render import render_views


@dataclass(frozen=True)
class Teacher:
    """What Eq. 2 needs of a template: its views' features at the visible vertices, and the extractor that
    made them.
    """

    extractor: Any
    bank: similarity.Bank
    config: PseudoGtConfig

    @classmethod
    def make(
        cls, extractor: Any, views: Views, config: PseudoGtConfig, track: Track = plain_track
    ) -> Teacher:
        """Compute the features of the views; with `config.pca`, of an extractor without a basis, in one that
        is fitted to them.
        """
        features = track(view_features(extractor, views), len(views), "views")
        if config.pca and not isinstance(extractor, Projected):
            extractor, features = fit_basis(extractor, features, views.mask, config.pca)
        return cls(
            extractor,
            similarity.Bank.build(features, views.vertex_yx, views.vertex_visible, views.mask.shape[-1]),
            config,
        )

    @property
    def pooling(self) -> dict[str, Any]:
        """The settings of similarity.py's functions."""
        return {"pool": self.config.pool, "topk": self.config.topk, "agreement": self.config.agreement}

    def match(self, feature: torch.Tensor, crop: Crop, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The vertex i4 `(H, W)` (-1 off the object) and score f4 `(H, W)` of every pixel of `mask`, from the
        crop's features.

        Each cell of the feature grid that holds an object pixel is matched once, its pixels share the answer.
        """
        pixels = np.argwhere(mask)
        cells, cell_of_pixel = query_cells(pixels, crop, feature.shape[-1])
        queries = feature[:, cells[:, 0], cells[:, 1]].T
        vertex, score = similarity.match(self.bank, F.normalize(queries.float(), dim=1), **self.pooling)
        vertices, scores = np.full(mask.shape, -1, np.int32), np.zeros(mask.shape, np.float32)
        vertices[tuple(pixels.T)] = vertex.cpu().numpy()[cell_of_pixel]
        scores[tuple(pixels.T)] = score.cpu().numpy()[cell_of_pixel]
        return vertices, scores


def views_for(extractor: Any, template: Template, config: PseudoGtConfig, device: torch.device) -> Views:
    """The template's views as `config` says, at the side that `extractor` takes."""
    shared = {name: getattr(config, name) for name in ("azimuths", "elevations", "style", "renderer")}
    return render_views(template, RenderConfig(size=extractor.side, **shared), device)


def query_cells(pixels: np.ndarray, crop: Crop, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells `(P, 2)` of a grid over the crop in which `pixels` `(n, 2)` fall, and each pixel's cell
    number `(n,)`.
    """
    cells = np.floor(crop.to_crop(pixels.astype(np.float64), grid) + 0.5).astype(np.int64).clip(0, grid - 1)
    numbers, cell_of_pixel = np.unique(cells[:, 0] * grid + cells[:, 1], return_inverse=True)
    return np.stack([numbers // grid, numbers % grid], 1), cell_of_pixel


@dataclass(frozen=True)
class _Query:
    name: str
    data: np.ndarray
    mask: np.ndarray
    crop: Crop
    feature: torch.Tensor


def pseudo_gt(
    template: Template,
    images: list[ImageFile] | ItemReader,
    masks: MaskSource,
    path: Path,
    config: PseudoGtConfig,
    device: torch.device,
    *,
    sources: dict[str, Any],
    views: Views | None = None,
    weights: Path | None = None,
    overwrite: bool = False,
    track: Track = plain_track,
    part: Part = WHOLE,
) -> None:
    """Write the maps file (labels `pseudo`) of photos, or of the photos of a features file (Eq. 2), or a
    `part` of it.

    An image that fails is left out and named, and PartialError at the end says how many. InputError when
    `views` are of another template, or a features file was made with other weights or settings than are here.
    """
    check_target(path, overwrite)
    if views is not None and (views.template, views.vertex_yx.shape[1]) != (
        template.fingerprint,
        len(template.verts),
    ):
        raise InputError("the views are of another template", "render them again with `shic render`")
    if isinstance(images, ItemReader):
        if images.header.attrs["template"] not in ("", template.fingerprint):
            raise InputError(
                f"{images.path}: holds features of views of another template", "give features of photos"
            )
        extractor, given, made_with = (
            _extractor_of(images, config, device, weights),
            {"features": source(images.path)},
            {},
        )
    else:
        masks.prepare(part.of(images))
        extractor, given, made_with = (
            make_extractor(config.extractor, device, weights),
            {"images": listing(images)},
            masks.settings,
        )
    # A basis that is fitted here is left out: its last digits may differ from run to run, and the rest
    # determines it.
    params = {
        **config.params(),
        "extractor": {**extractor.settings, "fingerprint": extractor.fingerprint},
        **made_with,
    }
    attrs, failures = {"labels": "pseudo", "template": template.fingerprint}, Failures()
    mine = part.of(images.names if isinstance(images, ItemReader) else images)
    with part.writer(
        path, "shic/maps", params=params, sources={**sources, **given}, attrs=attrs, overwrite=overwrite
    ) as writer:
        left = [each for each in mine if (each if isinstance(each, str) else each.name) not in writer]
        if left:  # a share that is done needs no views
            teacher = Teacher.make(
                extractor, views or views_for(extractor, template, config, device), config, track
            )
            found = (
                _item_queries(images, left, teacher)
                if isinstance(images, ItemReader)
                else _queries(left, masks, teacher, failures)
            )
            for query in track(found, len(left), "pseudo-gt"):
                if query is not None:
                    vertex, score = teacher.match(query.feature, query.crop, query.mask)
                    writer.add(query.name, encoded=query.data, mask=query.mask, vertex=vertex, score=score)
        failures.check(len(images))
    part.end(path, failures, len(images), overwrite)


def _extractor_of(
    features: ItemReader, config: PseudoGtConfig, device: torch.device, weights: Path | None
) -> Any:
    """The extractor that a features file was made with, in its basis; errors when it is another one now, or
    than `config` asks for.
    """
    made_by, path = features.header.attrs["extractor"], features.path
    extractor = make_extractor(made_by if config.extractor == "auto" else config.extractor, device, weights)
    if extractor.name != made_by:
        raise SettingError(
            f"--extractor {config.extractor}: the features in {path} are of {made_by}",
            "leave out --extractor",
        )
    extractor = with_basis(extractor, read_arrays(path, "shic/features")[0], path)
    if config.pca and config.pca != extractor.dim:
        raise SettingError(
            f"--pca {config.pca}: the features in {path} have length {extractor.dim}", "leave out --pca"
        )
    if extractor.fingerprint != features.header.attrs["fingerprint"]:
        raise InputError(
            f"{path}: was made by an extractor with other settings or weights",
            "make it again with `shic features`",
        )
    return extractor


def _item_queries(reader: ItemReader, names: Sequence[str], teacher: Teacher) -> Iterator[_Query]:
    """The features of each of these photos of a features file."""
    for item in map(reader.__getitem__, names):
        _check_item(item, teacher.extractor.dim, f"{reader.path}: {item.name}")
        feature = torch.from_numpy(item.feature).to(teacher.extractor.device)
        yield _Query(item.name, item.encoded, item.mask, Crop(*map(int, item.crop)), feature)


def _queries(
    images: Sequence[ImageFile], masks: MaskSource, teacher: Teacher, failures: Failures
) -> Iterator[_Query | None]:
    """Each image's features, None for one that fails."""
    extractor = teacher.extractor
    for found in each_photo(
        images, masks, partial(photo_features, extractor), torch.device(extractor.device), failures
    ):
        if found is None:
            yield None
            continue
        photo, (feature, crop) = found
        yield _Query(photo.name, np.frombuffer(photo.data, np.uint8), photo.mask, crop, feature)


def _check_item(item: Item, dim: int, where: str) -> None:
    """InputError unless the features of a photo are `dim` long, on a square grid, and of a crop that meets
    its mask.
    """
    top, left, side = map(int, item.crop)
    height, width = item.mask.shape
    if item.feature.shape != (dim, item.feature.shape[1], item.feature.shape[1]):
        raise InputError(
            f"{where}: its features are {item.feature.shape}, expected {dim} of as many rows as columns",
            "make the file again",
        )
    if side < 1 or not (-side < top < height and -side < left < width) or side > 4 * max(height, width):
        raise InputError(
            f"{where}: its crop, {side} pixels from {left},{top}, is none of this photo",
            "make the file again",
        )
    if not item.mask.any():
        raise InputError(f"{where}: its mask is empty", "make the file again")
