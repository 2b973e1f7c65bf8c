"""The paper's features: Stable Diffusion and DINOv2 side by side."""

from __future__ import annotations

from pathlib import Path

import torch

from shic_cli.base.errors import MissingError
from shic_cli.parts import registry
from shic_cli.parts.extractors.joined import Joined
from shic_cli.parts.extractors.sd import Sd
from shic_cli.parts.extractors.vit import Dinov2Base
from shic_cli.parts.weights import full_name, locate

CELL, PATCH = 16, 14  # pixels a side of the finest cell of `sd`, and of a patch of DINOv2


class SdDino(Joined):
    """Unit features `(B, 3968, 60, 60)` of `sd` and DINOv2 base, for pictures of 960 pixels (sec. 3.3).

    Both count the same in a cosine. DINOv2 sees the picture at 840 pixels, so that its patches are the cells
    of `sd`. Those 840 pixels are resampled from the crop of 960 and not from the photo, which SD-DINO does.
    The features of DINOv2 are those of block 11, before the last norm. The argument names another Stable
    Diffusion 1; `prompt`, `step`, `seed` and `batch` are as in `sd`. `precision` auto is float16 for Stable
    Diffusion and bfloat16 for DINOv2 on CUDA, else float32.
    """

    name = "sd-dino"
    packages: tuple[str, ...] = ("diffusers", "transformers")
    slow_on = ("cpu",)  # a picture takes over a minute there

    def __init__(
        self,
        argument: str = "",
        *,
        device: torch.device | str = "cpu",
        weights: Path | None = None,
        prompt: str = "",
        side: int = 960,
        step: int = 100,
        seed: int = 42,
        batch: int = 4,
        precision: str = "auto",
    ) -> None:
        drawn = {"prompt": prompt, "side": side, "step": step, "seed": seed, "batch": batch}
        options = {**drawn, "precision": precision}
        sd = Sd(argument, device=device, weights=weights, **options)
        patches = side // CELL * PATCH
        dino = Dinov2Base(device=device, weights=weights, layer=11, side=patches, precision=precision)
        super().__init__([sd, dino], registry.spell(type(self), full_name(argument), options))

    @classmethod
    def check(cls, weights: Path | None = None) -> None:
        """MissingError when the weights of Stable Diffusion or of DINOv2 are not on this machine."""
        for name in (Sd.model, Dinov2Base.model):
            try:
                locate(name, weights)
            except MissingError as error:
                command = f"shic models pull {cls.name}" + (f" --weights {weights}" if weights else "")
                raise type(error)(
                    f"{cls.name}: {error.message}", f"get all that it needs with `{command}`"
                ) from error
