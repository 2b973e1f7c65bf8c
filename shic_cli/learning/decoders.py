"""The decoders: from an encoder's features to an embedding for each pixel (sec. 3.4)."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import nn


def coarsen(features: torch.Tensor, cells: int) -> torch.Tensor:
    """Features `(B, C, h, w)` averaged by area to at most `cells` a side."""
    return (
        nn.functional.interpolate(features, (cells, cells), mode="area")
        if features.shape[-1] > cells
        else features
    )


class Convolutional(nn.Module):
    """Features `(B, C, h, w)` to embeddings `(B, D, 14h, 14w)` for h = w = 16, and foreground logits; the
    layout of the authors' release.

    A 1x1 stem, a 5x5 convolution that takes 16 cells to 14, then four doublings, each with a 3x3 convolution.
    Its memory grows with the number of cells: finer grids are averaged down to 16 a side, as `coarsen`; the
    pointwise decoder keeps them. The release has no foreground output: without `foreground` there is none,
    and None comes back for its logits.
    """

    pointwise = False
    cells = 16

    def __init__(self, channels: int, dim: int, foreground: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 512, 1), nn.SELU())
        self.first = nn.Conv2d(512, 512, 5, padding=1, bias=False)
        widths = (512, 256, 128, 64)
        steps = [nn.Sequential(nn.Upsample(scale_factor=2), *_block(a, b)) for a, b in pairwise(widths)]
        last = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2d(64, 32, 3, padding=1, bias=False), nn.ReLU()
        )
        self.up = nn.Sequential(*steps, last)
        self.out = nn.Conv2d(32, dim, 3, padding=1)
        self.foreground = nn.Conv2d(32, 1, 3, padding=1) if foreground else None

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        hidden = self.up(self.first(self.stem(coarsen(features, self.cells))))
        return self.out(hidden), None if self.foreground is None else self.foreground(hidden)[:, 0]


class Pointwise(nn.Module):
    """Features `(..., C)` to embeddings `(..., D)`, each on its own: for encoders that already see the whole
    object.
    """

    pointwise = True
    cells = None
    foreground = None

    def __init__(self, channels: int, dim: int, width: int = 256) -> None:
        super().__init__()
        layers = [
            nn.Linear(channels, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
        ]
        self.layers = nn.Sequential(nn.LayerNorm(channels), *layers, nn.Linear(width, dim))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(features)


class UNet(nn.Module):
    """Pixels `(B, C, h, w)`, h and w multiples of 32, to embeddings `(B, D, h/2, w/2)`: a small U-Net,
    trained from scratch.

    Four halvings, so that every pixel sees the whole object, and as many doublings with skips, so that it
    keeps its place. Ronneberger et al., MICCAI 2015.
    """

    pointwise = False
    cells = None
    foreground = None

    def __init__(self, channels: int, dim: int, widths: tuple[int, ...] = (32, 48, 64, 96, 128)) -> None:
        super().__init__()
        half = widths[0] // 2
        self.stem = nn.Sequential(
            *_block(channels, half), *_block(half, widths[0], 2), *_block(widths[0], widths[0])
        )
        self.down = nn.ModuleList(nn.Sequential(*_block(a, b, 2), *_block(b, b)) for a, b in pairwise(widths))
        self.bottom = nn.Sequential(
            *_block(widths[-1], widths[-1])
        )  # without it a corner does not see the opposite one
        self.up = nn.ModuleList(nn.Sequential(*_block(a + b, a)) for a, b in pairwise(widths))
        self.out = nn.Conv2d(widths[0], dim, 1)
        # A third less time on a CPU. torch takes the argument; its types do not say so.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, None]:
        levels = [self.stem(features.contiguous(memory_format=torch.channels_last))]
        for down in self.down:
            levels.append(down(levels[-1]))
        hidden = self.bottom(levels.pop())
        for up in reversed(self.up):
            hidden = up(torch.cat([nn.functional.interpolate(hidden, scale_factor=2), levels.pop()], 1))
        return self.out(hidden), None


def _block(a: int, b: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(a, b, 3, stride, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()


# `released` is what `shic models import` makes: the convolutional one as the authors have it.
DECODERS = {
    "convolutional": Convolutional,
    "released": partial(Convolutional, foreground=False),
    "pointwise": Pointwise,
    "unet": UNet,
}
