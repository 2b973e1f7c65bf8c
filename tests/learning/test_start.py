"""Where a decoder's weights begin: at random, as the package's own, or as another model's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from training import config, make_trainer

from shic_cli.base.errors import InputError
from shic_cli.files.layouts import Template
from shic_cli.learning.decoders import Convolutional, UNet
from shic_cli.learning.model_file import read_meta
from shic_cli.learning.start import ANIMALS, DECODER, begin, start_source
from shic_cli.parts.extractors.picture import Picture

GUIDES = 7  # channels of a frozen network's features


def unet(guides: int = 0) -> UNet:
    cells = Picture.side // 16
    return UNet(Picture.dim * (cells**2 if guides else 1) + guides, 32)


def written(decoder: torch.nn.Module, path: Path) -> str:
    save_file({DECODER + name: value.contiguous() for name, value in decoder.state_dict().items()}, path)
    return str(path)


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(value, b.state_dict()[name]) for name, value in a.state_dict().items())


def test_a_decoder_begins_as_the_one_in_the_file(tmp_path: Path) -> None:
    other, own = unet(), unet()
    assert not same(other, own)
    begin(own, written(other, tmp_path / "other.safetensors"))
    assert same(other, own)


def test_none_leaves_the_random_weights(tmp_path: Path) -> None:
    own = unet()
    before = {name: value.clone() for name, value in own.state_dict().items()}
    begin(own, "none")
    assert all(torch.equal(value, before[name]) for name, value in own.state_dict().items())
    assert start_source("none") == {}


def test_the_layer_for_a_frozen_network_stays_random(tmp_path: Path) -> None:
    other, own = unet(), unet(GUIDES)
    assert own.guide is not None
    guide = own.guide.weight.detach().clone()
    begin(own, written(other, tmp_path / "other.safetensors"))
    assert same(other, own)
    assert torch.equal(own.guide.weight, guide)


def test_a_guided_models_unet_is_taken_without_its_guide(tmp_path: Path) -> None:
    other, own = unet(GUIDES), unet()
    begin(own, written(other, tmp_path / "other.safetensors"))
    assert same(own, other)


@pytest.mark.parametrize("other", [UNet(4, 16), Convolutional(4, 32)], ids=["dim", "decoder"])
def test_a_decoder_of_another_layout_is_refused(tmp_path: Path, other: torch.nn.Module) -> None:
    path = written(other, tmp_path / "other.safetensors")
    with pytest.raises(InputError, match="of another layout"):
        begin(unet(), path)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    other = unet()
    with torch.no_grad():
        other.out.weight[0, 0] = torch.nan
    with pytest.raises(InputError, match=r"out\.weight is not finite"):
        begin(unet(), written(other, tmp_path / "other.safetensors"))


@pytest.mark.parametrize("content", [None, b"no safetensors"])
def test_a_file_that_is_missing_or_no_model_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "other.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.safetensors"):
        begin(unet(), str(path))


def test_the_packages_own_start_is_small_and_fits_the_default_unet() -> None:
    assert ANIMALS.stat().st_size < 4e6
    own = unet()
    begin(own, "animals")
    assert start_source("animals")["start"]["path"] == "animals"


def test_training_begins_with_it(small_template: Template, album: Path, tmp_path: Path) -> None:
    other = unet()
    path = written(other, tmp_path / "other.safetensors")
    trainer = make_trainer(small_template, [album / "truth.h5"], config(encoder="picture", start=path))
    assert same(other, trainer.map.decoder)
    assert not trainer.map.C.any()


def test_a_model_is_the_start_of_another_and_is_named_in_it(
    folder: Path, album: Path, shic: Callable[..., tuple[int, str, str]]
) -> None:
    short = ("--encoder", "picture", "--epochs", "1", "--batch", "4", "--points", "30")
    truth = str(album / "truth.h5")
    assert shic("train", truth, *short, "-o", "first.safetensors")[0] == 0
    again = ("train", truth, *short, "--start", "first.safetensors", "-o", "second.safetensors")
    assert shic(*again)[0] == 0
    start = read_meta(folder / "second.safetensors")["sources"]["start"]
    digest = hashlib.sha256((folder / "first.safetensors").read_bytes()).hexdigest()
    assert start == {"path": "first.safetensors", "sha256": digest}
    status, _, err = shic("train", truth, *short, "--start", "none.safetensors", "-o", "third.safetensors")
    assert status == 1 and "none.safetensors: there is no such file" in err
