"""The limbs of a template, found without a skeleton.

A limb ends in a tip: a hoof, a muzzle or the end of a tail. A tip is a local maximum of the mean geodesic
distance. Rings of equal distance from the tip follow the limb. The limb ends at the trunk, where a ring is
suddenly much wider. Joints sit at the centroids of rings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from shic_cli.files.layouts import Template

TIP_RADIUS = 20.0  # geodesic; a tip is the farthest vertex within it; the largest distance is 228
SPAN = 140.0  # tips that share the limb behind them are within this distance of each other
NECK = 2.0  # that limb stays apart from the other tips over at least this mean distance
LEVEL = 0.5  # step of the mean distance in which that is looked at
RING = 4.0  # width of a ring
JUMP = 1.8  # a ring this many times as wide as the limb's typical ring belongs to the trunk
ROW = 4  # rings in a row that have to be as wide, since a foot is wide as well
WIDE = 0.6  # a ring wider than this share of the widest ring belongs to the trunk too
SLENDER = 1.5  # a limb is at least this many times as long as it is wide
# A limb with several tips, such as a cow's neck, needs only this ratio. Below SLENDER it bends less in
# proportion.
STOUT = 0.75
JOINTS = (0.3, 0.6, 0.95)  # places of the joints, as shares of the limb's length from its tip
SOFTNESS = 0.2  # share of the limb's length over which a joint bends
SOFTEST = 6.0  # a joint bends over at least this distance to either side
HIP = 1.5  # place of the joint inside the trunk, as a share of the leg's length from its tip
HIP_SOFT = 0.35  # share of the leg's length over which that joint bends
LOW = 0.25  # the tip of a leg is below this share of the height
KINDS = ("fore", "hind", "tail", "head", "other")  # the kinds of limbs


@dataclass(frozen=True)
class Limb:
    """A limb: its tips, its extent, its joints, how freely it bends and its kind.

    `distance` `(K,)` is the geodesic distance of every vertex from the nearest of the limb's `tips`. The limb
    reaches from the distance `start` to the distance `end`. `joints` `(J, 3)` run from the tip to the trunk.
    `rings` holds the vertices around each joint; `joints` are their centroids at rest. `supple` is at most 1
    and says how freely the limb bends. `kind` is one of KINDS.
    """

    tips: tuple[int, ...]
    distance: np.ndarray
    start: float
    end: float
    joints: np.ndarray
    supple: float
    rings: tuple[np.ndarray, ...] = ()
    kind: str = "other"

    @property
    def length(self) -> float:
        """The geodesic distance from `start` to `end`."""
        return self.end - self.start

    @cached_property
    def weights(self) -> tuple[np.ndarray, ...]:
        """How much every vertex `(K,)` turns with each joint, in 0..1, from tip to trunk."""
        shares, softs = [*JOINTS], [max(SOFTNESS * self.length / self.supple, SOFTEST)] * len(JOINTS)
        if len(self.rings) > len(JOINTS):
            shares.append(HIP)
            softs.append(HIP_SOFT * self.length)
        return tuple(
            _smooth_step((self.start + share * self.length + soft - self.distance) / (2 * soft))
            for share, soft in zip(shares, softs, strict=True)
        )


def find_limbs(template: Template) -> list[Limb]:
    """Return the limbs of a template, or an empty list for a shape without limbs.

    Two limbs that mirror each other get the same extent. A tip has a limb of its own, which reaches at most
    halfway to the next tip. Tips whose part of the surface stays apart from the rest, like the toes of a
    foot, also share the limb behind them. Short limbs come first in the list, so that a longer limb carries
    them when it bends.
    """
    tips = find_tips(template)
    ends = {tip: _end(template, template.geodesic[tip], 0.0) for tip in tips}
    head = _head(template, tips)
    groups = [(tip,) for tip in tips] + _clusters(template, tips, head)
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
        # A head turns however short its neck is.
        carries_head = head in group and template.verts[list(group), 1].min() > _low(template)
        if slender > (SLENDER if len(group) == 1 else 0 if carries_head else STOUT):
            limbs.append(_limb(template, group, (start, end), min(max(slender / SLENDER, 0.4), 1.0)))
    return _kinds(template, limbs, head)


def list_limbs(limbs: Sequence[Limb]) -> str:
    """How many limbs of each kind there are, as `2 fore, 2 hind, 1 tail`; a head and its neck count once."""
    counts = Counter(limb.kind for limb in limbs)
    counts["head"] = min(counts["head"], 1)
    return ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])


def _limb(template: Template, group: tuple[int, ...], span: tuple[float, float], supple: float) -> Limb:
    """The limb of the tips `group` from `span[0]` to `span[1]`; its kind is not known yet."""
    distance = template.geodesic[list(group)].min(0)
    radii = [span[0] + share * (span[1] - span[0]) for share in JOINTS]
    rings = tuple(_around(distance, radius) for radius in radii)
    joints = np.stack([template.verts[ring].mean(0) for ring in rings])
    return Limb(group, distance, *span, joints, supple, rings)


def _head(template: Template, tips: list[int]) -> int | None:
    """The foremost tip on the mirror plane, such as a muzzle, or None if no tip is there."""
    middle = [tip for tip in tips if template.geodesic[tip, template.mirror[tip]] < TIP_RADIUS]
    ahead = [tip for tip in middle if template.verts[tip, 2] > 0]
    return max(ahead, key=lambda tip: template.verts[tip, 2], default=None)


def _low(template: Template) -> float:
    """The height below which a tip can be a foot."""
    return float(template.verts[:, 1].min() + LOW * np.ptp(template.verts[:, 1]))


def _kinds(template: Template, limbs: list[Limb], head: int | None) -> list[Limb]:
    """`limbs` with their kinds.

    Legs are limbs beside the mirror plane that reach the ground. The rear half of them are hind legs. A leg
    gets one more joint, inside the trunk.
    """
    ground = _low(template)
    own = {limb.tips[0]: limb.length for limb in limbs if len(limb.tips) == 1}
    spikes = {
        tip
        for limb in limbs
        if len(limb.tips) > 1 and _is_behind(template, limb)
        if max(own.get(tip, 0.0) for tip in limb.tips) < limb.length
        for tip in limb.tips
    }
    legs = [
        limb
        for limb in limbs
        if not spikes & set(limb.tips)
        if len(limb.tips) == 1 or template.geodesic[np.ix_(limb.tips, limb.tips)].max() < 2 * TIP_RADIUS
        if template.verts[list(limb.tips), 1].min() < ground
        if abs(template.verts[list(limb.tips), 0].mean()) > 0.01 and limb.length > TIP_RADIUS
    ]
    places = [limb.joints[-1, 2] for limb in legs]
    behind = np.mean(places) if places and np.ptp(places) > 0.2 else np.inf
    tails = [limb for limb in limbs if _is_behind(template, limb) and not any(limb is leg for leg in legs)]
    # Plates on the back are on the plane too; the limb that reaches farthest behind is the tail, with all its
    # spikes.
    tail = min(
        tails, key=lambda limb: (template.verts[list(limb.tips), 2].min(), -len(limb.tips)), default=None
    )
    out = []
    for limb in limbs:
        tips = list(limb.tips)
        if any(limb is leg for leg in legs):
            kind = "fore" if limb.joints[-1, 2] > behind else "hind"
            out.append(replace(limb, kind=kind, rings=(*limb.rings, _hip(template, limb))))
        elif head in limb.tips and template.verts[tips, 1].min() > ground:
            out.append(replace(limb, kind="head"))
        elif limb is tail:
            out.append(replace(limb, kind="tail"))
        else:
            out.append(limb)
    return out


def _is_behind(template: Template, limb: Limb) -> bool:
    """Whether a limb is its own mirror image and begins in the rear half of the body."""
    return bool(_apart(template, limb.tips, limb.tips) < TIP_RADIUS and limb.joints[-1, 2] < 0)


def _hip(template: Template, limb: Limb) -> np.ndarray:
    """The vertices around the joint inside the trunk that turns a leg, on the side of the leg."""
    ring = _around(limb.distance, limb.start + HIP * limb.length)
    same = ring[np.sign(template.verts[ring, 0]) == np.sign(limb.joints[-1, 0])]
    return same if len(same) else ring


def _apart(template: Template, group: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Return the largest distance from a mirrored tip of `group` to the nearest tip of `other`."""
    return float(template.geodesic[np.ix_(template.mirror[list(group)], np.array(other))].min(1).max())


def _clusters(template: Template, tips: list[int], head: int | None) -> list[tuple[int, ...]]:
    """Return the groups of tips that share the limb behind them, such as toes or the spikes of a tail.

    Their parts of the surface above some mean distance are one piece, which stays apart from the other tips
    over at least `NECK`. Of groups that share tips the one counts that stays apart the longest; the group of
    the `head` may hold others, such as its antlers.
    """
    mean = template.geodesic.mean(0)
    edges = np.concatenate([template.faces[:, :2], template.faces[:, 1:], template.faces[:, ::2]])
    lower = mean[edges].min(1)
    counts: dict[tuple[int, ...], int] = {}
    for level in np.arange(mean.min(), mean.max(), LEVEL):
        kept = edges[lower > level]
        graph = coo_array((np.ones(len(kept)), kept.T), shape=(len(mean), len(mean)))
        _, labels = connected_components(graph, directed=False)
        above = [tip for tip in tips if mean[tip] > level]
        for label in np.unique(labels[above]):
            group = tuple(tip for tip in above if labels[tip] == label)
            counts[group] = counts.get(group, 0) + 1
    found: list[tuple[int, ...]] = []
    for group, count in sorted(counts.items(), key=lambda item: -item[1]):
        near = len(group) > 1 and template.geodesic[np.ix_(group, group)].max() <= SPAN
        rivals = [other for other in found if (head in other) == (head in group)]
        if near and count * LEVEL >= NECK and not any(set(group) & set(other) for other in rivals):
            found.append(group)
    return found


def _span(
    template: Template, group: tuple[int, ...], tips: list[int], ends: dict[int, float]
) -> tuple[float, float]:
    """Return where the limb of `group` starts and ends, as distances from its tips."""
    tip = group[0]
    if len(group) > 1:
        start = float(template.geodesic[np.ix_(group, group)].max()) / 2 + RING
        return start, _end(template, template.geodesic[list(group)].min(0), start)
    others = [float(template.geodesic[tip, other]) / 2 for other in tips if other != tip]
    return 0.0, min([ends[tip], *others])


def find_tips(template: Template) -> list[int]:
    """Return the vertices that are tips, the one with the largest mean distance first.

    The mean geodesic distance of a tip is the largest within `TIP_RADIUS` and is above the median.
    """
    mean = template.geodesic.mean(0)
    near = template.geodesic <= TIP_RADIUS
    highest = np.where(near, mean[None], -np.inf).max(1)
    tips = np.flatnonzero((mean >= highest) & (mean > np.median(mean)))
    return sorted(tips.tolist(), key=lambda tip: -mean[tip])


def _ring(template: Template, distance: np.ndarray, radius: float) -> np.ndarray:
    """The positions `(R, 3)` of the vertices on the ring at `radius`, as `_around` finds them."""
    return template.verts[_around(distance, radius)]


def _around(distance: np.ndarray, radius: float) -> np.ndarray:
    """The vertices `(R,)` within half a ring's width of `radius`, or the nearest three if they are fewer."""
    off = np.abs(distance - radius)
    chosen = off <= RING / 2
    if chosen.sum() < 3:
        chosen = off <= np.partition(off, 2)[2]
    return np.flatnonzero(chosen)


def _spread(ring: np.ndarray) -> float:
    """Return the mean distance of a ring's points from their centroid."""
    return float(np.linalg.norm(ring - ring.mean(0), axis=1).mean())


def _width(template: Template, distance: np.ndarray, radius: float) -> float:
    """Return the width of the limb at `radius`, in units of the geodesic distances."""
    return 2 * _spread(_ring(template, distance, radius)) * _units(template)


def _units(template: Template) -> float:
    """Return the number of geodesic units in one unit of length."""
    edges = template.faces[:, :2]
    lengths = np.linalg.norm(template.verts[edges[:, 0]] - template.verts[edges[:, 1]], axis=1)
    return float(np.median(template.geodesic[edges[:, 0], edges[:, 1]] / np.maximum(lengths, 1e-9)))


def _end(template: Template, distance: np.ndarray, start: float) -> float:
    """Return the distance from the tip at which a limb ends.

    The limb ends where some rings in a row are much wider than those before them, or nearly as wide as the
    trunk.
    """
    radii = np.arange(start + RING, distance.max() / 2, RING / 2)
    spreads = np.array([_spread(_ring(template, distance, float(radius))) for radius in radii])
    for i in range(5, len(radii)):
        before = spreads[
            (i + 1) // 4 : max(i - 2, (i + 1) // 4 + 3)
        ]  # the rings next to the tip shrink to a point, so they are left out
        if spreads[i : i + ROW].min() > min(JUMP * np.median(before), WIDE * spreads.max()):
            return float(radii[i]) - RING
    return float(distance.max() / 2)


def _smooth_step(value: np.ndarray) -> np.ndarray:
    value = value.clip(0, 1)
    return value * value * (3 - 2 * value)
