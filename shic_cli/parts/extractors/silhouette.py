"""The embedded extractor: how the object fills the surroundings of each pixel. It needs no weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

from shic_cli.parts.extractors.contract import ExtractorDefaults

RADII = (0.15, 0.3, 0.6, 1.2, 2.0)  # ring centres in units of the square root of the mask's area
SECTORS = 16
EMPTY = 1e-3  # cells: around a tiny object a bin may be smaller than this, and then counts as empty


class Silhouette(ExtractorDefaults):
    """Unit features `(B, 80, h, w)`: how full of object each of 5 rings by 16 sectors around a cell is.

    Rings and sectors pass softly into their neighbours. The rings are spaced logarithmically and scale with
    the square root of the mask's area. h = w = side / 2. Colour does not count, so that renders and photos
    agree by construction; what no outline shows is not seen.
    """

    name = "silhouette"
    needs_mask = of_mask = small = True
    sees_whole_object = True  # the feature of each cell knows the whole outline
    agreement, matching = 2.0, "maximum"  # as it was measured to be best
    side = 128
    dim = len(RADII) * SECTORS

    def __init__(self, argument: str = "", *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on, for the files that are made with them."""
        return {"name": self.name, "side": self.side, "radii": list(RADII), "sectors": SECTORS}

    @property
    def fingerprint(self) -> str:
        """Equal where features can be compared; there are no weights, so that only the settings count."""
        return f"silhouette-{self.side}-{SECTORS}-" + "-".join(f"{radius:g}" for radius in RADII)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Unit features `(B, 80, h, w)` of `masks` `(B, 1, side, side)` in 0..1; `images` are not used."""
        mass = F.avg_pool2d(masks.to(self.device, torch.float32), 2)[:, 0]  # (B, h, w)
        return F.normalize(torch.stack([self._describe(one) for one in mass]), dim=1)

    def _describe(self, mass: torch.Tensor) -> torch.Tensor:
        """The square root `(80, h, w)` of how full each bin around every cell of `mass` `(h, w)` is, 0..1."""
        side = mass.shape[-1]
        kernel = bins(side, mass.sum().clamp_min(1).sqrt(), mass.device)
        spectrum = torch.fft.rfft2(mass, s=(2 * side, 2 * side))
        filled = torch.fft.irfft2(spectrum * torch.fft.rfft2(kernel).conj(), s=(2 * side, 2 * side))
        # The mass itself would let the large outer bins outweigh the inner ones. The square root brings out
        # thin parts.
        share = filled[:, :side, :side].clamp_min(0) / kernel.sum((1, 2)).clamp_min(EMPTY)[:, None, None]
        return share.sqrt()


def bins(side: int, scale: torch.Tensor | float, device: torch.device) -> torch.Tensor:
    """How much a cell at each offset belongs to each bin, `(80, 2 side, 2 side)`, negative offsets wrapped.

    `scale` is the square root of the object's area, in cells.
    """
    offset = torch.fft.fftfreq(2 * side, 1 / (2 * side), device=device)
    dy, dx = torch.meshgrid(offset, offset, indexing="ij")
    radius = torch.hypot(dy, dx).clamp_min(0.5) / scale
    sector = torch.atan2(dy, dx) * (SECTORS / (2 * math.pi))
    rings = _hat(radius.log(), torch.tensor(RADII, device=device).log())
    around = (
        sector - torch.arange(SECTORS, device=device)[:, None, None] + SECTORS / 2
    ) % SECTORS - SECTORS / 2
    sectors = (1 - around.abs()).clamp_min(0)
    return (rings[:, None] * sectors[None]).flatten(0, 1)


def _hat(value: torch.Tensor, centres: torch.Tensor) -> torch.Tensor:
    """Piecewise linear weights `(C, ...)` of `value` for each of the C `centres`.

    A value below the first centre counts fully for that one; a value far above the last counts for none.
    """
    value = value.clamp_min(centres[0])
    weights = []
    for i, centre in enumerate(centres):
        width_in = centre - centres[i - 1] if i else centres[1] - centres[0]
        width_out = centres[i + 1] - centre if i + 1 < len(centres) else width_in
        distance = torch.where(value < centre, (centre - value) / width_in, (value - centre) / width_out)
        weights.append((1 - distance).clamp_min(0))
    return torch.stack(weights)
