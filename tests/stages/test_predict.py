"""What a model's probabilities become: the picture and its mirror image, the likeliest vertex and
the median.
"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from shic_cli.base.settings import PredictConfig
from shic_cli.files.layouts import Template
from shic_cli.files.mask_sources import Photo
from shic_cli.learning.canonical_map import CanonicalMap
from shic_cli.learning.model_file import load_model, save_model
from shic_cli.stages.predict import Predictor

CPU = torch.device("cpu")


@pytest.fixture
def photo(album: Path) -> Photo:
    """A picture of the animal, 1 pixel narrower than it is high."""
    rgb, mask = (
        cv2.imread(str(album / name / "photo0.png"), kind)[:, 1:]
        for name, kind in (("imgs", 1), ("masks", 0))
    )
    return Photo("photo0", b"", rgb, mask > 127)


def mirrored(photo: Photo) -> Photo:
    return Photo(photo.name, b"", photo.rgb[:, ::-1].copy(), photo.mask[:, ::-1].copy())


def test_flipped_answers_of_mirrored_pictures_are_mirrored(
    photo: Photo, small_model_file: Path, small_template: Template
) -> None:
    """So with `flip`, but for rounding; the map's own answers are not."""
    for flip in ("on", "off"):
        predictor = Predictor(small_model_file, CPU, PredictConfig(flip=flip))
        (vertex, score, _), (other, other_score, _) = map(predictor.predict, (photo, mirrored(photo)))
        same = small_template.mirror[other[:, ::-1][photo.mask]] == vertex[photo.mask]
        assert same.mean() > 0.8 if flip == "on" else same.mean() < 0.5
        if flip == "on":
            np.testing.assert_allclose(other_score[:, ::-1], score, atol=1e-4)


def test_scores_are_the_mean_of_both_probabilities(
    photo: Photo, small_model_file: Path, small_template: Template
) -> None:
    predictor = Predictor(small_model_file, CPU, PredictConfig(flip="on"))
    vertex, score, _ = predictor.predict(photo)
    y, x = np.argwhere(photo.mask)[len(np.argwhere(photo.mask)) // 2]
    straight = predictor.vertex_embeddings @ predictor.embed(photo).at(np.array([[y, x]]))[0]
    across = (
        predictor.vertex_embeddings
        @ predictor.embed(mirrored(photo)).at(np.array([[y, photo.mask.shape[1] - 1 - x]]))[0]
    )
    mean = (straight.softmax(0) + across.softmax(0)[small_template.mirror.astype(int)]) / 2
    assert vertex[y, x] == mean.argmax() and score[y, x] == pytest.approx(float(mean.max()), abs=1e-4)


def test_the_median_errs_less_than_the_mode_by_its_own_probabilities(
    photo: Photo, small_model_file: Path, small_template: Template
) -> None:
    found = {}
    for estimate in ("mode", "median"):
        predictor = Predictor(small_model_file, CPU, PredictConfig(estimate=estimate))
        predictor.vertex_embeddings *= 0.05  # unsure
        vertex, score, uncertainty = predictor.predict(photo)
        share = (predictor.embed(photo).at(np.argwhere(photo.mask)) @ predictor.vertex_embeddings.T).softmax(
            1
        )
        expected = share @ torch.from_numpy(small_template.geodesic)
        chosen = torch.from_numpy(vertex[photo.mask]).long()[:, None]
        found[estimate] = float(expected.gather(1, chosen).mean())
        np.testing.assert_allclose(score[photo.mask], share.gather(1, chosen)[:, 0], atol=1e-4)
        stated, exact = uncertainty[photo.mask], expected.gather(1, chosen)[:, 0].numpy()
        assert np.abs(stated - exact).mean() < 0.5  # 512 cells of 642 vertices
        assert stated.min() > exact.min() / 2 > 1
        assert np.array_equal(stated * 8, np.round(stated * 8)) and not uncertainty[~photo.mask].any()
    assert found["median"] < found["mode"]


@pytest.mark.parametrize(
    "decoder, mirror, expected",
    [("unet", "on", (True, True)), ("unet", "off", (False, True)), ("pointwise", None, (False, False))],
)
def test_auto_goes_by_how_the_model_was_trained(
    small_model_file: Path,
    small_template: Template,
    decoder: str,
    mirror: str | None,
    expected: tuple[bool, bool],
) -> None:
    saved = load_model(small_model_file)
    meta = {**saved.meta, "decoder": decoder, **({"params": {"mirror": mirror}} if mirror else {})}
    if decoder == "unet":
        made = CanonicalMap(
            decoder, saved.meta["channels"], 16, torch.from_numpy(small_template.eigenvectors)
        )
        saved = replace(saved, map=made)
    save_model(small_model_file, replace(saved, meta=meta), overwrite=True)
    found = Predictor(small_model_file, CPU)
    assert (found.flip, found.median) == expected
    given = Predictor(small_model_file, CPU, PredictConfig(flip="on", estimate="mode"))
    assert (given.flip, given.median) == (True, False)


def test_a_grid_gives_nearly_what_all_comparisons_give(
    photo: Photo, small_model_file: Path, small_template: Template
) -> None:
    """Of a photo that is large enough for blocks of several pixels; a small one gets the same answer."""
    large = replace(
        photo,
        rgb=cv2.resize(photo.rgb, None, fx=8, fy=8),
        mask=cv2.resize(photo.mask.astype(np.uint8), None, fx=8, fy=8) > 0,
    )
    found = {}
    for compare in ("all", "grid", "auto"):
        predictor = Predictor(
            small_model_file, CPU, PredictConfig(compare=compare, estimate="median", flip="on")
        )
        found[compare] = predictor.predict(large)
        found[compare, "small"] = predictor.predict(photo)
    np.testing.assert_array_equal(found["all", "small"][0], found["grid", "small"][0])
    np.testing.assert_array_equal(found["auto"][0], found["grid"][0])
    all_, grid = found["all"][0], found["grid"][0]
    assert ((all_ >= 0) == (grid >= 0)).all() and (all_ != grid).any()
    # this map is untrained: of 3 % of the pixels two far vertices are as good, and last digits decide
    assert small_template.geodesic[all_[large.mask], grid[large.mask]].mean() < 3
    stated, exact = (found[compare].uncertainty[large.mask] for compare in ("grid", "all"))
    assert stated.mean() == pytest.approx(exact.mean(), rel=0.01)
    assert np.abs(stated - exact).mean() < 0.1 * exact.mean()


def test_pictures_do_not_come_among_the_photos(folder: Path, small_model_file: Path, shic) -> None:
    """Predicted again, the folder would hold them as photos too."""
    before = sorted((folder / "imgs").iterdir())
    for words in (("imgs",), ("imgs/photo0.png", "imgs/photo1.png")):
        status, _, err = shic("predict", *words, "-o", "imgs.maps.h5")
        assert status == 1 and len(err.splitlines()) == 2
        assert "imgs: holds images to predict" in err and "-o predictions.maps.h5" in err
    assert sorted((folder / "imgs").iterdir()) == before and not list(folder.glob("imgs.maps.h5*"))
    assert shic("predict", "imgs", "-o", "imgs.maps.h5", "--no-pictures")[0] == 0
