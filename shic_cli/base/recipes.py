"""The paper's settings: what `--recipe paper` takes for each setting that is left open.

A setting is left open if it has its default. So each default here is the paper's value itself, or one that
stands for another (auto, 0 or -1). docs/concepts/recipe.md has these values beside the usual ones, and says
for each where the paper states it.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, TypeVar

from shic_cli.base.settings import CONTROLNET_VIEWS, PseudoGtConfig, SynthConfig
from shic_cli.base.training_settings import TrainConfig

Config = TypeVar("Config", PseudoGtConfig, SynthConfig, TrainConfig)

PAPER: dict[type, dict[str, Any]] = {
    PseudoGtConfig: {
        "pool": "max",
        "agreement": 0.0,
        "matching": "maximum",
        "return_within": 0.0,
        "surface_within": 0.0,
        "extractor": "sd-dino",
        "pca": 0,
        "azimuths": 24,
        "elevations": (0.0, 15.0, 30.0),
        "style": "normals",
    },
    SynthConfig: {
        "generator": "controlnet-depth",
        "poses": 0.0,
        "bodies": 0.0,
        "like_photos": 0.0,
        "photo_coats": 0.0,
        "photo_poses": 0.0,
        "level": 0.0,
        "views": CONTROLNET_VIEWS,
        "erode": 0,
    },
    TrainConfig: {
        "encoder": "dinov2-small",
        "decoder": "convolutional",
        "start": "none",
        "dim": 16,
        "epochs": 40,
        "batch": 16,
        "points": 100,
        "rate": 1e-3,
        "schedule": "step",
        "mirror": "off",
        "pseudo": 0.1,
        "cycle": 0.002,
        "distance": 0.002,
        "equivariance": 0.001,
        "synthetic": 0.1,
        "near": 0.0,
        "natural": 1.0,
        "fits": 0,
        "foreground": 0.0,
        "tokens": "raw",
        "draw": "vertices",
        "augment": "on",
        "rough": "off",
        "precision": "float32",
        "variants": 0,
    },
}


def left_open(config: Config) -> set[str]:
    """The names of the settings of `config` that have their defaults."""
    return {each.name for each in fields(config) if getattr(config, each.name) == each.default}


def by_recipe(config: Config) -> Config:
    """`config` with the paper's values for what is left open, if its recipe is the paper's."""
    if config.recipe != "paper":
        return config
    values = PAPER[type(config)]
    return replace(config, **{name: values[name] for name in left_open(config) & values.keys()})
