"""Random segmentation and detection models of a few thousand weights, saved as folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers as tf

LABELS = ("background", "aeroplane, airplane", "horse", "tvmonitor", "door", "screen door, door")


def save_segformer(folder: Path, labels: tuple[str, ...] = LABELS, **settings: Any) -> Path:
    """A Segformer with an image processor; `settings` go into preprocessor_config.json."""
    torch.manual_seed(0)
    config = tf.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 16],
        patch_sizes=[7, 3],
        strides=[4, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=16,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
    )
    tf.SegformerForSemanticSegmentation(config).save_pretrained(folder)
    usual = {"image_processor_type": "SegformerImageProcessor", "size": {"height": 64, "width": 64}}
    (folder / "preprocessor_config.json").write_text(json.dumps(usual | settings))
    return folder


def save_grounding_dino(folder: Path, family: str = "GroundingDino") -> Path:
    """A Grounding DINO, or with `family` MMGroundingDino, with a tokenizer of a few words."""
    torch.manual_seed(0)
    swin = tf.SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1] * 4, num_heads=[1] * 4, window_size=2,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    bert = tf.BertConfig(
        vocab_size=12,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
    )
    config = getattr(tf, f"{family}Config")(
        backbone_config=swin,
        text_config=bert,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=12,
        max_text_len=16,
        encoder_n_points=2,
        decoder_n_points=2,
    )
    getattr(tf, f"{family}ForObjectDetection")(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ".", "horse", "cow", "t", "##rex"])
    )
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    )
    return folder


def save_sam(folder: Path, family: str = "Sam") -> Path:
    """A SAM of 64 pixels a side, or with `family` SamHQ."""
    torch.manual_seed(0)
    vision = {
        "hidden_size": 16,
        "output_channels": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 8,
        "window_size": 0,
        "global_attn_indexes": [0],
        "num_pos_feats": 16,
        "mlp_dim": 16,
    }
    prompt = {"hidden_size": 32, "image_size": 64, "patch_size": 8, "mask_input_channels": 4}
    decoder = _decoder(32) | ({"vit_dim": 16} if family == "SamHQ" else {})
    config = getattr(tf, f"{family}Config")(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )
    getattr(tf, f"{family}Model")(config).save_pretrained(folder)
    return folder


def save_sam3(folder: Path) -> Path:
    """SAM 3's tracker, of 56 pixels a side."""
    torch.manual_seed(0)
    backbone = {
        "model_type": "sam3_vit_model",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 56,
        "patch_size": 14,
        "window_size": 2,
        "global_attn_indexes": [0],
        "pretrain_image_size": 28,
    }
    vision = {
        "backbone_config": backbone,
        "fpn_hidden_size": 32,
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
    }
    prompt = {"hidden_size": 32, "image_size": 56, "patch_size": 14, "mask_input_channels": 4}
    config = tf.Sam3TrackerConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=_decoder(32)
    )
    tf.Sam3TrackerModel(config).save_pretrained(folder)
    return folder


def save_sam2(folder: Path, kind: str = "sam2") -> Path:
    """A SAM 2 of 64 pixels a side; `kind` is the model type that its config.json says, sam2_video for the
    released weights of SAM 2.1.
    """
    torch.manual_seed(0)
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "image_size": [64, 64],
        "blocks_per_stage": [1] * 4,
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1] * 4,
        "window_size_per_stage": [2] * 4,
        "global_attention_blocks": [],
        "window_positional_embedding_background_size": [2, 2],
    }
    vision = {
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
        "fpn_hidden_size": 32,
    }
    prompt = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 4}
    tf.Sam2Model(
        tf.Sam2Config(vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=_decoder(32))
    ).save_pretrained(folder)
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | {"model_type": kind}))
    return folder


def _decoder(width: int) -> dict[str, int]:
    return {
        "hidden_size": width,
        "mlp_dim": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 16,
        "iou_head_depth": 2,
    }
