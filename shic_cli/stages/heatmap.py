"""The pictures of Figs. 3 and 10: a pixel of a photo, and its similarity to the views and the template."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from shic_cli.base.errors import InputError, SettingError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.recipes import by_recipe
from shic_cli.base.settings import MasksConfig, PseudoGtConfig
from shic_cli.files.atomic import atomic
from shic_cli.files.layouts import Template
from shic_cli.files.mask_sources import MaskSource, NoMaskError, Photo
from shic_cli.files.photo_lists import ImageFile
from shic_cli.files.photos import decode, encode
from shic_cli.files.pictures import dot, fit_height, heat_colors
from shic_cli.learning.encode import photo_features, view_features
from shic_cli.learning.similarity import best_vertices, pool_similarities, sample
from shic_cli.learning.views import Views, interpolate, vertex_positions
from shic_cli.parts import registry
from shic_cli.parts.extractors.contract import Extractor
from shic_cli.parts.extractors.make import make_extractor
from shic_cli.stages.predict import Predictor
from shic_cli.stages.pseudo_gt import Teacher, views_for
from shic_cli.stages.render import SHARE
from shic_cli.surface.cameras import ring

SHOWN, HEIGHT = 4, 256  # the number of views that are drawn, and their height in pixels


def parse(spec: str, images: list[ImageFile]) -> tuple[ImageFile, int, int]:
    """The image, x and y of `IMAGE:X,Y`; SettingError for another form, or a name of none of `images`."""
    name, _, position = spec.rpartition(":")
    try:
        x, y = (int(part) for part in position.split(","))
    except ValueError as error:
        raise SettingError(
            f"--heatmap {spec}: is not IMAGE:X,Y", "write, for example, --heatmap horse.jpg:120,80"
        ) from error
    for image in images:
        if name in (image.name, str(image.path), Path(image.name).name):
            return image, x, y
    raise SettingError(f"--heatmap {spec}: no image has the name {name}", f"the first is {images[0].name}")


def read_pixel(images: list[ImageFile], masks: MaskSource, spec: str) -> tuple[Photo, int, int]:
    """The photo, y and x of `spec` (`IMAGE:X,Y`); InputError if the pixel is not on the object."""
    image, x, y = parse(spec, images)
    photo = masks.read(image)
    if not (0 <= y < photo.mask.shape[0] and 0 <= x < photo.mask.shape[1] and photo.mask[y, x]):
        raise InputError(
            f"{image.name}: the pixel {x},{y} is not on the object", "choose one inside the mask"
        )
    return photo, y, x


def check_pixel(images: list[ImageFile], config: MasksConfig, spec: str) -> None:
    """InputError where the photo of `spec` and its mask file tell already that the pixel is not on the
    object, so that it is said before a model is loaded or views are rendered.
    """
    try:
        read_pixel(images, MaskSource(config), spec)
    except NoMaskError:
        image, x, y = parse(spec, images)
        height, width = decode(image.read(), image.name)[0].shape[:2]
        if not (0 <= y < height and 0 <= x < width):
            raise InputError(
                f"{image.name}: the pixel {x},{y} is not in it", f"it has {width} by {height} pixels"
            ) from None


def write_heatmap(
    template: Template,
    images: list[ImageFile],
    masks: MaskSource,
    spec: str,
    path: Path,
    config: PseudoGtConfig,
    device: torch.device,
    views: Views | None = None,
    weights: Path | None = None,
    track: Track = plain_track,
) -> None:
    """Write Fig. 3 for the pixel that `spec` (`IMAGE:X,Y`) names; InputError if it is not on the object."""
    photo, y, x = read_pixel(images, masks, spec)
    extractor = make_extractor(by_recipe(config).extractor, device, weights)
    views = views or views_for(extractor, template, config, device)
    teacher = Teacher.make(extractor, views, config, track)
    [(feature, crop)] = photo_features(teacher.extractor, [photo])
    place = torch.from_numpy(crop.to_crop(np.array([[y, x]], np.float64), teacher.extractor.side))
    query = F.normalize(sample(feature[None], place[None], teacher.extractor.side)[0], dim=1)
    sigma = pool_similarities(teacher.bank, query, **teacher.pooling)
    scores = torch.stack([similarity.max() for similarity, _ in teacher.bank.similarities(query)])
    shown = scores.topk(min(SHOWN, len(scores))).indices
    picture = _draw(
        teacher.extractor,
        views[shown.cpu()],
        torch.from_numpy(template.faces).long().to(device),
        query,
        sigma[:, 0],
    )
    _write(path, photo, y, x, picture)


def _write(path: Path, photo: Photo, y: int, x: int, picture: np.ndarray) -> None:
    """Write the photo with a dot at its pixel, and `picture` beside it."""
    photo_part = fit_height(dot(photo.rgb, (y, x), max(3, photo.rgb.shape[0] // 80)), picture.shape[0])
    with atomic(path) as partial:
        partial.write_bytes(encode(np.concatenate([photo_part, picture], 1)))


@torch.no_grad()
def write_trained_heatmap(
    predictor: Predictor, images: list[ImageFile], masks: MaskSource, spec: str, path: Path
) -> None:
    """Write Fig. 10 for the pixel that `spec` (`IMAGE:X,Y`) names: <e, E> on the template, from four sides.

    Errors are those of `read_pixel`.
    """
    photo, y, x = read_pixel(images, masks, spec)
    likeness = predictor.vertex_embeddings @ predictor.embed(photo).at(np.array([[y, x]]))[0]
    verts, faces = (
        torch.from_numpy(array).to(predictor.device)
        for array in (predictor.surface.verts, predictor.surface.faces)
    )
    faces = faces.long()
    cameras = ring(SHOWN, (15.0,), 30.0).to(predictor.device).fit(verts, SHARE)
    fragments = registry.make("renderers", "auto", device=predictor.device)(verts, faces, cameras, HEIGHT)
    values = interpolate(fragments, faces, likeness[:, None])[..., 0].cpu().numpy()
    tiles = [_heat(value, mask) for value, mask in zip(values, fragments.mask.cpu().numpy(), strict=True)]
    best = int(likeness.argmax())
    yx, visible = (
        of_views[:, best].tolist() for of_views in vertex_positions(fragments, faces, cameras, verts)
    )
    tiles = [
        dot(tile, tuple(at), 3) if seen else tile for tile, at, seen in zip(tiles, yx, visible, strict=True)
    ]
    _write(path, photo, y, x, np.concatenate(tiles, 1))


def _draw(
    extractor: Extractor, views: Views, faces: torch.Tensor, query: torch.Tensor, sigma: torch.Tensor
) -> np.ndarray:
    """Three rows of `views`: their pictures, the similarity S of their pixels, and Sigma on the surface.

    A dot marks the maximum of Sigma.
    """
    similarity = torch.stack(
        [torch.einsum("d,dhw->hw", query[0], feature) for feature in view_features(extractor, views)]
    )
    similarity = F.interpolate(similarity[:, None], views.mask.shape[-2:], mode="bilinear")[:, 0]
    seen = sigma.isfinite()
    surface = interpolate(views.fragments, faces, torch.where(seen, sigma, sigma[seen].min())[:, None])[
        ..., 0
    ]
    best = int(best_vertices(sigma[:, None])[0])
    rows = [list(views.image.cpu().numpy())]
    for values in (similarity, surface):
        rows.append(
            [
                _heat(value, mask)
                for value, mask in zip(values.cpu().numpy(), views.mask.cpu().numpy(), strict=True)
            ]
        )
    for i, visible in enumerate(views.vertex_visible[:, best].tolist()):
        if visible:
            rows[2][i] = dot(rows[2][i], tuple(views.vertex_yx[i, best].tolist()), 3)
    return np.concatenate([np.concatenate([fit_height(tile, HEIGHT) for tile in row], 1) for row in rows])


def _heat(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Colours `(H, W, 3)` of `values` inside `mask`, on white.

    The colours span the range from the 0.3 quantile to the maximum.
    """
    low, high = np.quantile(values[mask], [0.3, 1])
    return np.where(mask[..., None], heat_colors((values - low) / max(high - low, 1e-6)), 255).astype(
        np.uint8
    )
