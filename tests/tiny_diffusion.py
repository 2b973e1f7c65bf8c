"""A randomly initialised Stable Diffusion and DINOv2 of a few thousand weights, saved as the folders that the real ones come in."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch

UNET = {  # the block types of Stable Diffusion 1.5 and 2.1
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
}
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}


def save_tokenizer(folder: Path) -> None:
    """Letters only: each is a token, and another one at the end of a word."""
    marks = ["<|startoftext|>", "<|endoftext|>"]
    words = [*marks, *string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    first, last = ({"__type": "AddedToken", "content": mark, "lstrip": False, "normalized": True, "rstrip": False} for mark in marks)
    said = {"bos_token": first, "eos_token": last, "unk_token": last, "pad_token": marks[1], "do_lower_case": True, "errors": "replace"}
    more = {"add_prefix_space": False, "model_max_length": 12, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said | more))  # as it was published


def save_diffusion(folder: Path, seed: int = 0) -> Path:
    """`folder` with tokenizer, text_encoder, vae, unet and scheduler; channels of the up blocks are 32, 24, 16 and 8."""
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    save_tokenizer(folder / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=54, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=12,
        bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, block_out_channels=(4, 8, 8, 8),
        norm_num_groups=4, layers_per_block=1,
    ).save_pretrained(folder / "vae")  # fmt: skip
    UNet2DConditionModel(
        block_out_channels=(8, 16, 24, 32), norm_num_groups=4, cross_attention_dim=8, attention_head_dim=2, **UNET
    ).save_pretrained(folder / "unet")  # fmt: skip
    DDIMScheduler(**BETAS).save_pretrained(folder / "scheduler")
    return folder


def save_dinov2(folder: Path) -> Path:
    """`folder` with a DINOv2 of as many blocks as the base one has, 16 channels wide."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(2)
    sizes = {"hidden_size": 16, "num_hidden_layers": 12, "num_attention_heads": 2, "mlp_ratio": 2, "patch_size": 14, "image_size": 56}
    Dinov2Model(Dinov2Config(**sizes, initializer_range=0.3)).save_pretrained(folder)
    return folder
