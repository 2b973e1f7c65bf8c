"""The encoder that a model file carries within itself, so that the model needs no other file."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import torch

from shic_cli.base.errors import InputError
from shic_cli.base.packages import needed
from shic_cli.parts.checkpoints import load_tensors
from shic_cli.parts.extractors.contract import ExtractorDefaults
from shic_cli.parts.extractors.vit import IMAGENET


class Carried(ExtractorDefaults):
    """Features `(B, D, h, w)` of a DINOv2 from `config` and `tensors`: its patch tokens after the last norm.

    h = w = side / patch. `tensors` have the names of a checkpoint of transformers; their position embeddings
    are for `side` pixels. InputError if `config` and `tensors` don't fit each other.
    """

    name = "carried"
    needs_mask = False
    sees_whole_object = False
    pillow = True  # as in the authors' notebook
    unit = False  # the decoder of the authors' release takes the tokens at their own length

    def __init__(
        self, config: dict[str, Any], tensors: dict[str, torch.Tensor], device: torch.device | str = "cpu"
    ) -> None:
        with needed("the encoder in the model file"):
            from transformers import Dinov2Config, Dinov2Model

        check_config(config, tensors)
        self.device, self.config = torch.device(device), config
        self.side, self.dim = config["image_size"], config["hidden_size"]
        self.fingerprint = f"carried-{_digest(config, tensors)}"
        self._model = load_tensors(
            Dinov2Model, Dinov2Config(**config), tensors, "the model's encoder", self.device
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on, for the model file."""
        return {"name": self.name, "config": self.config}

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Features f4 `(B, D, h, w)` of `images` `(B, 3, side, side)` RGB in 0..1; `masks` are not used.

        They are no unit vectors.
        """
        images = images.to(self.device, torch.float32)
        mean, std = (images.new_tensor(values)[:, None, None] for values in IMAGENET)
        tokens = self._model((images - mean) / std).last_hidden_state[:, 1:]
        cells = self.side // self.config["patch_size"]
        return tokens.transpose(1, 2).unflatten(2, (cells, cells))


def check_config(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """InputError unless `config` and `tensors` describe the same network.

    Without this check a damaged file could ask for a network of any size.
    """
    hint = "make the model again with `shic models import`"
    try:
        width = tensors["embeddings.cls_token"].shape[-1]
        patch = tensors["embeddings.patch_embeddings.projection.weight"].shape[-1]
        cells = math.isqrt(tensors["embeddings.position_embeddings"].shape[1] - 1)
    except (KeyError, IndexError, ValueError) as error:
        fact = f"the model's encoder: its embeddings are missing or damaged ({error})"
        raise InputError(fact, hint) from error
    depth = sum(name.endswith(".norm1.weight") for name in tensors)
    described = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "patch_size": patch,
        "image_size": patch * cells,
    }
    heads = config.get("num_attention_heads")
    if {**config, "num_attention_heads": 0} != {**described, "num_attention_heads": 0} or min(
        described.values()
    ) < 1:
        raise InputError("the model's encoder: its settings do not fit its tensors", hint)
    if type(heads) is not int or heads < 1 or width % heads:
        raise InputError(f"the model's encoder: {width} channels can't be divided among {heads} heads", hint)


def _digest(config: dict[str, Any], tensors: dict[str, torch.Tensor]) -> str:
    """16 hex digits of a sha256 over the settings and every tensor."""
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name in sorted(tensors):
        digest.update(name.encode() + tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
