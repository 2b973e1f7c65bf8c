"""A made-up animal on four legs, with a neck, a head and a tail, as a template."""

from pathlib import Path

import numpy as np
import pytest
import trimesh

from shic_cli.base.settings import TemplateConfig
from shic_cli.files.arrays import write_arrays
from shic_cli.files.layouts import LAYOUTS, Template
from shic_cli.stages.template import prepare


def tube(start: list[float], end: list[float], radius: float) -> trimesh.Trimesh:
    found = trimesh.creation.capsule(radius=radius, height=float(np.linalg.norm(np.subtract(end, start))))
    found.apply_transform(trimesh.geometry.align_vectors([0, 0, 1], np.subtract(end, start)))
    return found.apply_translation(np.add(start, end) / 2 - found.bounds.mean(0))


@pytest.fixture(scope="module")
def beast(tmp_path_factory) -> Template:
    """A body on four legs, with a neck that carries a head, and a tail."""
    parts = [tube([0, 0, -0.6], [0, 0, 0.6], 0.25), tube([0, 0.1, 0.7], [0, 1.0, 1.2], 0.12)]
    parts += [tube([0, 1.0, 1.2], [0, 0.9, 1.7], 0.1), tube([0, 0.1, -0.8], [0, -0.3, -1.8], 0.06)]
    parts += [tube([x, -0.1, z], [x, -1.1, z], 0.09) for x in (-0.15, 0.15) for z in (-0.6, 0.6)]
    path = tmp_path_factory.mktemp("beast") / "beast.ply"
    trimesh.util.concatenate(parts).export(path)
    return prepare(path, TemplateConfig(vertices=1500, remesh="on", eigenvectors=32, up="+y", front="+z"))


def save(template: Template, path: Path) -> None:
    arrays = {name: getattr(template, name) for name in LAYOUTS["shic/template"].fields}
    attrs = {"mirror_axis": template.mirror_axis}
    write_arrays(path, "shic/template", arrays, params={}, sources={}, attrs=attrs, overwrite=True)
