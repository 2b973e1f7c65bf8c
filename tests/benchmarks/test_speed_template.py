"""How long a template, its views and the start of the command line take, in seconds."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from timing import Timer

from shic_cli.base.settings import RenderConfig, TemplateConfig
from shic_cli.files.layouts import Template
from shic_cli.stages.render import render_views
from shic_cli.stages.template import prepare, write
from shic_cli.surface import geometry


def test_template_prep(
    mesh_file: Path, config: TemplateConfig, device: torch.device, tmp_path: Path, timer: Timer
) -> None:
    """5,000 vertices, from the mesh file to the template file."""

    def whole() -> None:
        write(tmp_path / "t.h5", prepare(mesh_file, config, device=device), config, mesh_file, overwrite=True)

    timer.tell(
        f"{config.vertices:,} vertices", timer.clock(whole, rounds=3), "10 s on two cores, 3 s on a GPU"
    )


def test_a_scan(
    mesh_file: Path, config: TemplateConfig, device: torch.device, tmp_path: Path, full: bool, timer: Timer
) -> None:
    """A rough surface of more than 300,000 faces."""
    mesh = trimesh.load_mesh(mesh_file, process=True)
    while len(mesh.faces) < (300_000 if full else 2_000):
        mesh = mesh.subdivide()
    mesh.vertices += (
        np.random.default_rng(0).normal(size=mesh.vertices.shape) * 2e-4 * np.ptp(mesh.vertices, axis=0).max()
    )
    mesh.export(tmp_path / "scan.ply")
    taken = timer.clock(lambda: prepare(tmp_path / "scan.ply", config, device=device))
    timer.tell(f"{len(mesh.faces):,} faces", taken, "60 s on two cores")


@pytest.mark.cuda
def test_dense_factorisations_on_a_gpu(template: Template, timer: Timer) -> None:
    verts, faces, where = template.verts.astype(float), template.faces, torch.device("cuda")

    def measured(device: torch.device | None) -> None:
        geometry.laplacian_basis(verts, faces, 64, device)
        geometry.geodesics(verts, faces, device=device)

    ratio = timer.against(lambda: measured(where), lambda: measured(None), rounds=2)
    timer.tell("basis and distances", f"{ratio:.1f} times faster than on the CPU", "-")


def test_render(template: Template, rendering: RenderConfig, device: torch.device, timer: Timer) -> None:
    taken = timer.clock(lambda: render_views(template, rendering, device), rounds=3)
    timer.tell(
        f"{rendering.azimuths * len(rendering.elevations)} views at {rendering.size}",
        taken,
        "8 s on two cores, 0.2 s on a GPU",
    )


def test_start_of_the_command_line(timer: Timer) -> None:
    """A process of its own, against one of Python that does nothing."""

    def start(*words: str) -> None:
        subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)

    ratio = timer.against(lambda: start("-m", "shic_cli", "--help"), lambda: start("-c", "pass"), rounds=15)
    taken = timer.once(lambda: start("-m", "shic_cli", "--help"), rounds=5)
    timer.tell("shic --help", f"{taken:.2f} s, {1 / ratio:.1f} times an empty Python", "0.2 s")
