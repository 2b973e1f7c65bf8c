"""Fits a template's body to one photo: the camera, the joints and the proportions that explain its map.

The camera is a scaled orthographic one. The fit minimises, by Adam from several starts, a robust distance
between the pixels and their vertices, plus terms that the outline gives: every pixel of the object is near
some point of the body, and no point is off the object. Lengths are shares of the object's longer side.
Letters: B starts, N pixels, P points of the body.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import NamedTuple

import cv2
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt
from torch.nn import functional as F

from shic_cli.surface.cameras import look_at
from shic_cli.surface.rig import Bends, Rig

SPREAD = 0.06  # a pixel this far from its vertex counts half as much (Geman and McClure)
SURE = 15.0  # a pixel whose uncertainty is this large counts half
STARTS = 3  # camera directions that are tried, each with and without the legs' own labels
STEPS = 120
RATE = 0.03
COVER, OUTSIDE = 2.0, 4.0  # weights of the outline's two terms
TURN = 0.5  # radians, the standard deviation of a joint's turn
SIDEWAYS = 0.4  # that of turns about the body's other axes, as a share of TURN
GROWTH, SCALE, BEND = 0.15, 0.1, 0.25  # those of the limbs' lengths, the body's scale and the trunk's bend
MIRRORED = torch.tensor([1.0, -1.0, -1.0])  # a rotation vector times this is its mirror image
PRIOR = 2e-3  # weight of these
PIXELS = 400  # pixels of a photo that are fitted
THIN = 0.12  # a part this wide or narrower is thin, as a share of the object's longer side
FINE = 200  # a side of the object, in pixels, at which thin parts are looked for
FIELD = 96  # a side of the grid that holds the distance to the object
ROOM = 1.0  # how far around the object that grid reaches
CUT = 0.1  # of its longer side: an object that touches the photo's border so far is cut there


@dataclass(frozen=True)
class Observed:
    """What a photo shows: N pixels `yx` `(N, 2)` with their `vertex` `(N,)` and `weight` `(N,)`.

    `middle` `(2,)` and `side` turn photo positions to shares: (yx - middle) / side. `outside` `(1, 1, F, F)`
    is the distance to the object over a square that is `1 + 2 ROOM` wide. It is 0 beyond a border at which
    the object is cut.
    """

    yx: torch.Tensor
    vertex: torch.Tensor
    weight: torch.Tensor
    outside: torch.Tensor
    middle: np.ndarray
    side: float

    @classmethod
    def of(cls, vertex: np.ndarray, uncertainty: np.ndarray, rng: np.random.Generator) -> Observed:
        """What the map `vertex` `(H, W)` of a photo shows, -1 off the object, with its `uncertainty`."""
        mask = vertex >= 0
        pixels = np.argwhere(mask)
        low, high = pixels.min(0), pixels.max(0)
        middle, side = (low + high) / 2, float((high - low).max() + 1)
        chosen = pixels[_drawn(mask, pixels, side, rng)]
        unsure = uncertainty[tuple(chosen.T)].astype(np.float32)
        return cls(
            torch.from_numpy((chosen - middle) / side).float(),
            torch.from_numpy(vertex[tuple(chosen.T)]).long(),
            torch.from_numpy(1 / (1 + (unsure / SURE) ** 2)),
            torch.from_numpy(_distances(mask, middle, side))[None, None],
            middle,
            side,
        )


def _distances(mask: np.ndarray, middle: np.ndarray, side: float) -> np.ndarray:
    """The distance to the object of `mask` `(H, W)`, in shares, over the grid `(FIELD, FIELD)` around it."""
    cell = (1 + 2 * ROOM) / FIELD
    grid = ((np.argwhere(mask) - middle) / (side * cell) + FIELD / 2).astype(int).clip(0, FIELD - 1)
    empty = np.ones((FIELD, FIELD), np.uint8)
    empty[tuple(grid.T)] = 0
    # OpenCV's distances differ in their last digits from call to call.
    distances = np.asarray(distance_transform_edt(empty), np.float32) * np.float32(cell)
    for flipped in (False, True):
        for axis, length in enumerate(mask.shape):
            border = mask.take(-1 if flipped else 0, axis)
            if border.sum() >= CUT * side:
                places = middle[axis] + (np.arange(FIELD) + 0.5 - FIELD / 2) * side * cell
                beyond = places > length - 1 if flipped else places < 0
                distances[(slice(None),) * axis + (beyond,)] = 0
    return distances


def _drawn(mask: np.ndarray, pixels: np.ndarray, side: float, rng: np.random.Generator) -> np.ndarray:
    """The numbers of the drawn `pixels` `(n, 2)` of `mask`: half of them are on thin parts, such as legs."""
    step = max(1, int(side / FINE))  # a large photo is thinned, since opening takes the square of its side
    size = max(3, int(THIN * side / step) | 1)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    padded = np.pad(mask[::step, ::step].astype(np.uint8), size)
    thick = cv2.morphologyEx(padded, cv2.MORPH_OPEN, disc)[size:-size, size:-size]
    thin = thick[tuple(pixels.T // step)] == 0
    weight = np.where(thin, len(pixels) / (2 * max(thin.sum(), 1)), 1.0)
    return rng.choice(len(pixels), min(PIXELS, len(pixels)), replace=False, p=weight / weight.sum())


@dataclass(frozen=True)
class Fitted:
    """A fitted body: its bends, and the camera that shows it.

    `rotation` `(3, 3)` turns world to view as in cameras.py. A point at view (X, Y) is seen at the share
    `scale` (-Y, -X) + `shift`. `energy` is what the fit left over.
    """

    bends: Bends
    rotation: torch.Tensor
    scale: float
    shift: torch.Tensor
    energy: float


def directions() -> torch.Tensor:
    """The rotations `(D, 3, 3)` that starts are chosen from: all around, a little from below to above."""
    azimuth, elevation = torch.cartesian_prod(torch.arange(0.0, 360, 15), torch.tensor([-10.0, 10, 35])).T
    return look_at(azimuth, elevation, torch.zeros(len(azimuth)), torch.full((len(azimuth),), 30.0)).rotation


def _flat(verts: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """The points `(..., P, 2)` as (y, x) before scale and shift, of `verts` `(..., P, 3)`."""
    return -(verts @ rotation)[..., :2].flip(-1)


def _place(flat: torch.Tensor, yx: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The scale `(D,)` and the shift `(D, 2)` that bring `flat` `(D, N, 2)` nearest to `yx` `(N, 2)`.

    Least squares with `weight` `(D, N)`.
    """
    share = (weight / weight.sum(1, keepdim=True))[..., None]
    mean, goal = (flat * share).sum(1), (yx * share).sum(1)
    apart, wanted = flat - mean[:, None], yx - goal[:, None]
    scale = (
        (apart * wanted * share).sum((1, 2)) / (apart.square() * share).sum((1, 2)).clamp_min(1e-9)
    ).clamp_min(1e-3)
    return scale, goal - scale[:, None] * mean


def starts(seen: Observed, verts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The STARTS best directions `(S, 3, 3)`, with scale `(S,)` and shift `(S, 2)`, for the body at rest.

    They differ by at least 40 degrees.
    """
    turns = directions()
    flat = _flat(verts[seen.vertex], turns)
    weight, scale, shift, off = seen.weight.expand(len(turns), -1), *[torch.zeros(0)] * 3
    for _ in range(3):
        scale, shift = _place(flat, seen.yx, weight)
        off = (flat * scale[:, None, None] + shift[:, None] - seen.yx).square().sum(-1)
        weight = seen.weight / (1 + off / SPREAD**2) ** 2
    cost = (seen.weight * off / (off + SPREAD**2)).mean(1)
    chosen: list[int] = []
    for number in cost.argsort().tolist():
        cosines = [((turns[number] * turns[other]).sum() - 1) / 2 for other in chosen]
        if all(cosine < math.cos(math.radians(40)) for cosine in cosines):
            chosen.append(number)
        if len(chosen) == STARTS:
            break
    return turns[chosen], scale[chosen], shift[chosen]


def fit_body(rig: Rig, seen: Observed, points: torch.Tensor) -> Fitted:
    """The body that fits the photo best.

    `points` are vertices spread over the body, which stand for all of it in the outline's terms. The best of
    the first fits is fitted again with the legs of a pair exchanged, since a fit can't get from one to the
    other by small steps.
    """
    turns, scale, shift = starts(seen, rig.verts)
    problem = _Problem.of(rig, seen, points)
    view = View(turns, scale.log(), shift).repeat(2)
    weight = seen.weight.repeat(len(view.turns), 1)
    weight[len(turns) :] *= ~problem.on_legs  # here the outline alone places the legs
    first = problem.solve(rig.rest(len(view.turns)), view, weight, STEPS, RATE)
    best = int(problem.energy(*first, seen.weight).argmin())
    bends = exchanged(rig, first[0], best)
    view = View(*(each[best : best + 1] for each in first[1])).repeat(len(bends.turns))
    bends, view = problem.solve(bends, view, seen.weight.expand(len(bends.turns), -1), STEPS // 2, RATE / 2)
    energies = problem.energy(bends, view, seen.weight)
    best = int(energies.argmin())
    scale = float(view.growth[best].exp())
    return Fitted(bends[best], view.turns[best], scale, view.move[best], float(energies[best]))


class View(NamedTuple):
    """B cameras: `turns` `(B, 3, 3)` from world to view, the logarithm of the scale `growth` `(B,)`, and the
    shift `move` `(B, 2)`.
    """

    turns: torch.Tensor
    growth: torch.Tensor
    move: torch.Tensor

    def repeat(self, times: int) -> View:
        """The cameras, `times` times over."""
        return View(*(each.repeat(times, *[1] * (each.dim() - 1)) for each in self))


@dataclass(frozen=True)
class _Problem:
    """A fit's data: the rig of the points that count, and the places in it of the pixels' vertices, `own`.

    `spread` are the places of the points that stand for the whole body. `on_legs` `(N,)` says which pixels
    are a leg's.
    """

    rig: Rig
    seen: Observed
    own: torch.Tensor
    spread: torch.Tensor
    on_legs: torch.Tensor

    @classmethod
    def of(cls, rig: Rig, seen: Observed, points: torch.Tensor) -> _Problem:
        """The problem of fitting `rig` to a photo."""
        small, places = rig.at(torch.cat([seen.vertex, points]))
        own, spread = places.split([len(seen.vertex), len(points)])
        return cls(small, seen, own, spread, _on_legs(small)[own])

    def energy(
        self, bends: Bends, view: View, weight: torch.Tensor, tilt: torch.Tensor | None = None
    ) -> torch.Tensor:
        """What is minimised, `(B,)`; `weight` `(B, N)` or `(N,)` are the pixels'."""
        flat = _flat(self.rig(bends), view.turns) * view.growth.exp()[:, None, None] + view.move[:, None]
        return (
            _data(flat[:, self.own], self.seen.yx, weight)
            + COVER * _uncovered(flat[:, self.spread], self.seen.yx)
            + OUTSIDE * _outside(flat[:, self.spread], self.seen.outside)
            + PRIOR * (_unlikely(bends) + (0 if tilt is None else (tilt / TURN).square().sum(1)))
        )

    def solve(
        self, bends: Bends, view: View, weight: torch.Tensor, steps: int, rate: float
    ) -> tuple[Bends, View]:
        """Bends and cameras after `steps` steps of Adam from the given ones."""
        bends = Bends(*(getattr(bends, each.name).clone().requires_grad_() for each in fields(bends)))
        tilt = torch.zeros(len(weight), 3, requires_grad=True)
        growth, move = view.growth.clone().requires_grad_(), view.move.clone().requires_grad_()
        moved = [getattr(bends, each.name) for each in fields(bends)] + [tilt, growth, move]
        optimizer = torch.optim.Adam(moved, lr=rate)
        for step in range(steps):
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 + math.cos(math.pi * step / steps)) / 2
            here = View(view.turns @ _rotations(tilt), growth, move)
            optimizer.zero_grad()
            self.energy(bends, here, weight, tilt).sum().backward()
            optimizer.step()
        with torch.no_grad():
            found = View(view.turns @ _rotations(tilt), growth.detach(), move.detach())
        return Bends(*(getattr(bends, each.name).detach() for each in fields(bends))), found


def exchanged(rig: Rig, bends: Bends, number: int) -> Bends:
    """Body `number`, and the same body with the legs of each pair exchanged, in all combinations."""
    turns = [bends.turns[number]]
    for kind in ("fore", "hind"):
        mates = rig.mates(kind)
        for each in list(turns) if mates else ():
            swapped = each.clone()
            for one, other in mates:
                swapped[one], swapped[other] = each[other] * MIRRORED, each[one] * MIRRORED
            turns.append(swapped)
    same = (getattr(bends, name)[number].expand(len(turns), -1) for name in ("lengths", "trunk", "axes"))
    return Bends(torch.stack(turns), *same)


def _on_legs(rig: Rig) -> torch.Tensor:
    """Which points `(P,)` turn with the knee of a leg."""
    on = torch.zeros(len(rig.verts), dtype=torch.bool)
    for joint, kind in zip(rig.joints, rig.kinds, strict=True):
        if kind in ("fore", "hind"):
            on |= joint.weight > 0.5
    return on


def _rotations(turns: torch.Tensor) -> torch.Tensor:
    """Rotation matrices `(B, 3, 3)` of rotation vectors `(B, 3)`."""
    zero = torch.zeros_like(turns[:, 0])
    x, y, z = turns.unbind(1)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).view(-1, 3, 3)
    return torch.linalg.matrix_exp(cross)


def _data(flat: torch.Tensor, yx: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The mean robust distance `(B,)` between pixels `(N, 2)` and their vertices at `flat` `(B, N, 2)`."""
    off = (flat - yx).square().sum(-1)
    return (weight * off / (off + SPREAD**2)).sum(1) / weight.sum(-1).clamp_min(1e-6)


def _uncovered(flat: torch.Tensor, yx: torch.Tensor) -> torch.Tensor:
    """The mean distance `(B,)` from pixels `(N, 2)` to the nearest point of the body `(B, P, 2)`."""
    with torch.no_grad():
        nearest = torch.cdist(yx.expand(len(flat), -1, -1), flat).argmin(2)
    near = flat.gather(1, nearest[..., None].expand(-1, -1, 2))
    return ((near - yx).square().sum(2) + 1e-12).sqrt().mean(1)


def _outside(flat: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
    """The mean distance `(B,)` from points of the body `(B, P, 2)` to the object."""
    grid = (flat.flip(-1) * (2 / (1 + 2 * ROOM)))[:, None]
    away = F.grid_sample(
        outside.expand(len(flat), -1, -1, -1), grid, padding_mode="border", align_corners=False
    )
    return away[:, 0, 0].mean(1)


def _unlikely(bends: Bends) -> torch.Tensor:
    """How unlikely `(B,)` bends are before the photo is seen: sums of squares of standard deviations."""
    spreads = torch.tensor([1.0, SIDEWAYS, SIDEWAYS]) * TURN
    return (
        (bends.turns / spreads).square().sum((1, 2))
        + (bends.lengths / GROWTH).square().sum(1)
        + (bends.trunk / BEND).square().sum(1)
        + (bends.axes / SCALE).square().sum(1)
    )
