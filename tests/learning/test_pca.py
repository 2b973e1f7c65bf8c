"""One fixed basis of features: its mathematics, and how files carry it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import h5py
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shic_cli.base.errors import InputError, SettingError
from shic_cli.files.arrays import read_template
from shic_cli.files.items import ItemReader
from shic_cli.learning import pca

FEW = ("--azimuths", "4", "--elevations", "10")


class Plain:
    name, fingerprint, needs_mask, sees_whole_object, side, dim, device = (
        "plain",
        "plain-1",
        True,
        False,
        8,
        6,
        torch.device("cpu"),
    )
    settings: ClassVar[dict] = {"name": "plain"}

    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return images.repeat(1, 2, 1, 1) * torch.arange(1.0, 7.0)[:, None, None]


def made() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    features = F.normalize(
        torch.rand(4, 6, 8, 8, generator=generator) * torch.tensor([9.0, 1, 5, 3, 2, 0.5])[:, None, None],
        dim=1,
    )
    masks = torch.zeros(4, 32, 32)
    masks[:, 4:27, 8:30] = 1
    return features, masks


def test_the_basis_is_that_of_a_singular_value_decomposition():
    features, masks = made()
    mean, basis = pca.fit(features, masks, 4)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[1:6, 2:8] = inside[6, 2:7] = (
        True  # the last column's cells are half full, the last row's three quarters, their corner less
    )
    rows = features[:, :, inside].transpose(1, 2).reshape(-1, 6).double()
    torch.testing.assert_close(torch.from_numpy(mean).double(), rows.mean(0), atol=1e-6, rtol=0)
    _, _, vh = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    cosines = (torch.from_numpy(basis).T.double() * vh[:4]).sum(1)
    torch.testing.assert_close(cosines.abs(), torch.ones(4).double(), atol=1e-5, rtol=0)
    np.testing.assert_allclose(basis.T @ basis, np.eye(4), atol=1e-6)
    assert (basis[np.abs(basis).argmax(0), np.arange(4)] > 0).all()


def test_all_components_keep_distances_and_few_keep_the_most():
    features, masks = made()
    whole, few = (pca.Projected(Plain(), *pca.fit(features, masks, count)) for count in (6, 2))
    a, b = whole.project(features)[0].flatten(1), features[0].flatten(1)
    one, other = (torch.cdist(rows.T.double(), rows.T.double()) for rows in (a, b))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    assert few.project(features).var(dim=(0, 2, 3))[0] > few.project(features).var(dim=(0, 2, 3))[1]
    assert few.dim == 2 and few.project(features).shape == (4, 2, 8, 8)


def test_projected_normalises_before_it_projects():
    features, masks = made()
    projected = pca.Projected(Plain(), *pca.fit(features, masks, 3))
    images, inside = torch.rand(2, 3, 8, 8), torch.ones(2, 1, 8, 8)
    found = projected(images, inside)
    torch.testing.assert_close(found, projected.project(F.normalize(Plain()(images, inside), dim=1)))
    assert (projected.name, projected.side, projected.needs_mask, projected.sees_whole_object) == (
        "plain",
        8,
        True,
        False,
    )
    assert projected.settings["pca"] == 3 and projected.settings["name"] == "plain"


def test_another_basis_is_another_fingerprint():
    features, masks = made()
    mean, basis = pca.fit(features, masks, 3)
    one, other = pca.Projected(Plain(), mean, basis), pca.Projected(Plain(), mean + 1, basis)
    assert len({"plain-1", one.fingerprint, other.fingerprint}) == 3
    assert pca.Projected(Plain(), *pca.fit(features, masks, 3)).fingerprint == one.fingerprint
    with pytest.raises(InputError, match="length 5"):
        pca.Projected(Plain(), mean[:5], basis[:5])


@pytest.mark.parametrize("count", [7, 1000])
def test_more_components_than_there_are(count):
    features, masks = made()
    with pytest.raises(SettingError, match=f"--pca {count}"):
        pca.fit(features, masks, count)
    with pytest.raises(SettingError, match="0 cells"):
        pca.fit(features, torch.zeros_like(masks), 3)


@pytest.fixture
def folder(small_template_file: Path, tmp_path: Path, shic) -> Path:
    """template.h5, views.h5 and imgs/ with masks/ of two pictures."""
    assert shic("synth", "-o", "s.h5", "--number", "2", "--size", "64")[0] == 0
    for kind in ("imgs", "masks"):
        (tmp_path / kind).mkdir()
    from shic_cli.files.photos import encode

    for item in ItemReader(tmp_path / "s.h5", "shic/maps"):
        stem = Path(item.name).stem
        (tmp_path / "imgs" / f"{stem}.png").write_bytes(item.encoded.tobytes())
        (tmp_path / "masks" / f"{stem}.png").write_bytes(
            encode(item.mask[..., None].repeat(3, -1) * np.uint8(255))
        )
    assert shic("render", "-o", "views.h5", "--size", "128", *FEW)[0] == 0
    return tmp_path


def test_a_basis_travels_from_views_to_photos_to_labels(folder, shic):
    silhouette = ("--extractor", "silhouette")
    assert shic("features", "views.h5", "-o", "v.h5", "--pca", "12", *silhouette)[0] == 0
    with h5py.File(folder / "v.h5") as file:
        assert file["pca_mean"].shape == (80,) and file["pca_basis"].shape == (80, 12)
        fingerprint = file.attrs["fingerprint"]
    views = ItemReader(folder / "v.h5", "shic/features")
    assert len(views) == 4 and views["0000"].feature.shape == (12, 64, 64)
    np.testing.assert_allclose(np.linalg.norm(views["0000"].feature.astype(np.float32), axis=0), 1, atol=2e-3)
    assert shic("features", "imgs", "-o", "f.h5", "--basis", "v.h5")[0] == 0
    photos = ItemReader(folder / "f.h5", "shic/features")
    assert (
        photos.header.attrs["fingerprint"] == fingerprint and photos.header.attrs["extractor"] == "silhouette"
    )
    assert next(iter(photos)).feature.shape == (12, 64, 64)
    assert shic("features", "views.h5", "-o", "v2.h5", "--basis", "v.h5")[0] == 0
    again = ItemReader(folder / "v2.h5", "shic/features")
    assert all(np.abs(again[name].feature - views[name].feature).max() < 2e-3 for name in views.names)
    assert "pca_basis" in shic("info", "f.h5", "--json")[1]
    for words in (
        ("f.h5", "-o", "a.h5"),
        ("f.h5", "-o", "c.h5", "--pca", "12"),
        ("imgs", "-o", "b.h5", "--pca", "12", *silhouette),
    ):
        assert shic("pseudo-gt", *words, "--views", "views.h5")[0] == 0
    maps = [ItemReader(folder / f"{name}.h5", "shic/maps") for name in "abc"]
    assert maps[0].header.params["extractor"]["pca"] == 12
    verts = read_template(folder / "template.h5").verts  # the body is 1 long, an edge about 0.05
    for one, other, same in zip(*maps, strict=True):
        moved = np.linalg.norm(verts[one.vertex] - verts[other.vertex], axis=-1)[one.mask]
        assert moved.max() < 0.3 and moved.mean() < 0.04  # half precision in the file: a neighbouring vertex
        assert np.array_equal(one.vertex, same.vertex)


def test_features_in_a_basis_never_meet_views_without_it(folder, shic):
    silhouette = ("--extractor", "silhouette")
    assert shic("features", "views.h5", "-o", "v.h5", "--pca", "12", *silhouette)[0] == 0
    assert shic("features", "imgs", "-o", "f.h5", "--basis", "v.h5")[0] == 0
    status, _, err = shic("pseudo-gt", "f.h5", "--views", "views.h5", "--pca", "10")
    assert status == 2 and "have length 12" in err
    with h5py.File(folder / "f.h5", "r+") as file:
        file["pca_mean"][0] += 1
    status, _, err = shic("pseudo-gt", "f.h5", "--views", "views.h5")
    assert status == 1 and "other settings or weights" in err
    with h5py.File(folder / "f.h5", "r+") as file:
        del file["pca_mean"]
    status, _, err = shic("pseudo-gt", "f.h5", "--views", "views.h5")
    assert status == 1 and "no whole basis" in err
    with h5py.File(folder / "f.h5", "r+") as file:
        del file["pca_basis"]
    status, _, err = shic("pseudo-gt", "f.h5", "--views", "views.h5")
    assert status == 1 and "other settings or weights" in err and not (folder / "pgt.h5").exists()


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("imgs", "--pca", "8"), 2, "these are photos"),
        (("views.h5", "--pca", "81"), 2, "features of length 80"),
        (("views.h5", "--pca", "-1"), 2, "--pca"),
        (("imgs", "--basis", "nothing.h5"), 1, "there is no such file"),
        (("imgs", "--basis", "views.h5"), 1, "expected shic/features, found shic/views"),
        (("imgs", "--basis", "plain.h5"), 1, "holds no basis"),
        (("views.h5", "--basis", "v.h5", "--pca", "3"), 2, "exclude each other"),
        (("imgs", "--basis", "v.h5"), 1, "belongs to another extractor"),
    ],
)
def test_bad_bases(folder, shic, words, status, text):
    assert shic("features", "imgs", "-o", "plain.h5", "--extractor", "silhouette")[0] == 0
    assert shic("features", "views.h5", "-o", "v.h5", "--extractor", "silhouette", "--pca", "12")[0] == 0
    with h5py.File(folder / "v.h5", "r+") as file:
        file.attrs["fingerprint"] = "others"
    found, out, err = shic("features", *words, "-o", "new.h5")
    assert (found, out) == (status, "") and text in err and "Traceback" not in err
    assert not (folder / "new.h5").exists()
