"""Limbs found without a skeleton, and poses."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import trimesh

from shic_cli.base.devices import chance
from shic_cli.base.settings import TemplateConfig
from shic_cli.files.layouts import Template
from shic_cli.stages.demo_animal import rest_mesh
from shic_cli.stages.template import prepare
from shic_cli.surface.limbs import find_limbs, find_tips, list_limbs
from shic_cli.surface.poses import Poser, bend_limb


def made(mesh: trimesh.Trimesh, folder) -> Template:
    mesh.export(folder / "mesh.ply")
    return prepare(folder / "mesh.ply", TemplateConfig(vertices=0, eigenvectors=8, up="+y", front="+z"))


def cushion(drawing: np.ndarray) -> trimesh.Trimesh:
    """A cushion whose outline, from the side, is the drawing `(H, W)` u1; ahead is right."""
    corners = np.argwhere(drawing)[:, None] + [[0, 0], [0, 1], [1, 1], [1, 0]]
    grid, squares = np.unique(corners.reshape(-1, 2), axis=0, return_inverse=True)
    faces = squares.reshape(-1, 4)[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)
    depth = np.sqrt(cv2.distanceTransform(np.pad(drawing, 1), cv2.DIST_L2, 5)[tuple(grid.T)])
    on_rim = cv2.erode(np.pad(drawing, 1), np.ones((2, 2)), anchor=(0, 0))[tuple(grid.T)] == 0
    verts = np.stack([np.where(on_rim, 0, depth), -grid[:, 0], grid[:, 1]], 1).astype(float)
    behind = np.where(on_rim, np.arange(len(verts)), len(verts) - 1 + np.cumsum(~on_rim))
    return trimesh.Trimesh(
        np.concatenate([verts, verts[~on_rim] * [-1, 1, 1]]),
        np.concatenate([faces, behind[faces][:, ::-1]]),
        process=False,
    )


def star_verts(ball: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """The points of a ball drawn out into slender arms along `directions`."""
    near = np.maximum(0, (ball @ directions.T - 0.93) / 0.07).max(1)
    return ball * (0.35 + near**2)[:, None]


@pytest.fixture(scope="module")
def star(tmp_path_factory) -> Template:
    """A body with four arms, two on each side, mirrored across x = 0."""
    directions = np.array(
        [[0.6, -0.64, 0.48], [-0.6, -0.64, 0.48], [0.6, -0.64, -0.48], [-0.6, -0.64, -0.48]]
    )
    ball = trimesh.creation.icosphere(subdivisions=4)
    return made(
        trimesh.Trimesh(star_verts(ball.vertices, directions), ball.faces, process=False),
        tmp_path_factory.mktemp("star"),
    )


def test_every_arm_is_found_and_mirrored_ones_are_alike(star):
    limbs = find_limbs(star)
    assert len([limb for limb in limbs if len(limb.tips) == 1]) == 4
    for limb in limbs:
        assert np.linalg.norm(star.verts[limb.tips[0]]) > 0.4  # a tip is far out
        twin = min(
            limbs,
            key=lambda other: np.linalg.norm(
                star.verts[other.tips[0]] - star.verts[limb.tips[0]] * [-1, 1, 1]
            ),
        )
        assert twin is not limb and twin.end == pytest.approx(limb.end)
        np.testing.assert_allclose(twin.joints * [-1, 1, 1], limb.joints, atol=0.03)


def test_a_ball_has_no_limbs_and_keeps_its_shape(tmp_path):
    ball = made(trimesh.creation.icosphere(subdivisions=3), tmp_path)
    assert find_limbs(ball) == [] and list_limbs([]) == ""
    assert Poser.of(ball)(chance(0)) is ball.verts
    bent = replace(Poser.of(ball), seen=2 * ball.verts[None], share=1.0)(chance(0))
    assert 1.5 < np.ptp(bent, 0).max() < 2.5  # a body that photos show is all the same


def test_a_pose_moves_limbs_a_lot_and_lengths_little(star):
    poser, edges = Poser.of(star), np.concatenate([star.faces[:, :2], star.faces[:, 1:]])
    lengths = np.linalg.norm(np.diff(star.verts[edges], axis=1)[:, 0], axis=1)
    for seed in range(5):
        verts = poser(chance(seed))
        assert verts.shape == star.verts.shape and np.isfinite(verts).all()
        ratio = np.linalg.norm(np.diff(verts[edges], axis=1)[:, 0], axis=1) / lengths
        assert 0.8 < np.median(ratio) < 1.25
        tips = find_tips(star)
        assert np.linalg.norm(verts[tips] - star.verts[tips], axis=1).max() > 0.03


def test_the_same_seed_gives_the_same_pose_and_amount_zero_none(star):
    poser = Poser.of(star)
    assert np.array_equal(poser(chance(4)), poser(chance(4))) and not np.array_equal(
        poser(chance(4)), poser(chance(5))
    )
    assert np.array_equal(Poser.of(star, 0)(chance(4)), star.verts)


def test_a_head_turns_however_short_its_neck_is_and_then_bends_less(tmp_path):
    verts, faces = rest_mesh(1200)
    animal = made(trimesh.Trimesh(verts, faces, process=False), tmp_path)
    stout = [limb for limb in find_limbs(animal) if limb.supple < 1]
    assert len(stout) == 1 and len(stout[0].tips) > 1 and stout[0].kind == "head"
    # its feet are wide and its tail a cone, which once ended legs at the ankle and the tail at a third
    assert list_limbs(find_limbs(animal)) == "2 hind, 1 tail, 1 head, 3 other"
    head, rest, turned = stout[0], animal.verts.astype(float), []
    for limb in (head, replace(head, supple=1.0)):
        moved = [np.linalg.norm(bend_limb(rest, limb, chance(seed), 1.0) - rest, axis=1) for seed in range(8)]
        turned.append(np.mean([each[limb.tips[0]] for each in moved]))
    assert turned[0] < 0.7 * turned[1]


def test_a_tail_with_spikes_is_one_limb_and_plates_on_the_back_are_no_tails(tmp_path):
    drawing = np.zeros((60, 120), np.uint8)
    boxes = [
        (55, 20, 100, 38),  # trunk
        *[(57, 38, 61, 56), (94, 38, 98, 56), (100, 20, 112, 27)],  # legs and head
        *[(64, 12, 67, 20), (76, 12, 79, 20), (88, 12, 91, 20)],  # plates
        (14, 24, 55, 29),  # tail
    ]
    for x0, y0, x1, y1 in boxes:
        cv2.rectangle(drawing, (x0, y0), (x1, y1), 1, -1)
    for x in (16, 26, 36):
        for end in (8, 45):
            cv2.fillPoly(drawing, [np.array([[x - 3, 26], [x + 3, 26], [x + 1, end], [x, end]])], 1)
    body = made(cushion(drawing), tmp_path)
    limbs = find_limbs(body)
    (tail,) = [limb for limb in limbs if limb.kind == "tail"]
    assert len(tail.tips) == 6 and body.verts[list(tail.tips), 2].max() < -0.2
    assert -0.25 < tail.joints[-1, 2] < -0.05  # it ends where the trunk begins


def test_poses_like_those_of_photos_stay_near_them_or_their_mirror_images(star):
    """A share of the poses are; and each strays from its body, but less than a random pose from rest."""
    poser = Poser.of(star, bodies=0)
    seen = np.stack([poser(chance(3, i)) for i in range(3)])
    both = np.concatenate([seen, seen[:, star.mirror] * [-1, 1, 1]])

    def nearest(share: float) -> np.ndarray:
        """The number of the nearest of `both`, and the mean distance to it, of 40 poses."""
        liking = replace(poser, seen=seen, share=share)
        drawn = np.stack([liking(chance(4, i)) for i in range(40)])
        return np.linalg.norm(drawn[:, None] - both, axis=-1).mean(-1)

    like, half, random = (nearest(share).min(1) for share in (1.0, 0.5, 0.0))
    assert set(nearest(1.0).argmin(1)) == set(range(6))
    assert 0.01 < np.median(like) < 0.06 and like.max() < 0.12
    assert like.mean() < 0.8 * half.mean() < 0.7 * random.mean()
    none = replace(poser, seen=seen[:0], share=1.0)
    assert np.array_equal(none(chance(4, 0)), poser(chance(4, 0)))
