"""The paper's large models with random weights: seconds a picture, and the most memory of the GPU.

At full size on a GPU alone: on one CPU core a picture takes minutes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from random_weights import save_all
from timing import Timer

from shic_cli.base.devices import TOGETHER
from shic_cli.base.settings import SynthConfig
from shic_cli.files.layouts import Template
from shic_cli.parts.extractors.make import make_extractor
from shic_cli.stages.synth import synthesize


@pytest.fixture(scope="session")
def weights(full: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if full and not torch.cuda.is_available():
        pytest.skip("full-size Stable Diffusion needs a GPU")
    return save_all(tmp_path_factory.mktemp("models") / "weights", full)


def place(full: bool) -> torch.device:
    return torch.device("cuda" if full else "cpu")


def peak(device: torch.device) -> str:
    """The most memory of the GPU since the last call, in words."""
    if device.type != "cuda":
        return ""
    most = torch.cuda.max_memory_allocated() / 1e9
    torch.cuda.reset_peak_memory_stats()
    return f", {most:.1f} GB at most"


@pytest.mark.parametrize("name", ["sd-dino", "dinov2-small"])
def test_extractor(weights: Path, name: str, full: bool, timer: Timer) -> None:
    """Features of pictures in the batches that the command takes; of 64 for the encoder of sec. 4.1."""
    device = place(full)
    peak(device)
    asked = name if full else {"sd-dino": "sd-dino,side=192", "dinov2-small": "dinov2-small"}[name]
    extractor = make_extractor(asked, device, weights)
    number = TOGETHER[device.type] if name == "sd-dino" else 64 if full else 2
    pictures = torch.rand(
        number, 3, extractor.side, extractor.side, generator=torch.Generator().manual_seed(0)
    )
    masks = torch.ones(number, 1, extractor.side, extractor.side)
    features = extractor(pictures, masks)
    assert len(features) == number and features.shape[1] == extractor.dim and torch.isfinite(features).all()
    taken = timer.once(lambda: extractor(pictures, masks).sum().item(), rounds=3)
    timer.tell(f"{number} pictures at a time", f"{1e3 * taken / number:.1f} ms each{peak(device)}", "-")


def test_painting(weights: Path, template: Template, full: bool, tmp_path: Path, timer: Timer) -> None:
    """A picture of `synth --generator controlnet-depth` in its 25 steps at 512 pixels."""
    device = place(full)
    peak(device)
    quick = {} if full else {"size": 64, "side": 64, "steps": 1}
    config = SynthConfig(generator="controlnet-depth", class_name="horse", number=2, **quick)
    where = tmp_path / "s.h5"

    def paint() -> None:
        synthesize(template, where, config, device, seed=0, sources={}, weights=weights, overwrite=True)

    taken = timer.once(paint)
    timer.tell(f"{config.number} pictures, loading included", f"{taken:.1f} s{peak(device)}", "-")
