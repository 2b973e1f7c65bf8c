"""Features of photos and of views: each is one crop, one call of the extractor, and unit vectors."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from shic_cli.base.devices import TOGETHER, Fitting, ahead
from shic_cli.base.errors import Failures, InputError, ShicError
from shic_cli.base.workers import number_of, spread, threads_for
from shic_cli.files.mask_sources import MaskSource, Notes, Photo
from shic_cli.files.photo_lists import ImageFile
from shic_cli.files.photos import Crop
from shic_cli.files.shards import Part
from shic_cli.learning import pca
from shic_cli.learning.views import Views
from shic_cli.parts.extractors.contract import Extractor
from shic_cli.parts.extractors.joined import resample

T = TypeVar("T")
LEAST_PHOTOS = 20  # for which a process pays: it starts in the time of about ten photos


def cut(photo: Photo, side: int, pillow: bool = False) -> tuple[Crop, torch.Tensor, torch.Tensor]:
    """The crop around the photo's mask; in it the picture `(3, S, S)` and mask `(1, S, S)`, in 0..1.

    `side` is S. `pillow` says how the picture is resampled (`Crop.cut`).
    """
    crop = Crop.around(photo.mask)
    image = torch.from_numpy(crop.cut(photo.rgb, side, pillow)).permute(2, 0, 1).float() / 255
    return crop, image, torch.from_numpy(crop.cut(photo.mask, side))[None]


def extract(extractor: Extractor, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Features f4 `(B, D, h, w)`, not normalised, of `images` `(B, 3, S, S)` and `masks` `(B, 1, S, S)`.

    InputError if a feature is not finite.
    """
    features = extractor(images, masks).float()
    if not torch.isfinite(features).all():
        hint = "its weights are broken, or need more than half precision: give its option precision=float32"
        raise InputError(f"{extractor.name}: its features are not finite", hint)
    return features


def decoder_input(
    encoder: Extractor, images: torch.Tensor, masks: torch.Tensor, raw: bool = False
) -> torch.Tensor:
    """A decoder's input: the features of `extract`, as unit vectors.

    They stay as they are with `raw`, or if `encoder.unit` is False.
    """
    features = extract(encoder, images, masks)
    return features if raw or not encoder.unit else F.normalize(features, dim=1)


def photo_features(extractor: Extractor, photos: Sequence[Photo]) -> list[tuple[torch.Tensor, Crop]]:
    """For each photo the unit features `(D, h, w)` of the crop around its mask, and the crop.

    All photos go through one call of the extractor.
    """
    crops, images, masks = zip(
        *(cut(photo, extractor.side, extractor.pillow) for photo in photos), strict=True
    )
    return list(
        zip(
            F.normalize(extract(extractor, torch.stack(images), torch.stack(masks)), dim=1),
            crops,
            strict=True,
        )
    )


def mask_features(extractor: Extractor, mask: np.ndarray, crop: Crop) -> torch.Tensor:
    """The unit features `(D, h, w)` of a crop of `mask` `(H, W)`, for an extractor that sees it alone."""
    side = extractor.side
    cut_mask = torch.from_numpy(crop.cut(mask, side))[None, None]
    return F.normalize(extract(extractor, torch.zeros(1, 3, side, side), cut_mask)[0], dim=0)


def each_photo(
    images: Sequence[ImageFile],
    masks: MaskSource,
    work: Callable[[list[Photo]], list[T]],
    device: torch.device,
    failures: Failures,
) -> Iterator[tuple[Photo, T] | None]:
    """For each image the photo and the result of `work`, or None if the image fails.

    As many photos as suit the device are worked on at a time, and the next ones are read meanwhile. If `work`
    fails for several photos, they are tried one by one.
    """

    def read(batch: Sequence[ImageFile]) -> list[Photo]:
        photos = []
        for image in batch:
            with failures.catch(image.name):
                photos.append(masks.read(image))
        return photos

    size, fitting = TOGETHER[device.type], Fitting("the encoder", TOGETHER[device.type])
    batches = [images[start : start + size] for start in range(0, len(images), size)]
    for batch, photos in zip(batches, ahead(partial(read, batch) for batch in batches), strict=True):
        pairs = []
        try:
            results = [result for part in fitting.each(work, photos) for result in part]
            pairs = list(zip(photos, results, strict=True))
        except ShicError as error:
            if error.stops_all:
                raise
            if len(photos) == 1:
                failures.note(photos[0].name, error)
            for photo in photos if len(photos) > 1 else ():
                with failures.catch(photo.name):
                    pairs.append((photo, *work([photo])))
        yield from pairs
        yield from [None] * (len(batch) - len(pairs))
    masks.notes.tell()


@contextmanager
def processes(
    workers: int | None,
    images: Sequence[Any],
    total: int,
    extractor: Extractor,
    masks: MaskSource,
    part: Part,
) -> Iterator[int]:
    """How many processes to use for the `images` that are left of a stage's `total`, in the block.

    They are so many as `workers`, or as many as pay if it is None. One where there is a GPU, a network or a
    masker that is large, a video, or torchrun, whose ranks are processes already. Where there may be several,
    torch has the threads that give the same digits with any number.
    """
    small = extractor.small and masks.small and extractor.device.type == "cpu"
    is_video = any(getattr(image, "video", None) for image in images[:1])
    spreads = small and not is_video and not part.ranked
    alone = "only --device cpu and small parts (silhouette, picture, grabcut) take more, no video and no rank"
    with threads_for(workers, total, LEAST_PHOTOS) if spreads else nullcontext():
        yield number_of(workers, len(images), LEAST_PHOTOS, "" if spreads else alone)


class Tried(NamedTuple):
    """What a worker gives for a photo: the result, or the error, and what is to be said about the photo."""

    result: Any
    error: ShicError | None
    notes: list[tuple[str, str, str]]


def each_result(
    images: Sequence[ImageFile],
    masks: MaskSource,
    work: Callable[[list[Photo]], list[T]],
    device: torch.device,
    failures: Failures,
    number: int = 1,
) -> Iterator[T | None]:
    """For each image the result of `work`, or None if it fails, by `number` processes, as `each_photo`.

    With several processes `masks`, `work` and the results have to be picklable.
    """
    if number == 1:
        for found in each_photo(images, masks, work, device, failures):
            yield found and found[1]
        return
    for image, tried in zip(images, spread(_trier, (masks, work), images, number), strict=True):
        for note in tried.notes:
            masks.notes.add(*note)
        if tried.error is not None:
            failures.note(image.name, tried.error)
        yield tried.result
    masks.notes.tell()


def _trier(masks: MaskSource, work: Callable[[list[Photo]], list[Any]]) -> Callable[[ImageFile], Tried]:
    """A function that reads a photo and does its work."""
    masks = copy.copy(masks)
    masks.notes = Notes(kept=[])
    return partial(_try, masks, work)


def _try(masks: MaskSource, work: Callable[[list[Photo]], list[Any]], image: ImageFile) -> Tried:
    failures, results, masks.notes.kept = Failures(), [None], []
    with failures.catch(image.name):
        results = work([masks.read(image)])
    return Tried(results[0], failures.first, masks.notes.kept)


def view_features(
    extractor: Extractor, views: Views, batch: int = 8, numbers: Sequence[int] | None = None
) -> Iterator[torch.Tensor]:
    """One after the other, unit features `(D, h, w)` of the views, or of those with `numbers`.

    Views are resampled to the extractor's side. The features are not kept: for the largest extractors those
    of 72 views take gigabytes.
    """
    numbers = range(len(views)) if numbers is None else numbers

    def work(batch_numbers: Sequence[int]) -> torch.Tensor:
        image, mask = views.image[list(batch_numbers)], views.mask[list(batch_numbers)]
        pictures, masks = image.permute(0, 3, 1, 2).float() / 255, mask[:, None].float()
        return F.normalize(
            extract(extractor, resample(pictures, extractor.side), resample(masks, extractor.side)), dim=1
        )

    for features in Fitting("the extractor", batch).each(work, numbers):
        yield from features


def fit_basis(
    extractor: Extractor, features: Iterable[torch.Tensor], masks: torch.Tensor, components: int
) -> tuple[pca.Projected, Iterator[torch.Tensor]]:
    """`extractor` projected to the principal components of `features`, and the projected features.

    The features are unit features `(D, h, w)` of views whose masks are `masks` `(N, H, W)`. All of them are
    kept in half precision until the projected ones have been taken, one by one.
    """
    kept = [feature.half() for feature in features]
    projected = pca.Projected(extractor, *pca.fit(kept, masks, components))
    return projected, (F.normalize(projected.project(feature[None].float())[0], dim=0) for feature in kept)


def with_basis(
    extractor: Extractor, arrays: dict[str, np.ndarray], path: Path | str, needed: bool = False
) -> Extractor:
    """`extractor` in the basis that `arrays` of the features file `path` hold, or `extractor` itself if none.

    InputError if a basis is `needed` and there is none, or if only half of it is there.
    """
    if len(arrays) != 2 and (arrays or needed):
        raise InputError(
            f"{path}: holds no {'whole ' if arrays else ''}basis",
            "make one with `shic features views.h5 --pca 256`",
        )
    return pca.Projected(extractor, arrays["pca_mean"], arrays["pca_basis"]) if arrays else extractor
