"""Grounding DINO finds boxes around what a name says, and SAM cuts out the object in each: for any class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from shic_cli.base.errors import InputError, SettingError
from shic_cli.parts.checkpoints import AGAIN, load
from shic_cli.parts.extractors.pretrained import number_format
from shic_cli.parts.maskers.contract import Found, MaskerDefaults
from shic_cli.parts.weights import BUNDLES, locate

DETECTORS = ("grounding-dino", "mm-grounding-dino")
PADDED = ("sam", "sam_hq")  # they get the photo in its shape, in a black square; later ones get it squeezed
SEGMENTERS = (*PADDED, "sam2", "sam2_video", "sam3_tracker", "sam3_video")
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALVES = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # the mean and the standard deviation that SAM 3 wants
LONGEST = 1333 / 800  # the longer side of what Grounding DINO gets, in shorter sides, at most
LEAST = 96  # pixels a side: below it the coarsest grid of the detector is a single cell, and it fails
MOST = 20  # boxes that are kept of a photo, the best
SAME = 0.7  # IoU: masks that overlap by more than this are of one object


class GroundedSam(MaskerDefaults):
    """Finds the objects of the class `class_name` in a photo, with the scores of the detector.

    The argument is the detector, Grounding DINO or MM Grounding DINO. `segmenter` is SAM, SAM-HQ, SAM 2 or
    the tracker of SAM 3. Each is a name of `shic models list`, a folder or OWNER/NAME. `threshold` is the
    least score of a box, and `prompt` what to look for in place of the class's name. `side` is the shorter
    side, in pixels, of what the detector gets.
    """

    name = "grounded-sam"
    packages: tuple[str, ...] = ("transformers",)
    needs_class = True

    def __init__(
        self,
        argument: str = "",
        *,
        device: torch.device | str = "cpu",
        weights: Path | None = None,
        class_name: str = "",
        segmenter: str = "sam-base",
        prompt: str = "",
        threshold: float = 0.3,
        side: int = 800,
        precision: str = "float32",
    ) -> None:
        if not 0 < threshold < 1 or side < LEAST:
            raise SettingError(
                f"{self.name}: threshold={threshold} or side={side} is out of range",
                f"give 0 to 1, and {LEAST} pixels or more",
            )
        self.device, self.threshold = torch.device(device), threshold
        dtype = number_format(self.name, precision, self.device, torch.float32)
        folders = [locate(argument or "grounding-dino-tiny", weights), locate(segmenter, weights)]
        self.detector = Detector(folders[0], prompt or class_name, side, self.device)
        self.segmenter = Segmenter(folders[1], self.device, dtype)

    @classmethod
    def check(cls, weights: Path | None = None) -> None:
        """MissingError when its default models are not on this machine."""
        for name in BUNDLES[cls.name]:
            locate(name, weights)

    def __call__(self, rgb: np.ndarray) -> list[Found]:
        """The objects in `rgb` `(H, W, 3)` uint8, the surest first."""
        boxes, scores = self.detector(rgb, self.threshold)
        objects: list[Found] = []
        for mask, score in zip(self.segmenter(rgb, boxes), scores.tolist(), strict=True):
            if mask.any() and not any(_overlap(mask, other.mask) > SAME for other in objects):
                objects.append(Found(mask, score))
        return objects


class Detector:
    """Finds boxes around what `prompt` says, with the Grounding DINO in `folder`.

    It runs in float32: its deformable attention has no other format.
    """

    def __init__(self, folder: Path, prompt: str, side: int, device: torch.device) -> None:
        from transformers import AutoModelForZeroShotObjectDetection, AutoTokenizer

        self._model = load(AutoModelForZeroShotObjectDetection, folder, device=device)
        _check_kind(self._model, folder, DETECTORS, "a detector like Grounding DINO")
        self.side, self.device = side, device
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(f"{folder}: its tokenizer can't be loaded", AGAIN) from error
        text = prompt.strip().lower().rstrip(".")
        # The model was trained on phrases that end in a full stop.
        self._text = dict(tokenizer(f"{text}.", return_tensors="pt").to(device))

    @torch.no_grad()
    def __call__(self, rgb: np.ndarray, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Boxes `(n, 4)` in `rgb` `(H, W, 3)` uint8 and their scores `(n,)` above `threshold`, best first.

        A box is x0, y0, x1, y1 in pixels.
        """
        height, width = rgb.shape[:2]
        scale = min(self.side / min(height, width), int(LONGEST * self.side) / max(height, width))
        size = (max(1, round(height * scale)), max(1, round(width * scale)))
        pixels = _normalised(rgb, size, IMAGENET, self.device)
        out = self._model(
            pixel_values=pixels,
            pixel_mask=torch.ones(1, *size, dtype=torch.long, device=self.device),
            **self._text,
        )
        scores = out.logits[0].float().sigmoid().amax(-1)
        if not torch.isfinite(scores).all():
            raise InputError(
                f"{GroundedSam.name}: the detector's answer is not finite", "its weights are broken"
            )
        order = scores.argsort(descending=True, stable=True)[:MOST]
        order = order[scores[order] > threshold]
        centre, span = out.pred_boxes[0, order].float().split(2, -1)
        corners = torch.cat([centre - span / 2, centre + span / 2], -1).clamp(0, 1)
        return corners * corners.new_tensor([width, height, width, height]), scores[order]


class Segmenter:
    """Cuts out the object in each box, with the model of the SAM family in `folder`."""

    def __init__(self, folder: Path, device: torch.device, dtype: torch.dtype) -> None:
        from transformers import AutoModelForMaskGeneration

        self._model = load(AutoModelForMaskGeneration, folder, dtype=dtype, device=device)
        _check_kind(self._model, folder, SEGMENTERS, "a model of the SAM family")
        self.device, self.dtype = device, dtype
        self.side = int(self._model.config.prompt_encoder_config.image_size)
        self.padded = self._model.config.model_type in PADDED
        self.statistics = HALVES if self._model.config.model_type.startswith("sam3") else IMAGENET

    @torch.no_grad()
    def __call__(self, rgb: np.ndarray, boxes: torch.Tensor) -> list[np.ndarray]:
        """The mask bool `(H, W)` of the object in each of `boxes` `(n, 4)` in `rgb` `(H, W, 3)` uint8."""
        if not len(boxes):
            return []
        height, width = rgb.shape[:2]
        size = (self.side, self.side)
        if self.padded:
            longest = max(height, width)
            size = (max(1, round(height * self.side / longest)), max(1, round(width * self.side / longest)))
        pixels = _normalised(rgb, size, self.statistics, self.device)
        pixels = F.pad(pixels, (0, self.side - size[1], 0, self.side - size[0]))
        inside = boxes * boxes.new_tensor([size[1] / width, size[0] / height] * 2)
        out = self._model(
            pixel_values=pixels.to(self.dtype),
            input_boxes=inside[None].to(self.dtype),
            multimask_output=False,
        )
        masks = []
        for logits in out.pred_masks[0].float():  # one at a time: at the size of a photo they are large
            logits = logits[None, :1]
            if self.padded:
                logits = F.interpolate(logits, (self.side, self.side), mode="bilinear", align_corners=False)
                logits = logits[..., : size[0], : size[1]]
            logits = F.interpolate(logits, (height, width), mode="bilinear", align_corners=False)
            masks.append((logits[0, 0] > 0).cpu().numpy())
        return masks


def _check_kind(model: Any, folder: Path, kinds: tuple[str, ...], wanted: str) -> None:
    if model.config.model_type not in kinds:
        raise InputError(
            f"{folder}: is a model of type {model.config.model_type}, not {wanted}",
            f"known types: {', '.join(kinds)}",
        )


def _normalised(
    rgb: np.ndarray, size: tuple[int, int], statistics: tuple, device: torch.device
) -> torch.Tensor:
    """`rgb` `(H, W, 3)` uint8 resampled to `size`, as f4 `(1, 3, h, w)` with mean 0 and deviation 1.

    `statistics` are the mean and the standard deviation of each channel in 0..1.
    """
    pixels = torch.tensor(rgb, device=device).permute(2, 0, 1)[None].float() / 255
    pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    mean, deviation = (pixels.new_tensor(values)[:, None, None] for values in statistics)
    return (pixels - mean) / deviation


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks `(H, W)` bool, not both empty."""
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)
