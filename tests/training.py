"""A trainer with few steps and points, for tests that train."""

from __future__ import annotations

from pathlib import Path

import torch

from shic_cli.base.training_settings import TrainConfig
from shic_cli.files.layouts import Template
from shic_cli.learning.trainer import Trainer
from shic_cli.stages.train import open_maps

CPU = torch.device("cpu")


def config(**changes: object) -> TrainConfig:
    return TrainConfig(**{"epochs": 2, "variants": 1, "batch": 4, "points": 30, **changes})


def make_trainer(template: Template, paths: list[Path], settings: TrainConfig, seed: int = 0) -> Trainer:
    return Trainer.make(template, open_maps(paths, template, settings), settings, CPU, seed)
