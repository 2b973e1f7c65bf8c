"""Predict a vertex of the template for every object pixel of an image, by the trained map (Eq. 3)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from shic_cli.base.devices import Fitting, to_host
from shic_cli.base.errors import Failures, InputError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import MasksConfig, PredictConfig
from shic_cli.files.items import ItemWriter, packed
from shic_cli.files.mask_sources import MaskSource, Photo
from shic_cli.files.photo_lists import ImageFile, listing
from shic_cli.files.photos import Crop
from shic_cli.files.shards import WHOLE, Part
from shic_cli.learning.coarse_to_fine import ACROSS, medians
from shic_cli.learning.encode import cut, decoder_input, each_result, processes
from shic_cli.learning.model_file import Saved, load_model, require
from shic_cli.learning.similarity import peak, sample
from shic_cli.parts.extractors.carried import Carried
from shic_cli.parts.extractors.contract import Extractor
from shic_cli.parts.extractors.guided import Guided
from shic_cli.parts.extractors.make import make_extractor
from shic_cli.parts.maskers.make import make_masker
from shic_cli.parts.weights import model_path
from shic_cli.surface.geodesic_median import Median

if TYPE_CHECKING:
    from shic_cli.stages.prediction_pictures import Pictures

log = logging.getLogger("shic")

# Pixels compared with all vertices at a time. A CPU is twice as fast if they fit its cache.
CHUNK = {"cpu": 256, "cuda": 8192, "mps": 8192}
STEPS = 8  # an uncertainty is kept to 1/8, which a float16 holds exactly up to 228 and which packs well
FIRST = 5  # photos that are named to be looked at first


class Prediction(NamedTuple):
    """The map of a photo, with 0 off the mask, and -1 for vertices: `vertex` i4 `(H, W)`, its probability
    `score` f4 `(H, W)`, and `uncertainty` f4 `(H, W)`.

    The uncertainty is the expected distance along the surface to the vertex under the pixel's probabilities;
    the largest distance is 228.
    """

    vertex: np.ndarray
    score: np.ndarray
    uncertainty: np.ndarray

    @property
    def doubt(self) -> float:
        """The mean uncertainty of the object's pixels."""
        return float(self.uncertainty[self.vertex >= 0].mean())


@dataclass(frozen=True)
class Embedded:
    """The embeddings of a photo over its `crop`.

    `grid` is `(D, h, w)`. `foreground` holds logits `(h, w)` or is None.
    """

    grid: torch.Tensor
    foreground: torch.Tensor | None
    crop: Crop

    def at(self, yx: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Return the embeddings `(P, D)` at photo positions `yx` `(P, 2)`, bilinear between cells."""
        return _sample(self.grid, self.crop, yx)

    def is_foreground(self, yx: torch.Tensor | np.ndarray) -> torch.Tensor:
        """Return whether each position `(P, 2)` is on the object, `(P,)` bool, by the foreground output."""
        if self.foreground is None:
            raise ValueError("this encoder has no foreground output")
        return _sample(self.foreground[None], self.crop, yx)[:, 0] > 0


def _mirrored(photo: Photo) -> Photo:
    """Return the photo mirrored left to right."""
    return replace(
        photo, rgb=np.ascontiguousarray(photo.rgb[:, ::-1]), mask=np.ascontiguousarray(photo.mask[:, ::-1])
    )


def _sample(maps: torch.Tensor, crop: Crop, yx: torch.Tensor | np.ndarray) -> torch.Tensor:
    size = maps.shape[-1]
    inside = torch.as_tensor(crop.to_crop(np.asarray(yx, np.float64), size), dtype=torch.float32)
    return sample(maps[None], inside[None].to(maps.device), size)[0]


class Predictor:
    """A predictor is a trained model that is ready for photos.

    It has `surface`, `vertex_embeddings` `(K, D)`, `needs_mask`, and `template`, the template's fingerprint.
    The path may be a repository of the hub that was pulled, OWNER/NAME; `path` is then the file in it.
    `saved` is a model that was read already.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device,
        config: PredictConfig | None = None,
        weights: Path | None = None,
        saved: Saved | None = None,
    ) -> None:
        if saved is None:
            path = model_path(path, weights)
            saved = load_model(path, device)
        self.path = path
        require(saved.meta, {"encoder": dict, "encoder_fingerprint": str, "template": str}, path)
        self.map, self.surface, self.meta = saved.map, saved.surface, saved.meta
        self.device, self.config = device, config or PredictConfig()
        self.encoder = self._make_encoder(path, saved.encoder, weights)
        if self.encoder.fingerprint != self.meta["encoder_fingerprint"]:
            raise InputError(
                f"{path}: was trained on an encoder with other weights or settings ({self.encoder.name})",
                "use the weights that it was trained with, or train again",
            )
        self.needs_mask: bool = self.encoder.needs_mask or self.map.decoder.foreground is None
        self.template: str = self.meta["template"]
        masking = self.meta.get("masking")
        self.masking: dict[str, str] = masking if isinstance(masking, dict) else {}
        with torch.no_grad():
            self.vertex_embeddings = self.map.vertex_embeddings()
        params = self.meta.get("params")
        params = params if isinstance(params, dict) else {}
        self.raw = params.get("tokens") == "raw"
        is_unet = self.meta["decoder"] == "unet"
        # A guided U-Net sees no mirrored copies, but its synthetic pictures show both sides of the object.
        knows_mirrored = params.get("mirror") == "on" or isinstance(self.encoder, Guided)
        self.flip = knows_mirrored if self.config.flip == "auto" else self.config.flip == "on"
        self.median = is_unet if self.config.estimate == "auto" else self.config.estimate == "median"
        on_grid = device.type == "cpu" if self.config.compare == "auto" else self.config.compare == "grid"
        self.on_grid = self.median and on_grid

    def _make_encoder(
        self, path: Path, carried: dict[str, torch.Tensor] | None, weights: Path | None
    ) -> Extractor:
        """Return the encoder of the model.

        It is made of the tensors that the model file carries. If the file carries none, it is the extractor
        that the file names.
        """
        if carried is None:
            require(self.meta["encoder"], {"name": str}, path)
            return make_extractor(self.meta["encoder"]["name"], self.device, weights)
        config = self.meta["encoder"].get("config")
        if not isinstance(config, dict):
            raise InputError(
                f"{path}: carries an encoder, but not its settings", "make it again with `shic models import`"
            )
        return Carried(config, carried, self.device)

    @cached_property
    def medians(self) -> Median:
        """Return the object that finds geodesic medians on the surface."""
        return Median.of(self.surface.verts, self.surface.faces, self.device)

    def ready(self) -> Predictor:
        """Return the predictor with what it needs for photos, so that copies of it need not make it."""
        if self.median:
            _ = self.medians
        return self

    @cached_property
    def fitting(self) -> Fitting:
        """Return the object that sets how many pixels are compared with all vertices at a time."""
        return Fitting("comparing pixels with vertices", CHUNK[self.device.type])

    def embed(self, photo: Photo) -> Embedded:
        """Return the embeddings of the crop around the photo's mask."""
        return self.embed_all([photo])[0]

    @torch.no_grad()
    def embed_all(self, photos: Sequence[Photo]) -> list[Embedded]:
        """Return the embeddings of each photo, as `embed` does, with one call of the encoder."""
        side, pillow = self.encoder.side, self.encoder.pillow
        crops, images, masks = zip(*(cut(photo, side, pillow) for photo in photos), strict=True)
        grids, foreground = self.map.embed(
            decoder_input(self.encoder, torch.stack(images), torch.stack(masks), self.raw)
        )
        return [
            Embedded(grids[i], None if foreground is None else foreground[i], crop)
            for i, crop in enumerate(crops)
        ]

    def predict(self, photo: Photo) -> Prediction:
        """Return the vertex, the probability and the uncertainty of every pixel."""
        return self.predict_all([photo])[0]

    def predict_all(self, photos: Sequence[Photo]) -> list[Prediction]:
        """Return the maps of each photo, as `predict` does, with one call of the encoder.

        With `flip` there are two calls.
        """
        found = [
            self.embed_all(photos),
            *([self.embed_all([_mirrored(photo) for photo in photos])] if self.flip else []),
        ]
        return [self._map(photo, *embedded) for photo, *embedded in zip(photos, *found, strict=True)]

    def _map(self, photo: Photo, embedded: Embedded, mirrored: Embedded | None = None) -> Prediction:
        """Return the map of a photo from its embeddings and those of its mirror image."""
        pixels = np.argwhere(photo.mask)
        points, places, point_of_pixel = self._thin(pixels, embedded.crop)
        found = [embedded.at(points)]
        if mirrored is not None:
            found.append(mirrored.at(points * [1, -1] + [0, photo.mask.shape[1] - 1]))
        side = round(min(embedded.crop.side, self.config.side) / ACROSS)
        shape = photo.mask.shape
        maps = Prediction(
            np.full(shape, -1, np.int32), np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        )
        for whole, values in zip(maps, self._estimate(torch.stack(found, 1), places, side), strict=True):
            whole[tuple(pixels.T)] = values[point_of_pixel]
        return maps

    def _thin(self, pixels: np.ndarray, crop: Crop) -> tuple[np.ndarray, np.ndarray, np.ndarray | slice]:
        """Return the positions to compare, their whole coordinates, and the position of each pixel.

        The positions are all pixels, unless the crop is larger than `side`; then they are cells of a grid.
        """
        if crop.side <= self.config.side:
            return pixels, pixels, slice(None)
        step = crop.side / self.config.side
        rows, columns = (pixels // step).astype(np.int64).T
        width = columns.max() + 1
        numbers, cell_of_pixel = np.unique(rows * width + columns, return_inverse=True)
        cells = np.stack([numbers // width, numbers % width], 1)
        return (cells + 0.5) * step - 0.5, cells, cell_of_pixel.ravel()

    @torch.no_grad()
    def _estimate(
        self, pixels: torch.Tensor, places: np.ndarray, side: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the vertex `(P,)` of each pixel, its probability `(P,)` and its uncertainty `(P,)`.

        `pixels` `(P, N, D)` are the embeddings of the photo and of its mirror image, and `places` `(P, 2)`
        are whole coordinates. Blocks of `side` pixels are used if the predictor is `on_grid`.
        """
        tables = [self.vertex_embeddings]
        if self.flip:
            tables.append(
                self.vertex_embeddings[torch.from_numpy(self.surface.mirror).long().to(self.device)]
            )

        def work(chunk: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            share = (chunk[:, 0] @ tables[0].T).softmax(1)
            for i, table in enumerate(tables[1:], 1):
                share = share.mul_(i / (i + 1)).add_((chunk[:, i] @ table.T).softmax(1), alpha=1 / (i + 1))
            cells = self.medians.cells(share)
            vertex = self.medians(share, cells) if self.median else peak(share)[1]
            return vertex, share.gather(1, vertex[:, None])[:, 0], self.medians.expected(cells, vertex)

        if self.on_grid and side > 1:
            best = medians(pixels, tables, places, side, self.medians, self.fitting.each)
        else:
            best = map(torch.cat, zip(*self.fitting.each(work, pixels), strict=True))
        vertex, score, expected = to_host(*best)
        return vertex, score, np.round(expected * STEPS) / STEPS

    def find_mask(self, rgb: np.ndarray) -> np.ndarray:
        """Return the object's mask `(H, W)` by the model's own foreground output.

        The model looks at the whole picture first, and then at the crop around the mask that it found.
        """
        mask = np.ones(rgb.shape[:2], bool)
        for _ in range(2):
            embedded = self.embed(Photo("", b"", rgb, mask))
            pixels = np.stack(np.meshgrid(*map(np.arange, rgb.shape[:2]), indexing="ij"), -1).reshape(-1, 2)
            mask = embedded.is_foreground(pixels).cpu().numpy().reshape(rgb.shape[:2])
            if not mask.any():
                break
        return mask


def mask_source(
    predictor: Predictor, config: MasksConfig, masker: str, weights: Path | None = None, class_name: str = ""
) -> MaskSource:
    """Return the source of the masks for a prediction.

    If the user named a masker, it masks the photos without a mask. Otherwise the model does it if it can. If
    it can't, the masker of the training photos does it.
    """
    learnt, note = predictor.masking, ""
    class_name = class_name or learnt.get("class", "")
    if masker in ("auto", "none") and not predictor.needs_mask:
        return MaskSource(config, predictor.find_mask, class_name)
    if masker == "auto" and (known := learnt.get("masker")):
        note = (
            f"photos without a mask: {known}{class_name and f' for {class_name}'}, the masker of the training"
        )
        masker = known
    return MaskSource(config, make_masker(masker, predictor.device, weights, class_name), class_name, note)


class Done(NamedTuple):
    """What the prediction of a photo gives: its record in the maps file, its pictures by kind, its doubt."""

    name: str
    record: bytes
    drawn: dict[str, bytes]
    doubt: float


def _done(predictor: Predictor, pictures: Pictures | None, photos: Sequence[Photo]) -> list[Done]:
    """What the prediction of each photo gives."""
    results = []
    for photo, found in zip(photos, predictor.predict_all(photos), strict=True):
        drawn = {} if pictures is None else pictures.draw(photo.rgb, found)
        record = packed("shic/maps", photo.name, {**photo.kept, **found._asdict()})
        results.append(Done(photo.name, record, drawn, found.doubt))
    return results


def predict(
    predictor: Predictor,
    images: Sequence[ImageFile],
    masks: MaskSource,
    path: Path,
    *,
    sources: dict[str, Any],
    overwrite: bool = False,
    pictures: Pictures | None = None,
    track: Track = plain_track,
    part: Part = WHOLE,
    workers: int | None = 1,
) -> None:
    """Write the maps file (labels `predicted`) of images, or a `part` of it, and the `pictures` of each map.

    An image that fails is left out and named. PartialError at the end says how many images failed. InputError
    if the pictures would lie among the images. Of several images, those with the largest doubt are named. On
    a CPU so many processes as `workers` predict, or as many as pay if it is None, if the encoder is small;
    this makes no difference to the files.
    """
    if pictures is not None:
        pictures.check(images)
    failures, doubts = Failures(len(images)), {}
    attrs = {"labels": "predicted", "template": predictor.template}
    given = {**sources, "images": listing(images)}
    params, mine = {**predictor.config.params(), **masks.settings}, part.of(images)
    with ItemWriter(
        path, "shic/maps", params=params, sources=given, attrs=attrs, overwrite=overwrite, part=part
    ) as writer:
        left = [image for image in mine if image.name not in writer]
        masks.prepare(left)
        work = partial(_done, predictor.ready(), pictures)
        with processes(workers, left, len(images), predictor.encoder, masks, part) as number:
            found = each_result(left, masks, work, predictor.device, failures, number)
            for done in filter(None, track(found, len(left), "predict")):
                with failures.catch(done.name):
                    if pictures is not None:
                        pictures.write(done.name, done.drawn)
                    writer.keep(done.name, done.record)
                    doubts[done.name] = done.doubt
        failures.check(len(images))
    if len(doubts) > FIRST:
        unsure = sorted(doubts, key=lambda name: -doubts[name])[:FIRST]
        named = ", ".join(f"{name} ({doubts[name]:.1f})" for name in unsure)
        log.info("look at these first, by mean uncertainty: %s", named)
    writer.end(failures, len(images))
