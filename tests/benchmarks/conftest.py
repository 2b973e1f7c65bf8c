"""What the benchmarks share: devices, sizes, a template, photos, a random encoder, and the table that they
print at the end.

Without --full they run at tiny sizes, as the other tests do: this shows that they run, and their figures mean
nothing.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import trimesh
from timing import Row, Timer

from shic_cli.base.settings import RenderConfig, SynthConfig, TemplateConfig
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.stages.demo_animal import rest_mesh
from shic_cli.stages.synth import synthesize
from shic_cli.stages.template import prepare

ROWS = pytest.StashKey[list[Row]]()
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether the benchmarks measure; else they only show that they run."""
    return request.config.getoption("--full")


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each benchmark runs on the CPU, and on a GPU where there is one."""
    return torch.device(request.param)


@pytest.fixture
def timer(request: pytest.FixtureRequest, full: bool) -> Timer:
    """The benchmark's clock."""
    rows = request.config.stash.setdefault(ROWS, [])
    return Timer(request.node.name.removeprefix("test_"), rows, full)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what was measured, and write it to the file of --measured."""
    rows = config.stash.get(ROWS, [])
    if target := config.getoption("--measured"):
        Path(target).write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if not config.getoption("--full"):
        return
    lines = [(f"{row.benchmark}: {row.what}", row.measured, row.goal) for row in rows]
    widths = [max((len(line[i]) for line in lines), default=0) for i in range(3)]
    for line in lines:
        terminalreporter.write_line(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        )


@pytest.fixture(scope="session")
def mesh_file(full: bool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's animal as a mesh file of 5,000 vertices."""
    path = tmp_path_factory.mktemp("mesh") / "animal.obj"
    trimesh.Trimesh(*rest_mesh(5000 if full else 300), process=False).export(path)
    return path


@pytest.fixture(scope="session")
def config(full: bool) -> TemplateConfig:
    """The settings of its template."""
    return TemplateConfig() if full else TemplateConfig(vertices=300, eigenvectors=16)


@pytest.fixture(scope="session")
def template(mesh_file: Path, config: TemplateConfig) -> Template:
    """Its template, K = 5,000."""
    return prepare(mesh_file, config)


@pytest.fixture(scope="session")
def rendering(full: bool) -> RenderConfig:
    """72 views at 512 pixels."""
    return RenderConfig() if full else RenderConfig(azimuths=4, elevations=(0.0,), size=64)


@pytest.fixture(scope="session")
def pictures(full: bool, template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with imgs/ and masks/ of 64 pictures of 224 pixels, and truth.h5 with their labels."""
    folder = tmp_path_factory.mktemp("pictures")
    settings = SynthConfig(number=64) if full else SynthConfig(number=5, size=96)
    synthesize(template, folder / "truth.h5", settings, torch.device("cpu"), seed=1, sources={})
    for name in ("imgs", "masks"):
        (folder / name).mkdir()
    for i, item in enumerate(ItemReader(folder / "truth.h5", "shic/maps")):
        cv2.imwrite(str(folder / "imgs" / f"{i}.jpg"), cv2.imdecode(item.encoded, cv2.IMREAD_COLOR))
        cv2.imwrite(str(folder / "masks" / f"{i}.png"), item.mask.astype(np.uint8) * 255)
    return folder


@pytest.fixture(scope="session")
def small_dinov2(full: bool, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An encoder of DINOv2 small's layout at 224 pixels, with random weights: as quick as the real one."""
    import transformers

    sizes = (384, 12, 6) if full else (32, 2, 2)
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads")
    settings = dict(zip(names, sizes, strict=True), image_size=224, patch_size=14)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "small"
    transformers.Dinov2Model(transformers.Dinov2Config(**settings)).save_pretrained(folder)
    return f"vit:{folder}"
