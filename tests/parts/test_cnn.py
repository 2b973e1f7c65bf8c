"""Convolutional networks as extractors, and beside a picture's pixels as the encoder of a U-Net."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from shic_cli.base.errors import InputError, SettingError
from shic_cli.learning.decoders import DECODERS
from shic_cli.parts.extractors.guided import CELLS, pixels_of
from shic_cli.parts.extractors.make import make_extractor
from shic_cli.parts.extractors.picture import Picture
from shic_cli.parts.extractors.vit import IMAGENET

CPU = torch.device("cpu")


@pytest.fixture
def mobilenet(tmp_path: Path) -> Path:
    """A small random MobileNetV2 that labels pixels and keeps stride 8, as DeepLab does."""
    torch.manual_seed(0)
    config = transformers.MobileNetV2Config(depth_multiplier=0.25, image_size=64, output_stride=8)
    model = transformers.MobileNetV2ForSemanticSegmentation(config).eval()
    for weight in model.parameters():
        if weight.ndim == 4:  # with the usual small weights nothing is left after some layers
            torch.nn.init.kaiming_normal_(weight)
    model.save_pretrained(tmp_path / "deeplab")
    return tmp_path / "deeplab"


def masked(side: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two random pictures and masks of a square in their middle."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(2, 1, side, side)
    masks[..., side // 4 : -side // 4, side // 4 : -side // 4] = 1
    return torch.rand(2, 3, side, side, generator=generator), masks


def test_the_levels_at_three_strides_are_normalised_in_each_cell(mobilenet: Path):
    part = make_extractor(f"cnn:{mobilenet},side=128", CPU)
    images, masks = masked(128)
    found = part(images, masks)
    assert found.shape == (2, part.dim, 8, 8)
    model = transformers.MobileNetV2Model.from_pretrained(mobilenet, output_stride=32).eval()
    mean, std = (torch.tensor(values)[:, None, None] for values in IMAGENET)
    states = model((images - mean) / std * masks, output_hidden_states=True).hidden_states
    last = {state.shape[-1]: state for state in states}
    assert part.dim == 4 * last[16].shape[1] + last[8].shape[1] + last[4].shape[1]
    middle = found[:, 4 * last[16].shape[1] :][:, : last[8].shape[1]]
    torch.testing.assert_close(middle.mean(1), torch.zeros(2, 8, 8), atol=1e-4, rtol=0)
    expected = last[8] - last[8].mean(1, keepdim=True)
    cosine = torch.nn.functional.cosine_similarity(middle, expected, dim=1)
    assert cosine.min() > 0.999


def test_nothing_outside_the_object_counts(mobilenet: Path):
    part = make_extractor(f"cnn:{mobilenet},side=64", CPU)
    images, masks = masked(64)
    other = torch.where(masks > 0, images, torch.rand(images.shape))
    torch.testing.assert_close(part(images, masks), part(other, masks))


@pytest.mark.parametrize("side", [0, 40])
def test_a_side_that_is_no_multiple_of_32_is_refused(mobilenet: Path, side: int):
    with pytest.raises(SettingError, match="is not a multiple of 32"):
        make_extractor(f"cnn:{mobilenet},side={side}", CPU)


def test_a_network_without_levels_is_refused(tiny_vit: Callable[..., Path]):
    with pytest.raises(InputError, match="has no level at stride 8"):
        make_extractor(f"cnn:{tiny_vit('vit', image_size=64)},side=64", CPU)


def test_a_guided_encoder_gives_the_pixels_and_the_features(mobilenet: Path, tiny_vit: Callable[..., Path]):
    images, masks = masked(Picture.side)
    pixels = Picture()(images, masks)
    for name in (f"cnn:{mobilenet},side=128", f"vit:{tiny_vit('vit')}"):
        encoder = make_extractor(f"picture+{name}", CPU)
        packed = encoder(images, masks)
        assert packed.shape == (2, encoder.dim, CELLS, CELLS) and encoder.name == f"picture+{name}"
        back, features = pixels_of(packed, Picture.dim, Picture.side)
        torch.testing.assert_close(back, pixels)
        torch.testing.assert_close(features.mean(1), torch.zeros(2, CELLS, CELLS), atol=1e-4, rtol=0)
        decoder = DECODERS[encoder.decoder](encoder.dim, 5).eval()
        with torch.no_grad():
            there, without = decoder(packed)[0], packed.clone()
            without[:, -features.shape[1] :] = 0
            assert there.shape == (2, 6, Picture.side // 2, Picture.side // 2)
            assert not torch.allclose(there, decoder(without)[0])


def test_fingerprints_tell_guides_apart(mobilenet: Path, tiny_vit: Callable[..., Path]):
    names = ["picture", f"picture+cnn:{mobilenet}", f"picture+vit:{tiny_vit('vit')}"]
    assert len({make_extractor(name, CPU).fingerprint for name in names}) == 3
