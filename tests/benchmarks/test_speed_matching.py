"""Eq. 2 against the direct form, and against a plain matrix product of its size.

On a CPU: one photo of 500 queries, D = 384, 72 views of 224 pixels. On a GPU: 8 photos of 2,000 queries each,
D = 1,536 and 3,968.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from timing import Timer
from torch.nn import functional as F

from shic_cli.base.settings import RenderConfig
from shic_cli.files.layouts import Template
from shic_cli.learning.similarity import Bank, match
from shic_cli.learning.views import Views
from shic_cli.parts.extractors.silhouette import Silhouette
from shic_cli.stages.render import render_views

SIDE, CELLS = 224, 16
SIZES = {
    "cpu": {"small": (500, 384), "large": (500, 768)},
    "cuda": {"small": (16_000, 1536), "large": (16_000, 3968)},
}
TINY = {"small": (20, 8), "large": (20, 16)}


@pytest.fixture(scope="session")
def views(template: Template, rendering: RenderConfig) -> Views:
    return render_views(template, replace(rendering, size=SIDE))


def scene(
    views: Views, size: str, device: torch.device, full: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features of the views `(N, D, h, w)`, v_i(k) at whole pixels, V_i, and queries `(P, D)`; the features
    are noise.
    """
    number, channels = (SIZES[device.type] if full else TINY)[size]
    chance = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(len(views), channels, CELLS, CELLS, generator=chance), dim=1).to(
        device
    )
    queries = F.normalize(torch.randn(number, channels, generator=chance), dim=1).to(device)
    return (
        features,
        views.vertex_yx.round().clamp(0, SIDE - 1).to(device),
        views.vertex_visible.to(device),
        queries,
    )


def direct(
    features: torch.Tensor, yx: torch.Tensor, visible: torch.Tensor, queries: torch.Tensor
) -> torch.Tensor:
    """Sigma `(K, P)` of Eq. 2 as it is written: every view's map at the view's size, a vector for each
    vertex, cosines, the maximum.
    """
    sigma = queries.new_full((visible.shape[1], len(queries)), -torch.inf)
    for feature, position, seen in zip(features, yx.long(), visible, strict=True):
        whole = F.interpolate(feature[None], (SIDE, SIDE), mode="bilinear", align_corners=False)[0]
        vectors = whole[:, position[:, 0], position[:, 1]].T
        cosine = F.normalize(vectors, dim=1) @ queries.T
        sigma = torch.maximum(sigma, torch.where(seen[:, None], cosine, -torch.inf))
    return sigma


def test_matching_against_the_direct_form(views: Views, full: bool, timer: Timer) -> None:
    given = scene(views, "small", torch.device("cpu"), full)
    bank = Bank.build(*given[:3], SIDE)
    vertex, score = match(bank, given[3])
    sigma = direct(*given)
    torch.testing.assert_close(score, sigma.amax(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(sigma.gather(0, vertex[None])[0], sigma.amax(0), atol=1e-5, rtol=0)
    assert (vertex == sigma.argmax(0)).float().mean() > 0.995  # the rest are ties but for rounding
    ratio = timer.against(lambda: match(bank, given[3]), lambda: direct(*given), rounds=3)
    timer.tell("one photo, the bank made before", f"{ratio:.1f} times faster", "20")


def test_the_bank_and_one_photo_against_the_direct_form(views: Views, full: bool, timer: Timer) -> None:
    given = scene(views, "small", torch.device("cpu"), full)
    ratio = timer.against(
        lambda: match(Bank.build(*given[:3], SIDE), given[3]), lambda: direct(*given), rounds=3
    )
    timer.tell("the first photo, with the bank", f"{ratio:.1f} times faster", "-")


@pytest.mark.parametrize("size", ["small", "large"])
def test_matching_against_a_plain_product(
    views: Views, device: torch.device, size: str, full: bool, timer: Timer
) -> None:
    given = scene(views, size, device, full)
    bank = Bank.build(*given[:3], SIDE)
    chance = torch.Generator().manual_seed(1)
    rows = (
        torch.randn(sum(map(len, (index for _, index in bank.views))), given[3].shape[1], generator=chance)
        .to(bank.views[0][0].dtype)
        .to(device)
    )
    queries, number = given[3].to(rows), f"{len(given[3])} x {len(rows)} x {rows.shape[1]}"
    ratio = timer.against(lambda: match(bank, given[3]), lambda: queries @ rows.T)
    timer.tell(f"{number}, {rows.dtype}", f"{100 * ratio:.0f} % of its rate", "60 % on an H100")
    usual = Silhouette.agreement
    ratio = timer.against(lambda: match(bank, given[3], agreement=usual), lambda: queries @ rows.T)
    timer.tell(f"{number}, --agreement {usual:g}", f"{100 * ratio:.0f} % of its rate", "-")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        match(bank, given[3])
        timer.tell(
            "peak memory beside the bank",
            f"{(torch.cuda.max_memory_allocated() - before) / 1e9:.2f} GB",
            "2 GB",
        )
