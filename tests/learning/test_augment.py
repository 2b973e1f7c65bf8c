"""Augmentation moves pictures, masks and points together."""

import numpy as np

from shic_cli.base.devices import chance
from shic_cli.learning import augment


def test_points_move_with_the_picture():
    side = 96
    for seed in range(5):
        rng = chance(seed)
        mask = np.zeros((side, side), np.float32)
        mask[20:70, 30:80] = 1
        matrix = augment.draw_affine(mask, rng)
        yx = rng.uniform(35, 65, (1, 2))
        y, x = np.mgrid[:side, :side]
        spot = np.exp(-((y - yx[0, 0]) ** 2 + (x - yx[0, 1]) ** 2) / 18).astype(np.float32)
        moved = augment.warp(spot, matrix)
        centre = np.array([(moved * y).sum(), (moved * x).sum()]) / moved.sum()
        np.testing.assert_allclose(augment.move(yx, matrix)[0], centre, atol=0.1)


def test_at_least_half_of_the_object_stays_in_the_frame():
    mask = np.zeros((64, 64), np.float32)
    mask[:16, :16] = 1  # in a corner, where a shift or a zoom soon loses it
    for seed in range(30):
        matrix = augment.draw_affine(mask, chance(seed))
        zoom = np.sqrt(np.linalg.det(matrix[:, :2]))
        assert augment.warp(mask, matrix).sum() >= 0.5 * mask.sum() * zoom**2 - 1


def test_jitter_changes_colours_only_and_repeats_with_its_seed():
    rgb = chance(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    one, same, other = (augment.jitter(rgb, chance(seed)) for seed in (1, 1, 2))
    assert one.shape == rgb.shape and one.dtype == np.uint8
    assert np.array_equal(one, same) and not np.array_equal(one, other)
