"""The rig: torch bends a body as `Poser`'s own functions do, whole or in part."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from beast import beast as beast

from shic_cli.files.layouts import Template
from shic_cli.surface.bodies import Growth
from shic_cli.surface.limbs import Limb, find_limbs
from shic_cli.surface.poses import turn_joints
from shic_cli.surface.rig import Rig


@pytest.fixture(scope="module")
def limbs(beast: Template) -> list[Limb]:
    return find_limbs(beast)


@pytest.fixture(scope="module")
def rig(beast: Template, limbs: list[Limb]) -> Rig:
    return Rig.of(beast, limbs)


def test_at_rest_it_is_the_template(beast: Template, rig: Rig) -> None:
    np.testing.assert_allclose(rig(rig.rest(2)), beast.verts[None].repeat(2, 0), atol=1e-6)


def test_joints_turn_as_those_of_the_poser(beast: Template, limbs: list[Limb], rig: Rig) -> None:
    rng, verts = np.random.default_rng(0), beast.verts.astype(np.float64)
    turns = rng.normal(0, 0.5, (len(rig.joints), 3))
    for number, limb in enumerate(limbs):
        own = [i for i, of in enumerate(rig.limb_of) if of == number]
        verts = turn_joints(verts, limb, turns[own])
    bends = rig.rest(1)
    bends.turns[0] = torch.from_numpy(turns)
    np.testing.assert_allclose(rig(bends)[0], verts, atol=1e-5)


def test_a_limb_grows_as_that_of_another_body(beast: Template, limbs: list[Limb], rig: Rig) -> None:
    number = next(i for i, limb in enumerate(limbs) if limb.kind == "tail")
    bends = rig.rest(1)
    bends.lengths[0, rig.pairs[number]] = np.log(1.4)
    longer = Growth.of(beast.verts, limbs[number]).resize(beast.verts.astype(np.float64), 1.4, 1.0)
    np.testing.assert_allclose(rig(bends)[0], longer, atol=1e-5)


def test_legs_of_a_pair_grow_alike_and_their_joints_are_mates(limbs: list[Limb], rig: Rig) -> None:
    for kind in ("fore", "hind"):
        one, other = (i for i, limb in enumerate(limbs) if limb.kind == kind)
        assert rig.pairs[one] == rig.pairs[other]
        mates = rig.mates(kind)
        assert [(rig.limb_of[a], rig.limb_of[b]) for a, b in mates] == [(one, other)] * 4
        assert [a - mates[0][0] for a, _ in mates] == [b - mates[0][1] for _, b in mates] == [0, 1, 2, 3]
    assert rig.mates("tail") == []


def test_a_part_bends_as_the_whole_does(rig: Rig) -> None:
    chosen = torch.arange(5, len(rig.verts), 97)
    part, places = rig.at(chosen)
    assert len(part.verts) < len(rig.verts)
    torch.manual_seed(0)
    bends = rig.rest(3)
    for name in ("turns", "lengths", "axes"):
        getattr(bends, name).normal_(0, 0.3)
    torch.testing.assert_close(part(bends)[:, places], rig(bends)[:, chosen], atol=1e-5, rtol=0)


def test_a_trunk_bends_to_both_sides(rig: Rig) -> None:
    """The first bend moves both ends up or down, and the second moves them to one side."""
    ends = [int(rig.verts[:, 2].argmax()), int(rig.verts[:, 2].argmin())]
    for number, axis in ((0, 1), (1, 0)):
        bends = rig.rest(1)
        bends.trunk[0, number] = 0.3
        moved = (rig(bends)[0] - rig.verts)[ends]
        assert (moved[:, axis].abs() > 0.05).all() and moved[0, axis] * moved[1, axis] > 0


def test_a_bend_has_a_gradient_even_at_rest(rig: Rig) -> None:
    bends = rig.rest(1)
    bends.turns.requires_grad_()
    rig(bends).square().sum().backward()
    assert bends.turns.grad is not None and bends.turns.grad.isfinite().all()
    assert (bends.turns.grad.abs().sum(2) > 0).all()
