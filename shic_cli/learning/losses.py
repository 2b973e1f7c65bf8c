"""The five losses of sec. 3.6, one short function each.

Every loss is a mean, so its weight means the same for any batch. B pictures, P points in each, K vertices.
`logp` `(B, P, K)` is log p(x|u, I) of Eq. 3, over vertices.
"""

from __future__ import annotations

import torch


def log_probability(pixels: torch.Tensor, vertices: torch.Tensor) -> torch.Tensor:
    """log p(x|u) `(..., P, K)`: the log-softmax over vertices of the dot products (Eq. 3).

    `pixels` are pixel embeddings `(..., P, D)`, `vertices` are vertex embeddings `(K, D)`.
    """
    return (pixels @ vertices.T).log_softmax(-1)


def pseudo(logp: torch.Tensor, vertex: torch.Tensor) -> torch.Tensor:
    """L_pseudo: the mean of -log p(x~|u), where `vertex` `(B, P)` are the matched vertices x~.

    It is ln K for an untrained model.
    """
    return -logp.gather(-1, vertex[..., None]).mean()


# L_syn (Eq. 4) is the same cross-entropy; its vertices come from the projection and not from matching.
synthetic = pseudo


def distance(logp: torch.Tensor, geodesic: torch.Tensor) -> torch.Tensor:
    """L_dist: the expected distance from the match, the mean of sum_x d(x, x~) p(x|u).

    `geodesic` `(B, P, K)` holds the rows d(., x~). The loss has a plus sign: the minus in the paper would
    reward distance.
    """
    return (logp.exp() * geodesic).sum(-1).mean()


def cycle(logp: torch.Tensor, yx: torch.Tensor) -> torch.Tensor:
    """L_cyc: the mean of sum_v |u - v| p(v|u), where v is u sent to the surface and back.

    `yx` `(B, P, 2)` are pixels. p(v|u) = sum_x p(v|x) p(x|u), and p(v|x) is p(x|v) renormalised over the P
    points.
    """
    back = logp.softmax(-2)
    there_and_back = logp.exp() @ back.transpose(-1, -2)  # (B, P, P)
    return (there_and_back * torch.cdist(yx, yx)).sum(-1).mean()


def equivariance(logp: torch.Tensor, flipped: torch.Tensor, mirror: torch.Tensor) -> torch.Tensor:
    """L_eq: the mean of sum_x |p(x|u, I) - p(x_F|u_F, I_F)|.

    `flipped` `(B, P, K)` is log p at the flipped points of the flipped pictures, and `mirror` `(K,)` maps x
    to x_F.
    """
    return (logp.exp() - flipped.exp()[..., mirror]).abs().sum(-1).mean()


def foreground(logits: torch.Tensor, mask: torch.Tensor, void: torch.Tensor | None = None) -> torch.Tensor:
    """Binary cross-entropy of the foreground output `(B, h, w)` and the mask `(B, h, w)` in 0..1.

    `void` `(B, h, w)` in 0..1, the share of a cell that is neither object nor background, does not count.
    """
    if void is None:
        return torch.nn.functional.binary_cross_entropy_with_logits(logits, mask)
    known = (1 - void).clamp(min=0)
    each = torch.nn.functional.binary_cross_entropy_with_logits(
        logits, (mask / known.clamp(min=1e-6)).clamp(max=1), reduction="none"
    )
    return (known * each).sum() / known.sum().clamp(min=1e-6)
