"""Features of photos and of views: one crop, one call of the extractor, unit vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from shic_cli.base.devices import TOGETHER, Fitting, ahead
from shic_cli.base.errors import Failures, InputError, ShicError
from shic_cli.files.photos import Crop, ImageFile, MaskSource, Photo
from shic_cli.learning import pca
from shic_cli.learning.views import Views
from shic_cli.parts.extractors.joined import resample

T = TypeVar("T")


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
