"""The decoders, which turn the features of an encoder into an embedding for each pixel (sec. 3.4)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from shic_cli.parts.extractors.guided import CELLS, pixels_of
from shic_cli.parts.extractors.picture import Picture


def coarsen(features: torch.Tensor, cells: int) -> torch.Tensor:
    """Features `(B, C, h, w)`, averaged by area if they have more than `cells` a side."""
    return (
        nn.functional.interpolate(features, (cells, cells), mode="area")
        if features.shape[-1] > cells
        else features
    )


GROUPS = 8  # groups of channels that a U-Net normalises


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
    """Embeddings `(B, D + 1, h/2, w/2)` of pixels `(B, C, h, w)`, from a small U-Net.

    h and w are multiples of 32. The network is trained from scratch. Four halvings let every pixel see the
    whole object. Four doublings with skip connections keep the position of each pixel. Source: Ronneberger et
    al., MICCAI 2015. Group norm treats every picture on its own, because photos differ from the renders of a
    batch (Wu and He, ECCV 2018).

    The last channel is a logit that tells the near side of the body from the far side. Which of two legs is
    the left one depends on this and on where the animal faces, and is learned late without it.

    Features with more channels than pixels have are those of the extractor `Guided`: the pixels at side 128,
    and features that are added where the U-Net has the same grid.
    """

    pointwise = False
    cells = None
    foreground = None

    def __init__(self, channels: int, dim: int, widths: tuple[int, ...] = (24, 48, 80, 128, 160)) -> None:
        super().__init__()
        guides = channels - Picture.dim * (Picture.side // CELLS) ** 2
        self.guide = _Pixelwise(guides, widths[2]) if guides > 0 else None
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(2), *_grouped(4 * (Picture.dim if guides > 0 else channels), widths[0])
        )
        self.down = nn.ModuleList(
            nn.Sequential(*_grouped(a, b, 2), *_grouped(b, b)) for a, b in pairwise(widths)
        )
        self.bottom = nn.Sequential(
            *_grouped(widths[-1], widths[-1])
        )  # without this block a corner does not see the opposite corner
        self.up = nn.ModuleList(_Up(a, b) for a, b in pairwise(widths))
        self.out = _Pixelwise(widths[0], dim + 1)
        # This saves a third of the time on a CPU. torch accepts the argument, but its type hints lack it.
        self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, None]:
        beside = None
        if self.guide is not None:
            features, beside = pixels_of(features, Picture.dim, Picture.side)
        levels = [self.stem(features.contiguous(memory_format=torch.channels_last))]
        for down in self.down:
            level = down(levels[-1])
            if self.guide is not None and beside is not None and level.shape[-1] == CELLS:
                level = level + self.guide(beside)
            levels.append(level)
        hidden = self.bottom(levels.pop())
        for up in reversed(self.up):
            hidden = up(hidden, levels.pop())
        return self.out(hidden), None


class _Pixelwise(nn.Linear):
    """A 1x1 convolution, as a product of matrices, which is quicker on a CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if torch.onnx.is_in_onnx_export():  # the ONNX exporter takes the product's channels for its rows
            return nn.functional.conv2d(input, self.weight[:, :, None, None], self.bias)
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class _Up(nn.Module):
    """Features `(B, a, 2h, 2w)` of `below` `(B, b, h, w)`, doubled, and of `beside` `(B, a, 2h, 2w)`."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        self.below, self.beside = _Pixelwise(b, a, bias=False), _Pixelwise(a, a, bias=False)
        self.after = nn.Sequential(nn.GroupNorm(GROUPS, a), nn.ReLU(), *_grouped(a, a))

    def forward(self, below: torch.Tensor, beside: torch.Tensor) -> torch.Tensor:
        doubled = nn.functional.interpolate(self.below(below), scale_factor=2)
        return self.after(doubled + self.beside(beside))


def _block(a: int, b: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> tuple[nn.Module, ...]:
    return nn.Conv2d(a, b, 3, padding=1, bias=False), norm(b), nn.ReLU()


def _grouped(a: int, b: int, stride: int = 1) -> tuple[nn.Module, ...]:
    return nn.Conv2d(a, b, 3, stride, padding=1, bias=False), nn.GroupNorm(GROUPS, b), nn.ReLU()


# `shic models import` makes the `released` ones, convolutional decoders with the layers of the authors'
# release. A training without a foreground loss makes `released` too.
DECODERS = {
    "convolutional": Convolutional,
    "released": partial(Convolutional, foreground=False),
    "released by picture": partial(Convolutional, foreground=False, by_picture=True),
    "pointwise": Pointwise,
    "unet": UNet,
}
