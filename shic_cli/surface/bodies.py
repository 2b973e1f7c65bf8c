"""Random bodies: the template with other proportions, as animals of one class differ from each other.

Legs are longer or thicker, the belly, neck and head have other shapes, and there are tufts of hair and bushy
tails.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from shic_cli.files.layouts import Template
from shic_cli.surface.limbs import Limb

AXES = np.array([0.12, 0.06, 0.08])  # standard deviation of the logarithm of each axis's scale
# Standard deviation of the logarithm of a limb's length and thickness, by the kind of limb.
LENGTH = {"fore": 0.15, "hind": 0.15, "tail": 0.3, "head": 0.12, "other": 0.3}
THICKNESS = {"fore": 0.2, "hind": 0.2, "tail": 0.4, "head": 0.15, "other": 0.2}
BUSHY = 0.3  # share of bodies whose tail is full of hair
BUSH = (0.3, 1.2)  # logarithm of how many times as thick that makes it
SMOOTH = 24  # eigenvectors that a smooth change is a sum of
SWELL = 0.02  # largest root mean square of a smooth change; the template's largest side is 1
TUFTS = 4  # the most tufts of hair on a body
TUFT = (8.0, 30.0)  # geodesic radius of a tuft; the largest distance is 228
HAIR = 0.07  # largest height of a tuft


def vary(
    template: Template,
    limbs: Sequence[Limb],
    growths: Sequence[Growth],
    rng: np.random.Generator,
    amount: float,
) -> np.ndarray:
    """The template's vertices `(K, 3)` f8 as a random body, whose two sides are alike.

    `growths` has one for each of the limbs. With an `amount` of 1 bodies differ as animals of a class do.
    """
    verts = template.verts.astype(np.float64)
    leg = rng.normal(0, LENGTH["fore"])
    drawn: dict[str, tuple[float, float]] = {}
    for limb, growth in zip(limbs, growths, strict=True):
        kind = limb.kind
        common = 0.8 * leg if kind in ("fore", "hind") else 0.0
        thick = rng.normal(0, THICKNESS[kind])
        if kind == "tail" and len(limb.tips) == 1 and rng.random() < BUSHY:
            thick += rng.uniform(*BUSH)
        own = (common + rng.normal(0, LENGTH[kind]) * (0.4 if common else 1.0), thick)
        length, thickness = drawn.setdefault(f"{kind} {len(limb.tips)} {limb.end:.1f}", own)
        verts = growth.resize(verts, np.exp(amount * length), np.exp(amount * thickness))
    verts = verts + swell(template, rng) * amount
    for _ in range(rng.integers(0, TUFTS + 1)):
        verts = tuft(verts, template, rng, amount)
    return verts * np.exp(amount * AXES * rng.normal(size=3))


@dataclass(frozen=True)
class Growth:
    """How a limb grows and thickens: the vertices `on` `(P,)` it, and their `share` `(P, 1)` in its growth.

    `root` `(3,)` and `axis` `(3,)` are where the limb starts and its direction. `nearest` `(P, 3)` are the
    points that the vertices move away from as the limb thickens, or None for its root.
    """

    on: np.ndarray
    share: np.ndarray
    root: np.ndarray
    axis: np.ndarray
    nearest: np.ndarray | None

    @classmethod
    def of(cls, rest: np.ndarray, limb: Limb) -> Growth:
        """The growth of a limb; `rest` `(K, 3)` are the vertices of the template."""
        share, root, axis = reach(rest, limb)
        on = np.flatnonzero(share)
        nearest = _onto(rest[on], _line(rest, limb)[0]) if len(limb.tips) == 1 else None
        return cls(on, share[on, None], root, axis, nearest)

    def resize(self, verts: np.ndarray, length: float, thickness: float) -> np.ndarray:
        """`verts` `(K, 3)` with the limb `length` times as long and `thickness` times as thick."""
        out, part = verts.copy(), verts[self.on]
        along = part - self.root
        moved = (
            self.root + along * thickness
            if self.nearest is None
            else self.nearest + (part - self.nearest) * thickness
        )
        moved = moved + (length - 1) * (along @ self.axis)[:, None] * self.axis
        out[self.on] += self.share * (moved - part)
        return out


def reach(rest: np.ndarray, limb: Limb) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How a limb grows: every vertex's share `(K,)` in its growth, its root `(3,)` and its direction `(3,)`.

    `rest` `(K, 3)` are the vertices of the template.
    """
    share = ((limb.end - limb.distance) / (0.3 * limb.end)).clip(0, 1)  # 0 at the trunk
    return share, *_line(rest, limb)[1:]


def _line(rest: np.ndarray, limb: Limb) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The line `(L, 3)` along a limb from its tip to its root, the root, and the unit vector to the tip."""
    line = np.concatenate(
        [rest[list(limb.tips)].mean(0)[None], [rest[ring].mean(0) for ring in limb.rings[:3]]]
    )
    root = line[-1]
    axis = line[0] - root
    return line, root, axis / max(np.linalg.norm(axis), 1e-9)


def _onto(points: np.ndarray, line: np.ndarray) -> np.ndarray:
    """The points `(P, 3)` of the polyline `line` `(L, 3)` that are nearest to `points` `(P, 3)`."""
    best, place = np.full(len(points), np.inf), np.zeros_like(points)
    for start, end in pairwise(line):
        along = ((points - start) @ (end - start) / max(np.sum((end - start) ** 2), 1e-12)).clip(0, 1)
        here = start + along[:, None] * (end - start)
        far = np.linalg.norm(points - here, axis=1)
        place[far < best] = here[far < best]
        best = np.minimum(best, far)
    return place


def swell(template: Template, rng: np.random.Generator) -> np.ndarray:
    """A smooth random displacement `(K, 3)`, the same on both sides, such as a larger belly or chest."""
    basis = template.eigenvectors[:, :SMOOTH]
    weight = 1 / np.sqrt(1 + np.arange(basis.shape[1]))
    move = basis @ (rng.normal(size=(basis.shape[1], 3)) * weight[:, None])
    move = (move + move[template.mirror] * [-1, 1, 1]) / 2
    return move * rng.uniform(0, SWELL) / max(np.sqrt((move**2).mean()), 1e-12)


def tuft(verts: np.ndarray, template: Template, rng: np.random.Generator, amount: float) -> np.ndarray:
    """`verts` `(K, 3)` with a tuft of hair in the middle, or one on each side."""
    middle = np.flatnonzero(np.abs(template.verts[:, 0]) < 0.02)
    choice = middle if rng.random() < 0.6 and len(middle) else np.arange(len(verts))
    centre = int(rng.choice(choice))
    reach = rng.uniform(*TUFT)
    share = (1 - template.geodesic[centre] / reach).clip(0, 1)
    share = np.maximum(share, share[template.mirror])
    inward = verts[template.geodesic[centre] < 3 * reach].mean(0)
    out = verts[centre] - inward
    out = out / max(np.linalg.norm(out), 1e-9) + rng.normal(0, 0.4, 3)
    side = np.sign(template.verts[:, 0]) * np.sign(template.verts[centre, 0])
    out = np.where((side < 0)[:, None], out * [-1, 1, 1], out)
    return verts + amount * rng.uniform(0, HAIR) * np.sqrt(share)[:, None] * out
