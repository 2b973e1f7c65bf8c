"""Random poses of a template that keep the vertex order."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation

from shic_cli.files.layouts import Template
from shic_cli.surface import motion
from shic_cli.surface.bodies import AXES, Growth, vary
from shic_cli.surface.limbs import Limb, find_limbs

BEND = 0.35  # radians, standard deviation of a joint's turn
LIMIT = 0.9  # radians, the largest turn of a joint
SIDEWAYS = 0.3  # how far a joint's axis strays from the lateral one
TRUNK = 0.12  # radians, standard deviation of the trunk's bend
SEEN = 0.4  # how far a pose like one of a photo strays from it, as a share of how far poses stray from rest


def _turn(verts: np.ndarray, centre: np.ndarray, axis: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Return `verts` `(K, 3)`, each turned about `centre` and `axis` by its own angle in radians.

    The matrices `(3, 3, K)` follow Rodrigues' formula.
    """
    moved = np.flatnonzero(angles)
    (x, y, z), out = axis, verts.copy()
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])[..., None]
    sine, cosine = np.sin(angles[moved]), np.cos(angles[moved])
    turns = np.eye(3)[..., None] * cosine + sine * cross + (1 - cosine) * np.outer(axis, axis)[..., None]
    a, b, c = (verts[moved] - centre).T
    out[moved] = (turns[:, 0] * a + turns[:, 1] * b + turns[:, 2] * c).T + centre
    return out


def turn_joints(verts: np.ndarray, limb: Limb, turns: np.ndarray) -> np.ndarray:
    """`verts` `(K, 3)` with every joint of the limb turned by a rotation vector of `turns` `(J, 3)`, radians.

    Joints near the tip turn first, so that the joints behind them carry the parts that have already turned.
    """
    centres = [verts[ring].mean(0) for ring in limb.rings]
    for weight, centre, turn in zip(limb.weights, centres, turns, strict=True):
        angle = float(np.linalg.norm(turn))
        if angle > 0:
            verts = _turn(verts, centre, turn / angle, weight * angle)
    return verts


def bend_limb(verts: np.ndarray, limb: Limb, rng: np.random.Generator, amount: float) -> np.ndarray:
    """`verts` `(K, 3)` with every joint of the limb turned by a random angle."""
    axes = np.array([1.0, 0, 0]) + SIDEWAYS * rng.normal(size=(len(limb.rings), 3))
    angles = np.clip(rng.normal(size=len(limb.rings)) * BEND * amount, -LIMIT, LIMIT) * limb.supple
    return turn_joints(verts, limb, axes / np.linalg.norm(axes, axis=1, keepdims=True) * angles[:, None])


def bend_trunk(verts: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """`verts` `(K, 3)` with the trunk bent a little at random, up or down and to a side."""
    along = verts[:, 2] / np.ptp(verts[:, 2])
    for axis, spread in ((np.array([1.0, 0, 0]), TRUNK), (np.array([0, 1.0, 0]), 1.5 * TRUNK)):
        verts = _turn(verts, np.zeros(3), axis, 2 * along * rng.normal() * spread * amount)
    return verts


@dataclass(frozen=True)
class Poser:
    """Draws random bodies and poses of a template.

    A call with a generator returns posed vertices `(K, 3)` f4 in the template's order. `amount` scales every
    bend and `bodies` scales every change of the body. Every pose draws its own strength between half of
    `amount` and all of it, every body between 0 and `bodies`. A `share` of them are like one of the bodies
    `seen` `(N, K, 3)` in photos, or its mirror image.
    """

    template: Template
    limbs: list[Limb]
    amount: float = 1.0
    bodies: float = 1.0
    seen: np.ndarray | None = None
    share: float = 0.5

    @classmethod
    def of(cls, template: Template, amount: float = 1.0, bodies: float = 1.0) -> Poser:
        """The poser of a template; `amount` 0 keeps the template as it is, and `bodies` 0 keeps its body."""
        return cls(template, find_limbs(template) if amount else [], amount, bodies)

    @cached_property
    def growths(self) -> list[Growth]:
        """How each limb grows."""
        return [Growth.of(self.template.verts, limb) for limb in self.limbs]

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        if self.seen is not None and len(self.seen) and rng.random() < self.share:
            return self._like_seen(self.seen[rng.integers(len(self.seen))], rng)
        if not self.limbs:
            return self.template.verts
        verts = (
            vary(self.template, self.limbs, self.growths, rng, self.bodies * rng.random())
            if self.bodies
            else self.template.verts
        )
        verts = verts.astype(np.float64)
        amount = self.amount * rng.uniform(0.5, 1)
        held = motion.hold(self.limbs, verts, rng, amount)
        # The limbs turn before the trunk: they hardly overlap, and the trunk carries them.
        for i, limb in enumerate(self.limbs):
            if i in held.legs:
                verts = turn_joints(verts, limb, held.legs[i])
            elif limb.kind == "tail":
                verts = turn_joints(verts, limb, motion.tail_turns(len(limb.rings), rng, amount))
            elif limb.kind == "head" and (len(limb.tips) > 1 or self._lone_head(limb)):
                verts = turn_joints(verts, limb, motion.head_turns(len(limb.rings), held.pitch, rng, amount))
            else:
                verts = bend_limb(verts, limb, rng, 2 * amount)
        turn = Rotation.from_euler("xz", [-held.pitch, held.roll])
        return turn.apply(bend_trunk(verts, rng, amount)).astype(np.float32)

    def _like_seen(self, body: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A pose `(K, 3)` f4 like that of the `body` `(K, 3)`."""
        verts = body.astype(np.float64)
        if rng.random() < 0.5:
            verts = verts[self.template.mirror] * [-1, 1, 1]
        verts *= np.exp(SEEN * self.bodies * rng.normal(0, AXES))
        for limb in self.limbs:
            verts = bend_limb(verts, limb, rng, SEEN * self.amount)
        return bend_trunk(verts, rng, SEEN * self.amount).astype(np.float32)

    def _lone_head(self, limb: Limb) -> bool:
        """Whether no limb with more tips carries this head."""
        return not any(other.kind == "head" and len(other.tips) > len(limb.tips) for other in self.limbs)
