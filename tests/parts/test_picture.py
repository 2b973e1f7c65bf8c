"""The encoder of pixels as they are."""

import torch

from shic_cli.parts.extractors.picture import Picture


def test_mask_and_standardised_colours():
    torch.manual_seed(0)
    images, masks = torch.rand(2, 3, 128, 128), torch.zeros(2, 1, 128, 128)
    masks[0, :, 30:90, 20:70], masks[1, :, 5:60, 60:120] = 1, 1
    found = Picture()(images, masks)
    assert found.shape == (2, 4, 128, 128) and torch.equal(found[:, :1], 2 * masks - 1)
    inside = masks[:, 0] > 0
    assert not found[:, 1:].movedim(1, -1)[~inside].any()
    for colours, here in zip(found[:, 1:], inside, strict=True):
        values = colours[:, here]
        torch.testing.assert_close(values.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(values.square().mean(), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_light_and_contrast_do_not_matter_but_hue_does():
    torch.manual_seed(0)
    image, mask = torch.rand(1, 3, 128, 128), (torch.rand(1, 1, 128, 128) > 0.5).float()
    torch.testing.assert_close(
        Picture()(0.2 + 0.5 * image, mask), Picture()(image, mask), atol=1e-4, rtol=1e-4
    )
    assert not torch.allclose(Picture()(image.flip(1), mask), Picture()(image, mask))


def test_a_flat_colour_and_an_empty_mask_stay_finite():
    image = torch.full((1, 3, 128, 128), 0.3)
    for mask in (torch.ones(1, 1, 128, 128), torch.zeros(1, 1, 128, 128)):
        found = Picture()(image, mask)
        assert found.isfinite().all() and found[:, 1:].abs().max() < 1e-3
