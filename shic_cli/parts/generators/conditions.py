"""What a depth-conditioned generator is told of one picture: inverse depth, a prompt and a seed (sec. 3.5,
appendix 7.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from shic_cli.base.errors import SettingError
from shic_cli.base.settings import SynthConfig
from shic_cli.parts.generators.backgrounds import Photos, built_in
from shic_cli.parts.generators.contract import Scene
from shic_cli.parts.generators.depth import DepthAnything, as_picture, blend
from shic_cli.surface.viewpoints import view_of

SMALLEST = 64  # pixels a side of a background photo: the depth of a smaller one is a blur
CELL = 64  # pixels; what the side has to be a multiple of


@dataclass(frozen=True)
class Condition:
    """`picture` (S, S, 3) uint8, white is near; the `prompt` and the `negative` one; the `seed` of the noise."""

    picture: np.ndarray
    prompt: str
    negative: str
    seed: int


class Conditioner:
    """Makes the condition of a scene. It needs weights only for photos as backgrounds: those of `depth`, a
    Depth Anything.
    """

    def __init__(
        self,
        config: SynthConfig,
        device: torch.device | str,
        weights: Path | None = None,
        depth: str = "depth-anything",
    ) -> None:
        self.class_name = " ".join(config.class_name.split())
        if not self.class_name:
            raise SettingError(
                "--generator controlnet-depth needs the name of the class",
                "give it, for example --class horse",
            )
        if config.side % CELL:
            raise SettingError(
                f"--side {config.side}: is no multiple of {CELL}",
                f"for example --side {round(config.side / CELL) * CELL}",
            )
        self.config = config
        self.photos = Photos(config.backgrounds, SMALLEST) if config.backgrounds else None
        self.depth = DepthAnything(depth, device, weights) if config.backgrounds else None

    def side(self, size: int) -> int:
        """The side to paint at for pictures of `size` pixels: that of the settings, or one that is no smaller
        than the picture.
        """
        return max(self.config.side, -(-size // CELL) * CELL)

    def __call__(self, scene: Scene, rng: np.random.Generator) -> Condition:
        """The condition of `scene`, of its side; every choice comes from `rng`."""
        side = len(scene.mask)
        if self.photos and self.depth:
            background = cv2.resize(
                self.depth(self.photos.crop(rng)), (side, side), interpolation=cv2.INTER_LINEAR
            )
        else:
            background = built_in(side, rng)
        background = background[:, ::-1] if rng.random() < 0.5 else background
        seed = int(rng.integers(2**32))
        picture = as_picture(blend(scene.depth, scene.mask, background))
        return Condition(
            picture, self.prompt(view_of(scene.azimuth, scene.elevation)), self.config.negative, seed
        )

    def prompt(self, view: str) -> str:
        """The settings' prompt with the class and the `view` filled in."""
        return self.config.prompt.replace("{class}", self.class_name).replace("{view}", view)
