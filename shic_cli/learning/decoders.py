"""The decoders, which turn the features of an encoder into an embedding for each pixel (sec. 3.4)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import nn


def coarsen(features: torch.Tensor, cells: int) -> torch.Tensor:
    """Features `(B, C, h, w)`, averaged by area if they have more than `cells` a side."""
    return (
        nn.functional.interpolate(features, (cells, cells), mode="area")
        if features.shape[-1] > cells
        else features
    )


class Convolutional(nn.Module):
    """Embeddings `(B, D, 14h, 14w)` and foreground logits of features `(B, C, h, w)` with h = w = 16.

    The layout is that of the authors' release: a 1x1 stem, a 5x5 convolution that reduces 16 cells to 14,
    then four doublings, each with a 3x3 convolution. The memory that it needs grows with the number of cells,
    so `coarsen` averages finer grids down to 16 cells a side. The pointwise decoder keeps finer grids.

    The release has no foreground output. If `foreground` is False, the logits are None. If `by_picture`, each
    picture is normalised by its own statistics, like a batch of that picture alone in training.
    """

    pointwise = False
    cells = 16

    def __init__(self, channels: int, dim: int, foreground: bool = True, by_picture: bool = False) -> None:
        super().__init__()
        norm = partial(nn.InstanceNorm2d, affine=True) if by_picture else nn.BatchNorm2d
        self.stem = nn.Sequential(nn.Conv2d(channels, 512, 1), nn.SELU())
        self.first = nn.Conv2d(512, 512, 5, padding=1, bias=False)
        widths = (512, 256, 128, 64)
        steps = [
            nn.Sequential(nn.Upsample(scale_factor=2), *_block(a, b, norm=norm)) for a, b in pairwise(widths)
        ]
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
    """Embeddings `(..., D)` of features `(..., C)`, each computed from one feature alone.

    It is for encoders that already see the whole object.
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
    """Embeddings `(B, D, h/2, w/2)` of pixels `(B, C, h, w)`, from a small U-Net.

    h and w are multiples of 32. The network is trained from scratch. Four halvings let every pixel see the
    whole object. Four doublings with skip connections keep the position of each pixel. Source: Ronneberger et
    al., MICCAI 2015.
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
        )  # without this block a corner does not see the opposite corner
        self.up = nn.ModuleList(nn.Sequential(*_block(a + b, a)) for a, b in pairwise(widths))
        self.out = nn.Conv2d(widths[0], dim, 1)
        # This saves a third of the time on a CPU. torch accepts the argument, but its type hints lack it.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, None]:
        levels = [self.stem(features.contiguous(memory_format=torch.channels_last))]
        for down in self.down:
            levels.append(down(levels[-1]))
        hidden = self.bottom(levels.pop())
        for up in reversed(self.up):
            hidden = up(torch.cat([nn.functional.interpolate(hidden, scale_factor=2), levels.pop()], 1))
        return self.out(hidden), None


def _block(
    a: int, b: int, stride: int = 1, norm: Callable[[int], nn.Module] = nn.BatchNorm2d
) -> tuple[nn.Module, ...]:
    return nn.Conv2d(a, b, 3, stride, padding=1, bias=False), norm(b), nn.ReLU()


# `shic models import` makes the `released` ones, convolutional decoders with the layers of the authors'
# release. A training without a foreground loss makes `released` too.
DECODERS = {
    "convolutional": Convolutional,
    "released": partial(Convolutional, foreground=False),
    "released by picture": partial(Convolutional, foreground=False, by_picture=True),
    "pointwise": Pointwise,
    "unet": UNet,
}
