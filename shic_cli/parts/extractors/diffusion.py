"""Stable Diffusion as a source of features: a picture is encoded, noised to one time step, and the UNet is
read inside.

Built on diffusers; the UNet runs once, without guidance, and no further than to the last place that is read.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from shic_cli.base.errors import InputError, SettingError
from shic_cli.parts import registry
from shic_cli.parts.extractors.pretrained import Pretrained, number_format
from shic_cli.parts.weights import AGAIN, OTHER, fingerprint_of, full_name, load, locate

log = logging.getLogger("shic")

CELL = 64  # pixels a side of the coarsest cell in the UNet: 8 a latent, halved three times


@dataclass(frozen=True)
class Tap:
    """A place to read in a UNet: the first `channels` of what enters `module`, or, with `after`, of what
    leaves it.
    """

    module: nn.Module
    channels: int
    after: bool = False


class _Enough(Exception):
    """Raised in the hook of the last tap: what comes after it in the UNet is not needed."""


def read_taps(
    unet: nn.Module, taps: Sequence[Tap], noisy: torch.Tensor, step: int, text: torch.Tensor
) -> list[torch.Tensor]:
    """What each tap reads, float32 `(B, C, h, w)`, in one pass of `noisy` `(B, 4, H, W)` under `text` `(B, T,
    E)`.

    `taps` are in the order in which the UNet reaches them; the pass ends at the last.
    """
    found: list[torch.Tensor] = []

    def keep(tap: Tap, value: torch.Tensor) -> None:
        found.append(value[:, : tap.channels].to(torch.float32, copy=True))
        if len(found) == len(taps):
            raise _Enough

    hooks = [
        tap.module.register_forward_hook(lambda _module, _args, out, tap=tap: keep(tap, out))
        if tap.after
        else tap.module.register_forward_pre_hook(lambda _module, args, tap=tap: keep(tap, args[0]))
        for tap in taps
    ]
    try:
        with contextlib.suppress(_Enough):
            unet(noisy, step, text)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def decoder_tap(unet: nn.Module, block: int) -> Tap:
    """What enters the third layer of `up_blocks[block]`, without the skip connection that is concatenated
    after it.
    """
    resnets = unet.up_blocks[block].resnets
    return Tap(resnets[2], resnets[1].out_channels)


class Diffusion(Pretrained):
    """What extractors on Stable Diffusion 1 and 2 share: loading, the prompt, latents, noise, and what the
    files record.

    A subclass gives `taps` and `__call__`.
    """

    needs_mask = False
    sees_whole_object = False

    def __init__(
        self, argument: str, device: torch.device | str, weights: Path | None, options: dict[str, Any]
    ) -> None:
        self.name = registry.spell(type(self), full_name(argument), options)
        self._matter = {name: value for name, value in options.items() if name not in ("batch", "precision")}
        self.side, self.step, self.seed, self.batch = (
            options[name] for name in ("side", "step", "seed", "batch")
        )
        check_side(self.name, "side", self.side)
        if self.batch < 1:
            raise SettingError(f"{self.name}: batch={self.batch} is out of range", "give 1 or more")
        self.device = torch.device(device)
        self.dtype = number_format(self.name, options["precision"], self.device, torch.float16)
        folder = locate(argument or self.model, weights)
        if not (folder / "unet").is_dir():
            raise InputError(
                f"{folder}: holds no Stable Diffusion, there is no folder unet in it",
                "name the folder above unet and vae",
            )
        self._load(folder, options["prompt"])
        self._weights = fingerprint_of(folder, "unet", "vae", "text_encoder")

    def _identity(self) -> dict[str, Any]:
        kept = round(
            float(self.scheduler.alphas_cumprod[self.step]), 6
        )  # all that the noise schedule does here
        return {"weights": self._weights, "alphas_cumprod": kept, "tokens": self._tokens, **self._matter}

    def _load(self, folder: Path, prompt: str) -> None:
        from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

        self.scheduler = read_scheduler(DDPMScheduler, folder)
        steps = self.scheduler.config.num_train_timesteps
        if not 0 <= self.step < steps:
            raise SettingError(f"{self.name}: step={self.step} is out of range", f"give 0 to {steps - 1}")
        tokens, self.text = _encode_prompt(folder, prompt, self.dtype, self.device)
        self._tokens = hashlib.sha256(str(tokens).encode()).hexdigest()[:16]
        self.vae = load(AutoencoderKL, folder / "vae", dtype=self.dtype)
        self.vae.decoder = self.vae.post_quant_conv = (
            None  # before it moves to the device; nothing is ever decoded
        )
        self.vae.to(self.device)
        self.unet = load(UNet2DConditionModel, folder / "unet", dtype=self.dtype, device=self.device)
        check_kind(folder, self.unet.config, self.vae.config, self.text.shape[-1])

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latents float32 `(B, 4, H/8, W/8)` of `images` `(B, 3, H, W)` in 0..1: the posterior's mean, scaled
        as the UNet wants it.
        """
        values = (images.to(self.device, torch.float32) * 2 - 1).to(self.dtype)
        return self.vae.encode(values).latent_dist.mode().float() * self.vae.config.scaling_factor

    def draw(self, count: int, side: int) -> torch.Tensor:
        """Noise `(count, 4, side/8, side/8)` of the seed; drawn on the CPU, so that it is the same on every
        device.
        """
        shape = (count, self.unet.config.in_channels, side // 8, side // 8)
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.seed)).to(self.device)

    def read(self, latents: torch.Tensor, noise: torch.Tensor, taps: Sequence[Tap]) -> list[torch.Tensor]:
        """What `taps` read, float32 `(B, C, h, w)` each, of `latents` with `noise` at the time step, both
        `(B, 4, H, W)` or one for all.
        """
        latents, noise = torch.broadcast_tensors(latents, noise)
        steps = torch.full((len(latents),), self.step, device=self.device)
        noisy = self.scheduler.add_noise(latents, noise, steps).to(
            self.dtype
        )  # in float32: the schedule rounds badly in half
        return read_taps(self.unet, taps, noisy, self.step, self.text.expand(len(latents), -1, -1))


def check_side(part: str, option: str, pixels: int) -> None:
    """SettingError unless `pixels` is a multiple of the coarsest cell: else windows would end inside cells."""
    if pixels < CELL or pixels % CELL:
        near = max(CELL, round(pixels / CELL) * CELL)
        raise SettingError(
            f"{part}: {option}={pixels} is no multiple of {CELL}", f"for example {option}={near}"
        )


def read_scheduler(cls: Any, folder: Path) -> Any:
    """The noise schedule below `folder` as the scheduler `cls`: whichever it was saved with, they all add
    noise alike.
    """
    try:
        return cls.from_pretrained(str(folder / "scheduler"), local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder / 'scheduler'}: can't be read as a noise schedule", AGAIN) from error


def read_tokenizer(folder: Path) -> Any:
    """The CLIP tokenizer below `folder`; InputError when there is none."""
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
    except Exception as error:  # the library raises anything at all for a tokenizer that is wrong
        raise InputError(f"{folder / 'tokenizer'}: can't be read as a tokenizer", AGAIN) from error


def _encode_prompt(
    folder: Path, prompt: str, dtype: torch.dtype, device: torch.device
) -> tuple[list[int], torch.Tensor]:
    """The prompt's T tokens and their embedding `(1, T, E)`. The text encoder is freed again: it is needed
    once.
    """
    from transformers import CLIPTextModel

    tokenizer = read_tokenizer(folder)
    encoder = load(CLIPTextModel, folder / "text_encoder", dtype=dtype, device=device)
    limit = encoder.config.max_position_embeddings
    if len(tokenizer(prompt, verbose=False).input_ids) > limit:
        log.warning(
            "the prompt is longer than the %d tokens that the text encoder reads: its end is not used", limit
        )
    tokens = tokenizer(
        prompt, padding="max_length", max_length=limit, truncation=True, return_tensors="pt"
    ).input_ids
    with torch.no_grad():
        return tokens[0].tolist(), encoder(tokens.to(device)).last_hidden_state


def check_kind(folder: Path, unet: Any, vae: Any, width: int) -> None:
    """InputError unless the settings of the UNet and the VAE are those of a Stable Diffusion 1 or 2 that
    makes pictures from text.
    """
    facts = {
        "the UNet and the VAE disagree about the latents": unet.in_channels != vae.latent_channels,
        "the UNet and the text encoder disagree about the prompt": unet.cross_attention_dim != width,
        "its UNet wants more than a prompt": unet.addition_embed_type is not None
        or unet.class_embed_type is not None,
        "it has not four levels": len(unet.block_out_channels) != 4 or len(vae.block_out_channels) != 4,
        "a level has not two layers": unet.layers_per_block != 2,
    }
    for fact, is_so in facts.items():
        if is_so:
            raise InputError(f"{folder}: is no Stable Diffusion 1 or 2: {fact}", OTHER)
