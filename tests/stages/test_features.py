"""Features of photos and views: what is refused, and runs that were stopped."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from shic_cli.base import devices
from shic_cli.base.errors import Failures, InputError, SettingError, ShicError
from shic_cli.base.settings import FeatureConfig, RenderConfig
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import Template
from shic_cli.files.mask_sources import MaskSource, Photo
from shic_cli.files.photo_lists import list_images
from shic_cli.files.photos import encode
from shic_cli.learning import pca
from shic_cli.learning.encode import each_photo, photo_features, view_features
from shic_cli.learning.examples import Examples
from shic_cli.learning.views import Views
from shic_cli.parts.extractors.silhouette import Silhouette
from shic_cli.stages import features
from shic_cli.stages.features import write_view_features
from shic_cli.stages.predict import Predictor
from shic_cli.stages.render import render_views

CPU = torch.device("cpu")
PHOTO = Photo("a.png", b"", np.zeros((40, 40, 3), np.uint8), np.pad(np.ones((20, 20), bool), 10))


@pytest.fixture(scope="module")
def views(small_template: Template) -> Views:
    return render_views(small_template, RenderConfig(size=64, azimuths=5, elevations=(10.0,)))


class Overflowing(Silhouette):
    """Its features have one infinite number."""

    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        found = super().__call__(images, masks)
        found[0, 3, 5, 5] = torch.inf
        return found


def refuses(work: Callable[[], object]) -> None:
    with pytest.raises(InputError, match="silhouette: its features are not finite") as caught:
        work()
    assert "precision=float32" in caught.value.hint


def test_features_that_are_not_finite_are_refused_wherever_they_are_used(
    views: Views, small_model_file: Path, tmp_path: Path
) -> None:
    refuses(lambda: photo_features(Overflowing(), [PHOTO]))
    refuses(lambda: list(view_features(Overflowing(), views)))
    predictor = Predictor(small_model_file, CPU)
    assert predictor.embed(PHOTO).grid.isfinite().all()
    predictor.encoder = Overflowing()
    refuses(lambda: predictor.embed(PHOTO))
    vertex = np.where(PHOTO.mask, 3, -1)
    with ItemWriter(
        tmp_path / "m.h5", "shic/maps", params={}, sources={}, attrs={"labels": "annotated", "template": ""}
    ) as writer:
        writer.add(
            "a.png",
            encoded=np.frombuffer(encode(PHOTO.rgb), np.uint8),
            mask=PHOTO.mask,
            vertex=vertex,
            score=PHOTO.mask,
        )
    shared = {
        "points": 4,
        "vertices": 642,
        "augment": False,
        "variants": 1,
        "flip": False,
        "at_points": False,
        "seed": 0,
    }
    refuses(lambda: Examples([ItemReader(tmp_path / "m.h5", "shic/maps")], Overflowing(), **shared).get(0, 0))


@pytest.fixture
def interrupted(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`interrupted(n)` lets the writing of item n raise KeyboardInterrupt; `interrupted(0)` none."""
    keep, count = ItemWriter.keep, [0, 0]

    def stopping(self: ItemWriter, name: str, record: bytes) -> None:
        count[1] += 1
        if count[0] == count[1]:
            raise KeyboardInterrupt
        keep(self, name, record)

    monkeypatch.setattr(ItemWriter, "keep", stopping)

    def set_(number: int) -> None:
        count[:] = [number, 0]

    return set_


class Stored(Silhouette):
    """As an extractor that sees pictures: its features are kept in the file."""

    of_mask = False


@pytest.mark.parametrize("pca", [0, 6])
def test_features_of_views_go_on_where_they_were_stopped(
    views: Views, interrupted, monkeypatch, tmp_path: Path, pca: int
) -> None:
    tracked, encoded, call = [], [], Silhouette.__call__

    def track(items: Iterable, total: int, description: str) -> Iterator:
        tracked.append((total, description))
        yield from items

    def counted(self: Silhouette, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        encoded.append(len(images))
        return call(self, images, masks)

    monkeypatch.setattr(Silhouette, "__call__", counted)
    monkeypatch.setattr(features, "make_extractor", lambda *_: Stored())
    config = FeatureConfig(extractor="silhouette", batch=2, pca=pca)
    write_view_features(views, tmp_path / "whole.h5", config, CPU, sources={}, track=track)
    assert tracked == [(5, "features")] and encoded == [2, 2, 1]
    interrupted(4)
    with pytest.raises(KeyboardInterrupt):
        write_view_features(views, tmp_path / "f.h5", config, CPU, sources={}, track=track)
    interrupted(0)
    encoded.clear()
    write_view_features(views, tmp_path / "f.h5", config, CPU, sources={}, track=track)
    assert encoded == ([2, 2, 1] if pca else [2, 1]) and tracked[-1] == (
        5 if pca else 3,
        "features",
    )  # whole batches, as at first
    one, other = (ItemReader(tmp_path / name, "shic/features") for name in ("whole.h5", "f.h5"))
    assert one.names == other.names == ["0000", "0001", "0002", "0003", "0004"]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(
            a.feature.astype(np.float32), b.feature.astype(np.float32), atol=2e-3 if pca else 0
        )
        assert np.array_equal(a.encoded, b.encoded) and np.array_equal(a.mask, b.mask)


def test_views_are_not_encoded_for_a_file_that_is_there(views: Views, monkeypatch, tmp_path: Path) -> None:
    (tmp_path / "f.h5").write_text("precious")
    monkeypatch.setattr(features, "make_extractor", lambda *_: pytest.fail("the extractor was made"))
    with pytest.raises(ShicError, match="is kept"):
        write_view_features(views, tmp_path / "f.h5", FeatureConfig(), CPU, sources={})


def test_features_of_the_mask_alone_are_not_stored_and_match_all_the_same(
    folder: Path, shic: Callable
) -> None:
    """They took 420 kB of a picture of 48 pixels; the mask, the crop and the photo itself take a few."""
    (folder / "imgs" / "photo2.png").write_bytes(b"no picture")
    assert shic("features", "imgs", "--extractor", "silhouette")[0] == 4
    reader = ItemReader(folder / "features.h5", "shic/features")
    photos = sum((folder / "imgs" / name).stat().st_size for name in reader.names)
    assert len(reader) == 5 and all("feature" not in item.arrays for item in reader)
    assert (folder / "features.h5").stat().st_size < photos + len(reader) * 10_000
    assert shic("pseudo-gt", "features.h5", "-o", "one.h5", *FEW)[0] == 0
    assert shic("pseudo-gt", "imgs", "-o", "two.h5", "--extractor", "silhouette", *FEW)[0] == 4
    one, two = (ItemReader(folder / f"{name}.h5", "shic/maps") for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.vertex, b.vertex) and np.array_equal(a.score, b.score)


def test_features_that_a_file_should_have_and_has_not(
    folder: Path, shic: Callable, tiny_vit: Callable
) -> None:
    assert shic("features", "imgs", "--extractor", f"vit:{tiny_vit('dinov2')}")[0] == 0
    with h5py.File(folder / "features.h5", "r+") as file:
        del file["items/00000000/feature"]
    status, _, err = shic("pseudo-gt", "features.h5", *FEW)
    assert status == 1 and "photo0.png: its features are missing, expected 32 channels" in err


def photos(folder: Path, seed: int = 0) -> None:
    """imgs/ and masks/ of three pictures of noise in `folder`."""
    mask = np.pad(np.full((50, 60, 3), 255, np.uint8), ((20, 20), (30, 30), (0, 0)))
    for i in range(3):
        noise = np.random.default_rng(seed + i).integers(0, 255, (90, 120, 3), dtype=np.uint8)
        for part, content in (("imgs", noise), ("masks", mask)):
            (folder / part).mkdir(exist_ok=True)
            (folder / part / f"{i}.png").write_bytes(encode(content))


FEW = ("--azimuths", "2", "--elevations", "0")


@pytest.fixture
def here(small_template_file: Path, tiny_vit, tmp_path: Path, shic) -> str:
    """The extractor's name; template.h5, imgs/, masks/ and f.h5, the photos' features by it, are in the
    test's own folder.
    """
    photos(tmp_path)
    extractor = f"vit:{tiny_vit('dinov2')}"
    assert shic("features", "imgs", "--extractor", extractor, "-o", "f.h5")[0] == 0
    return extractor


def test_labels_are_refused_before_any_view_is_rendered(here: str, shic, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        "shic_cli.stages.pseudo_gt.render_views", lambda *_: pytest.fail("views were rendered")
    )
    (tmp_path / "pgt.h5").write_text("precious")
    status, _, err = shic("pseudo-gt", "imgs", "--extractor", here, *FEW)
    assert status == 1 and "is kept" in err
    status, _, err = shic("pseudo-gt", "f.h5", "--extractor", "silhouette", "-o", "p.h5", *FEW)
    assert status == 2 and "--extractor silhouette" in err and here in err and "leave out --extractor" in err
    with h5py.File(tmp_path / "f.h5", "r+") as file:
        file.attrs["fingerprint"] = "others"
    status, _, err = shic("pseudo-gt", "f.h5", "-o", "p.h5", *FEW)
    assert status == 1 and "other settings or weights" in err
    assert not list(tmp_path.glob("p.h5*"))


def test_the_same_extractor_may_be_named(here: str, shic) -> None:
    assert shic("pseudo-gt", "f.h5", "--extractor", here, *FEW)[0] == 0


def test_encoding_the_views_is_tracked(here: str, shic, monkeypatch) -> None:
    tracked = []

    def track(items: Iterable, total: int, description: str, **_: object) -> Iterator:
        tracked.append((total, description))
        yield from items

    monkeypatch.setattr("shic_cli.cli.console.track", track)
    assert shic("pseudo-gt", "imgs", "--extractor", here, *FEW)[0] == 0
    assert tracked == [(2, "views"), (3, "pseudo-gt")]


def test_the_views_are_not_held_while_photos_are_matched(here: str, shic, monkeypatch) -> None:
    rendered, held = [], []

    def render(*given: object) -> Views:
        made = render_views(*given)
        rendered.append(weakref.ref(made))
        return made

    def track(items: Iterable, total: int, description: str, **_: object) -> Iterator:
        for item in items:
            held.append((description, rendered[0]() is not None))
            yield item

    monkeypatch.setattr("shic_cli.stages.pseudo_gt.render_views", render)
    monkeypatch.setattr("shic_cli.cli.console.track", track)
    assert shic("pseudo-gt", "imgs", "--extractor", here, *FEW)[0] == 0
    assert set(held) == {("views", True), ("pseudo-gt", False)}


def test_labels_do_not_go_on_with_another_features_file(here: str, shic, interrupted, tmp_path: Path) -> None:
    interrupted(3)
    assert shic("pseudo-gt", "f.h5", *FEW)[0] == 130
    interrupted(0)
    photos(tmp_path, seed=50)
    assert shic("features", "imgs", "--extractor", here, "-o", "f.h5", "--overwrite")[0] == 0
    status, _, err = shic("pseudo-gt", "f.h5", *FEW)
    assert status == 1 and "an unfinished run is there with other settings" in err and "sha256" in err


def test_labels_go_on_although_a_fitted_basis_is_not_the_same_to_the_last_digit(
    here: str, shic, interrupted, monkeypatch
) -> None:
    line = ("pseudo-gt", "imgs", "--extractor", here, "--pca", "8", *FEW)
    interrupted(3)
    assert shic(*line)[0] == 130
    interrupted(0)
    fit, bases = pca.fit, []

    def other(*given: object) -> tuple[np.ndarray, np.ndarray]:
        mean, basis = fit(*given)
        bases.append(np.nextafter(basis, np.float32(2)))
        return mean, bases[-1]

    monkeypatch.setattr(pca, "fit", other)
    assert shic(*line)[0] == 0 and len(bases) == 1


def test_views_that_do_not_fit_together_are_done_one_by_one(views: Views) -> None:
    class Small(Silhouette):
        """Runs out of a GPU's memory at two pictures."""

        def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
            if len(images) > 1:
                raise torch.OutOfMemoryError("too many")
            return super().__call__(images, masks)

    for one, two in zip(view_features(Small(), views), view_features(Silhouette(), views), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize("together", [2, 4, 16])
def test_photos_in_batches_get_what_they_get_alone(
    folder: Path,
    shic: Callable,
    small_model_file: Path,
    tiny_vit: Callable,
    monkeypatch: pytest.MonkeyPatch,
    together: int,
) -> None:
    """As on a GPU: more than one at a time, the last batch smaller, one photo unreadable, one
    already done.
    """
    (folder / "imgs" / "photo2.png").write_bytes(b"no picture")
    lines = {
        "f": ("features", "imgs", "--extractor", f"vit:{tiny_vit('dinov2')}"),
        "m": ("predict", "imgs", "--flip", "on"),
    }
    for name, line in lines.items():
        assert shic(*line, "-o", f"{name}1.h5")[0] == 4
    monkeypatch.setitem(devices.TOGETHER, "cpu", together)
    for name, line in lines.items():
        status, _, err = shic(*line, "-o", f"{name}2.h5")
        assert status == 4 and "photo2.png" in err
    one, two = (ItemReader(folder / f"f{i}.h5", "shic/features") for i in (1, 2))
    assert one.names == two.names and len(one) == 5
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a.feature, b.feature, atol=1e-3)
    one, two = (ItemReader(folder / f"m{i}.h5", "shic/maps") for i in (1, 2))
    assert one.names == two.names
    assert np.mean([(a.vertex == b.vertex).mean() for a, b in zip(one, two, strict=True)]) > 0.999


def test_of_a_batch_only_the_photo_that_fails_is_left_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what stops everything does stop it."""
    monkeypatch.setitem(devices.TOGETHER, "cpu", 4)
    images, asked = list_images([str(folder / "imgs")]), []

    def work(photos: list[Photo]) -> list[str]:
        asked.append([photo.name for photo in photos])
        if any(photo.name == images[1].name for photo in photos):
            raise InputError("this one is bad", "leave it out")
        return [photo.name for photo in photos]

    failures = Failures()
    found = list(each_photo(images, MaskSource(), work, CPU, failures))
    names = [image.name for image in images]
    assert (
        [photo.name for photo, _ in filter(None, found)]
        == [name for _, name in filter(None, found)]
        == [names[0], *names[2:]]
    )
    assert failures.names == [names[1]] and found.count(None) == 1
    assert asked == [names[:4], *([name] for name in names[:4]), names[4:]]

    def stop(photos: list[Photo]) -> list[str]:
        raise SettingError("no such thing", "")

    with pytest.raises(SettingError):
        list(each_photo(images, MaskSource(), stop, CPU, failures))
