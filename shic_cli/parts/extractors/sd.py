"""Extractors on Stable Diffusion: `sd`, the features of SD-DINO and GeoAware-SC, and `dift`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch.nn import functional as F

from shic_cli.base.errors import SettingError
from shic_cli.parts.extractors.diffusion import Diffusion, Tap, check_side, decoder_tap


class Sd(Diffusion):
    """Features `(B, 3200, 60, 60)` of Stable Diffusion 1.5's UNet, for pictures of 960 pixels a side.

    The picture is cut into overlapping windows of 512 pixels, which all get the same noise at time step 100.
    The features are the inputs of the third layer of the UNet's up blocks 0, 1 and 2: 1280, 1280 and 640
    channels on 8, 16 and 32 cells of a window. They are averaged where windows overlap. The coarse levels are
    enlarged to the finest and concatenated after it. A picture's features depend on that picture alone.

    This is the recipe of SD-DINO with the concatenation of GeoAware-SC, with these differences. The picture
    is a square crop around the mask, not the whole photo, and is resampled by area or linearly, not by
    Lanczos. There is no learned captioner: the UNet is told `prompt`, for example `prompt=a photo of a
    horse`, which is empty by default and can hold no comma. There is no PCA for each pair of pictures, so
    that views stay comparable. Each level is enlarged to the finest in one step. GeoAware-SC's FreeU is left
    out.

    `unet` names a .safetensors file whose weights take the place of the UNet's, and with `clean=yes` no noise
    is added: `unet=cleandift_sd15_unet.safetensors,clean=yes,step=261` are CleanDIFT's features (Stracke et
    al., CVPR 2025), which no draw of noise changes.

    `step` is the time step (GeoAware-SC takes 50), `blocks` are the up blocks, `batch` is how many windows
    run together. `precision` auto is float16 on CUDA, else float32. `side`, `window` and `stride` are
    multiples of 64; a picture that is no larger than a window is one window.
    """

    name = kind = "sd"
    model = "sd15"

    def __init__(
        self,
        argument: str = "",
        *,
        device: torch.device | str = "cpu",
        weights: Path | None = None,
        prompt: str = "",
        side: int = 960,
        step: int = 100,
        blocks: tuple[int, ...] = (0, 1, 2),
        window: int = 512,
        stride: int = 448,
        seed: int = 42,
        batch: int = 4,
        precision: str = "auto",
        unet: str = "",
        clean: bool = False,
    ) -> None:
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
        if unet:
            options["unet"] = str(Path(unet).absolute())
        if clean:
            options["clean"] = True
        super().__init__(
            argument, device, weights, {**options, "seed": seed, "batch": batch, "precision": precision}
        )
        self.window, self.stride = min(window, side), stride
        self.taps = [decoder_tap(self.unet, block) for block in sorted(blocks)]
        self.dim = sum(tap.channels for tap in self.taps)
        self.noise = self.draw(1, self.window)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor | None = None) -> torch.Tensor:
        """Features `(B, D, h, w)` of `images` `(B, 3, S, S)` in 0..1; `masks` are not used.

        The channels of the finest level come first.
        """
        levels = self.levels(images)[::-1]
        size = levels[0].shape[-2:]
        enlarged = [F.interpolate(level, size, mode="bilinear", align_corners=False) for level in levels[1:]]
        return torch.cat([levels[0], *enlarged], 1)

    def levels(self, images: torch.Tensor) -> list[torch.Tensor]:
        """What each tap reads of the whole picture, `(B, C, h, w)` on a grid of its own, coarsest first."""
        along = starts(images.shape[-1], self.window, self.stride)
        corners = [(y, x) for y in along for x in along]
        windows = torch.cat([images[..., y : y + self.window, x : x + self.window] for y, x in corners])
        parts = [self.read(self.encode(part), self.noise, self.taps) for part in windows.split(self.batch)]
        pieces = [
            torch.cat(level).unflatten(0, (len(corners), len(images))) for level in zip(*parts, strict=True)
        ]
        return [stitch(piece, corners, self.window) for piece in pieces]


def starts(side: int, window: int, stride: int) -> list[int]:
    """Where the windows that cover `side` pixels start: `stride` apart, the last moved back to the end."""
    return sorted({min(start, side - window) for start in range(0, side - window + stride, stride)})


def stitch(pieces: torch.Tensor, corners: Sequence[tuple[int, int]], window: int) -> torch.Tensor:
    """The maps `(B, C, H, H)` that `pieces` `(N, B, C, h, h)` of N windows cover, averaged where they meet.

    `corners` are the (y, x) in pixels of the windows of `window` pixels a side, on the borders of cells.
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
    """DIFT's features `(B, 1280, 48, 48)` of Stable Diffusion 2.1's UNet, for pictures of 768 pixels a side.

    They are the output of up block 1 at time step 261, averaged over an `ensemble` of 8 draws of noise, the
    same draws for every picture. `prompt` is what the UNet is told; it is empty by default and can hold no
    comma. Two things differ from DIFT: pictures keep their aspect, and the latent is the mean of the
    posterior, not a sample of it. `batch` is how many draws run together. `precision` auto is float16 on
    CUDA, else float32.
    """

    name = kind = "dift"
    model = "sd21"

    def __init__(
        self,
        argument: str = "",
        *,
        device: torch.device | str = "cpu",
        weights: Path | None = None,
        prompt: str = "",
        side: int = 768,
        step: int = 261,
        ensemble: int = 8,
        seed: int = 42,
        batch: int = 8,
        precision: str = "auto",
    ) -> None:
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
        """Features `(B, D, S/16, S/16)` of `images` `(B, 3, S, S)` in 0..1; `masks` are not used."""
        return torch.stack([self._average(self.encode(image[None])) for image in images])

    def _average(self, latent: torch.Tensor) -> torch.Tensor:
        """The mean `(D, h, w)` over the draws of noise, for the `latent` `(1, 4, H, W)` of one picture."""
        draws = [self.read(latent, some, self.taps)[0] for some in self.noise.split(self.batch)]
        return torch.cat(draws).mean(0)
