"""What the settings of training that are left open stand for: the paper's, and those that were measured to be
better.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from shic_cli.base.devices import has_bfloat16
from shic_cli.base.settings import TrainConfig

if TYPE_CHECKING:
    import torch

# What a setting that is auto, 0 or -1 stands for. A pointwise decoder is small and learns more from many
# short steps; a U-Net is trained from scratch, and what sees the whole object lives on outlines, which
# augmentation cuts.
PAPER = {
    "epochs": 40,
    "batch": 16,
    "rate": 1e-3,
    "schedule": "step",
    "mirror": "off",
    "natural": 1.0,
    "own": 0.0,
    "far": 0.0,
    "near": 0.0,
    "augment": "on",
    "rough": "off",
    "precision": "float32",
}
MEASURED = {
    "convolutional": {},
    "pointwise": {"batch": 4, "rate": 3e-3},
    "unet": {
        "epochs": 18,
        "batch": 8,
        "rate": 2e-3,
        "schedule": "cosine",
        "mirror": "on",
        "natural": 0.0,
        "own": 0.05,
        "far": 0.003,
        "near": 0.1,
        "augment": "off",
        "rough": "on",
        "precision": "bfloat16",
    },
}


def settle(
    config: TrainConfig, encoder: Any, device: torch.device, labels: Collection[str] = ()
) -> TrainConfig:
    """`config` with every setting that is left open replaced by what it stands for with this encoder,
    `config.recipe` and these labels.

    Only a device that computes in bfloat16 gets it. Photos count for a U-Net only where it has nothing
    better: no synthetic pictures, or annotated ones among the photos.
    """
    own = getattr(encoder, "decoder", "pointwise" if encoder.sees_whole_object else "convolutional")
    decoder = own if config.decoder == "auto" else config.decoder
    meant = dict(PAPER)
    if config.recipe == "auto":
        meant |= MEASURED[decoder] | ({"augment": "off"} if encoder.sees_whole_object else {})
        if "annotated" in labels or "synthetic" not in labels:
            meant |= {"natural": 1.0, "own": 0.0}
        if not has_bfloat16(device):
            meant["precision"] = "float32"
    given = {
        each.name: getattr(config, each.name)
        for each in fields(config)
        if getattr(config, each.name) != each.default
    }
    name = encoder.name if config.encoder == "auto" else config.encoder
    return replace(
        config, encoder=name, decoder=decoder, **{key: given.get(key, value) for key, value in meant.items()}
    )
