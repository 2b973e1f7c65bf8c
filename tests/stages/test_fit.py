"""`shic fit`: the body that explains a photo's map, and what becomes of photos that none explains."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import fit_work
import numpy as np
import pytest
import torch
import trimesh
from beast import beast as beast
from beast import save

from shic_cli.base.settings import SynthConfig
from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import Template
from shic_cli.stages import fit
from shic_cli.stages.fit import Fitter
from shic_cli.stages.synth import synthesize
from shic_cli.surface import body_fit

Shic = Callable[..., tuple[int, str, str]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_fit, "STEPS", 40)


@pytest.fixture(scope="module")
def truth(beast: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A maps file of two pictures of the posed beast from its left, with exact labels."""
    path = tmp_path_factory.mktemp("truth") / "truth.h5"
    config = SynthConfig(number=2, size=128, poses=0.6, bodies=0.0, level=0.0, elevation=(5, 6), roll=0)
    synthesize(beast, path, config, torch.device("cpu"), seed=3, sources={})
    return path


def spoilt(truth: Path, path: Path, template: Template, **changed: Callable) -> None:
    """The maps of `truth`, with an uncertainty of 0 and some arrays `changed`."""
    reader = ItemReader(truth, "shic/maps")
    attrs = {"labels": "predicted", "template": template.fingerprint}
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=attrs) as writer:
        for item in reader:
            arrays = {**item.arrays, "uncertainty": np.zeros(item.vertex.shape, np.float16)}
            writer.add(item.name, **{**arrays, **{name: make(item) for name, make in changed.items()}})


def test_a_body_is_found_in_its_own_exact_map(
    beast: Template, truth: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fitted body covers the picture, and its map is far nearer to the truth than the body at rest."""
    monkeypatch.setattr(body_fit, "STEPS", 60)
    item = next(iter(ItemReader(truth, "shic/maps")))
    body = Fitter.of(beast).fit(item.vertex, np.zeros(item.vertex.shape, np.float32), item.mask, seed=0)
    both = (body.vertex >= 0) & (item.vertex >= 0)
    error = beast.geodesic[body.vertex[both], item.vertex[both]].mean()
    assert body.overlap > 0.75 and error < 12
    assert np.abs(body.verts - beast.verts).max() > 0.03  # it is bent


def test_a_body_that_the_border_cuts_goes_on_beyond_it(
    beast: Template, truth: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not so where it ends at a border: then it would be squeezed into what is seen."""
    monkeypatch.setattr(body_fit, "STEPS", 60)
    item, found = next(iter(ItemReader(truth, "shic/maps"))), {}
    columns = np.flatnonzero(item.mask.any(0))
    seen = slice(None, (columns[0] + columns[-1]) // 2)
    vertex, mask = item.vertex[:, seen], item.mask[:, seen]
    for cut in (0.1, 9.0):
        monkeypatch.setattr(body_fit, "CUT", cut)
        body = Fitter.of(beast).fit(vertex, np.zeros(vertex.shape, np.float32), mask, seed=0)
        both = (body.vertex >= 0) & (vertex >= 0)
        found[cut] = body.overlap, beast.geodesic[body.vertex[both], vertex[both]].mean()
    assert found[0.1][0] > found[9.0][0] and found[0.1][1] < found[9.0][1], found


def test_the_map_is_kept_where_it_is_sure(
    beast: Template, truth: Path, tmp_path: Path, shic: Shic, quick: None
) -> None:
    """Pixels whose uncertainty is large take the body's vertex, those without a vertex too; with --unsure 0
    all do.
    """
    save(beast, tmp_path / "template.h5")
    rng = np.random.default_rng(0)

    def low(item):  # the lower part of the body is unsure
        out, rows = np.zeros(item.vertex.shape, np.float16), np.argwhere(item.mask)[:, 0]
        out[int(0.7 * rows.max() + 0.3 * rows.min()) :] = 60
        return out

    def guessed(item):  # and wrong there
        wrong = rng.integers(len(beast.verts), size=item.vertex.shape)
        return np.where((low(item) > 0) & (item.vertex >= 0), wrong, item.vertex).astype(np.int32)

    spoilt(truth, tmp_path / "maps.h5", beast, uncertainty=low, vertex=guessed)
    status, out, err = shic("fit", "maps.h5", "--json")
    assert status == 0, err
    assert json.loads(out)["photos"] == 2
    before, after, exact = (
        ItemReader(path, "shic/maps") for path in (tmp_path / "maps.h5", tmp_path / "maps.fit.maps.h5", truth)
    )
    for one, two, true in zip(before, after, exact, strict=True):
        sure = (one.uncertainty == 0) & (one.vertex >= 0)
        assert (two.vertex[sure] == one.vertex[sure]).all()
        assert (two.vertex[two.mask] >= 0).all() and (two.vertex[~two.mask] == one.vertex[~two.mask]).all()
        known = ~sure & (true.vertex >= 0)
        errors = [beast.geodesic[each.vertex[known], true.vertex[known]].mean() for each in (one, two)]
        assert errors[1] < 0.6 * errors[0]
        for suffix in (".fit.png", ".fit.glb"):
            assert (tmp_path / "maps.fit" / one.name).with_suffix(suffix).exists()
    mesh = trimesh.load((tmp_path / "maps.fit" / before.names[0]).with_suffix(".fit.glb"), force="mesh")
    assert len(mesh.vertices) == len(beast.verts)
    assert np.abs(np.sort(next(iter(after)).body, 0) - np.sort(mesh.vertices, 0)).max() < 1e-5
    assert shic("fit", "maps.h5", "-o", "all.h5", "--unsure", "0", "--no-pictures")[0] == 0
    changed = [
        (one.vertex != two.vertex)[two.mask].mean()
        for one, two in zip(before, ItemReader(tmp_path / "all.h5", "shic/maps"), strict=True)
    ]
    assert min(changed) > 0.4 and not (tmp_path / "all").exists()


def test_any_number_of_workers_gives_the_same_bytes(
    beast: Template, truth: Path, tmp_path: Path, shic: Shic, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps, pictures and meshes; what a worker has to say is said."""
    monkeypatch.setattr(fit, "_photo_fitter", fit_work.quick_fitter)
    save(beast, tmp_path / "template.h5")
    seen = iter((True, False))
    empty = {"vertex": lambda item: item.vertex if next(seen) else np.full_like(item.vertex, -1)}
    spoilt(truth, tmp_path / "maps.h5", beast, **empty)
    found = []
    for number in ("1", "2"):
        words = ("fit", "maps.h5", "--overwrite", "--workers", number)
        status, _, err = shic(*words)
        assert status == 0 and "hardly a pixel" in err, err
        files = [tmp_path / "maps.fit.maps.h5", *sorted((tmp_path / "maps.fit").iterdir())]
        found.append({path.name: path.read_bytes() for path in files})
    assert len(found[0]) == 3 and found[0] == found[1]


def test_a_map_that_no_body_explains_is_kept(
    beast: Template, truth: Path, tmp_path: Path, shic: Shic, quick: None
) -> None:
    """With --drop it is left out; where none is left, nothing is written and the line says so."""
    save(beast, tmp_path / "template.h5")
    spoilt(truth, tmp_path / "maps.h5", beast)
    status, _, err = shic("fit", "maps.h5", "--least", "0.999")
    assert status == 0 and "no body fits (overlap 0." in err and "its map is kept" in err
    for one, two in zip(
        ItemReader(truth, "shic/maps"), ItemReader("maps.fit.maps.h5", "shic/maps"), strict=True
    ):
        assert (one.vertex == two.vertex).all()
    assert not (tmp_path / "maps.fit").exists()
    status, _, err = shic("fit", "maps.h5", "--least", "0.999", "--drop", "-o", "none.h5")
    assert status == 1 and "no body fits any of its 2 photos" in err and not (tmp_path / "none.h5").exists()


def test_shares_without_a_body_are_joined_with_the_others_and_may_be_given_again(
    beast: Template, truth: Path, tmp_path: Path, shic: Shic, quick: None
) -> None:
    """One of two photos is dropped, and one of three shares has none."""
    save(beast, tmp_path / "template.h5")
    seen = iter((False, True))
    empty = {"vertex": lambda item: item.vertex if next(seen) else np.full_like(item.vertex, -1)}
    spoilt(truth, tmp_path / "maps.h5", beast, **empty)
    words = ("fit", "maps.h5", "-o", "shared.h5", "--drop", "--no-pictures")
    said = []
    for share in ("1/3", "2/3", "3/3", "1/3", "2/3", "3/3"):
        status, _, err = shic(*words, "--shard", share)
        assert status == 0, err
        said.append("hardly a pixel" in err)
    assert sum(said[:3]) == 1 and not any(said[3:])  # from then on the shares are done
    parts = sorted(tmp_path.glob("shared.part*.h5"))
    assert len(parts) == 3 and shic("join", *parts, "-o", "joined.h5")[0] == 0
    assert shic(*words[:2], "-o", "whole.h5", *words[4:])[0] == 0
    joined, whole = ((tmp_path / f"{name}.h5").read_bytes() for name in ("joined", "whole"))
    assert joined == whole and len(ItemReader(tmp_path / "joined.h5", "shic/maps")) == 1


def test_maps_that_do_not_say_how_sure_they_are_take_the_body_everywhere(
    beast: Template, truth: Path, tmp_path: Path, shic: Shic, quick: None
) -> None:
    save(beast, tmp_path / "template.h5")
    assert shic("fit", truth, "--no-pictures", "-o", "fitted.h5")[0] == 0
    pairs = zip(ItemReader(truth, "shic/maps"), ItemReader(tmp_path / "fitted.h5", "shic/maps"), strict=True)
    assert all((one.vertex != two.vertex)[two.mask].mean() > 0.4 for one, two in pairs)


def test_pictures_lie_neither_among_photos_nor_in_place_of_the_maps(
    beast: Template, truth: Path, tmp_path: Path, shic: Shic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said before a photo is fitted; a folder that holds such pictures alone is theirs."""
    save(beast, tmp_path / "template.h5")
    monkeypatch.setattr(fit, "_photo_fitter", fit_work.quick_fitter)
    (tmp_path / "imgs").mkdir()
    (tmp_path / "imgs" / "mine.jpg").touch()
    for name, said in (("out", "in a folder of this name"), ("imgs.maps.h5", "imgs: holds photos")):
        status, _, err = shic("fit", truth, "-o", name)
        assert status == 1 and said in err and not (tmp_path / name).exists()
    assert not list(tmp_path.glob("*.journal")) and os.listdir(tmp_path / "imgs") == ["mine.jpg"]
    for _ in range(2):
        assert shic("fit", truth, "-o", "bodies.maps.h5", "--overwrite")[0] == 0
    assert len(list((tmp_path / "bodies").glob("*.fit.png"))) == 2


def test_a_run_that_was_stopped_among_its_pictures_makes_them_again(
    beast: Template, truth: Path, tmp_path: Path, shic: Shic, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(beast, tmp_path / "template.h5")
    monkeypatch.setattr(fit, "_photo_fitter", fit_work.quick_fitter)
    own, calls = fit._write, []

    def full(*given: object) -> None:
        calls.append(given)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        own(*given)

    monkeypatch.setattr(fit, "_write", full)
    assert shic("fit", truth, "-o", "bodies.h5")[0] == 1
    assert shic("fit", truth, "-o", "bodies.h5")[0] == 0
    assert len(calls) == 3 and len(list((tmp_path / "bodies").iterdir())) == 4


def test_a_photo_of_one_pixel_is_kept(
    beast: Template, truth: Path, tmp_path: Path, shic: Shic, quick: None
) -> None:
    def dot(item):
        out = np.full(item.vertex.shape, -1, np.int32)
        out[5, 5] = 7
        return out

    save(beast, tmp_path / "template.h5")
    spoilt(truth, tmp_path / "maps.h5", beast, vertex=dot, mask=lambda item: dot(item) >= 0)
    status, _, err = shic("fit", "maps.h5")
    assert status == 0 and "hardly a pixel" in err


def test_a_photo_of_legs_alone_is_fitted_too(beast: Template, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every pixel is a leg's, nothing but the outline places the legs in half of the starts."""
    monkeypatch.setattr(body_fit, "STEPS", 4)
    low = np.flatnonzero(beast.verts[:, 1] < beast.verts[:, 1].min() + 0.1)
    vertex = np.full((60, 60), -1, np.int32)
    vertex[10:50, 20:30] = np.random.default_rng(0).choice(low, (40, 10))
    body = Fitter.of(beast).fit(vertex, np.zeros((60, 60), np.float32), vertex >= 0, seed=0)
    assert np.isfinite(body.verts).all() and np.isfinite(body.overlap)


def test_maps_of_another_template_are_refused(
    beast: Template, truth: Path, small_template_file: Path, shic: Shic
) -> None:
    status, _, err = shic("fit", truth)
    assert status == 1 and "another template" in err
