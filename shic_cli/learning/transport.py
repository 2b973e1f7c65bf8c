"""Matching by transport: a photo's pixels are matched together, so that near pixels get near vertices.

Entropic fused Gromov-Wasserstein transport, semi-relaxed: each pixel sends out the same mass, and a vertex
may get any, because a photo shows one side alone. The cost of a plan T is

    (1 - a) sum_ik C_ik T_ik  +  a sum_ijkl (s |u_i - u_j| - d(x_k, x_l))^2 T_ik T_jl

where C falls with the similarity Sigma of Eq. 2, |u_i - u_j| are distances in the photo, d distances along
the surface, and s the scale between them, which is fitted. Source: Vayer et al., Algorithms 2020 (fused
Gromov-Wasserstein); Vincent-Cuaz et al., ICLR 2022 (semi-relaxed). Letters: P pixels, K vertices, A and V of
them that the plan is made for.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

SHAPE = 0.3  # a, the share of the distances in the cost
SPREAD = 0.02  # weight of the entropy; a larger one gives softer plans
SIMILAR = (
    0.1  # the standard deviation that C is scaled to, so that every extractor's similarities count alike
)
UNIT = 100.0  # distances along the surface are divided by this; the largest is 228
VERTICES = 300
PIXELS = 300
STEPS = 30


@dataclass(frozen=True)
class Transport:
    """Matches pixels to the vertices of one surface.

    `anchors` `(V,)` are vertices spread over it, and `distances` `(V, K)` the distances from them.
    """

    anchors: torch.Tensor
    distances: torch.Tensor

    @classmethod
    def of(cls, geodesic: np.ndarray, device: torch.device) -> Transport:
        """The transport to a surface with the distances `geodesic` `(K, K)`, on `device`."""
        anchors = spread_vertices(geodesic, VERTICES)
        distances = torch.from_numpy(geodesic[anchors] / np.float32(UNIT)).to(device)
        return cls(torch.from_numpy(anchors).to(device), distances)

    def match(self, sigma: torch.Tensor, yx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The vertices `(P,)` of pixels at `yx` `(P, 2)`, and their similarities `(P,)`.

        `sigma` `(K, P)` are the similarities of Eq. 2; -inf where a vertex is visible in no view.
        """
        cost, seen = (sigma.max() - sigma).T, sigma.T.isfinite()
        cost = torch.where(seen, cost, torch.where(seen, cost, -torch.inf).max())
        cost *= SIMILAR / cost[:, self.anchors].std().clamp_min(1e-6)
        chosen = torch.linspace(0, len(yx) - 1, min(len(yx), PIXELS), device=yx.device).round().long()
        plan, scale = self._plan(cost[chosen][:, self.anchors], yx[chosen])
        apart = scale * torch.cdist(yx, yx[chosen])
        total = (1 - SHAPE) * cost + SHAPE * _gradient(apart, plan, self.distances)
        vertex = total.masked_fill(~seen, torch.inf).argmin(1)
        return vertex, sigma.gather(0, vertex[None])[0]

    def _plan(self, cost: torch.Tensor, yx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The plan `(A, V)` for A pixels, whose rows sum to 1 / A, and the scale s.

        Mirror descent: each step multiplies the plan by exp(-gradient / SPREAD).
        """
        apart, along = torch.cdist(yx, yx), self.distances[:, self.anchors]
        plan, scale = (-cost / SPREAD).softmax(1) / len(yx), cost.new_ones(())
        for _ in range(STEPS):
            # the scale that makes the distances agree best under the plan
            scale = ((apart @ plan @ along) * plan).sum() / apart.square().mean().clamp_min(1e-12)
            total = (1 - SHAPE) * cost + SHAPE * _gradient(scale * apart, plan, along)
            plan = (plan.clamp_min(1e-30).log() - total / SPREAD).softmax(1) / len(yx)
        return plan, scale


def _gradient(apart: torch.Tensor, plan: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    """The gradient `(P, K)` of the distances' part of the cost, but for what is the same for all vertices.

    `apart` `(P, A)` are distances in the photo, `plan` is `(A, V)`, and `along` `(V, K)` distances along the
    surface.
    """
    return 2 * (plan.sum(0) @ along.square())[None] - 4 * apart @ (plan @ along)


def spread_vertices(geodesic: np.ndarray, number: int) -> np.ndarray:
    """At most `number` vertices, each the farthest from those before it; the first is the most central."""
    chosen = [int(geodesic.sum(1).argmin())]
    nearest = geodesic[chosen[0]].copy()
    while len(chosen) < min(number, len(geodesic)):
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, geodesic[chosen[-1]])
    return np.array(chosen)
