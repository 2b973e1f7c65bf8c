"""PCK of several targets for one table: maps files, models, other programs' answers and baselines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shic_cli.base.errors import SettingError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.result_settings import PckConfig
from shic_cli.base.settings import MasksConfig
from shic_cli.evaluation import pck
from shic_cli.evaluation.baselines import make_pixels
from shic_cli.evaluation.external import GivenPairs
from shic_cli.files.items import ItemReader
from shic_cli.files.keypoints import Pair
from shic_cli.files.photo_lists import ImageFile, list_images
from shic_cli.learning.model_file import find_surface
from shic_cli.parts.maskers.make import make_masks
from shic_cli.stages.match import Side
from shic_cli.stages.predict import Predictor, mask_source


@dataclass(frozen=True)
class Photos:
    """The annotated photos: their folder `images`, how masks are found, and the masker with its class."""

    images: str | None
    masks: MasksConfig
    masker: str = "auto"
    class_name: str = ""

    def files(self, reason: str) -> list[ImageFile]:
        """The photos; SettingError with the `reason` why they are needed if no folder was given."""
        if self.images is None:
            raise SettingError(reason, "name the folder of the photos with --images")
        return list_images([self.images])


@dataclass(frozen=True)
class TargetScorer:
    """Scores targets at the keypoints of `pairs`.

    `template` is the surface of maps files, None for the one in this folder; `weights` is the user's folder
    of weights.
    """

    pairs: Sequence[Pair]
    photos: Photos
    config: PckConfig
    device: torch.device
    template: Path | None = None
    weights: Path | None = None
    seed: int = 0
    track: Track = plain_track

    def score(self, targets: dict[str, Path], baselines: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
        """The figures of `pck.score` for each row of the table: targets in their order, then `baselines`.

        A target has one row for each of its ways, `template` or `embedding`.
        """
        rows = {
            name: (path, via)
            for label, path in targets.items()
            for name, via in ways(label, path, self.config.via).items()
        }
        transfers: dict[str, pck.Transfer] = {
            name: GivenPairs(path) for name, (path, via) in rows.items() if not via
        }
        masks: dict[str, np.ndarray] = {}
        results, said = {}, set()
        for name, (path, via) in rows.items():
            if via:
                config = replace(self.config, via=via)
                sides = self._sides(path, config)
                masks |= {photo: side.mask for photo, side in sides.items()}
                results[name] = pck.pck(self.pairs, sides, config, self.seed, self.track, said)
        transfers |= {name: make_pixels(name, masks, self.seed) for name in baselines}
        if transfers and not masks:
            masks |= self._masks()
        for name, transfer in transfers.items():
            results[name] = pck.score(self.pairs, transfer, masks, self.config, self.seed, self.track, said)
        return {name: results[name] for name in (*rows, *baselines)}

    def _sides(self, target: Path, config: PckConfig) -> dict[str, Side]:
        """The photos as a maps file or a model shows them, by name."""
        if target.suffix != ".safetensors":
            for option, usual in (("via", "template"), ("target", "surface")):
                if (value := getattr(config, option)) != usual:
                    raise SettingError(
                        f"--{option} {value}: {target} is a maps file, which holds no embeddings",
                        f"give a model, or --{option} {usual}",
                    )
            surface, maps = find_surface(self.template), ItemReader(target, "shic/maps")
            return pck.sides_of_maps(self.pairs, maps, surface, config.protocol, self.track)
        images = self.photos.files("a model is scored on photos, and none are named")
        predictor = Predictor(target, self.device, weights=self.weights)
        photos = self.photos
        masks = mask_source(predictor, photos.masks, photos.masker, self.weights, photos.class_name)
        return pck.sides_of_model(self.pairs, images, masks, predictor, config, self.track)

    def _masks(self) -> dict[str, np.ndarray]:
        """The photos' masks by name."""
        images = self.photos.files(
            "the sizes and masks of the photos are needed, and no maps file holds them"
        )
        photos = self.photos
        source = make_masks(photos.masks, photos.masker, self.device, self.weights, photos.class_name)
        return pck.masks_of_images(self.pairs, images, source, self.track)


def ways(label: str, path: Path, via: str) -> dict[str, str]:
    """The rows of a target by name, each with its way: `template`, `embedding`, or "" for a .csv of answers.

    A maps file has no embeddings, so `both` gives it one row.
    """
    if path.suffix == ".csv":
        return {label: ""}
    if via != "both":
        return {label: via}
    both = ("template", "embedding") if path.suffix == ".safetensors" else ("template",)
    return {f"{label} via {way}": way for way in both}
