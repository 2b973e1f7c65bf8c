"""Stable Diffusion extractors, on a tiny random one that has the real one's layout."""

from __future__ import annotations

import json
import logging
import math
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_diffusion import BETAS, UNET, save_diffusion
from torch.nn import functional as F

from shic_cli import registry
from shic_cli.errors import InputError, MissingError, SettingError
from shic_cli.extractors.diffusion import decoder_tap, read_taps
from shic_cli.extractors.sd import Dift, Sd, starts, stitch
from shic_cli.features import photo_features
from shic_cli.images import Photo, encode

SMALL = {"side": 192, "window": 128, "stride": 64, "batch": 3}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_diffusion(tmp_path_factory.mktemp("weights") / "tiny-sd")


@pytest.fixture(scope="session")
def sd(folder: Path) -> Sd:
    return Sd(str(folder), **SMALL)


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of the weights that a test may spoil."""
    return shutil.copytree(folder, tmp_path / "copy")


def pictures(count: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def by_hand(unet, noisy: torch.Tensor, step: int, text: torch.Tensor) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The hidden states before the third layer of each up block, and those that leave each block, one submodule after the other."""
    emb = unet.time_embedding(unet.time_proj(torch.full((len(noisy),), step)))
    hidden, before, after = unet.conv_in(noisy), [], []
    skips = [hidden]
    for block in unet.down_blocks:
        for i, resnet in enumerate(block.resnets):
            hidden = resnet(hidden, emb)
            if hasattr(block, "attentions"):
                hidden = block.attentions[i](hidden, encoder_hidden_states=text, return_dict=False)[0]
            skips.append(hidden)
        for sampler in block.downsamplers or []:
            hidden = sampler(hidden)
            skips.append(hidden)
    hidden = unet.mid_block.resnets[0](hidden, emb)
    hidden = unet.mid_block.attentions[0](hidden, encoder_hidden_states=text, return_dict=False)[0]
    hidden = unet.mid_block.resnets[1](hidden, emb)
    for block in unet.up_blocks:
        for i, resnet in enumerate(block.resnets):
            if i == 2:
                before.append(hidden)
            hidden = resnet(torch.cat([hidden, skips.pop()], 1), emb)
            if hasattr(block, "attentions"):
                hidden = block.attentions[i](hidden, encoder_hidden_states=text, return_dict=False)[0]
        for sampler in block.upsamplers or []:
            hidden = sampler(hidden)
        after.append(hidden)
    return before, after


def test_taps_equal_a_pass_by_hand(sd: Sd):
    noisy, text = torch.randn(2, 4, 16, 16), torch.randn(2, 12, 8)
    taps = [decoder_tap(sd.unet, block) for block in range(4)]
    with torch.no_grad():
        found = read_taps(sd.unet, taps, noisy, 100, text)
        before, after = by_hand(sd.unet, noisy, 100, text)
    assert [one.shape[1:] for one in found] == [(32, 2, 2), (24, 4, 4), (16, 8, 8), (8, 16, 16)]
    for one, other in zip(found, before, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    full = sd.unet(noisy, 100, text).sample
    by_hand_full = sd.unet.conv_out(sd.unet.conv_act(sd.unet.conv_norm_out(after[-1])))
    torch.testing.assert_close(full, by_hand_full, atol=1e-5, rtol=1e-5)  # the pass by hand is the UNet's own


def test_the_pass_ends_at_the_last_tap_and_reads_the_same(sd: Sd):
    noisy, text, reached = torch.randn(1, 4, 16, 16), sd.text, []
    hooks = [block.register_forward_hook(lambda *_, j=j: reached.append(j)) for j, block in enumerate(sd.unet.up_blocks)]
    with torch.no_grad():
        short = read_taps(sd.unet, sd.taps, noisy, 100, text)
        assert reached == [0, 1]  # block 2 is left before its third layer
        full = read_taps(sd.unet, [*sd.taps, decoder_tap(sd.unet, 3)], noisy, 100, text)
        reached.clear()
        sd.unet(noisy, 100, text)
    for hook in hooks:
        hook.remove()
    assert reached == [0, 1, 2, 3]  # no hook is left behind
    for one, other in zip(short, full[:3], strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_what_the_unet_gets(folder: Path):
    """The value range, the latent, the noise, the time step and the prompt, each against its formula."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer

    extractor = Sd(str(folder), side=128, step=50, prompt="a horse", seed=7)
    image, got = pictures(1, 128), []
    extractor.unet.register_forward_pre_hook(lambda _module, args: got.append(args))
    extractor(image)
    noisy, step, text = got[0]
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    with torch.no_grad():
        latent = vae.encode(image * 2 - 1).latent_dist.mean * 0.18215
        ids = CLIPTokenizer.from_pretrained(folder / "tokenizer")("a horse", padding="max_length", max_length=12).input_ids
        assert len(ids) == 12
        torch.testing.assert_close(text, CLIPTextModel.from_pretrained(folder / "text_encoder")(torch.tensor([ids])).last_hidden_state)
    betas = torch.linspace(BETAS["beta_start"] ** 0.5, BETAS["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2
    kept = (1 - betas)[:51].prod().item()
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(noisy, math.sqrt(kept) * latent + math.sqrt(1 - kept) * noise, atol=1e-5, rtol=1e-5)
    assert step == 50


def test_the_decoder_is_not_kept(sd: Sd):
    assert not any(name.startswith(("decoder", "post_quant")) for name, _ in sd.vae.named_parameters())
    assert not any(parameter.requires_grad for parameter in [*sd.unet.parameters(), *sd.vae.parameters()])


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
    """With a UNet that averages its input over cells, the windows put together are the averages over the whole picture's cells."""
    monkeypatch.setattr(sd, "encode", lambda images: images)
    monkeypatch.setattr(sd, "read", lambda images, _noise, _taps: [F.avg_pool2d(images, cell) for cell in (64, 32, 16)])
    monkeypatch.setattr(sd, "window", 512)
    monkeypatch.setattr(sd, "stride", 448)
    images = pictures(2, 960)
    for level, cell in zip(sd.levels(images), (64, 32, 16), strict=True):
        assert level.shape[-1] == 960 // cell  # 15, 30 and 60
        torch.testing.assert_close(level, F.avg_pool2d(images, cell))
    torch.testing.assert_close(sd(torch.ones(1, 3, 960, 960)), torch.ones(1, 9, 60, 60))  # no seam: the weights sum to 1
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
        torch.testing.assert_close(level[..., -cells:, -cells:], one[..., -cells:, -cells:], atol=1e-5, rtol=1e-4)


def test_calls_repeat_and_pictures_do_not_depend_on_each_other(sd: Sd, folder: Path):
    images = pictures(2, 192)
    both = sd(images)
    assert both.shape == (2, sd.dim, 12, 12) and sd.dim == 32 + 24 + 16 and both.dtype == torch.float32
    assert torch.equal(sd(images), both)
    torch.testing.assert_close(torch.cat([sd(images[:1]), sd(images[1:])]), both, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(Sd(str(folder), **{**SMALL, "batch": 1})(images), both, atol=1e-5, rtol=1e-4)
    assert (both[0] - both[1]).abs().max() > 1e-2


def test_options_and_weights_change_features_and_fingerprint(sd: Sd, folder: Path, tmp_path: Path):
    images = pictures(1, 192)
    plain, prints = sd(images), {sd.fingerprint}
    for change in ({"prompt": "a horse"}, {"step": 50}, {"seed": 1}, {"window": 192}):
        other = Sd(str(folder), **{**SMALL, **change})
        assert (other(images) - plain).abs().max() > 1e-4, change
        assert other.fingerprint not in prints, change
        prints.add(other.fingerprint)
        again = registry.make("extractors", other.name)
        assert again.fingerprint == other.fingerprint and again.name == other.name
    other = save_diffusion(tmp_path / "other", seed=1)
    for part in ("unet", "vae", "text_encoder"):
        mixed = shutil.copytree(folder, tmp_path / part)
        shutil.copytree(other / part, mixed / part, dirs_exist_ok=True)
        prints.add(Sd(str(mixed), **SMALL).fingerprint)
    assert len(prints) == 8
    again = Sd(str(folder), **{**SMALL, "batch": 1}, precision="bfloat16")
    assert again.fingerprint == sd.fingerprint and again.settings["precision"] == "bfloat16"
    similar = F.cosine_similarity(again(images), plain, dim=1)
    assert similar.min() > 0.98
    json.dumps(sd.settings)


def test_blocks_are_chosen(sd: Sd, folder: Path):
    images = pictures(1, 192)
    one = Sd(str(folder), **SMALL, blocks=(1,))
    assert one.dim == 24
    torch.testing.assert_close(one(images), sd.levels(images)[1], atol=1e-5, rtol=1e-4)
    fine = Sd(str(folder), **SMALL, blocks=(3, 0))
    assert fine(images).shape == (1, 40, 24, 24)


def test_dift_is_the_mean_over_draws_of_what_leaves_block_one(folder: Path):
    extractor = Dift(str(folder), side=128, ensemble=3, batch=2, seed=5)
    images = pictures(2, 128)
    found = extractor(images)
    assert found.shape == (2, 24, 8, 8) and extractor.dim == 24
    noise = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        latent = extractor.encode(images[1:])
        kept = extractor.scheduler.alphas_cumprod[261]
        draws = [
            by_hand(extractor.unet, kept.sqrt() * latent + (1 - kept).sqrt() * one, 261, extractor.text)[1][1] for one in noise[:, None]
        ]
    torch.testing.assert_close(found[1:], torch.stack(draws).mean(0), atol=1e-5, rtol=1e-4)
    assert torch.equal(extractor(images), found)
    torch.testing.assert_close(extractor(images[:1]), found[:1], atol=1e-5, rtol=1e-4)
    assert Dift(str(folder), side=128, ensemble=2, seed=5).fingerprint != extractor.fingerprint


@pytest.mark.parametrize("shape", [(300, 420), (420, 300), (360, 360)], ids=["landscape", "portrait", "square"])
def test_a_dot_changes_the_features_where_it_is(sd: Sd, shape: tuple[int, int]):
    """A random network spreads a dot, but about its place: transposed or shifted maps would be 3 or more of the 12 cells off."""
    mask, plain = np.zeros(shape, bool), np.full((*shape, 3), 110, np.uint8)
    mask[40:260, 50:280] = True
    without, crop = photo_features(sd, Photo("plain", b"", plain, mask))
    errors = []
    for y, x in ((80, 90), (150, 240), (230, 120), (130, 130), (80, 230), (230, 250)):
        dotted = plain.copy()
        dotted[y - 8 : y + 9, x - 8 : x + 9] = 255
        change = (photo_features(sd, Photo("dotted", b"", dotted, mask))[0] - without).norm(dim=0).double() ** 4
        cells = torch.arange(change.shape[-1]).double()
        centre = torch.stack([change.sum(1) @ cells, change.sum(0) @ cells]) / change.sum()
        errors.append(centre.numpy() - crop.to_crop(np.array([y, x], float), len(cells)))
    assert np.abs(errors).max() < 2 and np.abs(np.mean(errors, 0)).max() < 0.6


SD15 = {"cross_attention_dim": 768}
SD21 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}


@pytest.mark.parametrize("config", [SD15, SD21], ids=["sd15", "sd21"])
def test_taps_of_the_full_architecture(config: dict):
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(block_out_channels=(320, 640, 1280, 1280), in_channels=4, **UNET, **config)
        taps = [decoder_tap(unet, block) for block in range(4)]
        found = read_taps(unet, taps, torch.empty(1, 4, 64, 64), 100, torch.empty(1, 77, config["cross_attention_dim"]))
    assert [tuple(one.shape[1:]) for one in found] == [(1280, 8, 8), (1280, 16, 16), (640, 32, 32), (320, 64, 64)]
    corners = list(product(starts(960, 512, 448), repeat=2))
    stitched = [stitch(torch.zeros(4, 1, 1, *one.shape[2:]), corners, 512) for one in found[:3]]
    assert [one.shape[-1] for one in stitched] == [15, 30, 60]


def test_a_long_prompt_is_cut_with_a_warning(folder: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "shic"):
        short = Sd(str(folder), **SMALL, prompt="abcdefghij")
        assert not caplog.messages
        long = Sd(str(folder), **SMALL, prompt="abcdefghij klm")
    assert "longer than the 12 tokens" in caplog.messages[0]
    torch.testing.assert_close(long.text.shape, short.text.shape)


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
def test_settings_out_of_range_are_named(folder: Path, options: dict, fact: str, hint: str):
    with pytest.raises(SettingError, match=fact) as caught:
        Sd(str(folder), **options)
    assert hint in caught.value.hint
    with pytest.raises(SettingError, match="ensemble=0"):
        Dift(str(folder), ensemble=0)


def spoil(folder: Path, what: str) -> None:
    """Break the weights in one way."""
    from safetensors.torch import load_file, save_file

    unet = folder / "unet" / "diffusion_pytorch_model.safetensors"
    if what == "no unet":
        shutil.rmtree(folder / "unet")
    elif what == "missing tensor":
        save_file({name: each for name, each in load_file(unet).items() if name != "conv_in.weight"}, unet)
    elif what == "pickle":
        unet.rename(unet.with_name("diffusion_pytorch_model.bin"))
    elif what == "nan":
        tensors = load_file(unet)
        tensors["conv_in.bias"][:] = torch.nan
        save_file(tensors, unet)
    elif what in ("tokenizer", "scheduler", "vae", "text_encoder"):
        shutil.rmtree(folder / what)
    else:
        config = json.loads((folder / "unet/config.json").read_text())
        (folder / "unet/config.json").write_text(json.dumps({**config, **json.loads(what)}))


@pytest.mark.parametrize(
    ("what", "fact"),
    [
        ("no unet", "holds no Stable Diffusion"),
        ("missing tensor", "conv_in.weight"),
        ("pickle", "pickled"),
        ("tokenizer", "can't be read as a tokenizer"),
        ("scheduler", "can't be read as a noise schedule"),
        ("vae", "is no checkpoint"),
        ("text_encoder", "is no checkpoint"),
        ('{"in_channels": 9}', "conv_in.weight"),
    ],
)
def test_broken_weights_are_named(copied: Path, what: str, fact: str):
    spoil(copied, what)
    with pytest.raises(InputError, match=fact) as caught:
        Sd(str(copied), **SMALL)
    assert caught.value.hint


def test_other_diffusion_models_are_refused(copied: Path):
    from diffusers import UNet2DConditionModel

    model = UNet2DConditionModel(in_channels=9, block_out_channels=(8, 16, 24, 32), norm_num_groups=4, cross_attention_dim=8, **UNET)
    model.save_pretrained(copied / "unet")
    with pytest.raises(InputError, match="is no Stable Diffusion 1 or 2: the UNet and the VAE disagree"):
        Sd(str(copied), **SMALL)


def test_features_that_are_not_finite_are_refused(copied: Path):
    spoil(copied, "nan")
    with pytest.raises(InputError, match="its features are not finite") as caught:
        Sd(str(copied), **SMALL)(pictures(1, 192))
    assert "broken" in caught.value.hint
    with pytest.raises(InputError, match="not finite") as caught:
        Sd(str(copied), **SMALL, precision="bfloat16")(pictures(1, 192))
    assert "precision=float32" in caught.value.hint


def test_weights_under_their_names_in_older_files(copied: Path, sd: Sd):
    """The published files name the VAE's attention and the text encoder's tensors as older versions of the libraries did."""
    from safetensors.torch import load_file, save_file

    vae, text = copied / "vae/diffusion_pytorch_model.safetensors", copied / "text_encoder/model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = load_file(vae)
    for new, old in older.items():
        renamed = {name.replace(new, old): each for name, each in renamed.items()}
    save_file(renamed, vae, metadata={"format": "pt"})
    positions = {"text_model.embeddings.position_ids": torch.arange(12)[None]}
    save_file({f"text_model.{name}": each for name, each in load_file(text).items()} | positions, text, metadata={"format": "pt"})
    assert torch.equal(Sd(str(copied), **SMALL)(pictures(1, 192)), sd(pictures(1, 192)))


@pytest.fixture
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub cache with nothing in it, whatever is on this machine."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(("name", "model"), [("sd", "sd15"), ("dift", "sd21")])
def test_weights_are_found_by_name_or_missed(no_cache: None, folder: Path, tmp_path: Path, name: str, model: str):
    with pytest.raises(MissingError, match=model) as caught:
        registry.make("extractors", name)
    assert f"shic models pull {model}" in caught.value.hint
    (tmp_path / model).symlink_to(folder)
    assert registry.make("extractors", f"{name},side=128", weights=tmp_path).name.startswith(f"{name},side=128")
    with pytest.raises(MissingError, match="nowhere"):
        registry.make("extractors", f"{name}:nowhere/at-all")


@pytest.mark.parametrize("extractor", ["sd:{},side=128,window=64,stride=64,blocks=0/2", "dift:{},side=128,ensemble=2"])
def test_through_the_command_line(shic, small_template_file: Path, folder: Path, tmp_path: Path, extractor: str):
    extractor = extractor.format(folder)
    rgba = np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)
    for part, content in (("imgs", rgba), ("masks", np.pad(np.full((50, 60, 3), 255, np.uint8), ((20, 20), (30, 30), (0, 0))))):
        (tmp_path / part).mkdir()
        (tmp_path / part / "one.png").write_bytes(encode(content))
    status, out, err = shic("features", "imgs", "--extractor", extractor, "-o", "f.h5")
    assert (status, out) == (0, ""), err
    status, _, err = shic("pseudo-gt", "f.h5", "--azimuths", "2", "--elevations", "0")
    assert status == 0, err
    status, _, err = shic("pseudo-gt", "imgs", "--extractor", extractor, "--azimuths", "2", "--elevations", "0", "-o", "direct.h5")
    assert status == 0, err
    _, out, _ = shic("info", "direct.h5", "--json")
    assert json.loads(out)["params"]["extractor"]["side"] == 128


def test_the_command_line_says_what_is_wrong(shic, copied: Path, no_cache: None, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(encode(np.zeros((64, 64, 3), np.uint8)))
    status, _, err = shic("features", "a.png", "--extractor", "sd")
    assert status == 3 and "shic models pull sd15" in err
    status, _, err = shic("features", "a.png", "--extractor", f"sd:{copied},side=100")
    assert status == 2 and "side=100 is no multiple of 64" in err
    spoil(copied, "no unet")
    status, _, err = shic("features", "a.png", "--extractor", f"sd:{copied}")
    assert status == 1 and "there is no folder unet" in err and "Traceback" not in err
