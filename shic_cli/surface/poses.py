"""The template's limbs, found without a skeleton, and random poses of it that keep the vertex order.

A limb ends in a tip, a local maximum of the mean geodesic distance (a hoof, a muzzle, the end of a tail).
Rings of equal distance from the tip follow the limb; where a ring's length jumps, the limb has reached the
trunk. Joints sit at ring centroids.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components

from shic_cli.files.layouts import Template

TIP_RADIUS = 20.0  # a tip is farther out than all within this distance; 228 is the largest distance
GAP = 20.0  # tips whose limbs end this near to each other share the limb behind them
RING = 4.0  # width of a ring
JUMP = 1.8  # a ring this many times as long as the limb's typical one belongs to the trunk
WIDE = 0.6  # nor is a ring this share of the widest one
SLENDER = 1.5  # a limb is at least this many times as long as it is wide
# or this many times where it carries several tips, as a cow's neck does, but then it bends by that much less
STOUT = 0.75
JOINTS = (0.3, 0.6, 0.95)  # along a limb, from its tip
SOFTNESS = 0.2  # of the limb's length over which a joint bends
BEND = 0.35  # radians, standard deviation of a joint's turn
LIMIT = 0.9  # radians, the largest turn of a joint
SIDEWAYS = 0.3  # how far a joint's axis strays from the lateral one
TRUNK = 0.12  # radians, standard deviation of the trunk's bend
STRETCH = 0.05  # standard deviation of each axis's scale


@dataclass(frozen=True)
class Limb:
    """A limb: `distance` `(K,)` of every vertex from its tips; it reaches from `start` to `end`; `joints`
    `(J, 3)` from tip to trunk.

    `supple`, up to 1, says how freely it bends.
    """

    tips: tuple[int, ...]
    distance: np.ndarray
    start: float
    end: float
    joints: np.ndarray
    supple: float


def find_limbs(template: Template) -> list[Limb]:
    """The limbs of a template, mirrored ones alike; none for a shape without limbs.

    A tip has a limb of its own up to halfway to the next tip. Tips near each other, like the toes of a foot,
    share the limb that goes on behind them. The short ones come first, so that the others carry them.
    """
    tips = find_tips(template)
    ends = {tip: _end(template, template.geodesic[tip], 0.0) for tip in tips}
    groups = [(tip,) for tip in tips] + [group for group in _clusters(template, tips, ends) if len(group) > 1]
    spans = {group: _span(template, group, tips, ends) for group in groups}
    limbs = []
    for group, (start, end) in spans.items():
        mirrored = min(
            (other for other in spans if len(other) == len(group)),
            key=lambda other: _apart(template, group, other),
        )
        if _apart(template, group, mirrored) < TIP_RADIUS:
            start, end = (start + spans[mirrored][0]) / 2, (end + spans[mirrored][1]) / 2
        distance = template.geodesic[list(group)].min(0)
        slender = (end - start) / max(_width(template, distance, (start + end) / 2), 1e-9)
        if slender > (SLENDER if len(group) == 1 else STOUT):
            joints = np.stack(
                [_ring(template, distance, start + share * (end - start)).mean(0) for share in JOINTS]
            )
            limbs.append(Limb(group, distance, start, end, joints, min(slender / SLENDER, 1.0)))
    return limbs


def _apart(template: Template, group: tuple[int, ...], other: tuple[int, ...]) -> float:
    """How far the mirror image of `group` is from the tips `other`, at most."""
    return float(template.geodesic[np.ix_(template.mirror[list(group)], np.array(other))].min(1).max())


def _clusters(template: Template, tips: list[int], ends: dict[int, float]) -> list[tuple[int, ...]]:
    """The tips in groups whose own limbs meet."""
    reach = np.array([ends[tip] for tip in tips])
    _, labels = connected_components(
        template.geodesic[np.ix_(tips, tips)] < reach[:, None] + reach[None] + GAP
    )
    return [
        tuple(tip for tip, label in zip(tips, labels, strict=True) if label == each)
        for each in range(labels.max(initial=-1) + 1)
    ]


def _span(
    template: Template, group: tuple[int, ...], tips: list[int], ends: dict[int, float]
) -> tuple[float, float]:
    """Where the limb of `group` starts and ends, as distances from its tips."""
    tip = group[0]
    if len(group) > 1:
        start = float(template.geodesic[np.ix_(group, group)].max()) / 2 + RING
        return start, _end(template, template.geodesic[list(group)].min(0), start)
    others = [float(template.geodesic[tip, other]) / 2 for other in tips if other != tip]
    return 0.0, min([ends[tip], *others])


def find_tips(template: Template) -> list[int]:
    """The vertices that are farther from everything, on the mean, than all others near them; the farthest
    first.
    """
    mean = template.geodesic.mean(0)
    near = template.geodesic <= TIP_RADIUS
    highest = np.where(near, mean[None], -np.inf).max(1)
    tips = np.flatnonzero((mean >= highest) & (mean > np.median(mean)))
    return sorted(tips.tolist(), key=lambda tip: -mean[tip])


def _ring(template: Template, distance: np.ndarray, radius: float) -> np.ndarray:
    """Positions `(R, 3)` of the vertices within half a ring's width of `radius`; at least the
    nearest three.
    """
    off = np.abs(distance - radius)
    chosen = off <= RING / 2
    if chosen.sum() < 3:
        chosen = off <= np.partition(off, 2)[2]
    return template.verts[chosen]


def _spread(ring: np.ndarray) -> float:
    """The mean distance of a ring's points from their centroid."""
    return float(np.linalg.norm(ring - ring.mean(0), axis=1).mean())


def _width(template: Template, distance: np.ndarray, radius: float) -> float:
    """How wide the limb is at `radius`, in units of the geodesic distances."""
    return 2 * _spread(_ring(template, distance, radius)) * _units(template)


def _units(template: Template) -> float:
    """Geodesic units in a unit of length."""
    edges = template.faces[:, :2]
    lengths = np.linalg.norm(template.verts[edges[:, 0]] - template.verts[edges[:, 1]], axis=1)
    return float(np.median(template.geodesic[edges[:, 0], edges[:, 1]] / np.maximum(lengths, 1e-9)))


def _end(template: Template, distance: np.ndarray, start: float) -> float:
    """How far a limb reaches from its tip: to where a ring is much wider than those before it, or nearly as
    wide as the trunk's.
    """
    radii = np.arange(start + RING, distance.max() / 2, RING / 2)
    spreads = np.array([_spread(_ring(template, distance, float(radius))) for radius in radii])
    for i in range(5, len(radii)):
        before = spreads[
            (i + 1) // 4 : max(i - 2, (i + 1) // 4 + 3)
        ]  # the tip itself closes to a point and says nothing
        if spreads[i] > min(JUMP * np.median(before), WIDE * spreads.max()):
            return float(radii[i]) - RING
    return float(distance.max() / 2)


def _rotation(axis: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Rotation matrices `(K, 3, 3)` about a unit `axis` by `angles` `(K,)` radians (Rodrigues)."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    sine, cosine = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    return np.eye(3) * cosine + sine * cross + (1 - cosine) * np.outer(axis, axis)


def _turn(verts: np.ndarray, centre: np.ndarray, axis: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """`verts` `(K, 3)`, each turned about `centre` and `axis` by its own angle."""
    moved = np.flatnonzero(angles)
    out = verts.copy()
    out[moved] = np.einsum("kij,kj->ki", _rotation(axis, angles[moved]), verts[moved] - centre) + centre
    return out


def _smooth_step(value: np.ndarray) -> np.ndarray:
    value = value.clip(0, 1)
    return value * value * (3 - 2 * value)


def bend_limb(verts: np.ndarray, limb: Limb, rng: np.random.Generator, amount: float) -> np.ndarray:
    """`verts` `(K, 3)` with every joint of the limb turned at random, those at the tip first so that the
    others carry them.
    """
    length = limb.end - limb.start
    soft = SOFTNESS * length / limb.supple
    for share, centre in zip(JOINTS, limb.joints, strict=True):
        weight = _smooth_step((limb.start + share * length + soft - limb.distance) / (2 * soft))
        axis = np.array([1.0, 0, 0]) + SIDEWAYS * rng.normal(size=3)
        angle = np.clip(rng.normal() * BEND * amount, -LIMIT, LIMIT) * limb.supple
        verts = _turn(verts, centre, axis / np.linalg.norm(axis), weight * angle)
    return verts


def bend_trunk(verts: np.ndarray, rng: np.random.Generator, amount: float) -> np.ndarray:
    """`verts` `(K, 3)` bent a little along the front axis, up or down and to a side, and its axes scaled a
    little.
    """
    along = verts[:, 2] / np.ptp(verts[:, 2])
    for axis in (np.array([1.0, 0, 0]), np.array([0, 1.0, 0])):
        verts = _turn(verts, np.zeros(3), axis, 2 * along * rng.normal() * TRUNK * amount)
    return verts * (1 + STRETCH * amount * rng.normal(size=3))


@dataclass(frozen=True)
class Poser:
    """Draws random poses of a template: called with a generator it gives posed vertices `(K, 3)` f4, in the
    template's order.

    Each pose draws how far it goes, between half of `amount` and all of it: calm ones and wild ones.
    """

    template: Template
    limbs: list[Limb]
    amount: float = 2.0

    @classmethod
    def of(cls, template: Template, amount: float = 2.0) -> Poser:
        """The poser of a template; `amount` scales every bend, 0 keeps the rest pose."""
        return cls(template, find_limbs(template) if amount else [], amount)

    def __call__(self, rng: np.random.Generator) -> np.ndarray:
        if not self.limbs:
            return self.template.verts
        verts, amount = self.template.verts.astype(np.float64), self.amount * rng.uniform(0.5, 1)
        for (
            limb
        ) in self.limbs:  # all at rest positions first: limbs hardly overlap, and the trunk carries them
            verts = bend_limb(verts, limb, rng, amount)
        return bend_trunk(verts, rng, amount).astype(np.float32)
