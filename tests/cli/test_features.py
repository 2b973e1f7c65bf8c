"""`shic features` and what comes after it, with a vision transformer, as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shic_cli.base.training_settings import TrainConfig
from shic_cli.files.items import ItemReader
from shic_cli.files.mask_sources import MaskSource, Photo
from shic_cli.files.photo_lists import list_images
from shic_cli.files.photos import Crop
from shic_cli.learning.encode import cut
from shic_cli.learning.model_file import load_model, read_meta, save_model
from shic_cli.learning.trainer import Trainer
from shic_cli.parts.extractors.make import make_extractor
from shic_cli.stages.predict import Predictor

CPU = torch.device("cpu")
FEW = ("--azimuths", "4", "--elevations", "10")
SHORT = ("--epochs", "1", "--variants", "1", "--batch", "3", "--points", "20")
DEIT = Path(__file__).parents[3] / "shared/weights/deit-tiny-patch16-224"


def test_features_of_photos_are_the_extractors(folder, tiny_vit, shic):
    spec = f"vit:{tiny_vit('dinov2')},layer=1,facet=key"
    assert shic("features", "imgs", "-o", "f.h5", "--extractor", spec)[0] == 0
    reader, extractor = ItemReader(folder / "f.h5", "shic/features"), make_extractor(spec, CPU)
    assert (
        reader.header.attrs["extractor"] == spec
        and reader.header.attrs["fingerprint"] == extractor.fingerprint
    )
    assert reader.header.params["extractor"] == json.loads(json.dumps(extractor.settings))
    for photo, item in zip(map(MaskSource().read, list_images([str(folder / "imgs")])), reader, strict=True):
        crop, image, mask = cut(photo, 48)
        expected = F.normalize(extractor(image[None], mask[None])[0], dim=0)
        assert (
            item.name == photo.name
            and Crop(*map(int, item.crop)) == crop
            and item.feature.shape == (32, 6, 6)
        )
        np.testing.assert_allclose(item.feature.astype(np.float32), expected.numpy(), atol=1e-3)


@pytest.mark.skipif(not DEIT.is_dir(), reason="the shared weights are not here")
@pytest.mark.parametrize("options", ["", ",layer=9,facet=key"])
def test_real_weights_through_the_command_line(folder, shic, options):
    from transformers import AutoModel

    assert shic("features", "imgs/photo0.png", "-o", "f.h5", "--extractor", f"vit:{DEIT}{options}")[0] == 0
    item = ItemReader(folder / "f.h5", "shic/features")["photo0.png"]
    _, image, _ = cut(MaskSource().read(list_images([str(folder / "imgs/photo0.png")])[0]), 224)
    mean, std = (
        torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    model = AutoModel.from_pretrained(DEIT, local_files_only=True).eval()
    with torch.no_grad():
        out = model(((image - mean) / std)[None], output_hidden_states=True)
        block = model.layers[9]
        key = block.attention.k_proj(block.layernorm_before(out.hidden_states[9]))
    tokens = (key if options else out.last_hidden_state)[0, 1:]
    expected = F.normalize(tokens, dim=1).T.reshape(192, 14, 14).numpy()
    np.testing.assert_allclose(
        item.feature.astype(np.float32), expected, atol=5e-4
    )  # the file's half precision


def test_features_of_other_weights_or_layers_are_refused(folder, tiny_vit, shic):
    tiny, other = tiny_vit("dinov2"), tiny_vit("dinov2", "other", num_hidden_layers=2)
    assert shic("features", "imgs", "-o", "f.h5", "--extractor", f"vit:{tiny},layer=1")[0] == 0
    assert shic("pseudo-gt", "f.h5", "-o", "same.h5", *FEW)[0] == 0
    assert ItemReader(folder / "same.h5", "shic/maps").header.params["extractor"]["layer"] == 1
    with h5py.File(folder / "f.h5", "r+") as file:
        file.attrs["extractor"] = f"vit:{tiny},layer=2"
    status, _, err = shic("pseudo-gt", "f.h5", *FEW)
    assert status == 1 and "other settings or weights" in err
    with h5py.File(folder / "f.h5", "r+") as file:
        file.attrs["extractor"] = f"vit:{tiny},layer=1"
    shutil.rmtree(tiny)
    other.rename(tiny)
    status, _, err = shic("pseudo-gt", "f.h5", *FEW)
    assert status == 1 and "other settings or weights" in err and not (folder / "pgt.h5").exists()


def balance_foreground(path: Path, image: Path) -> None:
    """Shift the model's foreground output so that it takes half of the picture for the object: one epoch
    leaves it at all or nothing.
    """
    predictor = Predictor(path, CPU)
    rgb = cv2.imread(str(image))[..., ::-1]
    logits = predictor.embed(Photo("", b"", rgb, np.ones(rgb.shape[:2], bool))).foreground
    saved = load_model(path)
    saved.map.decoder.foreground.bias -= logits.median()
    save_model(path, saved, overwrite=True)


def test_a_dense_encoder_serves_from_labels_to_predictions_without_masks(folder, tiny_vit, shic):
    tiny = tiny_vit("dinov2", "weights/dinov2-small", patch_size=14, image_size=56)
    shutil.copytree(folder / "weights", folder / "moved")
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", "--extractor", "silhouette", *FEW)[0] == 0
    assert shic("train", *SHORT, "--encoder", f"vit:{tiny},side=112")[0] == 0
    meta = read_meta(folder / "model.safetensors")
    assert meta["encoder"]["name"] == f"vit:{tiny},side=112" and meta["encoder"]["side"] == 112
    assert (meta["decoder"], meta["params"]["augment"], meta["channels"]) == ("convolutional", "on", 32)
    assert meta["losses"]["foreground"] > 0
    assert shic("predict", "imgs/photo0.png", "-o", "with.h5", "--no-pictures")[0] == 0
    shutil.rmtree(folder / "masks")
    balance_foreground(folder / "model.safetensors", folder / "imgs/photo0.png")
    assert shic("predict", "imgs/photo0.png", "--masker", "none", "-o", "without.h5")[0] == 0
    item = ItemReader(folder / "without.h5", "shic/maps")["photo0.png"]
    assert 0 < item.mask.mean() < 1 and ((item.vertex >= 0) == item.mask).all()
    shutil.rmtree(tiny)
    status, _, err = shic("predict", "imgs/photo0.png", "--masker", "none", "-o", "gone.h5")
    assert status == 3 and "no such folder" in err and "--weights" in err and "Traceback" not in err
    assert (
        shic("predict", "imgs/photo0.png", "--masker", "none", "--weights", "moved", "-o", "moved.h5")[0] == 0
    )
    assert np.array_equal(ItemReader(folder / "moved.h5", "shic/maps")["photo0.png"].vertex, item.vertex)


def test_the_papers_encoder_by_name_is_what_auto_takes(folder, tiny_vit, shic):
    tiny_vit("dinov2", "weights/dinov2-small", patch_size=14, image_size=56)
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", "--extractor", "silhouette", *FEW)[0] == 0
    status, _, err = shic("train", *SHORT, "--weights", "weights", "--points", "10")
    assert status == 0 and "encoder: auto took dinov2-small" in err
    meta = read_meta(folder / "model.safetensors")
    assert meta["encoder"]["name"] == "dinov2-small" and meta["encoder"]["side"] == 224


def test_joined_with_the_silhouette_it_trains_the_pointwise_decoder(folder, tiny_vit, shic):
    spec = f"silhouette+vit:{tiny_vit('dinov2')},layer=1"
    assert shic("pseudo-gt", "imgs", "-o", "pgt.h5", "--extractor", spec, *FEW)[0] == 0
    assert shic("train", *SHORT, "--encoder", spec)[0] == 0
    meta = read_meta(folder / "model.safetensors")
    assert (meta["encoder"]["name"], meta["decoder"], meta["channels"]) == (spec, "pointwise", 112)
    assert [part["name"] for part in meta["encoder"]["parts"]] == ["silhouette", spec.partition("+")[2]]
    assert shic("predict", "imgs/photo0.png", "--no-pictures")[0] == 0
    item = ItemReader(folder / "photo0.maps.h5", "shic/maps")["photo0.png"]
    assert ((item.vertex >= 0) == item.mask).all()


@pytest.mark.parametrize(
    ("extractor", "status", "text"),
    [
        ("vit", 2, "names no model"),
        ("vit:imgs", 1, "no checkpoint"),
        ("vit:nowhere", 2, "there is no model 'nowhere'"),
        ("vit:/nowhere/at/all", 3, "there is no such folder"),
        ("vit:nobody/nothing", 3, "shic models pull nobody/nothing"),
        ("vit:{tiny},side=50", 2, "side=48 or side=56"),
        ("vit:{tiny},layer=3", 2, "give 0 to 2"),
        ("vit:{tiny},layer=top", 2, "not a whole number"),
        ("vit:{tiny},facet=head", 2, "token, query, key, value"),
        ("vit:{tiny},depth=3", 2, "there is no option 'depth'"),
        ("silhouette+vit:nobody/nothing", 3, "not on this machine"),
    ],
)
def test_bad_extractors_are_two_lines_and_a_status(folder, tiny_vit, shic, extractor, status, text):
    found, out, err = shic(
        "features", "imgs", "-o", "f.h5", "--extractor", extractor.format(tiny=tiny_vit("dinov2"))
    )
    assert (
        (found, out) == (status, "")
        and text in err
        and "Traceback" not in err
        and not (folder / "f.h5").exists()
    )


def test_pictures_are_encoded_together_as_they_are_alone(album, tiny_vit, tmp_path):
    from shic_cli.learning.examples import Examples

    encoder = make_extractor(f"vit:{tiny_vit('dinov2')}", CPU)
    shutil.copy(album / "truth.h5", tmp_path / "photos.h5")
    with h5py.File(tmp_path / "photos.h5", "r+") as file:
        file.attrs["labels"] = "annotated"
    readers = [ItemReader(path, "shic/maps") for path in (tmp_path / "photos.h5", album / "truth.h5")]
    shared = {"points": 5, "vertices": 642, "augment": True, "variants": 2, "flip": True, "seed": 3}
    for at_points in (False, True):
        alone = Examples(readers, encoder, at_points=at_points, **shared)
        together = Examples(readers, encoder, at_points=at_points, together=2, **shared)
        for epoch in (0, 1, 2):
            one, other = [alone.get(i, epoch) for i in (7, 0, 2, 8)], together.get_all([7, 0, 2, 8], epoch)
            assert [a.natural for a in one] == [False, True, True, False]
            for a, b in zip(one, other, strict=True):
                torch.testing.assert_close(a.features, b.features, atol=2e-3, rtol=0)
                assert (a.flipped is not None) == (b.flipped is not None) == a.natural
                if a.natural:
                    torch.testing.assert_close(a.flipped, b.flipped, atol=2e-3, rtol=0)
                    assert (a.flipped - a.features).abs().max() > 0.03
                assert torch.equal(a.yx, b.yx) and torch.equal(a.vertex, b.vertex) and a.natural == b.natural
        assert together.kept.keys() == alone.kept.keys() and len(together.kept) == 8


def test_a_fine_grid_is_kept_as_the_convolutional_decoder_takes_it(album, small_template, tiny_vit):
    config = TrainConfig(
        encoder=f"vit:{tiny_vit('dinov2', image_size=160)}", batch=2, points=10, augment="off"
    )
    trainer = Trainer.make(small_template, [ItemReader(album / "truth.h5", "shic/maps")], config, CPU, 0)
    kept = trainer.examples.get(0, 0).features
    trainer.examples.cells, trainer.examples.kept = None, {}
    whole = trainer.examples.get(0, 0).features
    assert (
        trainer.config.decoder == "convolutional"
        and kept.shape == (32, 16, 16)
        and whole.shape == (32, 20, 20)
    )
    trainer.map.eval()
    with torch.no_grad():
        one, other = (trainer.map.embed(features[None].float())[0] for features in (kept, whole))
    torch.testing.assert_close(one, other, atol=2e-3, rtol=1e-2)
