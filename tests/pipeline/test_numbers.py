"""Numbers that are none, and files that do not belong together: stopped where they appear, and named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from training import CPU, config, make_trainer

from shic_cli.base.errors import InputError, ShicError
from shic_cli.files.arrays import read_template, write_arrays
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import LAYOUTS, Template
from shic_cli.learning.encode import extract
from shic_cli.learning.model_file import load_model, save_model
from shic_cli.learning.trainer import Trainer
from shic_cli.parts import registry
from shic_cli.stages import pseudo_gt, train

FEW = ("--azimuths", "3", "--elevations", "10")
SHORT = ("--epochs", "3", "--variants", "1", "--batch", "4", "--points", "20")
POISON = pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])


class Broken:
    """An extractor of another package whose third answer is not finite."""

    name, fingerprint, needs_mask, sees_whole_object, side, dim = "broken", "broken", True, True, 64, 4
    settings: ClassVar[dict] = {}
    calls: ClassVar[list] = []
    bad = float("nan")

    def __init__(self, argument: str = "", *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.calls.clear()

    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        self.calls.append(1)
        out = torch.ones(len(images), 4, 8, 8)
        out[0, 2, 3, 3] = self.bad if len(self.calls) == 3 else 1
        return out


@POISON
def test_a_feature_that_is_no_number_costs_its_photo_and_names_the_extractor(
    folder: Path, shic: Callable, monkeypatch, poison: float
):
    monkeypatch.setitem(registry.PARTS["extractors"], "broken", f"{__name__}:Broken")
    monkeypatch.setattr(Broken, "bad", float(poison))
    status, _, err = shic("features", "imgs", "--extractor", "broken", "--device", "cpu")
    assert (
        status == 4
        and "broken: its features are not finite" in err
        and "1 of 6 inputs failed: photo2.png" in err
    )
    assert "photo2.png" not in ItemReader(folder / "features.h5", "shic/features").names


def test_views_whose_features_are_no_numbers_stop_pseudo_gt(
    folder: Path, shic: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(registry.PARTS["extractors"], "broken", f"{__name__}:Broken")

    def views(extractor: Broken, views: object) -> torch.Tensor:
        return [extract(extractor, torch.ones(1, 3, 64, 64), torch.ones(1, 1, 64, 64))[0] for _ in range(3)]

    monkeypatch.setattr(pseudo_gt, "view_features", views)
    status, _, err = shic("pseudo-gt", "imgs", "--extractor", "broken", *FEW)
    assert status == 1 and "broken: its features are not finite" in err and not list(folder.glob("*pgt*"))


@POISON
@pytest.mark.parametrize("corner", ["{0} 0 0", "1e300 0 {0}"])
def test_a_mesh_with_such_a_vertex_is_refused(
    tmp_path: Path, shic: Callable, poison: float, corner: str
) -> None:
    (tmp_path / "a.obj").write_text(
        f"v 0 0 0\nv 1 0 0\nv {corner.format(poison)}\nv 0 0 1\nf 1 2 3\nf 1 2 4\nf 1 3 4\nf 2 3 4\n"
    )
    status, _, err = shic("template", "prep", "a.obj")
    assert status == 1 and "a.obj" in err and "finite" in err and not (tmp_path / "template.h5").exists()


@POISON
@pytest.mark.parametrize("field", ["verts", "eigenvectors", "eigenvalues", "geodesic", "uv"])
def test_no_such_number_goes_into_a_file_nor_out_of_one(
    small_template: Template, tmp_path: Path, poison: float, field: str
) -> None:
    arrays = {name: getattr(small_template, name) for name in LAYOUTS["shic/template"].fields}
    given = {"params": {}, "sources": {}, "attrs": {"mirror_axis": "x"}, "overwrite": False}
    write_arrays(tmp_path / "good.h5", "shic/template", arrays, **given)
    arrays[field] = arrays[field].copy()
    arrays[field].flat[5] = poison
    with pytest.raises(InputError, match=f"bad.h5: {field} holds numbers that are not finite"):
        write_arrays(tmp_path / "bad.h5", "shic/template", arrays, **given)
    assert [path.name for path in tmp_path.iterdir()] == ["good.h5"]
    with h5py.File(tmp_path / "good.h5", "r+") as file:
        file[field][...] = arrays[field]
    with pytest.raises(InputError, match=f"/{field} holds numbers that are not finite"):
        read_template(tmp_path / "good.h5")


def test_an_item_with_such_a_number_is_named(tmp_path: Path) -> None:
    arrays = {
        "encoded": np.ones(3),
        "mask": np.ones((2, 2)),
        "vertex": np.ones((2, 2)),
        "score": np.array([[1, 1e6], [0, 0]]),
    }
    attrs = {"labels": "pseudo", "template": ""}
    with (
        pytest.raises(
            InputError, match=r"cat\.png: score holds numbers that are not finite"
        ),  # 1e6 is none in half precision
        ItemWriter(tmp_path / "a.h5", "shic/maps", params={}, sources={}, attrs=attrs) as writer,
    ):
        writer.add("cat.png", **arrays)
    assert list(tmp_path.iterdir()) == []


def test_features_that_were_spoilt_in_their_file_are_refused(
    folder: Path, shic: Callable, tiny_vit: Callable
) -> None:
    assert shic("features", "imgs", "--extractor", f"vit:{tiny_vit('dinov2')}")[0] == 0
    with h5py.File("features.h5", "r+") as file:
        file["items/00000001/feature"][0, 0, 0] = np.nan
    status, _, err = shic("pseudo-gt", "features.h5", *FEW)
    assert (
        status == 1
        and "/items/00000001/feature holds numbers that are not finite" in err
        and not (folder / "pgt.h5").exists()
    )


def test_a_model_with_such_a_weight_is_refused(folder: Path, small_model_file: Path, shic: Callable) -> None:
    saved = load_model(small_model_file)
    saved.map.C[0, 0] = torch.nan
    save_model(small_model_file, saved, overwrite=True)
    status, _, err = shic("predict", "imgs")
    assert status == 1 and "model.safetensors: C is not finite" in err


@pytest.mark.parametrize("encoder", ["silhouette", "picture"])
@pytest.mark.parametrize("rate", ["1e6", "1e30"])
def test_a_loss_that_runs_away_is_stopped_before_a_checkpoint(
    folder: Path, album: Path, shic: Callable, encoder: str, rate: str
) -> None:
    shutil.copy(album / "truth.h5", folder / "synth.h5")
    status, _, err = shic("train", "synth.h5", "--encoder", encoder, "--rate", rate, *SHORT)
    assert (
        status == 1
        and "epoch 1" in err
        and "finite" in err.lower() + "finite" * ("knows nothing has" in err)
        and "smaller --rate" in err
    )
    assert (
        not (folder / "model.safetensors").exists() and not (folder / "model.safetensors.checkpoint").exists()
    )


def test_a_map_that_breaks_in_the_last_step_of_an_epoch_keeps_the_checkpoint_before(
    small_template: Template, album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The losses of the epoch are fine; only the weights after it are not."""
    settings, real = config(epochs=4), Trainer._step

    def step(trainer: Trainer, batch: list[int], *given: object) -> dict[str, float]:
        found = real(trainer, batch, *given)
        if trainer.epoch == 2 and len(batch) == 2:  # 6 pictures, 4 and 2 a step
            with torch.no_grad():
                trainer.map.C[0, 0] = torch.inf
        return found

    monkeypatch.setattr(Trainer, "_step", step)
    with pytest.raises(ShicError, match=r"epoch 3: .*C of the map is not finite"):
        train.train(
            small_template, [album / "truth.h5"], tmp_path / "m.safetensors", settings, CPU, sources={}
        )
    kept = load_file(tmp_path / "m.safetensors.checkpoint")
    assert all(torch.isfinite(value).all() for value in kept.values() if value.is_floating_point())
    monkeypatch.undo()
    history = train.train(
        small_template, [album / "truth.h5"], tmp_path / "m.safetensors", settings, CPU, sources={}
    )
    assert len(history) == 4 and (tmp_path / "m.safetensors").exists()
    whole = train.train(
        small_template, [album / "truth.h5"], tmp_path / "whole.safetensors", settings, CPU, sources={}
    )
    assert history == whole


def test_a_training_that_learns_is_not_taken_for_one_that_runs_away(
    small_template: Template, album: Path
) -> None:
    trainer = make_trainer(small_template, [album / "truth.h5"], config())
    nothing = np.log(len(small_template.verts))
    trainer._check({"total": 50.0, "synthetic": 5 * nothing})
    with pytest.raises(ShicError, match="a map that knows nothing has"):
        trainer._check({"total": 50.0, "synthetic": 11 * nothing})


@pytest.fixture
def other(folder: Path, small_template: Template) -> Template:
    """`other.h5`, a template whose vertices are as many, and lie a little elsewhere."""
    arrays = {name: getattr(small_template, name) for name in LAYOUTS["shic/template"].fields}
    arrays["verts"] = arrays["verts"] * np.float32(0.99)
    write_arrays(
        folder / "other.h5",
        "shic/template",
        arrays,
        params={},
        sources={},
        attrs={"mirror_axis": "x"},
        overwrite=True,
    )
    return read_template(folder / "other.h5")


LINES = {
    "pseudo-gt with views": (
        "pseudo-gt",
        "imgs",
        "--views",
        "views.h5",
        "--template",
        "other.h5",
        "-o",
        "new.h5",
    ),
    "train": ("train", "truth.h5", "--template", "other.h5", "-o", "new.safetensors"),
    "eval geodesic": (
        "eval",
        "geodesic",
        "truth.h5",
        "--annotations",
        "points.json",
        "--template",
        "other.h5",
    ),
    "eval pck": ("eval", "pck", "truth.h5", "--keypoints", "pairs.json", "--template", "other.h5"),
    "remap": ("remap", "truth.h5", "--texture", "grid", "--template", "other.h5", "-o", "new"),
    "features in a basis": ("features", "others.h5", "--basis", "basis.h5", "-o", "new.h5"),
    "pseudo-gt of views": ("pseudo-gt", "basis.h5", "--template", "other.h5", "-o", "new.h5"),
}


@pytest.mark.parametrize("name", LINES)
def test_files_of_different_templates_are_refused(
    folder: Path, album: Path, other: Template, shic: Callable, name: str
) -> None:
    shutil.copy(album / "truth.h5", folder / "truth.h5")
    ring = ("--size", "64", *FEW)
    assert (
        shic("render", "-o", "views.h5", *ring)[0]
        == shic("render", "other.h5", "-o", "others.h5", *ring)[0]
        == 0
    )
    assert shic("features", "views.h5", "--extractor", "silhouette", "--pca", "4", "-o", "basis.h5")[0] == 0
    point = {
        "image_id": 1,
        "category_id": 1,
        "bbox": [0, 0, 96, 96],
        "dp_x": [128],
        "dp_y": [128],
        "dp_vertex": [3],
    }
    named = {
        "images": [{"id": 1, "file_name": "synth_00000.jpg"}],
        "categories": [{"id": 1, "name": "animal"}],
    }
    (folder / "points.json").write_text(json.dumps({**named, "annotations": [point]}))
    (folder / "pairs.json").write_text(
        '{"images": {"synth_00000.jpg": {"points": {"ear": [40, 40]}}, '
        '"synth_00001.jpg": {"points": {"ear": [40, 40]}}}}'
    )
    status, _, err = shic(*LINES[name])
    assert status == 1 and "another template" in err, err
    assert not list(folder.glob("new*"))
