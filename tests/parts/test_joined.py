"""Extractors joined by `+`."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch.nn import functional as F

from shic_cli.base.training_settings import TrainConfig
from shic_cli.learning.recipes import settle
from shic_cli.parts import registry
from shic_cli.parts.extractors.contract import ExtractorDefaults
from shic_cli.parts.extractors.joined import Joined, resample
from shic_cli.parts.extractors.make import make_extractor, split

CPU = torch.device("cpu")


class Colours(ExtractorDefaults):
    """The mean colour of each cell, and a 1; one of several sides and grids."""

    settings: ClassVar[dict] = {}

    def __init__(
        self, side: int, cells: int, whole: bool = False, mask: bool = False, name: str = "colours"
    ) -> None:
        self.side, self.cells, self.sees_whole_object, self.needs_mask = side, cells, whole, mask
        self.name, self.dim, self.device, self.fingerprint, self.got = name, 4, CPU, f"{name}-{side}", []

    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        self.got.append((images.shape, masks.shape))
        cells = F.adaptive_avg_pool2d(images, self.cells)
        return torch.cat([cells, torch.ones_like(cells[:, :1])], 1) * 7


def test_a_cosine_is_the_mean_of_the_parts_cosines():
    one, other = Colours(32, 8), Colours(32, 8, name="squares")
    joined = Joined([one, other])
    images, masks = torch.rand(2, 3, 32, 32), torch.ones(2, 1, 32, 32)
    found = joined(images, masks)
    assert found.shape == (2, 8, 8, 8) and joined.dim == 8 and joined.name == "colours+squares"
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2, 8, 8))
    apart = [F.normalize(part(images, masks), dim=1) for part in (one, other)]
    expected = sum((part[0] * part[1]).sum(0) for part in apart) / 2
    torch.testing.assert_close((found[0] * found[1]).sum(0), expected)


def test_parts_get_their_side_and_meet_on_the_finest_grid():
    fine, coarse = Colours(16, 8), Colours(64, 2, mask=True)
    joined = Joined([fine, coarse], name="both")
    assert (joined.name, joined.side, joined.needs_mask, joined.sees_whole_object) == (
        "both",
        64,
        True,
        False,
    )
    images, masks = torch.rand(1, 3, 64, 64), torch.ones(1, 1, 64, 64)
    found = joined(images, masks)
    assert fine.got == [((1, 3, 16, 16), (1, 1, 16, 16))] and coarse.got == [((1, 3, 64, 64), (1, 1, 64, 64))]
    assert found.shape == (1, 8, 8, 8)
    torch.testing.assert_close(found[:, 4:].norm(dim=1), torch.full((1, 8, 8), 0.5**0.5))
    small = F.normalize(coarse(images, masks), dim=1)
    torch.testing.assert_close(
        found[0, 4:, 0, 0], small[0, :, 0, 0] * 0.5**0.5
    )  # a corner is nearest to one cell alone
    y = (3 + 0.5) / 4 - 0.5  # the fourth fine cell's centre in coarse cells
    mixed = F.normalize(small[0, :, 0, 0] * (1 - y) + small[0, :, 1, 0] * y, dim=0)
    torch.testing.assert_close(found[0, 4:, 3, 0], mixed * 0.5**0.5)


def test_resampling_does_not_alias():
    stripes = (torch.arange(64) % 2).float().expand(1, 1, 64, 64)
    inner = resample(stripes, 20)[..., 2:-2]
    assert (inner - 0.5).abs().max() < 0.1
    assert resample(stripes, 64) is stripes


def test_settings_and_fingerprint_name_every_part():
    joined = Joined([Colours(16, 8), Colours(32, 8, name="squares")])
    assert joined.fingerprint == "colours-16+squares-32"
    assert joined.settings == {"name": "colours+squares", "parts": [{}, {}]}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("silhouette", ["silhouette"]),
        ("silhouette+vit:F,layer=9", ["silhouette", "vit:F,layer=9"]),
        ("vit:F,layer=9+silhouette", ["vit:F,layer=9", "silhouette"]),
        ("dinov2-small+dinov2+silhouette", ["dinov2-small", "dinov2", "silhouette"]),
        ("vit:/a+b/c+vits", ["vit:/a+b/c+vits"]),
        ("vit:/silhouettes+vit/x+vit:/y", ["vit:/silhouettes+vit/x", "vit:/y"]),
        ("silhouette+nothing", ["silhouette+nothing"]),
    ],
)
def test_a_plus_separates_where_a_part_follows(text, parts):
    assert split(text) == parts


def test_joined_by_name(tiny_vit):
    folder = tiny_vit("dinov2")
    made = make_extractor(f"silhouette+vit:{folder},layer=1", CPU)
    assert isinstance(made, Joined) and made.name == f"silhouette+vit:{folder},layer=1"
    assert (made.side, made.dim, made.needs_mask, made.sees_whole_object) == (128, 112, True, True)
    masks = torch.zeros(1, 1, 128, 128)
    masks[:, :, 30:90, 20:100] = 1
    found = made(torch.rand(1, 3, 128, 128), masks)
    assert found.shape == (1, 112, 64, 64) and found.isfinite().all()
    assert make_extractor(made.name, CPU).fingerprint == made.fingerprint
    assert make_extractor(f"silhouette+vit:{folder},layer=2", CPU).fingerprint != made.fingerprint
    with pytest.raises(registry.SettingError, match=r"there is no extractor 'silhouette\+nothing'"):
        make_extractor("silhouette+nothing", CPU)


def test_training_settles_by_the_parts():
    whole, dense = Joined([Colours(16, 8), Colours(16, 8, whole=True)]), Joined([Colours(16, 8)] * 2)
    one, other = (settle(TrainConfig(), encoder, CPU) for encoder in (whole, dense))
    assert (one.decoder, one.batch, one.rate, one.augment) == ("pointwise", 4, 3e-3, "off")
    assert (other.decoder, other.batch, other.rate, other.augment) == ("convolutional", 16, 1e-3, "on")
