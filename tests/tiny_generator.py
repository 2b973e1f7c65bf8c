"""Tiny random models for the generator `controlnet-depth`, in a folder of weights as `shic models pull
--weights` fills it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import torch


def save_generator(weights: Path, sd: Path) -> Path:
    """`weights` with sd15 (a copy of `sd`), control-depth and depth-anything."""
    from diffusers import ControlNetModel, UNet2DConditionModel

    shutil.copytree(sd, weights / "sd15")
    torch.manual_seed(3)
    control = ControlNetModel.from_unet(
        UNet2DConditionModel.from_pretrained(sd / "unet"), conditioning_embedding_out_channels=(4, 4, 8, 8)
    )
    with torch.no_grad():  # its outputs start as zeros: an untrained one would change nothing
        for name, parameter in control.named_parameters():
            if "controlnet" in name:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    control.save_pretrained(weights / "control-depth")
    save_depth_anything(weights / "depth-anything")
    return weights


def save_depth_anything(folder: Path, **settings: object) -> Path:
    """A Depth Anything on a DINOv2 of four blocks; its last bias keeps the output above zero, which a ReLU
    would cut off.
    """
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

    torch.manual_seed(4)
    backbone = Dinov2Config(
        hidden_size=8,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        patch_size=14,
        image_size=56,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
        initializer_range=0.3,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=8,
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
        initializer_range=0.3,
        **settings,
    )
    model = DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        model.head.conv3.bias.fill_(1.0)
    model.save_pretrained(folder)
    return folder
