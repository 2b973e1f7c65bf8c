"""Semantic segmentation: any checkpoint of transformers that labels every pixel and knows the class."""

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
from shic_cli.parts.checkpoints import AGAIN, first_line, load
from shic_cli.parts.maskers.contract import Found, MaskerDefaults, pieces
from shic_cli.parts.weights import locate

GAP = 0.02  # of the photo's longer side: an object stays one where a pole or a rope cuts it in two
BACKGROUND = {"background", "unlabeled", "other"}


class Semantic(MaskerDefaults):
    """Finds the pieces of a photo that have the label of a class; the score is the label's mean probability.

    `label` names a label of the checkpoint, or gives its number, in place of the class's name. `side` is the
    longer side, in pixels, of what the network gets; 0 leaves it to the checkpoint's image processor. A label
    map can't separate two objects that touch. Where the checkpoint has a label for the background, pieces
    that another thing joins are one object, as the halves of a horse under its rider.
    """

    name = "semantic"
    packages: tuple[str, ...] = ("transformers",)

    def __init__(
        self,
        argument: str = "",
        *,
        device: torch.device | str = "cpu",
        weights: Path | None = None,
        class_name: str = "",
        label: str = "",
        side: int = 0,
    ) -> None:
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
            number for number, name in labels.items() if joined(name) & BACKGROUND and number != self.label
        ]
        self.background = backgrounds[0] if backgrounds else None

    @classmethod
    def check_class(cls, argument: str, weights: Path | None, class_name: str) -> None:
        """SettingError that lists the labels in the checkpoint's config.json when none is `class_name`.

        A fault of the checkpoint itself is told when it is loaded.
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
        # Only the lead of a label over the best other one is resampled: 150 labels at the size of a photo
        # would take gigabytes.
        channels = [_lead(logits, self.label), logits.softmax(0)[self.label]]
        channels += [_lead(logits, self.background)] if self.background is not None else []
        maps = (
            F.interpolate(torch.stack(channels)[None], rgb.shape[:2], mode="bilinear", align_corners=False)[0]
            .cpu()
            .numpy()
        )
        bridge = maps[2] < 0 if self.background is not None else None
        masks = pieces(maps[0] > 0, round(GAP * max(rgb.shape[:2])), bridge)
        return [Found(mask, float(maps[1][mask].mean())) for mask in masks]


def _lead(logits: torch.Tensor, label: int) -> torch.Tensor:
    """How far `label` is ahead of the best other one, `(h, w)`, in `logits` `(L, h, w)`."""
    return logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).amax(0)


def _processor(folder: Path) -> Callable[[Image.Image], torch.Tensor]:
    """Turns a whole picture into the network's input `(1, 3, h, w)`, by the settings of the checkpoint."""
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, backend="pil"
        )
    except ImportError as error:
        raise MissingError(
            f"{folder}: its image processor needs a package that is not here ({first_line(error)})",
            "install it",
        ) from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            f"{folder}: its preprocessor_config.json can't be used ({first_line(error)})", AGAIN
        ) from error
    options = {"return_tensors": "pt"} | (
        {"do_center_crop": False} if getattr(processor, "do_center_crop", False) else {}
    )
    return lambda picture: processor(images=picture, **options)["pixel_values"]
