"""Bodies from photos: synthetic pictures are posed like the bodies of a fitted maps file."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from beast import beast as beast
from beast import save

from shic_cli.base.devices import chance
from shic_cli.base.errors import InputError
from shic_cli.base.settings import SynthConfig
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import Template
from shic_cli.stages.photo_bodies import read_bodies
from shic_cli.stages.synth import synthesize
from shic_cli.surface.poses import Poser

Shic = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def pictures(beast: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three synthetic pictures of the beast."""
    path = tmp_path_factory.mktemp("pictures") / "synth.h5"
    synthesize(beast, path, SynthConfig(number=3, size=64), torch.device("cpu"), seed=3, sources={})
    return path


def fitted(pictures: Path, path: Path, template: Template, bodies: list[np.ndarray | None]) -> Path:
    """The pictures as a file of `shic fit` with these bodies."""
    attrs = {"labels": "fitted", "template": template.fingerprint}
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=attrs) as writer:
        for item, body in zip(ItemReader(pictures, "shic/maps"), bodies, strict=True):
            writer.add(item.name, **item.arrays, body=body)
    return path


def test_bodies_are_those_of_the_photos_that_have_one(beast, pictures, tmp_path):
    poser = Poser.of(beast)
    posed = [poser(chance(1, i)) for i in range(2)]
    bodies = read_bodies(fitted(pictures, tmp_path / "fits.h5", beast, [posed[0], None, posed[1]]), beast)
    assert np.array_equal(bodies, posed)
    assert read_bodies(pictures, beast).shape == (0, *beast.verts.shape)


def test_bodies_of_another_template_are_refused(beast, pictures, tmp_path):
    other = dataclasses.replace(beast, verts=beast.verts + np.float32(0.01))
    with pytest.raises(InputError, match="template"):
        read_bodies(pictures, other)
    path = fitted(pictures, tmp_path / "fits.h5", beast, [beast.verts[:-1], None, None])
    with pytest.raises(
        InputError, match=f"has {len(beast.verts) - 1} vertices, the template {len(beast.verts)}"
    ):
        read_bodies(path, beast)


def test_pictures_show_the_bodies(beast: Template, pictures: Path, tmp_path: Path, shic: Shic) -> None:
    """With a body three times as wide as the template, animals seen from above are wider. Without bodies all
    stays as it was, and --photo-poses is refused.
    """
    save(beast, tmp_path / "template.h5")
    wide = (beast.verts * [3, 1, 1]).astype(np.float32)
    fitted(pictures, tmp_path / "fits.h5", beast, [wide] * 3)
    fitted(pictures, tmp_path / "none.h5", beast, [None] * 3)
    line = ("--number", "16", "--size", "64", "--elevation", "80,89", "--level", "0", "--photo-coats", "0")
    for name, photos in (("wide", "fits.h5"), ("same", "none.h5")):
        status, _, err = shic("synth", *line, "--photos", photos, "-o", f"{name}.h5")
        assert status == 0 and ("poses of 3 photos" in err) == (name == "wide"), err
    status, _, err = shic("synth", *line, "--photos", "fits.h5", "--photo-poses", "0", "-o", "off.h5")
    assert status == 0, err
    files = (tmp_path / f"{name}.h5" for name in ("wide", "same", "off"))
    wide, same, off = (list(ItemReader(path, "shic/maps")) for path in files)
    assert all(np.array_equal(one.vertex, two.vertex) for one, two in zip(same, off, strict=True))
    shapes = [[slenderness(item.mask) for item in each] for each in (wide, same)]
    wider = [one < 0.6 * other for one, other in zip(*shapes, strict=True)]
    assert 2 <= sum(wider) <= 12
    status, _, err = shic("synth", *line, "--photos", "none.h5", "--photo-poses", "1", "-o", "no.h5")
    assert status == 1 and "none of its photos has a body" in err and not (tmp_path / "no.h5").exists()


def slenderness(mask: np.ndarray) -> float:
    """How many times as long the object of `mask` is as it is wide."""
    values = np.linalg.eigvalsh(np.cov(np.argwhere(mask).T))
    return float(np.sqrt(values[1] / values[0]))
