"""Coats from photos: a photo's colours lie where its labels say, and synthetic pictures wear them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from shic_cli.base.devices import chance
from shic_cli.base.errors import InputError
from shic_cli.base.settings import SynthConfig
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import Template
from shic_cli.files.photos import encode
from shic_cli.stages.photo_coats import read_coats
from shic_cli.stages.synth import Synthesizer, synthesize

RED, BLUE = (200, 20, 20), (20, 20, 200)


def photos(path: Path, template: Template, seen: dict[str, dict[int, tuple[int, int, int]]]) -> Path:
    """A maps file of photos, one a name, with one pixel for each vertex that a photo shows, in its colour."""
    attrs = {"labels": "pseudo", "template": template.fingerprint}
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=attrs) as writer:
        for name, colors in seen.items():
            vertex = np.full((8, max(len(colors), 8)), -1, np.int32)
            rgb = np.full((*vertex.shape, 3), 255, np.uint8)
            vertex[2, : len(colors)], rgb[2, : len(colors)] = list(colors), list(colors.values()) or 255
            encoded = np.frombuffer(encode(rgb), np.uint8)
            writer.add(
                name,
                encoded=encoded,
                mask=vertex >= 0,
                vertex=vertex,
                score=np.ones(vertex.shape, np.float32),
            )
    return path


def test_a_coat_has_the_colours_of_its_photo_on_both_sides(small_template, tmp_path):
    left = np.flatnonzero(small_template.verts[:, 0] > 0.01)
    ahead = small_template.verts[left, 2] > 0
    colors = {int(k): RED if front else BLUE for k, front in zip(left, ahead, strict=True)}
    coats = read_coats(
        photos(tmp_path / "pgt.h5", small_template, {"a.png": colors, "b.png": {}}), small_template
    )
    assert coats.shape == (1, len(small_template.verts), 3)  # b.png shows nothing
    far = np.abs(small_template.verts[:, 2]) > 0.1
    expected = np.where(small_template.verts[far, 2:] > 0, RED, BLUE)
    assert np.abs(coats[0][far].astype(int) - expected).mean() < 12


def test_coats_of_another_template_are_refused(small_template, tmp_path):
    path = photos(tmp_path / "pgt.h5", small_template, {"a.png": {0: RED}})
    other = dataclasses.replace(small_template, verts=small_template.verts + np.float32(0.01))
    with pytest.raises(InputError, match="template"):
        read_coats(path, other)


def test_pictures_wear_the_coats_of_photos_as_often_as_they_are_told(small_template, tmp_path):
    config, device = SynthConfig(size=64, renderer="warp", poses=0, photo_coats=1.0), torch.device("cpu")
    coats = np.full((2, len(small_template.verts), 3), RED, np.uint8)
    reds = []
    for share in (1.0, 0.0):
        given = dataclasses.replace(config, photo_coats=share)
        maker = Synthesizer(small_template.verts, small_template.faces, given, device, coats=coats)
        pictures = [maker.make(chance(0, i)) for i in range(6)]
        means = np.array([picture.rgb[picture.mask].mean(0) for picture in pictures])
        reds.append((means[:, 0] > 2 * means[:, 1:].max(1)).sum())
    assert reds[0] >= 5 and reds[1] <= 1


def test_without_a_photo_that_shows_the_template_pictures_are_as_without_photos(small_template, tmp_path):
    empty = photos(tmp_path / "pgt.h5", small_template, {"a.png": {}})
    config = SynthConfig(number=2, size=64, renderer="warp", poses=0, like_photos=0.0)
    for name, seen in (("with.h5", empty), ("without.h5", None)):
        synthesize(small_template, tmp_path / name, config, torch.device("cpu"), photos=seen)
    given, plain = (ItemReader(tmp_path / name, "shic/maps") for name in ("with.h5", "without.h5"))
    assert all((given[name].encoded == plain[name].encoded).all() for name in plain.names)
