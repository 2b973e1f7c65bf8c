"""Features of photos and of views: one crop, one extractor call, unit vectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from shic_cli import pca, registry
from shic_cli.config import FeatureConfig
from shic_cli.devices import TOGETHER, Fitting, ahead
from shic_cli.errors import Failures, InputError, SettingError, ShicError
from shic_cli.extractors.joined import Joined, resample
from shic_cli.files.mask_sources import MaskSource, Photo
from shic_cli.images import Crop, ImageFile, encode, listing
from shic_cli.outputs import check_target
from shic_cli.progress import Track, plain_track
from shic_cli.render import Views
from shic_cli.schema import ItemWriter, read_arrays
from shic_cli.shards import WHOLE, Finished, Part

T = TypeVar("T")


def make_extractor(
    name: str, device: torch.device, weights: Path | None = None, auto: str = "extractors"
) -> Any:
    """The extractor `name`, `name:argument,option=value`, several of them joined by `+`, or `auto`, on
    `device`.

    `weights` is a folder to look for weights in first, `auto` the list of registry.AUTO that the name auto
    stands for.
    """
    name = registry.resolve("extractors", name, device, weights, auto)
    parts = [registry.make("extractors", each, device=device, weights=weights) for each in split(name)]
    return parts[0] if len(parts) == 1 else Joined(parts)


def split(name: str) -> list[str]:
    """The parts of `a+b`; a `+` separates only where the name of an extractor follows, so that a folder may
    have one in its name.
    """
    known = "|".join(map(re.escape, sorted(registry.names("extractors"), key=len, reverse=True)))
    return re.split(rf"\+(?=(?:{known})(?:[:,+]|$))", name)


def cut(photo: Photo, side: int) -> tuple[Crop, torch.Tensor, torch.Tensor]:
    """The crop around the photo's mask, the picture in it `(3, S, S)` in 0..1 and the mask `(1, S, S)` in
    0..1.
    """
    crop = Crop.around(photo.mask)
    image = torch.from_numpy(crop.cut(photo.rgb, side)).permute(2, 0, 1).float() / 255
    return crop, image, torch.from_numpy(crop.cut(photo.mask, side))[None]


def extract(extractor: Any, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Features f4 `(B, D, h, w)`, not normalised, of `images` `(B, 3, S, S)` and `masks` `(B, 1, S, S)`;
    InputError if not finite.
    """
    features = extractor(images, masks).float()
    if not torch.isfinite(features).all():
        hint = "its weights are broken, or half precision is too coarse for them: give its option precision=float32"
        raise InputError(f"{extractor.name}: its features are not finite", hint)
    return features


def decoder_input(encoder: Any, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """What a decoder gets of pictures, as `extract`; unit vectors unless `encoder.unit` is False."""
    features = extract(encoder, images, masks)
    return F.normalize(features, dim=1) if getattr(encoder, "unit", True) else features


def photo_features(extractor: Any, photos: Sequence[Photo]) -> list[tuple[torch.Tensor, Crop]]:
    """Of each photo unit features `(D, h, w)` of the crop around its mask, and that crop; one call of the
    extractor.
    """
    crops, images, masks = zip(*(cut(photo, extractor.side) for photo in photos), strict=True)
    return list(
        zip(
            F.normalize(extract(extractor, torch.stack(images), torch.stack(masks)), dim=1),
            crops,
            strict=True,
        )
    )


def each_photo(
    images: Sequence[ImageFile],
    masks: MaskSource,
    work: Callable[[list[Photo]], list[T]],
    device: torch.device,
    failures: Failures,
) -> Iterator[tuple[Photo, T] | None]:
    """Each image's photo and what `work` gives for it, None for one that fails: as many photos at a time as
    suit the device.

    The next photos are read while `work` is at these. Where it fails with some, they are tried one by one.
    """

    def read(some: Sequence[ImageFile]) -> list[Photo]:
        found = []
        for image in some:
            with failures.catch(image.name):
                found.append(masks.read(image))
        return found

    size, fitting = TOGETHER[device.type], Fitting("the encoder", TOGETHER[device.type])
    batches = [images[start : start + size] for start in range(0, len(images), size)]
    for batch, photos in zip(batches, ahead(partial(read, batch) for batch in batches), strict=True):
        found = []
        try:
            made = [each for some in fitting.each(work, photos) for each in some]
            found = list(zip(photos, made, strict=True))
        except ShicError as error:
            if error.stops_all:
                raise
            if len(photos) == 1:
                failures.note(photos[0].name, error)
            for photo in photos if len(photos) > 1 else ():
                with failures.catch(photo.name):
                    found.append((photo, *work([photo])))
        yield from found
        yield from [None] * (len(batch) - len(found))
    masks.notes.tell()


def view_features(
    extractor: Any, views: Views, batch: int = 8, numbers: Sequence[int] | None = None
) -> Iterator[torch.Tensor]:
    """Unit features `(D, h, w)` of rendered views one after the other (those of `numbers`), resampled to the
    extractor's side if need be.

    They are not kept: those of 72 views for the largest extractors take gigabytes.
    """
    numbers = range(len(views)) if numbers is None else numbers

    def work(some: Sequence[int]) -> torch.Tensor:
        image, mask = views.image[list(some)], views.mask[list(some)]
        pictures, masks = image.permute(0, 3, 1, 2).float() / 255, mask[:, None].float()
        return F.normalize(
            extract(extractor, resample(pictures, extractor.side), resample(masks, extractor.side)), dim=1
        )

    for features in Fitting("the extractor", batch).each(work, numbers):
        yield from features


def fit_basis(
    extractor: Any, features: Iterable[torch.Tensor], masks: torch.Tensor, components: int
) -> tuple[pca.Projected, Iterator[torch.Tensor]]:
    """`extractor` projected to the principal components of views' unit `features` `(D, h, w)`, and those so
    projected, one by one.

    `masks` `(N, H, W)` are the views'. The features are all kept meanwhile, in half precision.
    """
    kept = [feature.half() for feature in features]
    projected = pca.Projected(extractor, *pca.fit(kept, masks, components))
    return projected, (F.normalize(projected.project(feature[None].float())[0], dim=0) for feature in kept)


def with_basis(extractor: Any, arrays: dict[str, np.ndarray], path: Path | str, needed: bool = False) -> Any:
    """`extractor` in the basis that `arrays` of the features file `path` hold, or itself without; InputError
    if one is `needed`.
    """
    if len(arrays) != 2 and (arrays or needed):
        raise InputError(
            f"{path}: holds no {'whole ' if arrays else ''}basis",
            "make one with `shic features views.h5 --pca 256`",
        )
    return pca.Projected(extractor, arrays["pca_mean"], arrays["pca_basis"]) if arrays else extractor


def _make(config: FeatureConfig, basis: Path | None, device: torch.device, weights: Path | None) -> Any:
    """The extractor, in the basis of the features file `basis`; InputError if that was fitted to another
    extractor's features.
    """
    if basis is None:
        return make_extractor(config.extractor, device, weights)
    if config.pca:
        raise SettingError(
            "--pca and --basis exclude each other", "--pca fits a basis, --basis takes one that was fitted"
        )
    arrays, header = read_arrays(basis, "shic/features")
    name = header.attrs["extractor"] if config.extractor == "auto" else config.extractor
    extractor = with_basis(make_extractor(name, device, weights), arrays, basis, needed=True)
    if extractor.fingerprint != header.attrs["fingerprint"]:
        raise InputError(
            f"{basis}: its basis is of another extractor, or of other weights or settings",
            "make it again with this one",
        )
    return extractor


def _writer(
    path: Path,
    extractor: Any,
    config: FeatureConfig,
    template: str,
    sources: dict[str, Any],
    overwrite: bool,
    part: Part = WHOLE,
    **more: Any,
) -> ItemWriter | Finished:
    attrs = {"extractor": extractor.name, "fingerprint": extractor.fingerprint, "template": template}
    params = {**config.params(), "extractor": extractor.settings, **more}
    root = getattr(extractor, "arrays", {})  # a basis
    return part.writer(
        path, "shic/features", params=params, sources=sources, attrs=attrs, overwrite=overwrite, root=root
    )


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
    """Write the features file of photos, or a `part` of it, in the basis of the features file `basis` if one
    is given.

    An image that fails is left out and named; PartialError at the end says how many.
    """
    if config.pca:
        raise SettingError(
            "--pca: a basis is fitted to views, these are photos",
            "fit it with `shic features views.h5`, then give --basis",
        )
    mine = part.of(images)
    masks.prepare(mine)
    extractor, failures = _make(config, basis, device, weights), Failures()
    with _writer(
        path, extractor, config, "", {"images": listing(images)}, overwrite, part, **masks.settings
    ) as writer:
        left = [image for image in mine if image.name not in writer]
        found = each_photo(left, masks, partial(photo_features, extractor), device, failures)
        for photo, (feature, crop) in filter(None, track(found, len(left), "features")):
            writer.add(photo.name, **_item(feature, photo.mask, crop, photo.data))
        failures.check(len(images))
    part.end(path, failures, len(images), overwrite)


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
    """Write the features file of rendered views, an item a view, named by its number; with `config.pca` a
    basis fitted to them.

    A run that was stopped goes on with the views that it lacks; a basis is fitted to all of them again.
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
        if fitted is None:
            # Whole batches: the last digits of features may depend on which pictures met. A batch is in
            # flight until its last is kept.
            batches = {i // config.batch for i in left}
            left = [i for i in range(len(views)) if i // config.batch in batches]
            lacking = view_features(extractor, views, config.batch, left)
            numbered = zip(left, track(lacking, len(left), "features"), strict=True)
        else:
            numbered = ((i, feature) for i, feature in enumerate(fitted) if i in left)
        for i, feature in numbered:
            if f"{i:04d}" in writer:
                continue
            picture, mask = views.image[i].cpu().numpy(), views.mask[i].cpu().numpy()
            writer.add(
                f"{i:04d}",
                **_item(feature, mask, Crop(0, 0, mask.shape[0]), np.frombuffer(encode(picture), np.uint8)),
            )


def _item(
    feature: torch.Tensor, mask: np.ndarray, crop: Crop, data: bytes | np.ndarray
) -> dict[str, np.ndarray]:
    encoded = np.frombuffer(data, np.uint8)
    return {
        "feature": feature.cpu().numpy(),
        "mask": mask,
        "crop": np.array([crop.top, crop.left, crop.side]),
        "encoded": encoded,
    }
