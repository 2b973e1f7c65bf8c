"""The five losses of sec. 3.6, one short function each.

Every loss is a mean, so its weight means the same for any batch. B pictures, P points in each, K vertices.
`logp` `(B, P, K)` is log p(x|u, I) of Eq. 3, over vertices.
"""

from __future__ import annotations

import torch

from shic_cli.base.training_settings import TrainConfig

ONE_SIDED = 0.25  # a picture shows one side if the mean of `side` is farther from 0


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


def synthetic(
    pixels: torch.Tensor, vertices: torch.Tensor, vertex: torch.Tensor, rivals: torch.Tensor
) -> torch.Tensor:
    """L_syn (Eq. 4): the mean of -log p(x~|u), where the projection gives the vertices x~ `vertex` `(B, P)`.

    `pixels` `(B, P, D)` and `vertices` `(K, D)` are embeddings. The random vertices `rivals` `(R,)` stand for
    all K - 1 other vertices in the sum over vertices. With all vertices as rivals the loss is exact. It is
    ln K for an untrained model. Source: sampled softmax (Jean et al., ACL 2015).
    """
    # A lookup, since the gradient of an index adds in whatever order its threads come.
    own = (pixels * torch.nn.functional.embedding(vertex, vertices)).sum(-1)
    drawn = torch.zeros(len(vertices), dtype=torch.bool, device=rivals.device)
    drawn[rivals] = True
    drawn = drawn[vertex]
    every = (pixels @ vertices[rivals].T).logsumexp(-1)
    # The label's own vertex does not count among its rivals. Where it is none of them, its product can be so
    # much larger than theirs that exp() would overflow, and the gradient would be NaN.
    among = (own - every).clamp_max(0).exp()
    others = every + torch.where(drawn, 1 - among, 1.0).clamp_min(1e-6).log()
    stands_for = (len(vertices) - 1) / (len(rivals) - drawn.float())
    return (torch.logaddexp(own, others + stands_for.log()) - own).mean()


def near(logits: torch.Tensor, side: torch.Tensor) -> torch.Tensor:
    """The binary cross-entropy of `logits` `(B, P)` for points on the near side of the body.

    The near side is the one that the picture shows more of. `side` `(B, P)` is 1 or -1 for the two sides of
    the body, and 0 for its middle, which does not count. Neither do pictures that show both sides alike.
    """
    shown = side.mean(-1, keepdim=True)
    weight = side.abs() * (shown.abs() > ONE_SIDED)
    right = (side * shown > 0).to(logits.dtype)
    return torch.nn.functional.binary_cross_entropy_with_logits(logits, right, weight)


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


def natural(
    config: TrainConfig,
    logp: torch.Tensor,
    mirrored: torch.Tensor,
    vertex: torch.Tensor,
    yx: torch.Tensor,
    geodesic: torch.Tensor,
    mirror: torch.Tensor,
) -> dict[str, torch.Tensor]:
    """The losses of N photos by name; a loss is left out if its setting is 0.

    `logp` and `mirrored` `(N, P, K)` are the log-probabilities of the photos and of their mirror images.
    `vertex` `(N, P)` are the labels. `yx` `(N, P, 2)` is in pixels of the 224 frame. `geodesic` `(K, K)` and
    `mirror` `(K,)` are the template's.
    """
    terms = {}
    if config.pseudo:
        terms["pseudo"] = pseudo(logp, vertex)
    if config.distance:
        terms["distance"] = distance(logp, geodesic[vertex])
    if config.cycle:
        terms["cycle"] = cycle(logp, yx)
    if config.equivariance:
        terms["equivariance"] = equivariance(logp, mirrored, mirror)
    return terms
