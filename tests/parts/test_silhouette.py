"""The silhouette extractor."""

import torch
from torch.nn import functional as F

from shic_cli.parts.extractors.silhouette import Silhouette, bins


def blob(side: int = 128) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    return (((y - 60) / 20.0) ** 2 + ((x - 70) / 35.0) ** 2 < 1).float()[None, None] + (
        (y > 70) & (y < 100) & ((x - 50).abs() < 6)
    ).float()


def test_features_are_unit_and_ignore_colour():
    mask, extractor = blob().clamp(0, 1), Silhouette()
    one, other = extractor(torch.rand(1, 3, 128, 128), mask), extractor(torch.zeros(1, 3, 128, 128), mask)
    assert one.shape == (1, 80, 64, 64)
    torch.testing.assert_close(one, other)
    inside = F.avg_pool2d(mask, 2)[0, 0] > 0.9
    torch.testing.assert_close(one[0, :, inside].norm(dim=0), torch.ones(int(inside.sum())))


def test_convolution_equals_a_sum_over_cells():
    mask = blob().clamp(0, 1)
    feature = Silhouette()(mask, mask)[0]
    mass = F.avg_pool2d(mask, 2)[0, 0]
    kernel = bins(64, mass.sum().sqrt().item(), torch.device("cpu"))
    y, x = 31, 36
    total = torch.zeros(80)
    for a, b in mass.nonzero().tolist():
        total += mass[a, b] * kernel[:, (a - y) % 128, (b - x) % 128]
    share = total / kernel.sum((1, 2))
    torch.testing.assert_close(F.normalize(share.sqrt(), dim=0), feature[:, y, x], atol=2e-3, rtol=0)


def test_each_offset_belongs_to_its_bins_fully_inside_the_outer_ring():
    weights = bins(32, 8.0, torch.device("cpu")).sum(0)
    offsets = torch.fft.fftfreq(64, 1 / 64)
    radius = torch.hypot(offsets[:, None], offsets[None])
    torch.testing.assert_close(weights[radius < 15.9], torch.ones(int((radius < 15.9).sum())))
    assert weights[radius > 30].max() == 0


def test_features_do_not_change_with_the_size_of_the_object():
    small, large = torch.zeros(1, 1, 128, 128), torch.zeros(1, 1, 128, 128)
    small[..., 44:84, 34:94], large[..., 34:94, 19:109] = 1, 1
    extractor = Silhouette()
    one, other = extractor(small, small)[0, :, 32, 32], extractor(large, large)[0, :, 32, 32]
    assert (one @ other).item() > 0.995
    assert (one @ extractor(large, large)[0, :, 32, 12]).item() < 0.95
