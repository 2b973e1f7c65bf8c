"""`shic match` as a user types it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from shic_cli.files.photos import encode

Shic = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(small_model_file: Path) -> Path:
    """a.png and its mask; b.png is the same 12 pixels to the right and 6 down."""
    folder = small_model_file.parent
    (folder / "photos").mkdir()
    (folder / "masks").mkdir()
    a = np.zeros((80, 100, 3), np.uint8)
    a[10:40, 10:70], a[40:60, 15:25], a[40:60, 55:62], a[5:20, 60:80] = 255, 255, 255, 255
    for name, mask in (("a", a), ("b", np.roll(a, (6, 12), (0, 1)))):
        (folder / "photos" / f"{name}.png").write_bytes(encode(255 - mask // 2))
        (folder / "masks" / f"{name}.png").write_bytes(encode(mask))
    return folder


@pytest.mark.parametrize("via", ["template", "embedding"])
def test_matches_of_a_shifted_photo(shic: Shic, photos: Path, via: str) -> None:
    status, out, _ = shic("match", "photos/a.png", "photos/b.png", "--via", via, "--points", "8", "--json")
    found = json.loads(out)["matches"]
    assert status == 0 and len(found) == 8
    for i, name in enumerate("ab"):
        mask = cv2.imread(f"masks/{name}.png", cv2.IMREAD_GRAYSCALE) > 0
        assert all(mask[match[i][1], match[i][0]] for match in found)
    assert all(0 < score <= 1.001 for *_, score in found)
    if via == "embedding":  # an untrained model's vertices are too few to tell places apart
        shifts = np.array([np.subtract(b, a) for a, b, _ in found])
        assert np.linalg.norm(shifts - [12, 6], axis=1).max() < 3
    assert cv2.imread("match.png").shape == (2 * 560 + 8, 2 * 700 + 8, 3)


def test_picture_only_and_kept(shic: Shic, photos: Path) -> None:
    assert shic("match", "photos/a.png", "photos/b.png", "-o", "x.png")[:2] == (0, "")
    before = (photos / "x.png").read_bytes()
    status, _, err = shic("match", "photos/a.png", "photos/b.png", "-o", "x.png")
    assert status == 1 and "is there already" in err and (photos / "x.png").read_bytes() == before


def test_bad_inputs(shic: Shic, photos: Path) -> None:
    for words, said, expected in (
        (("photos/a.png", "none.png"), "none.png: there is no such file", 1),
        (("photos/a.png", "photos/b.png", "--model", "none.safetensors"), "there is no such file", 1),
        (("photos/a.png", "photos/b.png", "-o", "-", "--json"), "both write to stdout", 2),
        (("photos/a.png",), "missing argument", 2),
    ):
        status, out, err = shic("match", *words)
        assert status == expected and out == "" and said in err
