"""Bodies that differ from the template's."""

import numpy as np
from beast import beast  # noqa: F401

from shic_cli.base.devices import chance
from shic_cli.surface.bodies import Growth, swell, vary
from shic_cli.surface.limbs import find_limbs


def test_a_body_differs_and_both_its_sides_are_alike(beast):  # noqa: F811
    limbs = find_limbs(beast)
    growths = [Growth.of(beast.verts, limb) for limb in limbs]
    for seed in range(6):
        verts = vary(beast, limbs, growths, chance(seed), 1.0)
        assert np.isfinite(verts).all() and verts.shape == beast.verts.shape
        assert np.abs(verts - beast.verts).max() > 0.01
        mirrored = verts[beast.mirror] * [-1, 1, 1]
        rest = np.abs(beast.verts[beast.mirror] * [-1, 1, 1] - beast.verts).mean()
        assert np.abs(mirrored - verts).mean() < 3 * rest + 0.01
    np.testing.assert_allclose(vary(beast, limbs, growths, chance(0), 0.0), beast.verts, atol=1e-6)


def test_a_longer_leg_reaches_lower_and_the_trunk_stays(beast):  # noqa: F811
    limb = next(limb for limb in find_limbs(beast) if limb.kind == "hind")
    rest = beast.verts.astype(float)
    growth = Growth.of(rest, limb)
    longer = growth.resize(rest, 1.3, 1.0)
    tip = limb.tips[0]
    assert longer[tip, 1] < rest[tip, 1] - 0.04
    far = limb.distance > limb.end
    np.testing.assert_array_equal(longer[far], rest[far])
    thicker = growth.resize(rest, 1.0, 1.5)
    around = np.abs(limb.distance - limb.length / 3) < 5
    assert np.ptp(thicker[around, 0]) > 1.3 * np.ptp(rest[around, 0])


def test_a_swell_is_smooth(beast):  # noqa: F811
    move = swell(beast, chance(1))
    edges = beast.faces[:, :2]
    assert np.abs(np.diff(move[edges], axis=1)).mean() < 0.6 * np.abs(move).mean()
