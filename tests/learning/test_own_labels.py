"""Photos that teach by the map's own labels, and pictures with the errors that masks and cameras make."""

import numpy as np
import pytest
import torch
from training import CPU, config, make_trainer

from shic_cli.base.devices import chance
from shic_cli.learning import augment, own_labels
from shic_cli.learning.examples import ROOM, Examples
from shic_cli.parts.extractors.make import make_extractor
from shic_cli.stages.train import open_maps

FEW = ("--azimuths", "8", "--elevations", "10")


@pytest.fixture
def rough(album, small_template) -> Examples:
    readers = open_maps([album / "truth.h5"], small_template, config())
    shared = {"points": 20, "augment": False, "variants": 1, "flip": False, "at_points": False, "seed": 0}
    encoder = make_extractor("picture", CPU)
    return Examples(readers, encoder, vertices=len(small_template.verts), rough=True, **shared)


def test_every_step_sees_another_mask_and_points_on_it(rough):
    first, second = rough.get(0, 0), rough.get(0, 1)
    assert not torch.equal(first.features[0], second.features[0])
    for example in (first, second):
        near = example.yx.round().long()
        assert (example.mask[near[:, 0], near[:, 1]] > 0.5).float().mean() > 0.95
    assert torch.equal(first.features, rough.get(0, 0).features)  # the same again, for a run that goes on


def test_a_mask_keeps_its_object_and_a_picture_its_size():
    mask = np.zeros((64, 64), np.float32)
    mask[16:48, 20:44] = 1
    overlaps = []
    for seed in range(30):
        found = augment.roughen_mask(mask, chance(seed))
        assert found.shape == mask.shape and 0 <= found.min() <= found.max() <= 1
        overlaps.append(((found > 0.5) & (mask > 0.5)).sum() / ((found > 0.5) | (mask > 0.5)).sum())
        picture = augment.roughen_picture(np.full((64, 64, 3), 90, np.uint8), chance(seed))
        assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert min(overlaps) > 0.7 and np.std(overlaps) > 0.01


def test_own_labels_stay_on_the_pixels_that_they_were_asked_for(rough):
    image, mask, yx = rough.ask(0, 50, chance(0))
    assert image.shape == (3, 128, 128) and len(yx) == 50
    near = yx.long()
    assert (mask[0][near[:, 0], near[:, 1]] > 0.5).all()
    rough.relabel(0, yx.numpy(), np.arange(50))
    moved, vertex = rough.own[0]
    np.testing.assert_allclose(augment.move(moved, augment.inner(128, ROOM)), yx.numpy(), atol=1e-6)
    assert set(rough.get(0, 0).vertex.tolist()) <= set(vertex.tolist())


def test_photos_are_learned_from_where_the_map_is_sure(folder, album, shic, small_template, monkeypatch):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    both = [folder / "pgt.h5", album / "truth.h5"]
    found = {}
    for name, start, spread in (("sure", 0.0, 1e4), ("late", 1.0, 1e4), ("unsure", 0.0, 0.0)):
        monkeypatch.setattr(own_labels, "START", start)
        monkeypatch.setattr(own_labels, "SPREAD", spread)
        trainer = make_trainer(small_template, both, config(encoder="picture", precision="float32"))
        found[name] = trainer.run_epoch()
        labels = {trainer.examples.is_natural(index) for index in trainer.examples.own}
        assert labels == ({True} if name == "sure" else set())
    assert "own" in found["sure"] and "own" not in found["late"] and "own" not in found["unsure"]
    alone = make_trainer(small_template, both[1:], config(encoder="picture", precision="float32")).run_epoch()
    assert found["late"].keys() == alone.keys()


def test_no_weight_leaves_photos_out(folder, album, shic, small_template):
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", *FEW)[0] == 0
    both = [folder / "pgt.h5", album / "truth.h5"]
    assert len(make_trainer(small_template, both, config(encoder="picture", own=0.0)).examples) == 6
    assert len(make_trainer(small_template, both, config(encoder="picture")).examples) == 12
