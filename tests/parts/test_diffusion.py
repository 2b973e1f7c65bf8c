"""Loading Stable Diffusion and reading it inside, on a tiny random one that has the real one's layout."""

from __future__ import annotations

import json
import logging
import math
from itertools import product
from pathlib import Path

import pytest
import torch
from tiny_diffusion import BETAS, SMALL, UNET, by_hand, pictures, spoil

from shic_cli.base.errors import InputError
from shic_cli.parts.extractors.diffusion import decoder_tap, read_taps
from shic_cli.parts.extractors.sd import Sd, starts, stitch


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
    hooks = [
        block.register_forward_hook(lambda *_, j=j: reached.append(j))
        for j, block in enumerate(sd.unet.up_blocks)
    ]
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


def test_what_the_unet_gets(tiny_sd: Path):
    """The value range, the latent, the noise, the time step and the prompt, each against its formula."""
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTokenizer

    extractor = Sd(str(tiny_sd), side=128, step=50, prompt="a horse", seed=7)
    image, got = pictures(1, 128), []
    extractor.unet.register_forward_pre_hook(lambda _module, args: got.append(args))
    extractor(image)
    noisy, step, text = got[0]
    vae = AutoencoderKL.from_pretrained(tiny_sd / "vae")
    with torch.no_grad():
        latent = vae.encode(image * 2 - 1).latent_dist.mean * 0.18215
        ids = CLIPTokenizer.from_pretrained(tiny_sd / "tokenizer")(
            "a horse", padding="max_length", max_length=12
        ).input_ids
        assert len(ids) == 12
        torch.testing.assert_close(
            text,
            CLIPTextModel.from_pretrained(tiny_sd / "text_encoder")(torch.tensor([ids])).last_hidden_state,
        )
    betas = (
        torch.linspace(BETAS["beta_start"] ** 0.5, BETAS["beta_end"] ** 0.5, 1000, dtype=torch.float64) ** 2
    )
    kept = (1 - betas)[:51].prod().item()
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(
        noisy, math.sqrt(kept) * latent + math.sqrt(1 - kept) * noise, atol=1e-5, rtol=1e-5
    )
    assert step == 50


def test_the_decoder_is_not_kept(sd: Sd):
    assert not any(name.startswith(("decoder", "post_quant")) for name, _ in sd.vae.named_parameters())
    assert not any(parameter.requires_grad for parameter in [*sd.unet.parameters(), *sd.vae.parameters()])


SD15 = {"cross_attention_dim": 768}
SD21 = {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}


@pytest.mark.parametrize("config", [SD15, SD21], ids=["sd15", "sd21"])
def test_taps_of_the_full_architecture(config: dict):
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=(320, 640, 1280, 1280), in_channels=4, **UNET, **config
        )
        taps = [decoder_tap(unet, block) for block in range(4)]
        found = read_taps(
            unet, taps, torch.empty(1, 4, 64, 64), 100, torch.empty(1, 77, config["cross_attention_dim"])
        )
    assert [tuple(one.shape[1:]) for one in found] == [
        (1280, 8, 8),
        (1280, 16, 16),
        (640, 32, 32),
        (320, 64, 64),
    ]
    corners = list(product(starts(960, 512, 448), repeat=2))
    stitched = [stitch(torch.zeros(4, 1, 1, *one.shape[2:]), corners, 512) for one in found[:3]]
    assert [one.shape[-1] for one in stitched] == [15, 30, 60]


def test_a_long_prompt_is_cut_with_a_warning(tiny_sd: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, "shic"):
        short = Sd(str(tiny_sd), **SMALL, prompt="abcdefghij")
        assert not caplog.messages
        long = Sd(str(tiny_sd), **SMALL, prompt="abcdefghij klm")
    assert "longer than the 12 tokens" in caplog.messages[0]
    torch.testing.assert_close(long.text, short.text)  # the first 10 letters and the two marks
    assert (Sd(str(tiny_sd), **SMALL, prompt="abcdefghik").text - short.text).abs().max() > 1e-3


def test_a_tokenizer_that_is_not_a_fast_one_serves(
    tiny_sd: Path, sd: Sd, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    from transformers import CLIPTokenizer

    class Slow(CLIPTokenizer):
        """It gives one row of tokens whether or not some overflow."""

        def __call__(
            self, *given: object, return_overflowing_tokens: bool = False, **options: object
        ) -> object:
            return super().__call__(*given, **options)

    monkeypatch.setattr("transformers.CLIPTokenizer", Slow)
    with caplog.at_level(logging.WARNING, "shic"):
        slow = Sd(str(tiny_sd), **SMALL)
    assert torch.equal(slow.text, sd.text) and slow.fingerprint == sd.fingerprint and not caplog.messages


@pytest.mark.parametrize(
    ("part", "changes"), [("scheduler", {"beta_end": 0.05}), ("tokenizer", {"h": 10, "i": 9})]
)
def test_the_noise_schedule_and_the_tokens_are_in_the_fingerprint(copied: Path, part: str, changes: dict):
    before = Sd(str(copied), **SMALL, prompt="hat")
    path = (
        copied / {"scheduler": "scheduler/scheduler_config.json", "tokenizer": "tokenizer/vocab.json"}[part]
    )
    said = json.loads(path.read_text())
    path.write_text(json.dumps({**said, **changes}))
    after = Sd(str(copied), **SMALL, prompt="hat")
    assert (after(pictures(1, 192)) - before(pictures(1, 192))).abs().max() > 1e-3
    assert after.fingerprint != before.fingerprint


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

    model = UNet2DConditionModel(
        in_channels=9, block_out_channels=(8, 16, 24, 32), norm_num_groups=4, cross_attention_dim=8, **UNET
    )
    model.save_pretrained(copied / "unet")
    with pytest.raises(InputError, match="is no Stable Diffusion 1 or 2: the UNet and the VAE disagree"):
        Sd(str(copied), **SMALL)


def test_weights_under_their_names_in_older_files(copied: Path, sd: Sd):
    """The published files name the VAE's attention and the text encoder's tensors as older versions of the
    libraries did.
    """
    from safetensors.torch import load_file, save_file

    vae, text = copied / "vae/diffusion_pytorch_model.safetensors", copied / "text_encoder/model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    renamed = load_file(vae)
    for new, old in older.items():
        renamed = {name.replace(new, old): each for name, each in renamed.items()}
    save_file(renamed, vae, metadata={"format": "pt"})
    positions = {"text_model.embeddings.position_ids": torch.arange(12)[None]}
    save_file(
        {f"text_model.{name}": each for name, each in load_file(text).items()} | positions,
        text,
        metadata={"format": "pt"},
    )
    assert torch.equal(Sd(str(copied), **SMALL)(pictures(1, 192)), sd(pictures(1, 192)))
