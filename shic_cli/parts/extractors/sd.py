"""Extractors on Stable Diffusion: `sd`, the features of SD-DINO and GeoAware-SC, and `dift`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from torch.nn import functional as F

from shic_cli.base.errors import SettingError
from shic_cli.parts.extractors.diffusion import Diffusion, Tap, check_side, decoder_tap


class Sd(Diffusion):
    """Features `(B, 3200, 60, 60)` of Stable Diffusion 1.5's UNet, for pictures of 960 pixels a side; each
    depends on its picture alone.

    The picture is cut into windows of 512 pixels that overlap, all with the same noise, at time step 100.
    Read is what enters the third layer of the UNet's up blocks 0, 1 and 2 (1280, 1280 and 640 channels on 8,
    16 and 32 cells a window), averaged where windows overlap; the coarse levels are enlarged to the finest
    and concatenated after it.

    This is SD-DINO's recipe with GeoAware-SC's concatenation. What differs: the picture is a square crop
    around the mask and not the whole one, resampled by area or linearly and not by Lanczos; there is no
    learned captioner, `prompt` (none by default; it can hold no comma) is what the UNet is told, for example
    `prompt=a photo of a horse`, as the class is unknown here; there is no PCA of each pair of pictures, so
    that views stay comparable; each level is enlarged to the finest at once. GeoAware-SC's FreeU is left out.

    `step` is the time step (GeoAware-SC takes 50), `blocks` are the up blocks, `batch` the windows that run
    at once. Precision `auto` is float16 on CUDA, else float32. Sides, `window` and `stride` are multiples of
    64; a picture no larger than a window is one window.
    """

    name = kind = "sd"
    model = "sd15"

    def __init__(
        self, argument: str = "", *, device: torch.device | str = "cpu", weights: Path | None = None, prompt: str = "", side: int = 960,
        step: int = 100, blocks: tuple[int, ...] = (0, 1, 2), window: int = 512, stride: int = 448, seed: int = 42, batch: int = 4,
        precision: str = "auto",
    ) -> None:  # fmt: skip
        check_side(self.name, "window", window)
        check_side(self.name, "stride", stride)
        if stride > window:
            raise SettingError(
                f"{self.name}: stride={stride} leaves gaps between windows of {window}",
                f"give {window} or less",
            )
        if not blocks or len(set(blocks)) < len(blocks) or not set(blocks) <= set(range(4)):
            raise SettingError(
                f"{self.name}: blocks={'/'.join(map(str, blocks))} are not up blocks",
                "name some of 0/1/2/3, each once",
            )
        options = {
            "prompt": prompt,
            "side": side,
            "step": step,
            "blocks": tuple(sorted(blocks)),
            "window": window,
            "stride": stride,
        }
        super().__init__(
            argument, device, weights, {**options, "seed": seed, "batch": batch, "precision": precision}
        )
        self.window, self.stride = min(window, side), stride
        self.taps = [decoder_tap(self.unet, block) for block in sorted(blocks)]
        self.dim = sum(tap.channels for tap in self.taps)
        self.noise = self.draw(1, self.window)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor | None = None) -> torch.Tensor:
        """Features `(B, D, h, w)` of `images` `(B, 3, S, S)` in 0..1, finest level first; `masks` are not
        looked at.
        """
        levels = self.levels(images)[::-1]
        size = levels[0].shape[-2:]
        enlarged = [F.interpolate(level, size, mode="bilinear", align_corners=False) for level in levels[1:]]
        return torch.cat([levels[0], *enlarged], 1)

    def levels(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What each tap reads over the whole picture, `(B, C, h, w)` with its own grid, coarsest first."""
        corners = list(product(starts(images.shape[-1], self.window, self.stride), repeat=2))
        windows = torch.cat([images[..., y : y + self.window, x : x + self.window] for y, x in corners])
        parts = [self.read(self.encode(part), self.noise, self.taps) for part in windows.split(self.batch)]
        pieces = [
            torch.cat(level).unflatten(0, (len(corners), len(images))) for level in zip(*parts, strict=True)
        ]
        return [stitch(piece, corners, self.window) for piece in pieces]


def starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows start that cover `side` pixels: each `stride` after the last, the final one moved back to
    end with the picture.
    """
    return sorted({min(start, side - window) for start in range(0, side - window + stride, stride)})


def stitch(pieces: torch.Tensor, corners: Sequence[tuple[int, int]], window: int) -> torch.Tensor:
    """The maps `(B, C, H, W)` that `pieces` `(W, B, C, h, h)` cover, averaged where they overlap.

    `corners` are the (y, x) of the W windows of `window` pixels a side; they fall on the borders of cells.
    """
    size = pieces.shape[-1]
    places = [(y * size // window, x * size // window) for y, x in corners]
    side = max(max(place) for place in places) + size
    total, count = pieces.new_zeros(*pieces.shape[1:3], side, side), pieces.new_zeros(side, side)
    for piece, (y, x) in zip(pieces, places, strict=True):
        total[..., y : y + size, x : x + size] += piece
        count[y : y + size, x : x + size] += 1
    return total / count


class Dift(Diffusion):
    """Features `(B, 1280, 48, 48)` of Stable Diffusion 2.1's UNet for pictures of 768 pixels a side, as in
    DIFT.

    Read is what leaves up block 1 at time step 261, averaged over an `ensemble` of 8 draws of noise, the same
    draws for every picture. `prompt` is what the UNet is told (none by default; it can hold no comma). What
    differs from DIFT: pictures keep their aspect, and the latent is the posterior's mean in place of a
    sample. `batch` is how many draws run at once; precision `auto` is float16 on CUDA, else float32.
    """

    name = kind = "dift"
    model = "sd21"

    def __init__(
        self, argument: str = "", *, device: torch.device | str = "cpu", weights: Path | None = None, prompt: str = "", side: int = 768,
        step: int = 261, ensemble: int = 8, seed: int = 42, batch: int = 8, precision: str = "auto",
    ) -> None:  # fmt: skip
        if ensemble < 1:
            raise SettingError(f"{self.name}: ensemble={ensemble} is out of range", "give 1 or more")
        options = {"prompt": prompt, "side": side, "step": step, "ensemble": ensemble}
        super().__init__(
            argument, device, weights, {**options, "seed": seed, "batch": batch, "precision": precision}
        )
        block = self.unet.up_blocks[1]
        self.dim = block.resnets[2].out_channels
        self.taps = [Tap(block, self.dim, after=True)]
        self.noise = self.draw(ensemble, side)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor | None = None) -> torch.Tensor:
        """Features `(B, D, S/16, S/16)` of `images` `(B, 3, S, S)` in 0..1; `masks` are not looked at."""
        return torch.stack([self._average(self.encode(image[None])) for image in images])

    def _average(self, latent: torch.Tensor) -> torch.Tensor:
        """The mean `(D, h, w)` over the draws of noise, for one picture's `latent` `(1, 4, h, w)`."""
        return torch.cat(
            [self.read(latent, part, self.taps)[0] for part in self.noise.split(self.batch)]
        ).mean(0)
