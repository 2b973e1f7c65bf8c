"""Stable Diffusion as a source of features.

A picture is encoded, noise of one time step is added, and the values inside the UNet are the features. The
UNet of diffusers runs once, without guidance, and stops at the last place that is read.
"""

# pyright: reportPrivateImportUsage=false
# diffusers imports its names when they are asked for, which pyright takes for private ones.

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
from torch.utils.hooks import RemovableHandle

from shic_cli.base.errors import InputError, SettingError
from shic_cli.parts import registry
from shic_cli.parts.checkpoints import AGAIN, OTHER, fingerprint_of, first_line, load
from shic_cli.parts.extractors.pretrained import Pretrained, number_format
from shic_cli.parts.weights import full_name, locate

log = logging.getLogger("shic")

CELL = 64  # pixels a side of the UNet's coarsest cell: 8 for a cell of the latent, doubled three times


@dataclass(frozen=True)
class Tap:
    """A place to read in a UNet: the first `channels` of what enters `module`, or (`after`) leaves it."""

    module: nn.Module
    channels: int
    after: bool = False


class _Enough(Exception):
    """Raised in the hook of the last tap: the rest of the UNet is not needed."""


def read_taps(
    unet: nn.Module, taps: Sequence[Tap], noisy: torch.Tensor, step: int, text: torch.Tensor
) -> list[torch.Tensor]:
    """What each tap reads, f4 `(B, C, h, w)`, in one pass of the latents `noisy` `(B, 4, H, W)`.

    `text` `(B, T, E)` is the embedded prompt. `taps` are in the order in which the UNet reaches them; the
    pass ends at the last.
    """
    values: list[torch.Tensor] = []

    def keep(tap: Tap, value: torch.Tensor) -> None:
        values.append(value[:, : tap.channels].to(torch.float32, copy=True))
        if len(values) == len(taps):
            raise _Enough

    def hook(tap: Tap) -> RemovableHandle:
        def before(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            keep(tap, inputs[0])

        def after(module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
            keep(tap, output)

        module = tap.module
        return module.register_forward_hook(after) if tap.after else module.register_forward_pre_hook(before)

    hooks = [hook(tap) for tap in taps]
    try:
        with contextlib.suppress(_Enough):
            unet(noisy, step, text)
    finally:
        for handle in hooks:
            handle.remove()
    return values


def decoder_tap(unet: Any, block: int) -> Tap:
    """The input of the third layer of `up_blocks[block]`, without the skip connection that follows in it."""
    resnets = unet.up_blocks[block].resnets
    return Tap(resnets[2], resnets[1].out_channels)


NO_MATTER = (
    "batch",
    "precision",
    "unet",
)  # options that features do not depend on; of `unet` the weights count


class Diffusion(Pretrained):
    """What extractors on Stable Diffusion 1 and 2 share: loading, the prompt, latents, noise and fingerprint.

    A subclass gives `taps` and `__call__`. With the option `unet` the UNet gets the weights in that file;
    with `clean` no noise is added.
    """

    packages: tuple[str, ...] = ("diffusers", "transformers")
    _weights_of_unet = ""

    def __init__(
        self, argument: str, device: torch.device | str, weights: Path | None, options: dict[str, Any]
    ) -> None:
        self.name = registry.spell(type(self), full_name(argument), options)
        self._matter = {name: value for name, value in options.items() if name not in NO_MATTER}
        self.side, self.step, self.seed, self.batch = (
            options[name] for name in ("side", "step", "seed", "batch")
        )
        self.other_unet, self.clean = options.get("unet", ""), options.get("clean", False)
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
        # The noise schedule matters through this one number: the share of the picture that the noise leaves.
        share = round(float(self.scheduler.alphas_cumprod[self.step]), 6)
        unet = {"weights_of_unet": self._weights_of_unet} if self.other_unet else {}
        return {
            "weights": self._weights,
            **unet,
            "alphas_cumprod": share,
            "tokens": self._tokens,
            **self._matter,
        }

    def _load(self, folder: Path, prompt: str) -> None:
        from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel

        self.scheduler = read_scheduler(DDPMScheduler, folder)
        steps = self.scheduler.config.num_train_timesteps
        if not 0 <= self.step < steps:
            raise SettingError(f"{self.name}: step={self.step} is out of range", f"give 0 to {steps - 1}")
        tokens, self.text = _encode_prompt(folder, prompt, self.dtype, self.device)
        self._tokens = hashlib.sha256(str(tokens).encode()).hexdigest()[:16]
        self.vae = load(AutoencoderKL, folder / "vae", dtype=self.dtype)
        self.vae.decoder = self.vae.post_quant_conv = None  # nothing is decoded: they need no device memory
        self.vae.to(self.device)
        self.unet = load(UNet2DConditionModel, folder / "unet", dtype=self.dtype, device=self.device)
        if self.other_unet:
            self._weights_of_unet = replace_weights(self.unet, Path(self.other_unet))
        check_kind(folder, self.unet.config, self.vae.config, self.text.shape[-1])

    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Latents f4 `(B, 4, H/8, W/8)` of `images` `(B, 3, H, W)` in 0..1, scaled as the UNet wants them.

        They are the mean of the posterior, not a sample.
        """
        values = (images.to(self.device, torch.float32) * 2 - 1).to(self.dtype)
        return self.vae.encode(values).latent_dist.mode().float() * self.vae.config.scaling_factor

    def draw(self, count: int, side: int) -> torch.Tensor:
        """Noise `(count, 4, side/8, side/8)` of the seed, drawn on the CPU to be the same on every device."""
        shape = (count, self.unet.config.in_channels, side // 8, side // 8)
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.seed)).to(self.device)

    def read(self, latents: torch.Tensor, noise: torch.Tensor, taps: Sequence[Tap]) -> list[torch.Tensor]:
        """What each tap reads, f4 `(B, C, h, w)`, of `latents` with `noise` of the time step.

        Both are `(B, 4, H, W)`, or `(1, 4, H, W)` where one serves for all.
        """
        noisy = latents
        if not self.clean:
            latents, noise = torch.broadcast_tensors(latents, noise)
            steps = torch.full((len(latents),), self.step, device=self.device)
            # in float32: half rounds the schedule badly
            noisy = self.scheduler.add_noise(latents, noise, steps)
        return read_taps(
            self.unet, taps, noisy.to(self.dtype), self.step, self.text.expand(len(latents), -1, -1)
        )


def replace_weights(module: nn.Module, path: Path) -> str:
    """16 hex digits of the safetensors file `path`, after `module` got the tensors in it, which it must fit.

    InputError if it does not.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        module.load_state_dict(load_file(path))
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except (OSError, SafetensorError, RuntimeError) as error:
        fact = f"{path}: holds no weights of this UNet ({first_line(error)})"
        raise InputError(fact, "name a .safetensors file of a UNet of the same kind") from error


def check_side(part: str, option: str, pixels: int) -> None:
    """SettingError unless `pixels` is a multiple of the coarsest cell: no window may end inside a cell."""
    if pixels < CELL or pixels % CELL:
        near = max(CELL, round(pixels / CELL) * CELL)
        raise SettingError(
            f"{part}: {option}={pixels} is no multiple of {CELL}", f"for example {option}={near}"
        )


def read_scheduler(cls: Any, folder: Path) -> Any:
    """The noise schedule in `folder`/scheduler as the scheduler `cls`; InputError when there is none.

    It may have been saved with another scheduler: all of them add noise in the same way.
    """
    try:
        return cls.from_pretrained(str(folder / "scheduler"), local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder / 'scheduler'}: can't be read as a noise schedule", AGAIN) from error


def read_tokenizer(folder: Path) -> Any:
    """The CLIP tokenizer in `folder`/tokenizer; InputError when there is none."""
    from transformers import CLIPTokenizer

    try:
        return CLIPTokenizer.from_pretrained(str(folder / "tokenizer"), local_files_only=True)
    except Exception as error:  # the library may raise anything for a wrong tokenizer
        raise InputError(f"{folder / 'tokenizer'}: can't be read as a tokenizer", AGAIN) from error


def _encode_prompt(
    folder: Path, prompt: str, dtype: torch.dtype, device: torch.device
) -> tuple[list[int], torch.Tensor]:
    """The T tokens of the prompt and their embedding `(1, T, E)`; the text encoder is freed afterwards."""
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
    """InputError unless the settings of UNet and VAE are those of a Stable Diffusion 1 or 2 for text.

    `width` is the length of the text encoder's output.
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
