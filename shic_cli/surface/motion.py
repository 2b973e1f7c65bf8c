"""Random poses of a body with limbs, as animals move: it stands, goes, sits or lies.

A turn is a rotation vector in radians. World axes: +x is the animal's left, +y is up, +z is the front. A
positive turn about x moves a foot backwards and a head down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from shic_cli.surface.limbs import Limb

MANNERS = {"stand": 0.4, "go": 0.3, "wild": 0.15, "rest": 0.15}  # ways to hold a body, with their shares
# How much the joints from tip to hip turn about x when a leg folds, in radians.
FOLD = {"fore": np.array([0.5, 1.3, -0.9, 0.0]), "hind": np.array([0.4, -1.2, 0.9, -0.4])}
SWING = np.array([0.0, 0.0, 0.3, 0.7])  # share of each joint from tip to hip in the swing of a leg
TRIES = 24  # random turns of a standing leg, of which the one with its foot nearest to the ground is taken
LIMIT = 2.2  # radians, the largest turn of a joint


@dataclass(frozen=True)
class Held:
    """How a body is held: the turns `(4, 3)` of each leg from tip to hip, by the number of the limb.

    `pitch` raises the front of the trunk and `roll` turns it about the front axis, both in radians.
    """

    legs: dict[int, np.ndarray]
    pitch: float = 0.0
    roll: float = 0.0


def hold(limbs: Sequence[Limb], verts: np.ndarray, rng: np.random.Generator, amount: float) -> Held:
    """A random way to hold the body `verts` `(K, 3)`: one of MANNERS, its turns scaled by `amount`."""
    legs = [i for i, limb in enumerate(limbs) if limb.kind in FOLD]
    fore = [i for i in legs if limbs[i].kind == "fore"]
    manner = str(rng.choice(list(MANNERS), p=list(MANNERS.values())))
    if manner == "rest" and len(fore) >= 2:
        return _rest(limbs, legs, rng, amount)
    if manner == "wild":
        turns = {
            i: leg_turns(limbs[i], rng.normal(0, 0.5) * amount, rng.normal(0.2, 0.5) * amount, rng, 0.3)
            for i in legs
        }
        return Held(turns, pitch=rng.normal(0, 0.15) * amount)
    if manner == "go":
        return Held(_go(limbs, legs, rng, amount), pitch=rng.normal(0, 0.1) * amount)
    return Held({i: _stand(limbs[i], verts, rng, amount) for i in legs})


def leg_turns(
    limb: Limb, swing: float, fold: float, rng: np.random.Generator, jitter: float = 0.1, splay: float = 0.0
) -> np.ndarray:
    """The turns `(4, 3)` of a leg's joints from tip to hip.

    `swing` and `splay` are radians, backwards and outwards; a `fold` of 1 folds the leg wholly.
    """
    turns = rng.normal(0, jitter, (4, 3)) * [1, 0.3, 0.5]
    turns[:, 0] += FOLD[limb.kind] * fold + SWING * swing
    turns[:, 2] += SWING * splay * np.sign(limb.joints[-1, 0])
    return turns.clip(-LIMIT, LIMIT)


def _stand(limb: Limb, verts: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """The turns `(4, 3)` of a leg whose foot is on the ground; one leg in ten is lifted a little."""
    lift = rng.uniform(0.2, 0.9) if rng.random() < 0.1 else 0.0
    spread = rng.choice([0.1, 0.3])
    tries = [
        leg_turns(
            limb,
            rng.normal(0, spread) * amount,
            lift + abs(rng.normal(0, 0.1)) * amount,
            rng,
            0.06,
            rng.normal(0, 0.06),
        )
        for _ in range(1 if lift else TRIES)
    ]
    off = np.abs(_feet(limb, verts, np.stack(tries))[:, 1] - verts[limb.tips[0], 1])
    return tries[int(np.argmin(off))]


def _feet(limb: Limb, verts: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """The places `(T, 3)` of a leg's tip after each of the turns `(T, J, 3)` of its joints."""
    place = np.tile(verts[limb.tips[0]], (len(turns), 1))
    for i, ring in enumerate(limb.rings):
        centre = verts[ring].mean(0)
        place = Rotation.from_rotvec(turns[:, i]).apply(place - centre) + centre
    return place


def _go(
    limbs: Sequence[Limb], legs: list[int], rng: np.random.Generator, amount: float
) -> dict[int, np.ndarray]:
    """The turns of legs in a gait, by the numbers of the limbs.

    Each leg swings and folds by its place in the stride. The two legs of a pair are a random share of a
    stride apart.
    """
    reach, height, start = rng.uniform(0.2, 0.8), rng.uniform(0.2, 1.2), rng.random()
    between, found = rng.random(), {}
    apart = {
        kind: rng.choice([0.5, 0.5, 0.2, 0.05]) * rng.choice([-1, 1]) + rng.normal(0, 0.05) for kind in FOLD
    }
    for i in legs:
        limb = limbs[i]
        left = limb.joints[-1, 0] > 0
        stride = (
            2 * np.pi * (start + (between if limb.kind == "hind" else 0) + (apart[limb.kind] if left else 0))
        )
        fold = height * max(0.0, np.sin(stride)) + abs(rng.normal(0, 0.1))
        found[i] = leg_turns(limb, amount * reach * np.cos(stride), amount * fold, rng)
    return found


def _rest(limbs: Sequence[Limb], legs: list[int], rng: np.random.Generator, amount: float) -> Held:
    """A body that sits on its hind legs, or lies on its belly or on a side."""
    found = {}
    if rng.random() < 0.5:
        pitch = rng.uniform(0.5, 1.1) * min(amount, 1.0)
        for i in legs:
            if limbs[i].kind == "fore":
                found[i] = leg_turns(limbs[i], pitch + rng.normal(0, 0.15), abs(rng.normal(0, 0.1)), rng)
            else:
                found[i] = leg_turns(
                    limbs[i], -rng.uniform(0.2, 0.9), rng.uniform(0.8, 1.5), rng, splay=rng.uniform(0, 0.5)
                )
        return Held(found, pitch)
    stretched, splay = rng.random(len(limbs)) < rng.choice([0.1, 0.9]), rng.uniform(-0.2, 0.6)
    for i in legs:
        if limbs[i].kind == "fore":
            swing, fold = (
                (-rng.uniform(0.8, 1.5), 0.1)
                if stretched[i]
                else (-rng.uniform(0, 0.7), rng.uniform(0.9, 1.5))
            )
        else:
            swing, fold = -rng.uniform(0.2, 1.2), rng.uniform(0.8, 1.6)
        found[i] = leg_turns(limbs[i], swing * amount, fold * amount, rng, splay=splay)
    return Held(found, rng.normal(0, 0.15), rng.normal(0, 0.4))


def tail_turns(joints: int, rng: np.random.Generator, amount: float) -> np.ndarray:
    """The turns `(J, 3)` of a tail that is raised, dropped, curled or swept to a side."""
    total = rng.uniform(-2.2, 2.2) if rng.random() < 0.6 else rng.normal(0, 0.4)
    turns = rng.normal(0, 0.3, (joints, 3)) * amount
    turns[:, 0] += amount * total * rng.dirichlet(np.ones(joints))
    return turns


def head_turns(joints: int, pitch: float, rng: np.random.Generator, amount: float) -> np.ndarray:
    """The turns `(J, 3)` of a neck or head, up or down and to a side.

    The head makes up for most of the `pitch` of the trunk.
    """
    down = rng.uniform(-0.7, 1.5) if rng.random() < 0.4 else rng.normal(0, 0.25)
    aside = rng.uniform(-1.3, 1.3) if rng.random() < 0.4 else rng.normal(0, 0.2)
    total = np.array([down * amount + 0.7 * pitch, aside * amount, rng.normal(0, 0.15) * amount])
    return total * rng.dirichlet(np.full(joints, 2.0))[:, None] + rng.normal(0, 0.08, (joints, 3))
