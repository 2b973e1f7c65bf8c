"""Stable Diffusion extractors, on a tiny random one that has the real one's layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_diffusion import SMALL, by_hand, pictures, save_diffusion, spoil
from torch.nn import functional as F

from shic_cli.base.errors import InputError, MissingError, SettingError
from shic_cli.files.mask_sources import Photo
from shic_cli.files.photos import encode
from shic_cli.learning.encode import photo_features
from shic_cli.parts import registry
from shic_cli.parts.extractors.sd import Dift, Sd, starts, stitch


@pytest.mark.parametrize(
    ("side", "window", "stride", "wanted"),
    [
        (960, 512, 448, [0, 448]),
        (512, 512, 448, [0]),
        (576, 512, 448, [0, 64]),
        (1024, 512, 448, [0, 448, 512]),
        (192, 64, 64, [0, 64, 128]),
    ],
)
def test_windows_cover_the_picture(side: int, window: int, stride: int, wanted: list[int]):
    assert starts(side, window, stride) == wanted
    assert wanted[-1] + window == side
    assert set(range(side)) == {x for start in wanted for x in range(start, start + window)}


def test_windows_land_on_their_cells(sd: Sd, monkeypatch: pytest.MonkeyPatch):
    """With a UNet that averages its input over cells, the windows put together are the averages over the
    whole picture's cells.
    """
    monkeypatch.setattr(sd, "encode", lambda images: images)
    monkeypatch.setattr(
        sd, "read", lambda images, _noise, _taps: [F.avg_pool2d(images, cell) for cell in (64, 32, 16)]
    )
    monkeypatch.setattr(sd, "window", 512)
    monkeypatch.setattr(sd, "stride", 448)
    images = pictures(2, 960)
    for level, cell in zip(sd.levels(images), (64, 32, 16), strict=True):
        assert level.shape[-1] == 960 // cell  # 15, 30 and 60
        torch.testing.assert_close(level, F.avg_pool2d(images, cell))
    torch.testing.assert_close(
        sd(torch.ones(1, 3, 960, 960)), torch.ones(1, 9, 60, 60)
    )  # no seam: the weights sum to 1
    features = sd(images)
    torch.testing.assert_close(features[:, :3], F.avg_pool2d(images, 16))  # the finest level comes first
    coarse = F.interpolate(F.avg_pool2d(images, 64), (60, 60), mode="bilinear", align_corners=False)
    torch.testing.assert_close(features[:, 6:], coarse)


def test_overlaps_are_averaged():
    pieces = torch.tensor([1.0, 3.0, 5.0, 11.0])[:, None, None, None, None].expand(4, 1, 1, 2, 2)
    found = stitch(pieces, [(0, 0), (0, 64), (64, 0), (64, 64)], 128)[0, 0]
    assert found.tolist() == [[1, 2, 3], [3, 5, 7], [5, 8, 11]]


def test_features_are_those_of_each_window(sd: Sd):
    """A window's part that no other covers is what the window gives alone: all have the same noise."""
    image = pictures(1, 192)
    alone = Sd.__new__(Sd)
    alone.__dict__ = {**sd.__dict__, "window": 128, "side": 128}
    levels, corner = sd.levels(image), alone.levels(image[..., 64:, 64:])
    for level, one in zip(levels, corner, strict=True):
        cells = one.shape[-1] // 2
        torch.testing.assert_close(
            level[..., -cells:, -cells:], one[..., -cells:, -cells:], atol=1e-5, rtol=1e-4
        )


def test_calls_repeat_and_pictures_do_not_depend_on_each_other(sd: Sd, tiny_sd: Path):
    images = pictures(2, 192)
    both = sd(images)
    assert both.shape == (2, sd.dim, 12, 12) and sd.dim == 32 + 24 + 16 and both.dtype == torch.float32
    assert torch.equal(sd(images), both)
    torch.testing.assert_close(torch.cat([sd(images[:1]), sd(images[1:])]), both, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(Sd(str(tiny_sd), **{**SMALL, "batch": 1})(images), both, atol=1e-5, rtol=1e-4)
    assert (both[0] - both[1]).abs().max() > 1e-2


def test_options_and_weights_change_features_and_fingerprint(sd: Sd, tiny_sd: Path, tmp_path: Path):
    images = pictures(1, 192)
    plain, prints = sd(images), {sd.fingerprint}
    for change in ({"prompt": "a horse"}, {"step": 50}, {"seed": 1}, {"window": 192}):
        other = Sd(str(tiny_sd), **{**SMALL, **change})
        assert (other(images) - plain).abs().max() > 1e-4, change
        assert other.fingerprint not in prints, change
        prints.add(other.fingerprint)
        again = registry.make("extractors", other.name)
        assert again.fingerprint == other.fingerprint and again.name == other.name
    other = save_diffusion(tmp_path / "other", seed=1)
    for part in ("unet", "vae", "text_encoder"):
        mixed = shutil.copytree(tiny_sd, tmp_path / part)
        shutil.copytree(other / part, mixed / part, dirs_exist_ok=True)
        prints.add(Sd(str(mixed), **SMALL).fingerprint)
    assert len(prints) == 8
    again = Sd(str(tiny_sd), **{**SMALL, "batch": 1}, precision="bfloat16")
    assert again.fingerprint == sd.fingerprint and again.settings["precision"] == "bfloat16"
    similar = F.cosine_similarity(again(images), plain, dim=1)
    assert similar.min() > 0.98
    json.dumps(sd.settings)


def test_another_unet_and_no_noise(tiny_sd: Path, tmp_path: Path):
    """CleanDIFT's way: the weights of a file in place of the UNet's, and the clean latent at step 261."""
    path = tmp_path / "clean.safetensors"
    plain = Sd(str(tiny_sd), clean=True, step=261, **SMALL)
    save_file({name: value * 1.1 for name, value in plain.unet.state_dict().items()}, path)
    options = {**SMALL, "unet": str(path), "clean": True, "step": 261}
    clean, image = Sd(str(tiny_sd), **options), pictures(1, 128)
    plain.unet.load_state_dict(load_file(path))
    with torch.no_grad():
        latent = clean.encode(image)
        before, _ = by_hand(plain.unet, latent, 261, clean.text)
        found = clean.read(latent, clean.noise, clean.taps)
        assert len(found) == 3
        for one, expected in zip(found, before, strict=False):
            torch.testing.assert_close(one, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(Sd(str(tiny_sd), **{**options, "seed": 7})(image), clean(image)), "noise was drawn"
    again = registry.make("extractors", clean.name)
    assert (
        again.fingerprint
        == clean.fingerprint
        not in (plain.fingerprint, Sd(str(tiny_sd), **SMALL).fingerprint)
    )
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="holds no weights of this UNet"):
        Sd(str(tiny_sd), **options)


def test_blocks_are_chosen(sd: Sd, tiny_sd: Path):
    images = pictures(1, 192)
    one = Sd(str(tiny_sd), **SMALL, blocks=(1,))
    assert one.dim == 24
    torch.testing.assert_close(one(images), sd.levels(images)[1], atol=1e-5, rtol=1e-4)
    fine = Sd(str(tiny_sd), **SMALL, blocks=(3, 0))
    assert fine(images).shape == (1, 40, 24, 24)


def test_dift_is_the_mean_over_draws_of_what_leaves_block_one(tiny_sd: Path):
    extractor = Dift(str(tiny_sd), side=128, ensemble=3, batch=2, seed=5)
    images = pictures(2, 128)
    found = extractor(images)
    assert found.shape == (2, 24, 8, 8) and extractor.dim == 24
    noise = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        latent = extractor.encode(images[1:])
        kept = extractor.scheduler.alphas_cumprod[261]
        draws = [
            by_hand(extractor.unet, kept.sqrt() * latent + (1 - kept).sqrt() * one, 261, extractor.text)[1][1]
            for one in noise[:, None]
        ]
    torch.testing.assert_close(found[1:], torch.stack(draws).mean(0), atol=1e-5, rtol=1e-4)
    assert torch.equal(extractor(images), found)
    torch.testing.assert_close(extractor(images[:1]), found[:1], atol=1e-5, rtol=1e-4)
    assert Dift(str(tiny_sd), side=128, ensemble=2, seed=5).fingerprint != extractor.fingerprint


@pytest.mark.parametrize(
    "shape", [(300, 420), (420, 300), (360, 360)], ids=["landscape", "portrait", "square"]
)
def test_a_dot_changes_the_features_where_it_is(sd: Sd, shape: tuple[int, int]):
    """A random network spreads a dot, but about its place: transposed or shifted maps would be 3 or more of
    the 12 cells off.
    """
    mask, plain = np.zeros(shape, bool), np.full((*shape, 3), 110, np.uint8)
    mask[40:260, 50:280] = True
    [(without, crop)] = photo_features(sd, [Photo("plain", b"", plain, mask)])
    errors = []
    for y, x in ((80, 90), (150, 240), (230, 120), (130, 130), (80, 230), (230, 250)):
        dotted = plain.copy()
        dotted[y - 8 : y + 9, x - 8 : x + 9] = 255
        change = (photo_features(sd, [Photo("dotted", b"", dotted, mask)])[0][0] - without).norm(
            dim=0
        ).double() ** 4
        cells = torch.arange(change.shape[-1]).double()
        centre = torch.stack([change.sum(1) @ cells, change.sum(0) @ cells]) / change.sum()
        errors.append(centre.numpy() - crop.to_crop(np.array([y, x], float), len(cells)))
    assert np.abs(errors).max() < 2 and np.abs(np.mean(errors, 0)).max() < 0.6


@pytest.mark.parametrize(
    ("options", "fact", "hint"),
    [
        ({"side": 900}, "side=900 is no multiple of 64", "side=896"),
        ({"side": 0}, "side=0 is no multiple of 64", "side=64"),
        ({"window": 100}, "window=100 is no multiple", "window=128"),
        ({"stride": 30}, "stride=30 is no multiple", "stride=64"),
        ({"stride": 576}, "leaves gaps", "512 or less"),
        ({"blocks": (0, 4)}, "blocks=0/4 are not up blocks", "0/1/2/3"),
        ({"blocks": (1, 1)}, "blocks=1/1 are not up blocks", "each once"),
        ({"blocks": ()}, "are not up blocks", "each once"),
        ({"step": 1000}, "step=1000 is out of range", "0 to 999"),
        ({"batch": 0}, "batch=0 is out of range", "1 or more"),
        ({"precision": "half"}, "no precision 'half'", "float16"),
    ],
)
def test_settings_out_of_range_are_named(tiny_sd: Path, options: dict, fact: str, hint: str):
    with pytest.raises(SettingError, match=fact) as caught:
        Sd(str(tiny_sd), **options)
    assert hint in caught.value.hint
    with pytest.raises(SettingError, match="ensemble=0"):
        Dift(str(tiny_sd), ensemble=0)


@pytest.mark.parametrize(("name", "model"), [("sd", "sd15"), ("dift", "sd21")])
def test_weights_are_found_by_name_or_missed(tiny_sd: Path, tmp_path: Path, name: str, model: str):
    with pytest.raises(MissingError, match=model) as caught:
        registry.make("extractors", name)
    assert f"shic models pull {model}" in caught.value.hint
    (tmp_path / model).symlink_to(tiny_sd)
    assert registry.make("extractors", f"{name},side=128", weights=tmp_path).name.startswith(
        f"{name},side=128"
    )
    with pytest.raises(MissingError, match="nowhere"):
        registry.make("extractors", f"{name}:nowhere/at-all")


@pytest.mark.parametrize(
    "extractor", ["sd:{},side=128,window=64,stride=64,blocks=0/2", "dift:{},side=128,ensemble=2"]
)
def test_through_the_command_line(
    shic, small_template_file: Path, tiny_sd: Path, tmp_path: Path, extractor: str
):
    extractor = extractor.format(tiny_sd)
    rgba = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    for part, content in (
        ("imgs", rgba),
        ("masks", np.pad(np.full((50, 60, 3), 255, np.uint8), ((20, 20), (30, 30), (0, 0)))),
    ):
        (tmp_path / part).mkdir()
        (tmp_path / part / "one.png").write_bytes(encode(content))
    status, out, err = shic("features", "imgs", "--extractor", extractor, "-o", "f.h5")
    assert (status, out) == (0, ""), err
    status, _, err = shic("pseudo-gt", "f.h5", "--azimuths", "2", "--elevations", "0")
    assert status == 0, err
    status, _, err = shic(
        "pseudo-gt",
        "imgs",
        "--extractor",
        extractor,
        "--azimuths",
        "2",
        "--elevations",
        "0",
        "-o",
        "direct.h5",
    )
    assert status == 0, err
    _, out, _ = shic("info", "direct.h5", "--json")
    assert json.loads(out)["params"]["extractor"]["side"] == 128


def test_the_command_line_says_what_is_wrong(shic, copied: Path, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(encode(np.zeros((64, 64, 3), np.uint8)))
    status, _, err = shic("features", "a.png", "--extractor", "sd")
    assert status == 3 and "shic models pull sd15" in err
    status, _, err = shic("features", "a.png", "--extractor", f"sd:{copied},side=100")
    assert status == 2 and "side=100 is no multiple of 64" in err
    spoil(copied, "no unet")
    status, _, err = shic("features", "a.png", "--extractor", f"sd:{copied}")
    assert status == 1 and "there is no folder unet" in err and "Traceback" not in err
