"""A template's body as torch can bend it: limbs turn at their joints, grow and shrink, and the trunk bends.

It makes the same motions as `Poser`, for many bodies at once and with gradients.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import torch

from shic_cli.files.layouts import Template
from shic_cli.surface.bodies import reach
from shic_cli.surface.limbs import Limb


@dataclass(frozen=True)
class Bends:
    """How B bodies are bent: f4, with gradients where they are fitted.

    `turns` `(B, J, 3)` are the joints' rotation vectors in radians, from tip to trunk, limb by limb.
    `lengths` `(B, L)` are the logarithms of the limbs' lengths. `trunk` `(B, 2)` are the trunk's bends up and
    to a side in radians. `axes` `(B, 3)` are the logarithms of the body's scale along x, y and z.
    """

    turns: torch.Tensor
    lengths: torch.Tensor
    trunk: torch.Tensor
    axes: torch.Tensor

    def __getitem__(self, index: int) -> Bends:
        """Body number `index`, as one body."""
        return Bends(*(getattr(self, each.name)[index : index + 1].detach() for each in fields(self)))


@dataclass(frozen=True)
class Joint:
    """A joint: how much each point turns with it, `weight` `(P,)`, and the points of its `ring`."""

    weight: torch.Tensor
    ring: torch.Tensor


@dataclass(frozen=True)
class Turning:
    """G joints that turn at once, since none moves what another one moves or turns about.

    `joints` `(G,)` are their numbers. They turn the points `on` `(N,)`, each with joint `place` `(N,)` of the
    group by its `weight` `(N,)`. A joint is at the sum of the points `ring` `(M,)` that it `owns` `(M,)`,
    times their `share` `(M,)`.
    """

    joints: torch.Tensor
    on: torch.Tensor
    place: torch.Tensor
    weight: torch.Tensor
    ring: torch.Tensor
    owns: torch.Tensor
    share: torch.Tensor

    @classmethod
    def of(cls, joints: tuple[Joint, ...], numbers: list[int]) -> Turning:
        """The joints of these `numbers`."""
        chosen = [joints[number] for number in numbers]
        on, rings = [joint.weight.nonzero()[:, 0] for joint in chosen], [joint.ring for joint in chosen]
        place, owns = (
            torch.repeat_interleave(torch.arange(len(each)), torch.tensor([len(part) for part in each]))
            for each in (on, rings)
        )
        weight = torch.cat([joint.weight[part] for joint, part in zip(chosen, on, strict=True)])
        share = 1 / torch.bincount(owns)[owns].float()
        return cls(torch.tensor(numbers), torch.cat(on), place, weight, torch.cat(rings), owns, share)

    def __call__(self, verts: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
        """`verts` `(B, P, 3)` turned by the rotation vectors `turns` `(B, J, 3)` of all joints."""
        empty = verts.new_zeros(len(verts), len(self.joints), 3)
        centre = empty.index_add(1, self.owns, verts[:, self.ring] * self.share[:, None])[:, self.place]
        axis, size = _axes(turns[:, self.joints])
        angle = size[:, self.place] * self.weight[:, None]
        turned = _rotated(verts[:, self.on] - centre, axis[:, self.place], angle) + centre
        return verts.index_copy(1, self.on, turned)


@dataclass(frozen=True)
class Stretch:
    """How a limb grows: each point's `share` `(P,)`, the limb's `root` `(3,)` and its `axis` `(3,)`."""

    share: torch.Tensor
    root: torch.Tensor
    axis: torch.Tensor


@dataclass(frozen=True)
class Rig:
    """The P points `verts` `(P, 3)` of a body at rest, the joints, and how its limbs grow.

    `pairs` gives each limb a number that limbs which mirror each other share. `kinds` and `limb_of` are the
    kind and the number of each joint's limb.
    """

    verts: torch.Tensor
    joints: tuple[Joint, ...]
    stretches: tuple[Stretch, ...]
    pairs: tuple[int, ...]
    kinds: tuple[str, ...]
    limb_of: tuple[int, ...]

    @classmethod
    def of(cls, template: Template, limbs: list[Limb]) -> Rig:
        """The rig of a whole template."""
        joints, stretches, kinds, pairs, owner, known = [], [], [], [], [], dict[str, int]()
        for limb in limbs:
            for weight, ring in zip(limb.weights, limb.rings, strict=True):
                joints.append(Joint(torch.from_numpy(weight).float(), torch.from_numpy(ring)))
                kinds.append(limb.kind)
                owner.append(len(stretches))
            share, root, axis = reach(template.verts, limb)
            stretches.append(
                Stretch(*(torch.from_numpy(np.asarray(each)).float() for each in (share, root, axis)))
            )
            pairs.append(known.setdefault(f"{limb.kind} {len(limb.tips)} {limb.end:.1f}", len(known)))
        return cls(
            torch.from_numpy(template.verts),
            tuple(joints),
            tuple(stretches),
            tuple(pairs),
            tuple(kinds),
            tuple(owner),
        )

    def at(self, points: torch.Tensor) -> tuple[Rig, torch.Tensor]:
        """The rig of fewer points, and the places of `points` among them.

        It has `points` and the points of all rings, so that it bends as the whole rig does.
        """
        kept = torch.cat([points, *(joint.ring for joint in self.joints)]).unique()
        place = torch.full((len(self.verts),), -1).index_put((kept,), torch.arange(len(kept)))
        joints = tuple(Joint(joint.weight[kept], place[joint.ring]) for joint in self.joints)
        stretches = tuple(replace(each, share=each.share[kept]) for each in self.stretches)
        return replace(self, verts=self.verts[kept], joints=joints, stretches=stretches), place[points]

    def mates(self, kind: str) -> list[tuple[int, int]]:
        """The joints of mirrored limbs of `kind`, in pairs."""
        firsts = [self.limb_of.index(limb) for limb in range(len(self.pairs))]
        legs = [limb for limb, first in enumerate(firsts) if self.kinds[first] == kind]
        return [
            (firsts[one] + step, firsts[other] + step)
            for one, other in combinations(legs, 2)
            if self.pairs[one] == self.pairs[other]
            for step in range(self.limb_of.count(one))
        ]

    def rest(self, number: int) -> Bends:
        """The bends of `number` bodies at rest."""
        sizes = ((len(self.joints), 3), (max(self.pairs, default=-1) + 1,), (2,), (3,))
        return Bends(*(torch.zeros(number, *size) for size in sizes))

    def __call__(self, bends: Bends) -> torch.Tensor:
        """The points `(B, P, 3)` of the bent bodies."""
        verts = self.verts.expand(len(bends.turns), -1, -1)
        for stretch, pair in zip(self.stretches, self.pairs, strict=True):
            along = ((self.verts - stretch.root) @ stretch.axis * stretch.share)[:, None] * stretch.axis
            verts = verts + (bends.lengths[:, pair].exp() - 1)[:, None, None] * along
        verts = verts * bends.axes.exp()[:, None]
        for turning in self.turnings:
            verts = turning(verts, bends.turns)
        along = verts[..., 2] / verts[..., 2].detach().abs().amax(1, keepdim=True)
        for axis in (0, 1):
            turns = torch.zeros(len(verts), 3).index_add(
                1, torch.tensor([axis]), bends.trunk[:, axis : axis + 1]
            )
            direction, size = _axes(turns[:, None])
            verts = _rotated(verts, direction.expand_as(verts), size * along[..., None])
        return verts

    @cached_property
    def turnings(self) -> list[Turning]:
        """The joints in groups, which turn one group after another: the same motion as joint by joint."""
        moved = torch.stack([joint.weight > 0 for joint in self.joints]) if self.joints else torch.zeros(0, 1)
        used = moved.clone()
        for number, joint in enumerate(self.joints):
            used[number, joint.ring] = True
        meets = moved.float() @ used.float().T > 0
        meets |= meets.T.clone()
        levels: list[int] = []
        for number in range(len(self.joints)):
            before = [levels[other] for other in range(number) if meets[number, other]]
            levels.append(max(before, default=-1) + 1)
        groups = [
            [number for number, level in enumerate(levels) if level == wanted]
            for wanted in range(max(levels, default=-1) + 1)
        ]
        return [Turning.of(self.joints, numbers) for numbers in groups]


def _axes(turns: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The unit axes `(..., 3)` and the angles `(..., 1)` of rotation vectors `(..., 3)`."""
    size = (turns.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    return turns / size, size


def _rotated(points: torch.Tensor, axis: torch.Tensor, angle: torch.Tensor) -> torch.Tensor:
    """`points` `(B, P, 3)` turned about `axis` `(B, P, 3)` by `angle` `(B, P, 1)`. Rodrigues' formula."""
    across = torch.linalg.cross(axis, points)
    return (
        points * angle.cos() + across * angle.sin() + axis * (axis * points).sum(-1, True) * (1 - angle.cos())
    )
