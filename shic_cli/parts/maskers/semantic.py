"""Semantic segmentation: any checkpoint of the transformers library that gives every pixel a label, one of
which is the class.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from shic_cli.base.errors import InputError, MissingError, SettingError, ShicError
from shic_cli.files.class_names import find_label, joined
from shic_cli.parts.maskers.contract import Found, pieces
from shic_cli.parts.weights import AGAIN, load, locate

GAP = 0.02  # of the photo's longer side: an object that a pole or a rope cuts in two stays one
BACKGROUND = {"background", "unlabeled", "other"}


class Semantic:
    """The pieces of a photo that have the label of a class, with the mean probability of that label as their
    score.

    `label` names a label of the checkpoint, or its number, in place of the class's name. `side` is the longer
    side of what the network gets, in pixels; 0 leaves it to the checkpoint's image processor. A label map
    does not tell two objects that touch. Where it has a background, pieces that another thing joins, as a
    rider does the halves of a horse, are one object.
    """

    name = "semantic"

    def __init__(
        self, argument: str = "", *, device: torch.device | str = "cpu", weights: Path | None = None, class_name: str = "",
        label: str = "", side: int = 0,
    ) -> None:  # fmt: skip
        if not argument:
            raise SettingError(
                f"{self.name}: names no model", f"write {self.name}:FOLDER or {self.name}:OWNER/NAME"
            )
        from transformers import AutoModelForSemanticSegmentation

        self.device, self.side = torch.device(device), side
        folder = locate(argument, weights)
        self._model = load(AutoModelForSemanticSegmentation, folder, device=self.device)
        self._prepare = _processor(folder)
        labels = self._model.config.id2label
        self.label = find_label(label or class_name, labels, str(folder))
        backgrounds = [
            number for number, each in labels.items() if joined(each) & BACKGROUND and number != self.label
        ]
        self.background = backgrounds[0] if backgrounds else None

    @classmethod
    def check_class(cls, argument: str, weights: Path | None, class_name: str) -> None:
        """SettingError that lists the checkpoint's labels when none is `class_name`; read from its
        config.json alone. What is wrong with the checkpoint itself is told when it is loaded.
        """
        try:
            folder = locate(argument, weights)
            labels = json.loads((folder / "config.json").read_bytes())["id2label"]
            numbered = {int(number): str(name) for number, name in labels.items()}
        except (ShicError, OSError, ValueError, TypeError, KeyError, AttributeError):
            return
        find_label(class_name, numbered, str(folder))

    @torch.no_grad()
    def __call__(self, rgb: np.ndarray) -> list[Found]:
        """The objects in `rgb` `(H, W, 3)` uint8."""
        small = Image.fromarray(rgb)
        if self.side and max(small.size) > self.side:
            small.thumbnail((self.side, self.side), Image.Resampling.BILINEAR)
        logits = self._model(self._prepare(small).to(self.device)).logits[0].float()
        if not torch.isfinite(logits).all():
            raise InputError(f"{self.name}: its answer is not finite", "its weights are broken")
        # A label's lead over the best other one is a single channel: 150 labels at a photo's size would take
        # gigabytes.
        channels = [_lead(logits, self.label), logits.softmax(0)[self.label]]
        channels += [_lead(logits, self.background)] if self.background is not None else []
        maps = (
            F.interpolate(torch.stack(channels)[None], rgb.shape[:2], mode="bilinear", align_corners=False)[0]
            .cpu()
            .numpy()
        )
        bridge = maps[2] < 0 if self.background is not None else None
        found = pieces(maps[0] > 0, round(GAP * max(rgb.shape[:2])), bridge)
        return [Found(piece, float(maps[1][piece].mean())) for piece in found]


def _lead(logits: torch.Tensor, label: int) -> torch.Tensor:
    """How far a label is ahead of the best other one, `(h, w)`, of `logits` `(L, h, w)`."""
    return logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).amax(0)


def _processor(folder: Path) -> Callable[[Image.Image], torch.Tensor]:
    """What turns a picture into the network's input `(1, 3, h, w)`, by the checkpoint's own settings, of the
    whole picture.
    """
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, backend="pil"
        )
    except ImportError as error:
        raise MissingError(
            f"{folder}: its image processor needs a package that is not here ({_line(error)})", "install it"
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{folder}: its preprocessor_config.json can't be used ({_line(error)})", AGAIN
        ) from error
    options = {"return_tensors": "pt"} | (
        {"do_center_crop": False} if getattr(processor, "do_center_crop", False) else {}
    )
    return lambda picture: processor(images=picture, **options)["pixel_values"]


def _line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(" .:") or type(error).__name__
