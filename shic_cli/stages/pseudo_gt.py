"""Pseudo-ground truth: every object pixel of a photo matched to the template, without training (sec. 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from shic_cli.base.devices import to_host
from shic_cli.base.errors import Failures, InputError, SettingError, ShicError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.recipes import by_recipe
from shic_cli.base.settings import PseudoGtConfig, RenderConfig
from shic_cli.base.workers import spread
from shic_cli.files.arrays import read_arrays, source
from shic_cli.files.atomic import check_target
from shic_cli.files.items import Item, ItemReader, ItemWriter, packed
from shic_cli.files.layouts import Template
from shic_cli.files.mask_sources import MaskSource, Photo
from shic_cli.files.photo_lists import ImageFile, listing
from shic_cli.files.photos import Crop
from shic_cli.files.shards import WHOLE, Part
from shic_cli.learning import label_filters, similarity
from shic_cli.learning.encode import (
    each_result,
    fit_basis,
    mask_features,
    photo_features,
    processes,
    view_features,
    with_basis,
)
from shic_cli.learning.pca import Projected
from shic_cli.learning.transport import Transport
from shic_cli.learning.views import Views
from shic_cli.parts.extractors.contract import Extractor
from shic_cli.parts.extractors.make import make_extractor
from shic_cli.stages.render import render_views


@dataclass(frozen=True)
class Teacher:
    """The template's side of Eq. 2: its views' features at visible vertices, and their extractor."""

    extractor: Extractor
    bank: similarity.Bank
    config: PseudoGtConfig
    transport: Transport | None = None
    geodesic: np.ndarray | None = None

    @classmethod
    def make(
        cls,
        extractor: Extractor,
        views: Views,
        config: PseudoGtConfig,
        track: Track = plain_track,
        geodesic: np.ndarray | None = None,
    ) -> Teacher:
        """The teacher with the features of `views`.

        With `config.pca` a basis is fitted to them, unless the extractor has one already. Matching by
        transport and `surface_within` need the template's distances `geodesic` `(K, K)`; without them pixels
        are matched alone.
        """
        config = settled(config, extractor)
        features = track(view_features(extractor, views), len(views), "views")
        if config.pca and not isinstance(extractor, Projected):
            extractor, features = fit_basis(extractor, features, views.mask, config.pca)
        bank = similarity.Bank.build(features, views.vertex_yx, views.vertex_visible, views.mask.shape[-1])
        transport = None
        if geodesic is not None and config.matching == "transport":
            transport = Transport.of(geodesic, torch.device(extractor.device))
        return cls(extractor, bank, config, transport, geodesic if config.surface_within else None)

    @property
    def pooling(self) -> dict[str, Any]:
        """The settings for the functions of similarity.py."""
        return {"pool": self.config.pool, "topk": self.config.topk, "agreement": self.config.agreement}

    def match(self, feature: torch.Tensor, crop: Crop, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The vertex i4 `(H, W)` (-1 off the object) and the score f4 `(H, W)` of every pixel of `mask`.

        `feature` `(D, h, w)` are the features of `crop`. Each cell of their grid that holds an object pixel
        is matched once, and its pixels share the answer.
        """
        pixels = np.argwhere(mask)
        cells, cell_of_pixel = query_cells(pixels, crop, feature.shape[-1])
        queries = F.normalize(feature[:, cells[:, 0], cells[:, 1]].T.float(), dim=1)
        vertex, score = to_host(*self._matched(queries, cells, feature.shape[-1]))
        vertices, scores = np.full(mask.shape, -1, np.int32), np.zeros(mask.shape, np.float32)
        vertices[tuple(pixels.T)] = vertex[cell_of_pixel]
        scores[tuple(pixels.T)] = score[cell_of_pixel]
        return vertices, scores

    def _matched(
        self, queries: torch.Tensor, cells: np.ndarray, grid: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The vertex `(P,)` and the score `(P,)` of each of `cells` `(P, 2)`, of `grid` a side.

        `queries` `(P, D)` are their unit features. The vertex is -1 and the score 0 where the filters of the
        settings keep no match.
        """
        config, yx = self.config, torch.from_numpy(cells / grid).to(queries)
        kept = torch.ones(len(cells), dtype=torch.bool, device=queries.device)
        if self.transport is None and not config.return_within:
            vertex, score = similarity.match(self.bank, queries, **self.pooling)
        else:
            sigma = similarity.pool_similarities(self.bank, queries, **self.pooling)
            together = self.transport
            vertex, score = together.match(sigma, yx) if together else similarity.best_vertices(sigma)
            if config.return_within:
                kept &= label_filters.returns(sigma, vertex, yx, config.return_within)
        if config.surface_within and self.geodesic is not None:
            near = label_filters.agrees(vertex.cpu().numpy(), cells, self.geodesic, config.surface_within)
            kept &= torch.from_numpy(near).to(kept.device)
        return vertex.masked_fill(~kept, -1), score.masked_fill(~kept, 0)


def settled(config: PseudoGtConfig, extractor: Extractor) -> PseudoGtConfig:
    """`config` with a value for every setting that is left open and that the extractor decides."""
    config = by_recipe(config)
    agreement = extractor.agreement if config.agreement < 0 else config.agreement
    matching = extractor.matching if config.matching == "auto" else config.matching
    return replace(config, agreement=agreement, matching=matching)


def views_for(
    extractor: Extractor, template: Template, config: PseudoGtConfig, device: torch.device
) -> Views:
    """The template's views that `config` describes, at the side that `extractor` takes."""
    shared = {name: getattr(config, name) for name in ("azimuths", "elevations", "style", "renderer")}
    return render_views(template, RenderConfig(size=extractor.side, **shared), device)


def query_cells(pixels: np.ndarray, crop: Crop, grid: int) -> tuple[np.ndarray, np.ndarray]:
    """The cells `(P, 2)` in which `pixels` `(n, 2)` fall, and each pixel's cell number `(n,)`.

    The cells are those of a grid over the crop, with `grid` cells a side.
    """
    cells = np.floor(crop.to_crop(pixels.astype(np.float64), grid) + 0.5).astype(np.int64).clip(0, grid - 1)
    numbers, cell_of_pixel = np.unique(cells[:, 0] * grid + cells[:, 1], return_inverse=True)
    return np.stack([numbers // grid, numbers % grid], 1), cell_of_pixel


class Done(NamedTuple):
    """What the matching of a photo gives: its record in the maps file."""

    name: str
    record: bytes


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
    workers: int | None = 1,
) -> None:
    """Write the maps file (labels `pseudo`) of photos, or of a features file of photos, or a `part` (Eq. 2).

    On a CPU so many processes as `workers` match, or as many as pay if it is None, if the extractor is small;
    this makes no difference to the file.

    An image that fails is left out and named; PartialError at the end says how many failed. InputError if
    `views` belong to another template, or if the features were made with other weights or settings.
    """
    check_target(path, overwrite)
    _check_views(views, template)
    if isinstance(images, ItemReader):
        extractor = _extractor_of(images, template, config, device, weights)
        names, made_from, settings = images.names, {"features": source(images.path)}, {}
    else:
        masks.prepare(part.of(images))
        extractor = make_extractor(by_recipe(config).extractor, device, weights)
        names = [image.name for image in images]
        made_from, settings = {"images": listing(images)}, masks.settings
    config = settled(config, extractor)
    # A basis that is fitted here is not recorded: its last digits may differ, and the settings determine it.
    made_with = {**extractor.settings, "fingerprint": extractor.fingerprint}
    params = {**config.params(), "extractor": made_with, **settings}
    attrs, failures = {"labels": "pseudo", "template": template.fingerprint}, Failures(len(images))
    sources = {**sources, **made_from}
    with ItemWriter(
        path, "shic/maps", params=params, sources=sources, attrs=attrs, overwrite=overwrite, part=part
    ) as writer:
        left = [name for name in part.of(names) if name not in writer]
        if left:  # a share that is finished needs no views
            # no name here holds the rendered views, so that their memory is free while photos are matched
            teacher = Teacher.make(
                extractor,
                views or views_for(extractor, template, config, device),
                config,
                track,
                template.geodesic,
            )
            found = _each_matched(images, left, masks, teacher, failures, part, workers)
            for done in filter(None, track(found, len(left), "pseudo-gt")):
                writer.keep(done.name, done.record)
        failures.check(len(images))
    writer.end(failures, len(images))


def _check_views(views: Views | None, template: Template) -> None:
    """InputError if there are views, and they show another template."""
    if views and (views.template, views.vertex_yx.shape[1]) != (template.fingerprint, len(template.verts)):
        raise InputError("the views show another template", "render them again with `shic render`")


def _extractor_of(
    features: ItemReader,
    template: Template,
    config: PseudoGtConfig,
    device: torch.device,
    weights: Path | None,
) -> Extractor:
    """The extractor that made a features file of photos, in its basis.

    Errors if the file holds features of views of another template, or if its extractor is not the present one
    or not that of `config`.
    """
    made_by, path = features.header.attrs["extractor"], features.path
    if features.header.attrs["template"] not in ("", template.fingerprint):
        raise InputError(f"{path}: holds features of views of another template", "give features of photos")
    extractor = make_extractor(made_by if config.extractor == "auto" else config.extractor, device, weights)
    if extractor.name != made_by:
        raise SettingError(
            f"--extractor {config.extractor}: the features in {path} were made by {made_by}",
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


def _each_matched(
    images: list[ImageFile] | ItemReader,
    names: Sequence[str],
    masks: MaskSource,
    teacher: Teacher,
    failures: Failures,
    part: Part,
    workers: int | None,
) -> Iterator[Done | None]:
    """What the matching of the photos `names` of `images` gives, None for one that fails."""
    extractor = teacher.extractor
    if isinstance(images, ItemReader):
        with processes(workers, names, len(images), extractor, masks, part) as number:
            found = spread(_item_matcher, (images, teacher), names, number)
            for name, done in zip(names, found, strict=True):
                if isinstance(done, ShicError):
                    failures.note(name, done)
                yield None if isinstance(done, ShicError) else done
        return
    by_name = {image.name: image for image in images}
    left, device = [by_name[name] for name in names], torch.device(extractor.device)
    with processes(workers, left, len(images), extractor, masks, part) as number:
        yield from each_result(left, masks, partial(_match_photos, teacher), device, failures, number)


def _match_photos(teacher: Teacher, photos: Sequence[Photo]) -> list[Done]:
    """What the matching of each photo gives; InputError if the filters keep no match of one."""
    found = photo_features(teacher.extractor, photos)
    return [
        _matched(teacher, photo.name, photo.kept, feature, crop)
        for photo, (feature, crop) in zip(photos, found, strict=True)
    ]


def _matched(
    teacher: Teacher, name: str, kept: dict[str, np.ndarray], feature: torch.Tensor, crop: Crop
) -> Done:
    """The record of a photo with the features `(D, h, w)` of its `crop`; `kept` are its own arrays."""
    vertex, score = teacher.match(feature, crop, kept["mask"])
    if (vertex < 0).all():
        raise InputError(f"{name}: no match is kept", "give a larger --return-within or --surface-within")
    return Done(name, packed("shic/maps", name, {**kept, "vertex": vertex, "score": score}))


def _item_matcher(reader: ItemReader, teacher: Teacher) -> Callable[[str], Done | ShicError]:
    """A function that matches a photo of a features file, and returns the error if no match is kept."""
    return partial(_match_item, reader, teacher)


def _match_item(reader: ItemReader, teacher: Teacher, name: str) -> Done | ShicError:
    item = reader[name]
    where, crop = f"{reader.path}: {name}", Crop(*map(int, item.crop))
    _check_crop(item, crop, where)
    if teacher.extractor.of_mask:
        feature = mask_features(teacher.extractor, item.mask, crop)
    else:
        _check_feature(item, teacher.extractor.dim, where)
        feature = torch.from_numpy(item.feature).to(teacher.extractor.device)
    kept = {key: item.arrays[key] for key in ("encoded", "mask", "void") if key in item.arrays}
    try:
        return _matched(teacher, name, kept, feature, crop)
    except InputError as error:
        return error


def _check_feature(item: Item, dim: int, where: str) -> None:
    """InputError unless the features are there, `dim` long and on a square grid."""
    shape = item.feature.shape if "feature" in item.arrays else ()
    if shape != (dim, *shape[1:2] * 2):
        raise InputError(
            f"{where}: its features are {shape or 'missing'}, expected {dim} channels on a square grid",
            "make the file again",
        )


def _check_crop(item: Item, crop: Crop, where: str) -> None:
    """InputError unless the crop meets the photo, and its mask is not empty."""
    height, width = item.mask.shape
    fits = -crop.side < crop.top < height and -crop.side < crop.left < width
    if crop.side < 1 or not fits or crop.side > 4 * max(height, width):
        raise InputError(
            f"{where}: its crop, {crop.side} pixels from {crop.left},{crop.top}, does not fit this photo",
            "make the file again",
        )
    if not item.mask.any():
        raise InputError(f"{where}: its mask is empty", "make the file again")
