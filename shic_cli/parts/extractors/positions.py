"""DINOv2's position embeddings at a side other than its own."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

OFFSET = 0.1  # the hub's model scales its position embeddings to this many cells more than it has


def resized_positions(table: torch.Tensor, cells: int) -> torch.Tensor:
    """Position embeddings `(1, 1 + cells^2, C)` from those of another square grid, `table`.

    They follow the hub's model, whose scale is that of `cells` + OFFSET cells. transformers takes the exact
    ratio instead.
    """
    before = math.isqrt(table.shape[1] - 1)
    if before == cells:
        return table
    grid = table[:, 1:].float().unflatten(1, (before, before)).permute(0, 3, 1, 2)
    scale = (cells + OFFSET) / before
    grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2).to(table.dtype)], 1)
