"""What the benchmarks share: devices, a template, photos, a random encoder, and the table that they print at
the end.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import trimesh

from shic_cli.base.settings import SynthConfig, TemplateConfig
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.stages.demo_animal import rest_mesh
from shic_cli.stages.synth import synthesize
from shic_cli.stages.template import prepare

TABLE: list[tuple[str, str, str]] = []
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")),
]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each benchmark runs on the CPU, and on a GPU where there is one."""
    return torch.device(request.param)


@dataclass(frozen=True)
class Timer:
    """Times one thing against another in the same run, turn by turn, for the machine may be busy with other
    work too.
    """

    benchmark: Any
    name: str

    def against(self, ours: Callable[[], Any], reference: Callable[[], Any], rounds: int = 5) -> float:
        """How many times the median time of `ours` the `reference` takes; both run once before."""
        times = []

        def turn() -> None:
            times.append(_seconds(reference))

        self.benchmark.pedantic(lambda: _seconds(ours), setup=turn, rounds=rounds, warmup_rounds=1)
        return statistics.median(times[1:]) / self.benchmark.stats.stats.median

    def once(self, ours: Callable[[], Any], rounds: int = 1) -> float:
        """The median time of `ours` in seconds."""
        self.benchmark.pedantic(lambda: _seconds(ours), rounds=rounds)
        return self.benchmark.stats.stats.median

    def clock(self, ours: Callable[[], Any], rounds: int = 1) -> str:
        """How long `ours` takes by the clock, and how much of that this process computed, of all its threads
        together.
        """
        start = time.process_time()
        taken = self.once(ours, rounds)
        return f"{taken:.1f} s ({(time.process_time() - start) / rounds:.1f} s of CPU time)"

    def tell(self, what: str, measured: str, goal: str) -> None:
        """A row of the table."""
        TABLE.append((f"{self.name}: {what}", measured, goal))
        self.benchmark.extra_info[what] = measured


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


@pytest.fixture
def timer(benchmark: Any, request: pytest.FixtureRequest) -> Timer:
    """The benchmark's clock."""
    return Timer(benchmark, request.node.name.removeprefix("test_"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what was measured."""
    widths = [max((len(row[i]) for row in TABLE), default=0) for i in range(3)]
    for row in TABLE:
        terminalreporter.write_line(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        )


@pytest.fixture(scope="session")
def mesh_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's animal as a mesh file of 5,000 vertices."""
    path = tmp_path_factory.mktemp("mesh") / "animal.obj"
    trimesh.Trimesh(*rest_mesh(5000), process=False).export(path)
    return path


@pytest.fixture(scope="session")
def template(mesh_file: Path) -> Template:
    """Its template, K = 5,000."""
    return prepare(mesh_file, TemplateConfig())


@pytest.fixture(scope="session")
def pictures(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with imgs/ and masks/ of 64 pictures of 224 pixels, and truth.h5 with their labels."""
    folder = tmp_path_factory.mktemp("pictures")
    synthesize(template, folder / "truth.h5", SynthConfig(number=64), torch.device("cpu"), seed=1, sources={})
    for name in ("imgs", "masks"):
        (folder / name).mkdir()
    for i, item in enumerate(ItemReader(folder / "truth.h5", "shic/maps")):
        cv2.imwrite(str(folder / "imgs" / f"{i}.jpg"), cv2.imdecode(item.encoded, cv2.IMREAD_COLOR))
        cv2.imwrite(str(folder / "masks" / f"{i}.png"), item.mask.astype(np.uint8) * 255)
    return folder


@pytest.fixture(scope="session")
def small_dinov2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An encoder of DINOv2 small's layout at 224 pixels, with random weights: as quick as the real one."""
    import transformers

    settings = {
        "hidden_size": 384,
        "num_hidden_layers": 12,
        "num_attention_heads": 6,
        "image_size": 224,
        "patch_size": 14,
    }
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "small"
    transformers.Dinov2Model(transformers.Dinov2Config(**settings)).save_pretrained(folder)
    return f"vit:{folder}"
