"""Stable Diffusion and DINOv2 side by side, on tiny random ones that have the real ones' layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_diffusion import save_diffusion, save_dinov2
from torch.nn import functional as F

from shic_cli.base.errors import MissingError, SettingError, UnfinishedError
from shic_cli.files.photos import encode
from shic_cli.parts import registry
from shic_cli.parts.extractors.sd import Sd
from shic_cli.parts.extractors.sd_dino import SdDino


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for --weights with both models in it."""
    folder = tmp_path_factory.mktemp("both")
    save_diffusion(folder / "sd15")
    save_dinov2(folder / "dinov2-base")
    return folder


def test_both_have_half_of_the_say(weights: Path):
    from transformers import Dinov2Model

    extractor, image = (
        SdDino(weights=weights, side=192),
        torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(0)),
    )
    found = extractor(image, torch.ones(1, 1, 192, 192))
    assert found.shape == (1, 32 + 24 + 16 + 16, 12, 12) and extractor.dim == 88 and extractor.side == 192
    torch.testing.assert_close(found.norm(dim=1), torch.ones(1, 12, 12))
    sd = Sd(str(weights / "sd15"), side=192)(image)
    torch.testing.assert_close(found[:, :72] * 2**0.5, F.normalize(sd, dim=1), atol=1e-5, rtol=1e-4)
    # DINOv2 by hand: 14 pixels a cell, the last block's output without the norm after it, no CLS token
    model = Dinov2Model.from_pretrained(weights / "dinov2-base").eval()
    table = model.embeddings.position_embeddings.detach()
    grid = table[:, 1:].unflatten(1, (4, 4)).permute(0, 3, 1, 2)
    grid = (
        F.interpolate(grid, scale_factor=12.1 / 4, mode="bicubic").flatten(2).transpose(1, 2)
    )  # as in its hub
    model.embeddings.position_embeddings = torch.nn.Parameter(torch.cat([table[:, :1], grid], 1))
    blocks = []
    model.encoder.layer[11].register_forward_hook(
        lambda _module, _args, out: blocks.append(out[0] if isinstance(out, tuple) else out)
    )
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    small = F.interpolate(image, (168, 168), mode="bilinear", antialias=True)
    with torch.no_grad():
        final = model((small - mean) / std).last_hidden_state
    dino = blocks[0][:, 1:].transpose(1, 2).unflatten(2, (12, 12))
    assert (final[:, 1:] - blocks[0][:, 1:]).abs().max() > 0.1
    torch.testing.assert_close(found[:, 72:] * 2**0.5, F.normalize(dino, dim=1), atol=1e-5, rtol=1e-4)


def test_its_usual_size(weights: Path):
    extractor = SdDino(weights=weights)
    sd, dino = extractor.parts
    assert (extractor.side, sd.side, dino.side, dino.layer) == (960, 960, 840, 11)
    assert extractor(torch.rand(1, 3, 960, 960), torch.ones(1, 1, 960, 960)).shape == (1, 88, 60, 60)


def test_options_go_to_stable_diffusion_and_are_in_the_name(weights: Path):
    name = "sd-dino,prompt=a photo of a horse,side=128,step=50"
    extractor = registry.make("extractors", name, weights=weights)
    assert extractor.name == name and extractor.parts[0].settings["prompt"] == "a photo of a horse"
    prints = {
        registry.make("extractors", each, weights=weights).fingerprint
        for each in (name, "sd-dino,side=128", "sd-dino")
    }
    assert len(prints | {extractor.fingerprint}) == 3
    json.dumps(extractor.settings)
    with pytest.raises(SettingError, match="side=100 is no multiple of 64"):
        SdDino(weights=weights, side=100)


def test_relative_folders_are_found_from_another_one(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(weights)
    names = [
        registry.make("extractors", f"{name}:sd15,side=128", weights=weights).name
        for name in ("sd-dino", "sd")
    ]
    monkeypatch.chdir(tmp_path)
    assert [registry.make("extractors", name, weights=weights).name for name in names] == names


def test_an_unfinished_part_is_said_to_be_unfinished(weights: Path, tmp_path: Path):
    (tmp_path / "dinov2-base").symlink_to(weights / "dinov2-base")
    (tmp_path / "sd15").mkdir()
    with pytest.raises(UnfinishedError, match="sd-dino: sd15: its download is not finished"):
        SdDino.check(tmp_path)


@pytest.mark.parametrize("lacking", ["sd15", "dinov2-base"])
def test_weights_of_either_are_missed(weights: Path, tmp_path: Path, lacking: str):
    has = {"sd15": "dinov2-base", "dinov2-base": "sd15"}[lacking]
    (tmp_path / has).symlink_to(weights / has)
    with pytest.raises(MissingError, match=f"sd-dino: {lacking}: its weights are not") as caught:
        registry.make("extractors", "sd-dino", weights=tmp_path)
    assert "shic models pull sd-dino" in caught.value.hint
    assert registry.resolve("extractors", "auto", "cuda", tmp_path) == (
        "dinov2" if has == "dinov2-base" else "silhouette"
    )


def test_auto_takes_it_where_there_is_a_gpu(weights: Path):
    assert registry.resolve("extractors", "auto", "cuda", weights) == "sd-dino"
    assert (
        registry.resolve("extractors", "auto", "cpu", weights) == "dinov2"
    )  # a minute a picture is too slow to start unasked


def test_through_the_command_line(shic, small_template_file: Path, weights: Path, tmp_path: Path):
    picture = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    mask = np.pad(np.full((50, 60, 3), 255, np.uint8), ((20, 20), (30, 30), (0, 0)))
    for part, content in (("imgs", picture), ("masks", mask)):
        (tmp_path / part).mkdir()
        (tmp_path / part / "one.png").write_bytes(encode(content))
    few = ("--azimuths", "2", "--elevations", "0", "--weights", weights)
    status, out, err = shic(
        "features", "imgs", "--extractor", "sd-dino,side=128", "--weights", weights, "-o", "f.h5"
    )
    assert (status, out) == (0, ""), err
    status, _, err = shic("pseudo-gt", "f.h5", *few)
    assert status == 0, err
    status, _, err = shic("pseudo-gt", "imgs", "--extractor", "sd-dino,side=128", *few, "-o", "direct.h5")
    assert status == 0, err
    status, _, err = shic(
        "pseudo-gt",
        "imgs",
        "--extractor",
        "sd-dino,side=128",
        "-o",
        "missing.h5",
        "--weights",
        tmp_path / "none",
    )
    assert status == 3 and "shic models pull sd-dino" in err
