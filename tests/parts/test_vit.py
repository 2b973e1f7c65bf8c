"""Vision transformers as extractors, against transformers' own forward pass."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from shic_cli.base.errors import InputError, MissingError, SettingError
from shic_cli.files.mask_sources import Photo
from shic_cli.files.photos import Crop
from shic_cli.learning.encode import photo_features
from shic_cli.parts import registry
from shic_cli.parts.extractors import pretrained, vit
from shic_cli.parts.extractors.make import make_extractor
from shic_cli.parts.extractors.pretrained import number_format

CPU = torch.device("cpu")
KINDS = {
    "vit": 1,
    "deit": 2,
    "dinov2": 1,
    "dinov2_with_registers": 5,
    "dinov3_vit": 5,
}  # tokens before the patches
MEAN, STD = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
DEIT = Path(__file__).parents[3] / "shared/weights/deit-tiny-patch16-224"


def pictures(side: int, count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))
    masks = torch.zeros(count, 1, side, side)
    masks[:, :, side // 4 : side // 2, side // 4 :] = 1
    return made, masks


def reference(folder: Path, images: torch.Tensor, **options: object) -> tuple[object, object]:
    """The whole model of transformers, and what it gives for `images` in 0..1."""
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    with torch.no_grad():
        return model, model((images - MEAN) / STD, output_hidden_states=True, **options)


def grid(tokens: torch.Tensor, extra: int) -> torch.Tensor:
    """Patch tokens `(B, T, D)` as `(B, D, h, w)`, by loops."""
    cells = int((tokens.shape[1] - extra) ** 0.5)
    out = torch.zeros(tokens.shape[0], tokens.shape[2], cells, cells)
    for row in range(cells):
        for column in range(cells):
            out[:, :, row, column] = tokens[:, extra + row * cells + column]
    return out


def save(tiny_vit, kind: str) -> Path:
    registers = {"num_register_tokens": 4} if KINDS[kind] == 5 else {}
    return tiny_vit(kind, **registers)


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_those_of_transformers(kind, tiny_vit):
    folder = save(tiny_vit, kind)
    images, masks = pictures(48)
    _, out = reference(folder, images)
    final = make_extractor(f"vit:{folder}", CPU)
    assert (final.side, final.dim, final.needs_mask, final.sees_whole_object) == (48, 32, False, False)
    torch.testing.assert_close(
        final(images, masks), grid(out.last_hidden_state, KINDS[kind]), atol=1e-4, rtol=1e-4
    )
    for layer in range(3):
        found = make_extractor(f"vit:{folder},layer={layer}", CPU)(images, masks)
        torch.testing.assert_close(
            found, grid(out.hidden_states[layer + 1], KINDS[kind]), atol=1e-4, rtol=1e-4
        )
    assert (
        found - final(images, masks)
    ).abs().max() > 0.1  # the last block's output comes before the last norm


@pytest.mark.parametrize("kind", KINDS)
def test_facets_are_the_projections_inside_the_block(kind, tiny_vit):
    folder = save(tiny_vit, kind)
    images, masks = pictures(48)
    model, out = reference(folder, images)
    name = {"vit": "layers.1", "deit": "layers.1", "dinov3_vit": "model.layer.1"}.get(kind, "encoder.layer.1")
    block = model.get_submodule(name)
    normed = (block.layernorm_before if hasattr(block, "layernorm_before") else block.norm1)(
        out.hidden_states[1]
    )
    for facet, projection in (("query", "q_proj"), ("key", "k_proj"), ("value", "v_proj")):
        layer = getattr(block.attention, projection)
        expected = normed @ layer.weight.T + (0 if layer.bias is None else layer.bias)
        extractor = make_extractor(f"vit:{folder},layer=1,facet={facet}", CPU)
        assert extractor.dim == 32
        torch.testing.assert_close(
            extractor(images, masks), grid(expected, KINDS[kind]), atol=1e-4, rtol=1e-4
        )
    last = make_extractor(f"vit:{folder},facet=key", CPU)
    assert last.fingerprint == make_extractor(f"vit:{folder},layer=2,facet=key", CPU).fingerprint


def test_dinov2_at_another_side_has_the_positions_of_its_hub(tiny_vit):
    """Scaled to a tenth of a cell more than there are, not to their number."""
    folder = tiny_vit("dinov2")
    images, masks = pictures(64)
    model, plain = reference(folder, images)
    table = model.embeddings.position_embeddings.detach()
    cells = table[:, 1:].unflatten(1, (6, 6)).permute(0, 3, 1, 2)
    cells = F.interpolate(cells, scale_factor=8.1 / 6, mode="bicubic").flatten(2).transpose(1, 2)
    model.embeddings.position_embeddings = torch.nn.Parameter(torch.cat([table[:, :1], cells], 1))
    with torch.no_grad():
        expected = model((images - MEAN) / STD).last_hidden_state
    found = make_extractor(f"vit:{folder},side=64", CPU)(images, masks)
    torch.testing.assert_close(found, grid(expected, 1), atol=1e-4, rtol=1e-4)
    assert (found - grid(plain.last_hidden_state, 1)).abs().max() > 1e-3


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "dinov2"])
def test_another_side_interpolates_positions(kind, tiny_vit):
    folder = save(tiny_vit, kind)
    images, masks = pictures(64)
    options = {"interpolate_pos_encoding": True} if kind in ("vit", "deit") else {}
    _, out = reference(folder, images, **options)
    extractor = make_extractor(f"vit:{folder},side=64", CPU)
    assert extractor.side == 64
    torch.testing.assert_close(
        extractor(images, masks), grid(out.last_hidden_state, KINDS[kind]), atol=1e-4, rtol=1e-4
    )


def test_blocks_above_the_layer_are_left_out(tiny_vit):
    extractor = make_extractor(f"vit:{tiny_vit('dinov2')},layer=0", CPU)
    assert len(extractor._model.encoder.layer) == 1


def test_channels_are_red_green_blue(tiny_vit):
    folder = tiny_vit("dinov2")
    images, masks = pictures(48)
    swapped = images.flip(1)
    extractor = make_extractor(f"vit:{folder}", CPU)
    _, out = reference(folder, swapped)
    torch.testing.assert_close(
        extractor(swapped, masks), grid(out.last_hidden_state, 1), atol=1e-4, rtol=1e-4
    )
    assert (extractor(swapped, masks) - extractor(images, masks)).abs().max() > 0.01


def test_normalisation_is_the_folders_own(tiny_vit):
    folder = tiny_vit("dinov2")
    images, masks = pictures(48)
    usual = make_extractor(f"vit:{folder}", CPU)
    own = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}
    (folder / "preprocessor_config.json").write_text(json.dumps(own))
    other = make_extractor(f"vit:{folder}", CPU)
    mean, std = (torch.tensor(own[key])[:, None, None] for key in own)
    as_usual = ((images - mean) / std) * STD + MEAN
    torch.testing.assert_close(other(images, masks), usual(as_usual, masks), atol=1e-4, rtol=1e-4)
    assert other.fingerprint != usual.fingerprint
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false, "image_mean": [1, 1, 1]}')
    torch.testing.assert_close(
        make_extractor(f"vit:{folder}", CPU)(images, masks),
        usual(images * STD + MEAN, masks),
        atol=1e-4,
        rtol=1e-4,
    )
    for text, fact in (
        ("[", "can't be read"),
        ('{"image_std": [1, 0, 1]}', "not three"),
        ('{"image_mean": 3}', "can't be read"),
    ):
        (folder / "preprocessor_config.json").write_text(text)
        with pytest.raises(InputError, match=fact):
            make_extractor(f"vit:{folder}", CPU)


def test_a_black_background_needs_a_mask_and_hides_what_is_outside(tiny_vit):
    folder = tiny_vit("dinov2")
    images, masks = pictures(48)
    kept, black = (make_extractor(f"vit:{folder},background={way}", CPU) for way in ("keep", "black"))
    assert black.needs_mask and not kept.needs_mask and kept.fingerprint != black.fingerprint
    torch.testing.assert_close(black(images, masks), kept(images * masks, masks))
    torch.testing.assert_close(kept(images, masks), kept(images, 1 - masks))


@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 0.02), ("bfloat16", 0.1)])
def test_half_precision_is_near_and_comparable(tiny_vit, precision, tolerance, monkeypatch):
    folder = tiny_vit("dinov2")
    images, masks = pictures(48)
    full, half = (
        make_extractor(f"vit:{folder}", CPU),
        make_extractor(f"vit:{folder},precision={precision}", CPU),
    )
    found = half(images, masks)
    assert found.dtype == torch.float32 and 0 < (found - full(images, masks)).abs().max() < tolerance
    assert half.fingerprint == full.fingerprint and half.settings["precision"] == precision
    assert full.settings["precision"] == "float32"
    for capability, expected in (((8, 0), torch.bfloat16), ((7, 5), torch.float32)):  # a T4 has no bfloat16
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, value=capability: value)
        assert number_format("vit", "auto", torch.device("cuda"), torch.bfloat16) == expected
        assert number_format("sd", "auto", torch.device("cuda"), torch.float16) == torch.float16


def test_fingerprints_tell_weights_and_options_apart(tiny_vit):
    folder = tiny_vit("dinov2")
    first = make_extractor(f"vit:{folder}", CPU)
    assert first.fingerprint == make_extractor(f"vit:{folder}", CPU).fingerprint
    different = {first.fingerprint}
    for options in (
        ",layer=1",
        ",layer=1,facet=key",
        ",layer=1,facet=value",
        ",side=64",
        ",background=black",
    ):
        different.add(make_extractor(f"vit:{folder}{options}", CPU).fingerprint)
    tensors = load_file(folder / "model.safetensors")
    tensors["layernorm.bias"][0] += 1
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    different.add(make_extractor(f"vit:{folder}", CPU).fingerprint)
    assert len(different) == 7


def test_the_name_makes_the_same_extractor_again(tiny_vit):
    folder = tiny_vit("dinov2")
    for options in ("", ",layer=1,facet=key", ",side=64,background=black"):
        made = make_extractor(f"vit:{folder}{options}", CPU)
        assert made.name == f"vit:{folder}{options}"
    assert make_extractor(f"vit:{folder},side=0,layer=-1", CPU).name == f"vit:{folder}"


def test_a_relative_folder_is_found_from_another_one(tiny_vit, tmp_path, monkeypatch):
    folder = tiny_vit("dinov2")
    monkeypatch.chdir(tmp_path)
    made = make_extractor(f"silhouette+vit:{folder.name},layer=1", CPU)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert make_extractor(made.name, CPU).fingerprint == made.fingerprint


@pytest.mark.parametrize(("height", "width"), [(60, 100), (100, 60), (80, 80)])
def test_a_dot_changes_the_cell_that_it_lies_in(tiny_vit, height, width):
    """Through the crop: the feature that a bright dot changes most is that of the dot's own cell."""
    extractor = make_extractor(f"vit:{tiny_vit('dinov2', image_size=96)},layer=0,facet=value", CPU)
    mask = np.zeros((height, width), bool)
    mask[8 : height - 12, 10 : width - 6] = True
    black = np.zeros((height, width, 3), np.uint8)
    crop = Crop.around(mask)
    [(before, _)] = photo_features(extractor, [Photo("a", b"", black, mask)])
    cell = crop.side / 12
    for y, x in ((12, 14), (height - 20, 20), (30, width - 16), (height // 2, width // 2)):
        y, x = (
            round(start + (round((place - start + 0.5) / cell - 0.5) + 0.5) * cell - 0.5)
            for place, start in ((y, crop.top), (x, crop.left))
        )
        drawn = cv2.circle(black.copy(), (x, y), 1, (255, 255, 255), -1)
        [(after, _)] = photo_features(extractor, [Photo("a", b"", drawn, mask)])
        change = (after - before).norm(dim=0)
        found = np.unravel_index(int(change.argmax()), change.shape)
        expected = np.floor((np.array([y, x]) + 0.5 - [crop.top, crop.left]) / crop.side * 12)
        assert tuple(found) == tuple(expected)


def rewrite(folder: Path, change) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(
    ("options", "fact", "hint"),
    [
        ("layer=3", "there is no layer 3", "give 0 to 2"),
        ("layer=-2", "there is no layer -2", "-1 for the final output"),
        ("facet=head", "there is no facet 'head'", "token, query, key, value"),
        ("precision=half", "there is no precision 'half'", "float16"),
        ("background=white", "there is no background 'white'", "keep, black"),
        ("side=50", "side 50 is not a multiple of the patch, 8 pixels", "give side=48 or side=56"),
        ("side=-8", "side -8 is not a multiple", "give side="),
        ("side=4", "side 4 is not a multiple", "give side=8"),
    ],
)
def test_options_out_of_range(tiny_vit, options, fact, hint):
    with pytest.raises(SettingError, match=fact) as caught:
        make_extractor(f"vit:{tiny_vit('dinov2')},{options}", CPU)
    assert hint in caught.value.hint


def test_folders_that_do_not_serve(tiny_vit, tmp_path):
    with pytest.raises(SettingError, match="names no model"):
        make_extractor("vit", CPU)
    with pytest.raises(MissingError, match="pull nobody/nothing"):
        make_extractor("vit:nobody/nothing", CPU, tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no checkpoint"):
        make_extractor(f"vit:{tmp_path / 'empty'}", CPU)
    folder = tiny_vit("dinov2", "lacking")
    rewrite(folder, lambda tensors: tensors.pop("encoder.layer.1.norm1.weight"))
    with pytest.raises(InputError, match="norm1"):
        make_extractor(f"vit:{folder}", CPU)
    folder = tiny_vit("dinov2", "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="pickle"):
        make_extractor(f"vit:{folder}", CPU)
    with pytest.raises(InputError, match="not a vision transformer for RGB"):
        make_extractor(f"vit:{tiny_vit('vit', 'grey', num_channels=1)}", CPU)


def test_models_that_are_no_plain_vision_transformer(tmp_path):
    from transformers import BertConfig, BertModel, SwinConfig, SwinModel

    small = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 10,
    }
    BertModel(BertConfig(**small)).save_pretrained(tmp_path / "bert")
    with pytest.raises(InputError, match="type bert, not a vision transformer"):
        make_extractor(f"vit:{tmp_path / 'bert'}", CPU)
    swin = SwinConfig(
        image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 1], window_size=4
    )
    SwinModel(swin).save_pretrained(tmp_path / "swin")
    with pytest.raises(InputError, match=r"one token for each patch|not a vision transformer"):
        make_extractor(f"vit:{tmp_path / 'swin'}", CPU)(*pictures(32))


def test_projections_are_found_under_their_older_names():
    block = torch.nn.ModuleDict(
        {
            "attention": torch.nn.ModuleDict(
                {each: torch.nn.Linear(2, 3) for each in ("query", "key", "value")}
            )
        }
    )
    assert vit._projection(block, "key") is block["attention"]["key"]
    assert vit._projection(torch.nn.ModuleDict({"qkv": torch.nn.Linear(2, 6)}), "key") is None


def test_a_missing_pooler_is_no_matter(tiny_vit):
    folder = tiny_vit("vit")
    images, masks = pictures(48)
    before = make_extractor(f"vit:{folder}", CPU)(images, masks)
    rewrite(
        folder, lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith("pooler")]
    )
    torch.testing.assert_close(make_extractor(f"vit:{folder}", CPU)(images, masks), before)


@pytest.mark.parametrize(
    ("name", "width", "blocks", "side", "cells"),
    [
        ("dinov2-small", 384, 12, 224, 16),
        ("dinov2-base", 768, 12, 518, 37),
        ("dinov2", 768, 12, 518, 37),
        ("dinov2-large", 1024, 24, 518, 37),
    ],
)
def test_full_size_models_give_the_documented_shapes(monkeypatch, tmp_path, name, width, blocks, side, cells):
    """On the meta device: shapes without numbers; the configuration is that of the hub."""
    from transformers import AutoModel, Dinov2Config

    config = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=blocks,
        num_attention_heads=width // 64,
        image_size=518,
        patch_size=14,
    )

    def load(*_: object, **__: object) -> torch.nn.Module:
        with torch.device("meta"):
            return AutoModel.from_config(config).eval()

    asked = []
    monkeypatch.setattr(vit, "load", load)
    for module in (pretrained, vit):
        monkeypatch.setattr(
            module, "locate", lambda model, weights=None: asked.append((model, weights)) or tmp_path
        )
    monkeypatch.setattr(vit, "fingerprint_of", lambda folder: "0")
    extractor = registry.make("extractors", name, device="meta", weights=tmp_path)
    assert extractor.name == name and extractor.side == side and extractor.dim == width
    assert set(asked) == {({"dinov2": "dinov2-base"}.get(name, name), tmp_path)}
    assert extractor(torch.empty(2, 3, side, side, device="meta"), torch.empty(2, 1, side, side)).shape == (
        2,
        width,
        cells,
        cells,
    )


def test_named_models_are_looked_for_in_the_weights_folder_and_take_a_folder(tiny_vit, tmp_path):
    tiny_vit("dinov2", "dinov2-small", patch_size=14, image_size=518)
    assert make_extractor("dinov2-small", CPU, tmp_path).side == 224
    auto = partial(registry.resolve, "extractors", "auto", weights=tmp_path)
    assert auto("cuda", auto="encoders") == auto("cpu", auto="photo encoders") == "dinov2-small"
    assert auto("cpu", auto="encoders") == "picture"  # there it would learn for a day
    tiny_vit("dinov3_vit", "dinov3-small", patch_size=16, image_size=64)
    assert auto("cuda", auto="encoders") == "dinov3-small"
    assert make_extractor("auto", CPU, tmp_path).name == "silhouette"
    folder = tiny_vit("dinov2", "mine", patch_size=14, image_size=56)
    assert make_extractor(f"dinov2:{folder}", CPU).name == f"dinov2:{folder}"
    with pytest.raises(MissingError, match="dinov2-base"):
        make_extractor("dinov2", CPU, tmp_path)
    with pytest.raises(MissingError, match="dinov3"):
        make_extractor("dinov3", CPU, tmp_path)


@pytest.mark.skipif(not DEIT.is_dir(), reason="the shared weights are not here")
@pytest.mark.parametrize("side", [224, 320])
def test_real_weights_equal_transformers(side):
    images, masks = pictures(side, 1)
    model, out = reference(DEIT, images, interpolate_pos_encoding=side != 224)
    spec = f"vit:{DEIT},side={side}"
    torch.testing.assert_close(
        make_extractor(spec, CPU)(images, masks), grid(out.last_hidden_state, 1), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        make_extractor(f"{spec},layer=8", CPU)(images, masks),
        grid(out.hidden_states[9], 1),
        atol=1e-4,
        rtol=1e-4,
    )
    block = model.layers[9]
    expected = block.attention.k_proj(block.layernorm_before(out.hidden_states[9]))
    torch.testing.assert_close(
        make_extractor(f"{spec},layer=9,facet=key", CPU)(images, masks),
        grid(expected, 1),
        atol=1e-4,
        rtol=1e-4,
    )
