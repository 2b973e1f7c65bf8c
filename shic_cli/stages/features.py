"""Writes features of photos and of views: each is one crop, one call of the extractor, and unit vectors.

Features of the mask alone (`of_mask`) are not written: the mask and the crop take a hundredth of the space.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shic_cli.base.errors import Failures, InputError, SettingError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import FeatureConfig
from shic_cli.files.arrays import read_arrays
from shic_cli.files.atomic import check_target
from shic_cli.files.items import ItemWriter
from shic_cli.files.mask_sources import MaskSource, Photo
from shic_cli.files.photo_lists import ImageFile, listing
from shic_cli.files.photos import Crop, encode
from shic_cli.files.shards import WHOLE, Part
from shic_cli.learning.encode import each_photo, fit_basis, photo_features, view_features, with_basis
from shic_cli.learning.pca import Projected
from shic_cli.learning.views import Views
from shic_cli.parts.extractors.contract import Extractor
from shic_cli.parts.extractors.make import make_extractor


def _make(config: FeatureConfig, basis: Path | None, device: torch.device, weights: Path | None) -> Extractor:
    """The extractor, in the basis of the features file `basis` if there is one.

    InputError if that basis was fitted to another extractor's features.
    """
    if basis is None:
        return make_extractor(config.extractor, device, weights)
    if config.pca:
        raise SettingError(
            "--pca and --basis exclude each other", "--pca fits a new basis, --basis uses one that was fitted"
        )
    arrays, header = read_arrays(basis, "shic/features")
    name = header.attrs["extractor"] if config.extractor == "auto" else config.extractor
    extractor = with_basis(make_extractor(name, device, weights), arrays, basis, needed=True)
    if extractor.fingerprint != header.attrs["fingerprint"]:
        raise InputError(
            f"{basis}: its basis belongs to another extractor, or to other weights or settings",
            "make it again with this one",
        )
    return extractor


def _writer(
    path: Path,
    extractor: Extractor,
    config: FeatureConfig,
    template: str,
    sources: dict[str, Any],
    overwrite: bool,
    part: Part = WHOLE,
    **more: Any,
) -> ItemWriter:
    """The writer of a features file, or of a `part` of it."""
    attrs = {"extractor": extractor.name, "fingerprint": extractor.fingerprint, "template": template}
    params = {**config.params(), "extractor": extractor.settings, **more}
    root = extractor.arrays if isinstance(extractor, Projected) else {}  # the basis
    shared = {"params": params, "sources": sources, "attrs": attrs, "root": root}
    return ItemWriter(path, "shic/features", **shared, overwrite=overwrite, part=part)


def write_photo_features(
    images: list[ImageFile],
    masks: MaskSource,
    path: Path,
    config: FeatureConfig,
    device: torch.device,
    *,
    basis: Path | None = None,
    weights: Path | None = None,
    overwrite: bool = False,
    track: Track = plain_track,
    part: Part = WHOLE,
) -> None:
    """Write the features file of photos, or a `part` of it, in the basis of the file `basis` if given.

    An image that fails is left out and named; PartialError at the end says how many failed.
    """
    if config.pca:
        raise SettingError(
            "--pca: a basis is fitted to views, and these are photos",
            "fit it with `shic features views.h5`, then give --basis",
        )
    share = part.of(images)
    masks.prepare(share)
    extractor, failures = _make(config, basis, device, weights), Failures(len(images))
    with _writer(
        path, extractor, config, "", {"images": listing(images)}, overwrite, part, **masks.settings
    ) as writer:
        left = [image for image in share if image.name not in writer]
        results: Iterator[tuple[Photo, tuple[torch.Tensor | None, Crop]] | None]
        if extractor.of_mask:
            results = each_photo(left, masks, _crops, device, failures)
        else:
            results = each_photo(left, masks, partial(photo_features, extractor), device, failures)
        for photo, (feature, crop) in filter(None, track(results, len(left), "features")):
            writer.add(photo.name, **_item(feature, crop, photo.kept))
        failures.check(len(images))
    writer.end(failures, len(images))


def write_view_features(
    views: Views,
    path: Path,
    config: FeatureConfig,
    device: torch.device,
    *,
    sources: dict[str, Any],
    basis: Path | None = None,
    weights: Path | None = None,
    overwrite: bool = False,
    track: Track = plain_track,
) -> None:
    """Write the features file of rendered views; each item is one view, named by its number.

    With `config.pca` a basis is fitted to the views and stored. A run that was stopped continues with the
    views that are missing; a basis is fitted again to all of them.
    """
    check_target(path, overwrite)
    if basis is not None and read_arrays(basis, "shic/features")[1].attrs["template"] not in (
        "",
        views.template,
    ):
        raise InputError(
            f"{basis}: its basis was fitted to views of another template", "fit one to these views with --pca"
        )
    extractor, fitted = _make(config, basis, device, weights), None
    if config.pca:
        features = track(view_features(extractor, views, config.batch), len(views), "features")
        extractor, fitted = fit_basis(extractor, features, views.mask, config.pca)
    with _writer(path, extractor, config, views.template, sources, overwrite) as writer:
        left = [i for i in range(len(views)) if f"{i:04d}" not in writer]
        if extractor.of_mask:
            numbered = ((i, None) for i in left)
        elif fitted is None:
            # Whole batches are computed again, because the last digits of features may depend on the other
            # pictures of the batch.
            batches = {i // config.batch for i in left}
            left = [i for i in range(len(views)) if i // config.batch in batches]
            missing = view_features(extractor, views, config.batch, left)
            numbered = zip(left, track(missing, len(left), "features"), strict=True)
        else:
            numbered = ((i, feature) for i, feature in enumerate(fitted) if i in left)
        for i, feature in numbered:
            if f"{i:04d}" in writer:
                continue
            picture, mask = views.image[i].cpu().numpy(), views.mask[i].cpu().numpy()
            writer.add(
                f"{i:04d}",
                **_item(feature, Crop(0, 0, mask.shape[0]), Photo("", encode(picture), picture, mask).kept),
            )


def _crops(photos: Sequence[Photo]) -> list[tuple[None, Crop]]:
    """For each photo no features, and the crop around its mask."""
    return [(None, Crop.around(photo.mask)) for photo in photos]


def _item(
    feature: torch.Tensor | None, crop: Crop, kept: dict[str, np.ndarray]
) -> dict[str, np.ndarray | None]:
    """The arrays of one item of a features file; `kept` are those of the photo itself."""
    crop_array = np.array([crop.top, crop.left, crop.side])
    return {"feature": None if feature is None else feature.cpu().numpy(), "crop": crop_array, **kept}
