"""A randomly initialised Stable Diffusion and DINOv2 of a few thousand weights, saved as the folders that the
real ones come in.
"""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path

import torch

SMALL = {"side": 192, "window": 128, "stride": 64, "batch": 3}  # options of `sd`

UNET = {  # the block types of Stable Diffusion 1.5 and 2.1
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
}
BETAS = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
}


def save_tokenizer(folder: Path) -> None:
    """Letters only: each is a token, and another one at the end of a word."""
    marks = ["<|startoftext|>", "<|endoftext|>"]
    words = [*marks, *string.ascii_lowercase, *(f"{letter}</w>" for letter in string.ascii_lowercase)]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    first, last = (
        {"__type": "AddedToken", "content": mark, "lstrip": False, "normalized": True, "rstrip": False}
        for mark in marks
    )
    said = {
        "bos_token": first,
        "eos_token": last,
        "unk_token": last,
        "pad_token": marks[1],
        "do_lower_case": True,
        "errors": "replace",
    }
    more = {"add_prefix_space": False, "model_max_length": 12, "tokenizer_class": "CLIPTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(said | more))  # as it was published


def save_diffusion(folder: Path, seed: int = 0) -> Path:
    """`folder` with tokenizer, text_encoder, vae, unet and scheduler; channels of the up blocks are 32, 24,
    16 and 8.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    save_tokenizer(folder / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=54,
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    CLIPTextModel(text).save_pretrained(folder / "text_encoder")
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(4, 8, 8, 8),
        norm_num_groups=4,
        layers_per_block=1,
    ).save_pretrained(folder / "vae")
    UNet2DConditionModel(
        block_out_channels=(8, 16, 24, 32),
        norm_num_groups=4,
        cross_attention_dim=8,
        attention_head_dim=2,
        **UNET,
    ).save_pretrained(folder / "unet")
    DDIMScheduler(**BETAS).save_pretrained(folder / "scheduler")
    return folder


def save_dinov2(folder: Path) -> Path:
    """`folder` with a DINOv2 of as many blocks as the base one has, 16 channels wide."""
    from transformers import Dinov2Config, Dinov2Model

    torch.manual_seed(2)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 12,
        "num_attention_heads": 2,
        "mlp_ratio": 2,
        "patch_size": 14,
        "image_size": 56,
    }
    Dinov2Model(Dinov2Config(**sizes, initializer_range=0.3)).save_pretrained(folder)
    return folder


def pictures(count: int, side: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def by_hand(
    unet, noisy: torch.Tensor, step: int, text: torch.Tensor
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """The hidden states before the third layer of each up block, and those that leave each block, one
    submodule after the other.
    """
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
