"""The settings of `shic train`, as settings.py has those of the other stages."""

from __future__ import annotations

from dataclasses import dataclass

from shic_cli.base.checked import Checked, setting
from shic_cli.base.settings import EXTRACTORS, recipe


@dataclass(frozen=True)
class TrainConfig(Checked):
    """`shic train`; sec. 3.6 and 4.1. A loss with weight 0 is not computed."""

    encoder: str = setting("auto", "The frozen image encoder, an extractor: " + EXTRACTORS)
    decoder: str = setting(
        "auto",
        "auto, convolutional (the layout of the authors' release, on at most 16 by 16 cells; finer features"
        " are averaged), pointwise (for encoders that see the whole object) or unet (for the encoder"
        " picture, which gives pixels).",
        choices=("auto", "convolutional", "pointwise", "unet"),
    )
    start: str = setting(
        "auto",
        "Where the decoder's weights begin. none: as random numbers. animals: as a unet that comes with shic"
        " and was trained on synthetic pictures of nineteen other animals. A model file: as that model's"
        " decoder. auto: animals for a unet of 32 dimensions, else none.",
    )
    recipe: str = recipe()
    dim: int = setting(0, "D, length of an embedding (sec. 4.1); 0: 16, or 32 for a unet.", low=0)
    epochs: int = setting(0, "Passes over the pictures; 0: 40, or 8 for a unet.", low=0)
    batch: int = setting(
        0,
        "Pictures in a step, natural and synthetic ones; 0: 16, 4 for a pointwise decoder, 8 for a unet.",
        low=0,
    )
    points: int = setting(
        0, "Foreground points drawn from a picture in a step (sec. 4.1); 0: 100, or 400 for a unet.", low=0
    )
    rate: float = setting(
        0.0, "Adam's step size; 0: 0.001, 0.003 for a pointwise decoder, 0.002 for a unet.", low=0
    )
    schedule: str = setting(
        "auto",
        "How the step size falls. step: to a tenth after half of the epochs (sec. 4.1). cosine: to zero."
        " auto: cosine for a unet, else step.",
        choices=("auto", "step", "cosine"),
    )
    mirror: str = setting(
        "auto",
        "Mirror each picture in every other epoch, and its labels on the template; auto: on for a unet,"
        " but for an encoder picture+NAME.",
        choices=("auto", "on", "off"),
    )
    pseudo: float = setting(0.1, "alpha, weight of L_pseudo (Eq. 3).", low=0)
    cycle: float = setting(0.002, "beta, weight of L_cyc.", low=0)
    distance: float = setting(0.002, "gamma, weight of L_dist.", low=0)
    equivariance: float = setting(0.001, "delta, weight of L_eq.", low=0)
    synthetic: float = setting(0.1, "zeta, weight of L_syn (Eq. 4).", low=0)
    natural: float = setting(
        -1.0,
        "Weight of all losses of photos; 0 leaves photos out. -1: 1, or 0 for a unet with synthetic pictures"
        " and without annotated photos.",
        low=-1,
    )
    fits: int = setting(
        -1,
        "Photos to which bodies are fitted, as by `shic fit`, for a second round that learns from them too,"
        " and from new synthetic pictures posed like them. It follows --epochs, and has a quarter as many, at"
        " least one. 0: no second round; -1: 40 for a unet with synthetic pictures, else 0.",
        low=-1,
    )
    near: float = setting(
        -1.0,
        "Weight of telling the near side of the body from the far side on synthetic pictures; -1: 0.3 for a"
        " unet, else 0.",
        low=-1,
    )
    foreground: float = setting(
        -1.0,
        "Weight of the cross-entropy of the foreground output, which encoders that need a mask do not have;"
        " -1: 0.1. With 0 the model has no such output, and predict needs masks.",
        low=-1,
    )
    tokens: str = setting(
        "auto",
        "Features as the decoder gets them. unit: unit vectors. raw: at their own length, as in the authors'"
        " release. auto: unit.",
        choices=("auto", "unit", "raw"),
    )
    draw: str = setting(
        "auto",
        "How points of synthetic pictures are drawn. pixels: every labelled pixel alike. vertices: every"
        " visible vertex alike, at the pixel in its middle (Eq. 4). auto: pixels.",
        choices=("auto", "pixels", "vertices"),
    )
    augment: str = setting(
        "auto",
        "Crop, rotate and jitter the pictures, together with their points and masks. auto: off for encoders"
        " that see the whole object, on for all others and for a unet.",
        choices=("auto", "on", "off"),
    )
    rough: str = setting(
        "auto",
        "Give masks and pictures errors, new at every step, as masks and cameras have. auto: for a unet.",
        choices=("auto", "on", "off"),
    )
    precision: str = setting(
        "auto",
        "Number format of the decoder's layers. auto: bfloat16 for a unet on a GPU or processor that"
        " computes in it, else float32.",
        choices=("auto", "float32", "bfloat16"),
    )
    variants: int = setting(
        -1, "Augmented copies of each picture, made once; 0 makes a new copy in every epoch; -1: 2.", low=-1
    )
    natural_images: bool = setting(True, "Use the maps files of photos (Table 3).")
    synthetic_images: bool = setting(True, "Use the maps files of synthetic pictures (Table 3).")
