"""Features of photos and of views: one crop, one extractor call, unit vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from shic_cli import registry
from shic_cli.config import FeatureConfig
from shic_cli.errors import Failures, InputError
from shic_cli.images import Crop, ImageFile, MaskSource, Photo, encode, listing
from shic_cli.progress import Track, plain_track
from shic_cli.render import Views
from shic_cli.schema import ItemWriter


def make_extractor(name: str, device: torch.device, weights: Path | None = None) -> Any:
    """The extractor `name`, `name:argument,option=value` or `auto`, on `device`; `weights` is a folder to look for weights in first."""
    return registry.make("extractors", name, device=device, weights=weights)


def cut(photo: Photo, side: int) -> tuple[Crop, torch.Tensor, torch.Tensor]:
    """The crop around the photo's mask, the picture in it `(3, S, S)` in 0..1 and the mask `(1, S, S)` in 0..1."""
    crop = Crop.around(photo.mask)
    image = torch.from_numpy(crop.cut(photo.rgb, side)).permute(2, 0, 1).float() / 255
    return crop, image, torch.from_numpy(crop.cut(photo.mask, side))[None]


def photo_features(extractor: Any, photo: Photo) -> tuple[torch.Tensor, Crop]:
    """Unit features `(D, h, w)` of the crop around the photo's mask, and that crop."""
    crop, image, mask = cut(photo, extractor.side)
    return F.normalize(extractor(image[None], mask[None])[0].float(), dim=0), crop


def view_features(extractor: Any, views: Views, batch: int = 8) -> torch.Tensor:
    """Unit features `(N, D, h, w)` of rendered views, resampled to the extractor's side where they differ."""
    out = []
    for image, mask in zip(views.image.split(batch), views.mask.split(batch), strict=True):
        pictures, masks = image.permute(0, 3, 1, 2).float() / 255, mask[:, None].float()
        if pictures.shape[-1] != extractor.side:
            pictures, masks = (F.interpolate(x, (extractor.side,) * 2, mode="bilinear", antialias=True) for x in (pictures, masks))
        out.append(F.normalize(extractor(pictures, masks).float(), dim=1))
    return torch.cat(out)


def _writer(path: Path, extractor: Any, config: FeatureConfig, template: str, sources: dict[str, Any], overwrite: bool) -> ItemWriter:
    attrs = {"extractor": extractor.name, "fingerprint": extractor.fingerprint, "template": template}
    params = {**config.params(), "extractor": extractor.settings}
    return ItemWriter(path, "shic/features", params=params, sources=sources, attrs=attrs, overwrite=overwrite)


def write_photo_features(
    images: list[ImageFile],
    masks: MaskSource,
    path: Path,
    config: FeatureConfig,
    device: torch.device,
    *,
    weights: Path | None = None,
    overwrite: bool = False,
    track: Track = plain_track,
) -> None:
    """Write the features file of photos. An image that fails is left out and named; PartialError at the end says how many."""
    extractor, failures = make_extractor(config.extractor, device, weights), Failures()
    with _writer(path, extractor, config, "", {"images": listing(images)}, overwrite) as writer:
        for image in track(images, len(images), "features"):
            if image.name in writer:
                continue
            with failures.catch(image.name):
                photo = masks.read(image)
                feature, crop = photo_features(extractor, photo)
                writer.add(image.name, **_item(feature, photo.mask, crop, photo.data))
        failures.check(len(images))
    failures.report(len(images))


def write_view_features(
    views: Views,
    path: Path,
    config: FeatureConfig,
    device: torch.device,
    *,
    sources: dict[str, Any],
    weights: Path | None = None,
    overwrite: bool = False,
) -> None:
    """Write the features file of rendered views, an item a view, named by its number."""
    extractor = make_extractor(config.extractor, device, weights)
    features = view_features(extractor, views, config.batch)
    with _writer(path, extractor, config, views.template, sources, overwrite) as writer:
        for i, feature in enumerate(features):
            picture, mask = views.image[i].cpu().numpy(), views.mask[i].cpu().numpy()
            writer.add(f"{i:04d}", **_item(feature, mask, Crop(0, 0, mask.shape[0]), np.frombuffer(encode(picture), np.uint8)))


def _item(feature: torch.Tensor, mask: np.ndarray, crop: Crop, data: bytes | np.ndarray) -> dict[str, np.ndarray]:
    if not torch.isfinite(feature).all():
        raise InputError("its features are not finite", "the extractor or its weights are broken")
    encoded = np.frombuffer(data, np.uint8)
    return {"feature": feature.cpu().numpy(), "mask": mask, "crop": np.array([crop.top, crop.left, crop.side]), "encoded": encoded}
