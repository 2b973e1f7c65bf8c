"""The Python API gives the numbers of the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import shic_cli as shic_api
from shic_cli.base.errors import InputError, SettingError

Shic = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photo(
    folder: Path, small_model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[np.ndarray, np.ndarray]:
    """The first picture of the album, RGB, and its mask."""
    monkeypatch.chdir(folder)
    rgb = cv2.imread(str(folder / "imgs/photo0.png"))[..., ::-1]
    return rgb, cv2.imread(str(folder / "masks/photo0.png"), cv2.IMREAD_GRAYSCALE) > 0


def test_a_prediction_is_that_of_the_command(shic: Shic, photo: tuple[np.ndarray, np.ndarray]) -> None:
    assert shic("predict", "imgs", "-o", "all.maps.h5")[0] == 0
    model = shic_api.load("model.safetensors", device="cpu")
    read = shic_api.read_maps("all.maps.h5", model.surface)
    for rgb, mask in (photo, (torch.from_numpy(photo[0].copy()), torch.from_numpy(photo[1]))):
        found = model.predict(rgb, mask)
        assert np.array_equal(found.vertex, read["photo0.png"].vertex)
        assert np.array_equal(found.score.astype(np.float16), read["photo0.png"].score.astype(np.float16))
        assert np.array_equal(found.uncertainty, read["photo0.png"].uncertainty) and found.uncertainty.any()
    drawn = cv2.imread("all/photo0.colors.png")[..., ::-1]
    assert np.array_equal(found.colors, drawn) and np.array_equal(read["photo0.png"].colors, drawn)
    assert len(read) == 6 and read.labels == "predicted"


def test_points_lie_on_the_surface_near_their_vertices(photo: tuple[np.ndarray, np.ndarray]) -> None:
    model = shic_api.load("model.safetensors", device="cpu")
    found = model.predict(*photo)
    points = found.points
    assert np.isnan(points[~photo[1]]).all() and np.isfinite(points[photo[1]]).all()
    low, high = model.surface.verts.min(0), model.surface.verts.max(0)
    assert ((points[photo[1]] >= low - 1e-5) & (points[photo[1]] <= high + 1e-5)).all()


def test_matches_are_those_of_the_command(shic: Shic, photo: tuple[np.ndarray, np.ndarray]) -> None:
    out = shic("match", "imgs/photo0.png", "imgs/photo1.png", "--points", "5", "--json", "--device", "cpu")[1]
    model = shic_api.load("model.safetensors", device="cpu")
    other = cv2.imread("imgs/photo1.png")[..., ::-1], cv2.imread("masks/photo1.png", 0) > 0
    matches = model.match(model.predict(*photo), model.predict(*other), number=5)
    assert matches.as_json() == json.loads(out)["matches"]


def test_embeddings_have_the_maps_dimension(photo: tuple[np.ndarray, np.ndarray]) -> None:
    model = shic_api.load("model.safetensors", device="cpu")
    embeddings = model.embed(*photo)
    assert embeddings.shape == (*photo[1].shape, model.predictor.vertex_embeddings.shape[1])
    assert not embeddings[~photo[1]].any() and embeddings[photo[1]].any(1).all()


def test_maps_are_written_as_they_are_read(shic: Shic, photo: tuple[np.ndarray, np.ndarray]) -> None:
    model = shic_api.load("model.safetensors", device="cpu")
    made = model.predict(*photo)
    shic_api.write_maps("mine.h5", {"a.png": made}, surface=model.surface)
    (read,) = shic_api.read_maps("mine.h5", model.surface).values()
    assert np.array_equal(read.vertex, made.vertex) and np.array_equal(read.rgb, made.rgb)
    assert np.array_equal(read.uncertainty, made.uncertainty)
    shic_api.write_maps("other.h5", {"a.png": replace(made, uncertainty=None)})
    assert shic_api.read_maps("other.h5")["a.png"].uncertainty is None
    assert json.loads(shic("info", "mine.h5", "--json")[1])["attributes"]["labels"] == "annotated"
    with pytest.raises(SettingError, match="does not know its template"):
        _ = shic_api.read_maps("mine.h5")["a.png"].colors


def test_what_is_wrong_is_said(photo: tuple[np.ndarray, np.ndarray]) -> None:
    model = shic_api.load("model.safetensors", device="cpu")
    with pytest.raises(InputError, match=r"float64 .*expected uint8 \(H, W, 3\)"):
        model.predict(photo[0] / 255, photo[1])
    with pytest.raises(SettingError, match="needs a mask"):
        model.predict(photo[0])
    with pytest.raises(InputError, match="mask is empty"):
        model.predict(photo[0], np.zeros_like(photo[1]))


def test_importing_the_package_imports_no_torch() -> None:
    program = "import sys, shic_cli; print(any(name in sys.modules for name in ('torch', 'numpy', 'h5py')))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "False\n"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = shic_api.nothing
