"""Where the cameras stand, what is left and right in their pictures, and that pixels and world positions
convert both ways.
"""

from __future__ import annotations

import math

import pytest
import torch
from inverse import unproject

from shic_cli.base.errors import InputError
from shic_cli.surface.cameras import Cameras, look_at, ring

SIZE = 101
CENTRE = (SIZE - 1) / 2
AHEAD, LEFT, TOP = torch.eye(3)[[2, 0, 1]] * 0.4  # +z is the object's front, +x its left, +y up


def one(azimuth: float = 0, elevation: float = 0, roll: float = 0, fov: float = 30) -> Cameras:
    return look_at(*(torch.tensor([float(value)]) for value in (azimuth, elevation, roll, fov)))


def seen(point: torch.Tensor, camera: Cameras) -> tuple[float, float, float]:
    """Row and column from the picture's centre, and depth from the origin's."""
    yx, z = camera.project(point[None], SIZE)
    return (
        (yx[0, 0, 0] - CENTRE).item(),
        (yx[0, 0, 1] - CENTRE).item(),
        (z[0, 0] - camera.translation[0, 2]).item(),
    )


def many(number: int = 50) -> Cameras:
    chance = torch.Generator().manual_seed(0)
    azimuth, elevation, roll, fov = (
        torch.rand(4, number, generator=chance) * torch.tensor([[360], [180], [360], [80]])
    ).unbind()
    return look_at(azimuth, elevation - 90, roll, fov + 10)


def test_rotations_are_rotations() -> None:
    rotation = many().rotation
    torch.testing.assert_close(
        rotation @ rotation.transpose(1, 2), torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50))


def test_camera_stands_where_azimuth_and_elevation_say() -> None:
    places = {
        (0, 0): (0, 0, 1),
        (90, 0): (1, 0, 0),
        (180, 0): (0, 0, -1),
        (270, 0): (-1, 0, 0),
        (0, 90): (0, 1, 0),
        (33, -90): (0, -1, 0),
    }
    for (azimuth, elevation), expected in places.items():
        camera = one(azimuth, elevation)
        centre = -(camera.rotation @ camera.translation[..., None])[0, :, 0]
        torch.testing.assert_close(
            centre / centre.norm(), torch.tensor(expected, dtype=torch.float32), atol=1e-6, rtol=0
        )


def test_front_view_shows_the_front_near_its_left_on_the_right_and_up_above() -> None:
    assert seen(AHEAD, one()) == pytest.approx((0, 0, -0.4), abs=1e-4)
    row, column, depth = seen(LEFT, one())
    assert column > 5 and (row, depth) == pytest.approx((0, 0), abs=1e-4)
    row, column, depth = seen(TOP, one())
    assert row < -5 and (column, depth) == pytest.approx((0, 0), abs=1e-4)


def test_view_at_90_degrees_shows_the_left_side_with_the_head_on_the_left() -> None:
    assert seen(LEFT, one(90)) == pytest.approx((0, 0, -0.4), abs=1e-4)
    row, column, depth = seen(AHEAD, one(90))
    assert column < -5 and (row, depth) == pytest.approx((0, 0), abs=1e-4)


def test_positive_elevation_sees_the_top_nearer() -> None:
    assert seen(TOP, one(elevation=30))[2] == pytest.approx(-0.4 * math.sin(math.radians(30)), abs=1e-5)


def test_positive_roll_turns_the_picture_counter_clockwise() -> None:
    row, column, _ = seen(TOP, one(roll=90))
    assert column < -5 and row == pytest.approx(0, abs=1e-4)


def test_field_of_view_reaches_the_edges_of_the_frame() -> None:
    camera = one(fov=60)
    distance = camera.translation[0, 2].item()
    edge = torch.tensor([0, distance * math.tan(math.radians(30)), 0])
    assert camera.project(edge[None], SIZE)[0][0, 0, 0].item() == pytest.approx(
        -0.5, abs=1e-3
    )  # the top pixel's upper edge


def test_unproject_takes_project_back() -> None:
    cameras = many()
    verts = torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    yx, z = cameras.project(verts, 512)
    torch.testing.assert_close(unproject(cameras, yx, z, 512), verts.expand(50, 200, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("share", [0.4, 0.83, 1.0])
def test_fit_gives_the_longer_side_its_share_and_centres(share: float) -> None:
    verts = torch.rand(300, 3, generator=torch.Generator().manual_seed(2)) * torch.tensor(
        [0.2, 0.5, 1.0]
    ) - torch.tensor([0.0, 0.4, 0.2])
    cameras = many()
    fitted = cameras.fit(verts, share)
    yx, z = fitted.project(verts, SIZE)
    low, high = yx.amin(1), yx.amax(1)
    torch.testing.assert_close((high - low).amax(1), torch.full((50,), share * SIZE), atol=2e-3, rtol=0)
    torch.testing.assert_close((high + low) / 2, torch.full((50, 2), CENTRE), atol=2e-3, rtol=0)
    torch.testing.assert_close(z, cameras.project(verts, SIZE)[1])  # they stay where they were


def test_fit_takes_a_pose_for_each_camera() -> None:
    poses = torch.rand(50, 30, 3, generator=torch.Generator().manual_seed(3)) - 0.5
    together, third = many().fit(poses, 0.8), many()[2:3].fit(poses[2], 0.8)
    torch.testing.assert_close(together.focal[2:3], third.focal)
    torch.testing.assert_close(together.project(poses, SIZE)[0][2:3], third.project(poses[2], SIZE)[0])


def test_fit_refuses_a_surface_behind_the_camera() -> None:
    with pytest.raises(InputError, match="behind"):
        one().fit(torch.tensor([[0.0, 0, 0], [0, 0, 50]]), 0.8)


def test_ring_goes_round_at_each_elevation() -> None:
    cameras = ring(4, (-10.0, 20.0), 30.0)
    assert len(cameras) == 8
    expected = look_at(*torch.tensor([[270.0], [20.0], [0.0], [30.0]]))
    torch.testing.assert_close(cameras[7:].rotation, expected.rotation)
    torch.testing.assert_close(
        cameras[:4].rotation[:, :, 1][:, 1], torch.full((4,), math.cos(math.radians(10)))
    )
