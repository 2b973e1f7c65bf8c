"""Models of the real layouts with random weights: as large and as quick as the real ones, nothing is fetched.

`python random_weights.py FOLDER` makes the folder of weights that `--weights` takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tiny_diffusion import BETAS, UNET, save_diffusion, save_dinov2, save_tokenizer
from tiny_generator import save_generator


def save_all(weights: Path, full: bool) -> Path:
    """`weights` with sd15, control-depth, dinov2-small and dinov2-base, in half precision; not `full`, of a
    few thousand weights.
    """
    weights.mkdir(parents=True, exist_ok=True)
    if not full:
        save_generator(weights, save_diffusion(weights / "tiny"))
        for name in ("dinov2-small", "dinov2-base"):
            save_dinov2(weights / name)
        return weights
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        _save_diffusion(weights)
        for name, width, heads in (("dinov2-small", 384, 6), ("dinov2-base", 768, 12)):
            _save_dinov2(weights / name, width, heads)
    return weights


def _save_diffusion(weights: Path) -> None:
    """Stable Diffusion 1.5 and a ControlNet for it."""
    from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = weights / "sd15"
    save_tokenizer(folder / "tokenizer")
    DDIMScheduler(**BETAS).save_pretrained(folder / "scheduler")
    sizes = {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    }
    text = CLIPTextConfig(**sizes, num_attention_heads=12, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    CLIPTextModel(text).half().save_pretrained(folder / "text_encoder")
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (128, 256, 512, 512),
        "layers_per_block": 2,
    }
    AutoencoderKL(**blocks).half().save_pretrained(folder / "vae")
    unet = UNet2DConditionModel(cross_attention_dim=768, attention_head_dim=8, **UNET)
    unet.half().save_pretrained(folder / "unet")
    ControlNetModel.from_unet(unet).half().save_pretrained(weights / "control-depth")


def _save_dinov2(folder: Path, width: int, heads: int) -> None:
    from transformers import Dinov2Config, Dinov2Model

    settings = {"hidden_size": width, "num_attention_heads": heads, "patch_size": 14, "image_size": 518}
    Dinov2Model(Dinov2Config(**settings)).half().save_pretrained(folder)


if __name__ == "__main__":
    save_all(Path(sys.argv[1]), full=True)
