"""How limbs are told apart, and what their random poses keep to: feet on the ground, bodies that sit."""

import numpy as np
from beast import beast  # noqa: F401

from shic_cli.base.devices import chance
from shic_cli.surface import motion
from shic_cli.surface.limbs import find_limbs
from shic_cli.surface.poses import Poser


def test_legs_tail_and_head_are_told_apart(beast):  # noqa: F811
    limbs = find_limbs(beast)
    kinds = [limb.kind for limb in limbs]
    assert kinds.count("fore") == 2 and kinds.count("hind") == 2
    for limb in limbs:
        tip = beast.verts[limb.tips[0]]
        if limb.kind in ("fore", "hind"):
            assert tip[1] < beast.verts[:, 1].min() + 0.1 and (tip[2] > 0) == (limb.kind == "fore")
            assert len(limb.rings) == 4  # one more inside the trunk
        if limb.kind in ("tail", "head"):
            assert (tip[2] > 0) == (limb.kind == "head") and abs(tip[0]) < 0.05
    assert {"tail", "head"} <= set(kinds)


def test_feet_of_a_standing_body_are_on_the_ground(beast, monkeypatch):  # noqa: F811
    monkeypatch.setattr(motion, "MANNERS", {"stand": 1.0})
    limbs, verts = find_limbs(beast), beast.verts.astype(float)
    legs = [i for i, limb in enumerate(limbs) if limb.kind in motion.FOLD]
    off, moved = [], []
    for seed in range(12):
        held = motion.hold(limbs, verts, chance(seed), 1.0)
        for i in legs:
            rest, foot = verts[limbs[i].tips[0]], motion._feet(limbs[i], verts, held.legs[i][None])[0]
            off.append(abs(foot[1] - rest[1]))
            moved.append(abs(foot[2] - rest[2]))
    assert np.median(off) < 0.01 and np.mean(moved) > 0.02


def test_a_body_that_sits_has_its_front_up(beast, monkeypatch):  # noqa: F811
    monkeypatch.setattr(motion, "MANNERS", {"rest": 1.0})
    held = [motion.hold(find_limbs(beast), beast.verts, chance(seed), 1.0) for seed in range(20)]
    sitting = [each for each in held if each.pitch >= 0.5]
    assert 4 <= len(sitting) <= 16
    poser = Poser.of(beast, bodies=0)
    front, back = beast.verts[:, 2] > 0.25, beast.verts[:, 2] < -0.25
    heights = [
        (verts[front, 1].mean() - verts[back, 1].mean()) for verts in map(poser, map(chance, range(20)))
    ]
    rest = beast.verts[front, 1].mean() - beast.verts[back, 1].mean()
    assert max(heights) > rest + 0.2


def test_a_foot_goes_where_its_turns_say(beast):  # noqa: F811
    limbs = find_limbs(beast)
    limb = next(limb for limb in limbs if limb.kind == "fore")
    verts = beast.verts.astype(float)
    foot = motion._feet(limb, verts, motion.leg_turns(limb, 0.6, 0.0, chance(0), jitter=0)[None])[0]
    assert foot[2] < verts[limb.tips[0], 2] - 0.05  # a swing goes to the back
    folded = motion._feet(limb, verts, motion.leg_turns(limb, 0.0, 1.0, chance(0), jitter=0)[None])[0]
    assert folded[1] > verts[limb.tips[0], 1] + 0.03  # a leg that folds lifts its foot
