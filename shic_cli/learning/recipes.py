"""The values of training settings that are left open.

They are the paper's values (base/recipes.py), and other values that were measured to be better.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from shic_cli.base.devices import has_bfloat16
from shic_cli.base.recipes import PAPER, by_recipe, left_open
from shic_cli.base.training_settings import TrainConfig
from shic_cli.parts.extractors.guided import Guided

if TYPE_CHECKING:
    import torch

    from shic_cli.parts.extractors.contract import Extractor

# What auto, 0 and -1 stand for without a recipe: the paper's values but for USUAL, and for each decoder the
# measured ones that replace them. A pointwise decoder is small and learns more from many short steps. A U-Net
# begins as one of other animals. A network that sees the whole object relies on outlines, and augmentation
# cuts outlines off.
OPEN = (
    *("dim", "points", "epochs", "batch", "rate", "schedule", "mirror", "natural", "augment", "precision"),
    *("foreground", "tokens", "draw", "variants", "near", "rough", "start", "fits"),
)
USUAL: dict[str, Any] = {"foreground": 0.1, "tokens": "unit", "draw": "pixels", "variants": 2}
MEASURED = {
    "convolutional": {},
    "pointwise": {"batch": 4, "rate": 3e-3},
    "unet": {
        "start": "animals",
        "dim": 32,
        "points": 400,
        "epochs": 7,
        "batch": 8,
        "rate": 2e-3,
        "schedule": "cosine",
        "mirror": "on",
        "natural": 0.0,
        "fits": 40,
        "near": 0.3,
        "augment": "off",
        "rough": "on",
        "precision": "bfloat16",
    },
}


def settle(
    config: TrainConfig, encoder: Extractor, device: torch.device, labels: Collection[str] = ()
) -> TrainConfig:
    """`config` with a value for every setting that is left open.

    The values depend on the encoder, on `config.recipe`, on the device and on the kinds of labels. bfloat16
    is chosen only on a device that computes in it. A U-Net leaves photos out, unless there are no synthetic
    pictures or some photos are annotated.
    """
    config = by_recipe(config)
    own = encoder.decoder or ("pointwise" if encoder.sees_whole_object else "convolutional")
    decoder = own if config.decoder == "auto" else config.decoder
    meant = {name: PAPER[TrainConfig][name] for name in OPEN}
    if config.recipe == "auto":
        meant |= USUAL | MEASURED[decoder] | ({"augment": "off"} if encoder.sees_whole_object else {})
        if isinstance(encoder, Guided):  # the frozen network would have to see every picture twice
            meant["mirror"] = "off"
        if not {"pseudo", "synthetic"} <= set(labels):
            meant["fits"] = 0
        if "annotated" in labels or "synthetic" not in labels:
            meant["natural"] = 1.0
        if not has_bfloat16(device):
            meant["precision"] = "float32"
        if decoder != own or config.dim not in (0, meant["dim"]):  # the file has one layout
            meant["start"] = "none"
    chosen = {name: meant[name] for name in left_open(config) & meant.keys()}
    name = encoder.name if config.encoder == "auto" else config.encoder
    return replace(config, encoder=name, decoder=decoder, **chosen)


def layout(config: TrainConfig) -> str:
    """The name in DECODERS of the decoder that settled settings describe.

    A convolutional decoder whose foreground output would not be trained has none, as in the authors' release.
    """
    without = config.decoder == "convolutional" and config.foreground == 0
    return "released" if without else config.decoder


def copies(config: TrainConfig, encoder: Extractor) -> int:
    """How many copies of a picture training keeps; 0 draws a new one in every epoch.

    A network that guides a U-Net takes longer than the U-Net itself, so it sees every picture once.
    """
    if config.rough == "on":
        return 1 if isinstance(encoder, Guided) else 0
    return config.variants
