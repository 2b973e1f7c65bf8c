"""The same inputs, settings and seed give the same files, byte by byte, on the CPU: twice, in any order of
the folder's listing.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from conftest import animal_verts

from shic_cli.files.items import ItemReader

FEW = ("--azimuths", "3", "--elevations", "10")
SHORT = ("--epochs", "2", "--variants", "1", "--batch", "4", "--points", "20")
LINES = {
    "template": (
        "template",
        "prep",
        "animal.obj",
        "-o",
        "{out}/template.h5",
        "--vertices",
        "300",
        "--eigenvectors",
        "16",
    ),
    "render": ("render", "-o", "{out}/views.h5", "--size", "64", *FEW),
    "features": ("features", "imgs", "-o", "{out}/f.h5", "--extractor", "silhouette"),
    "pseudo-gt": ("pseudo-gt", "imgs", "-o", "{out}/p.h5", "--extractor", "silhouette", *FEW),
    "synth": (
        "synth",
        "-o",
        "{out}/s.h5",
        "--number",
        "3",
        "--size",
        "64",
        "--seed",
        "7",
        "--backgrounds",
        "imgs",
    ),
    "train": ("train", "truth.h5", "-o", "{out}/m.safetensors", "--encoder", "picture", *SHORT),
    "train pointwise": (
        "train",
        "truth.h5",
        "-o",
        "{out}/m.safetensors",
        "--encoder",
        "silhouette",
        "--augment",
        "on",
        *SHORT,
    ),
    "predict": ("predict", "imgs", "-o", "{out}/p.maps.h5", "--remap", "grid"),
    "remap": ("remap", "truth.h5", "--texture", "checker", "-o", "{out}/remap"),
    "match": ("match", "imgs/photo0.png", "imgs/photo1.png", "-o", "{out}/match.png"),
}


@pytest.fixture
def made(
    folder: Path, album: Path, small_model_file: Path, shic: Callable
) -> Callable[..., dict[str, bytes]]:
    """`made(line, out)`: the files that a line makes, by name."""
    (folder / "truth.h5").write_bytes((album / "truth.h5").read_bytes())
    ball = trimesh.creation.icosphere(subdivisions=3)
    trimesh.Trimesh(animal_verts(np.asarray(ball.vertices)), ball.faces, process=False).export(
        folder / "animal.obj"
    )

    def run(line: tuple[str, ...], out: str) -> dict[str, bytes]:
        (folder / out).mkdir()
        status, _, err = shic(*(word.format(out=out) for word in line))
        assert status == 0, err
        return {
            str(path.relative_to(folder / out)): path.read_bytes()
            for path in (folder / out).rglob("*")
            if path.is_file()
        }

    return run


class Entries:
    """What `os.scandir` gives: an iterator that is a context manager too."""

    def __init__(self, found: list[os.DirEntry]) -> None:
        self.left = iter(found)

    def __iter__(self) -> Entries:
        return self

    def __next__(self) -> os.DirEntry:
        return next(self.left)

    def __enter__(self) -> Entries:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def shuffled(real: Callable) -> Callable:
    """`os.scandir` in another order at each call."""
    chance = random.Random(0)

    def scandir(*path: object) -> Entries:
        with real(*path) as entries:
            found = list(entries)
        chance.shuffle(found)
        return Entries(found)

    return scandir


@pytest.mark.parametrize("name", LINES)
def test_twice_and_in_any_order_of_the_folder(
    made: Callable, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    first = made(LINES[name], "one")
    monkeypatch.setattr(os, "scandir", shuffled(os.scandir))
    second = made(LINES[name], "two")
    assert first and first.keys() == second.keys()
    differs = [each for each in first if first[each] != second[each]]
    assert [each for each in differs if not each.endswith(".log.csv")] == []  # which has seconds


def test_the_order_was_indeed_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(9):
        (tmp_path / str(i)).touch()
    before = [path.name for path in tmp_path.rglob("*")]
    monkeypatch.setattr(os, "scandir", shuffled(os.scandir))
    assert [path.name for path in tmp_path.rglob("*")] != before


@pytest.mark.parametrize("name", ["pseudo-gt", "synth", "predict"])
def test_vertices_do_not_depend_on_the_number_of_threads(made: Callable, folder: Path, name: str) -> None:
    """Sums in another order may change the last digits of a score; of the vertices, no more than
    near ties.
    """
    before, vertices = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            made(LINES[name], str(threads))
            path = next((folder / str(threads)).glob("*.h5"))
            vertices.append(np.concatenate([item.vertex.ravel() for item in ItemReader(path, "shic/maps")]))
    finally:
        torch.set_num_threads(before)
    assert np.mean(vertices[0] != vertices[1]) < 1e-3
