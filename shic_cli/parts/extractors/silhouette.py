"""The embedded extractor: how the object fills the surroundings of each of its pixels. It needs a mask and no
weights.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

RADII = (0.15, 0.3, 0.6, 1.2, 2.0)  # ring centres in units of the square root of the mask's area
SECTORS = 16
EMPTY = 1e-3  # cells; a bin this small around a tiny object has no share


class Silhouette:
    """Features `(B, 80, h, w)`: how full of object 5 rings by 16 sectors around each cell are, soft in both,
    unit length.

    It does not see colour, so renders and photos agree by construction; it can't see what no outline shows.
    The rings are log-spaced and scale with the square root of the mask's area. h = w = side / 2. design.md
    section 5.
    """

    name = "silhouette"
    needs_mask = True
    sees_whole_object = (
        True  # each cell's feature already knows the whole outline: a pointwise decoder is enough
    )
    side = 128
    dim = len(RADII) * SECTORS

    def __init__(self, argument: str = "", *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on, for the files made with them."""
        return {"name": self.name, "side": self.side, "radii": list(RADII), "sectors": SECTORS}

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints mean comparable features; this part has no weights, so its settings say it all."""
        return f"silhouette-{self.side}-{SECTORS}-" + "-".join(f"{radius:g}" for radius in RADII)

    @torch.no_grad()
    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Unit features `(B, 80, h, w)` of `masks` `(B, 1, H, W)` in 0..1; `images` are not looked at."""
        mass = F.avg_pool2d(masks.to(self.device, torch.float32), 2)[:, 0]  # (B, h, w)
        out = [self._describe(one) for one in mass]
        return F.normalize(torch.stack(out), dim=1)

    def _describe(self, mass: torch.Tensor) -> torch.Tensor:
        """The square roots of the share `(80, h, w)` of each bin that is filled, around every cell of `mass`
        `(h, w)`; one convolution.
        """
        side = mass.shape[-1]
        kernel = bins(side, mass.sum().clamp_min(1).sqrt(), mass.device)
        spectrum = torch.fft.rfft2(mass, s=(2 * side, 2 * side))
        found = torch.fft.irfft2(spectrum * torch.fft.rfft2(kernel).conj(), s=(2 * side, 2 * side))
        # a share and not the mass itself: else the large outer bins drown the inner ones; the root brings out
        # thin parts
        share = found[:, :side, :side].clamp_min(0) / kernel.sum((1, 2)).clamp_min(EMPTY)[:, None, None]
        return share.sqrt()


def bins(side: int, scale: torch.Tensor | float, device: torch.device) -> torch.Tensor:
    """How much a cell at each offset belongs to each bin, `(80, 2 side, 2 side)`; negative offsets are
    wrapped.
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
    """Piecewise linear weights `(C, ...)` of `value` for each of the `centres`; all of it on the first below
    them, none beyond.
    """
    value = value.clamp_min(centres[0])
    weights = []
    for i, centre in enumerate(centres):
        width_in = centre - centres[i - 1] if i else centres[1] - centres[0]
        width_out = centres[i + 1] - centre if i + 1 < len(centres) else width_in
        weights.append(
            (
                1 - torch.where(value < centre, (centre - value) / width_in, (value - centre) / width_out)
            ).clamp_min(0)
        )
    return torch.stack(weights)
