"""Every renderer against known geometry, and against each other."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import pytest
import torch
import trimesh
from inverse import unproject

from shic_cli.base.errors import MissingError
from shic_cli.files.layouts import Template
from shic_cli.parts import registry
from shic_cli.parts.renderers.contract import Fragments
from shic_cli.parts.renderers.pytorch3d import Pytorch3dRenderer
from shic_cli.surface.cameras import Cameras, look_at, ring

SIZE = 48
needs_pytorch3d = pytest.mark.skipif(
    importlib.util.find_spec("pytorch3d") is None, reason="pytorch3d is not installed"
)
QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]])


@pytest.fixture(params=["warp", pytest.param("pytorch3d", marks=needs_pytorch3d)])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def square(z: float, half: float = 0.3, tilt: float = 0.0) -> torch.Tensor:
    """Corners `(4, 3)` of a square that the front view sees, at the world's `z`, its top leaning back by
    `tilt` a unit.
    """
    corners = torch.tensor([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]) * half
    return corners + torch.stack([torch.zeros(4), torch.zeros(4), z - tilt * corners[:, 1]], 1)


def front(fov: float = 30) -> Cameras:
    return look_at(*torch.tensor([[0.0], [0.0], [0.0], [fov]]))


def pixel_centres(number: int, size: int) -> torch.Tensor:
    return torch.cartesian_prod(*[torch.arange(size, dtype=torch.float32)] * 2).expand(number, -1, -1)


def test_depth_of_a_plane_is_view_space_z(name: str) -> None:
    fragments = registry.make("renderers", name)(square(0.2), QUAD, front(), SIZE)
    distance = front().translation[0, 2].item()
    z = fragments.zbuf[fragments.mask]
    torch.testing.assert_close(z, torch.full_like(z, distance - 0.2), rtol=1e-6, atol=0)
    expected = (0.6 / (distance - 0.2) * front().focal.item() / 2 * SIZE) ** 2  # its area in pixels
    assert expected > 200 and abs(fragments.mask.sum() - expected) < 2 * expected**0.5


def test_depth_of_a_tilted_plane(name: str) -> None:
    fragments = registry.make("renderers", name)(square(0.0, tilt=1.5), QUAD, front(), SIZE)
    distance, focal = front().translation[0, 2], front().focal
    slope = ((1 - (2 * torch.arange(SIZE) + 1) / SIZE) / focal)[None, :, None].expand(
        1, SIZE, SIZE
    )  # Y / Z of each row's rays
    expected = distance / (1 - 1.5 * slope)  # Z = distance + 1.5 Y, for the top leans away from the camera
    torch.testing.assert_close(fragments.zbuf[fragments.mask], expected[fragments.mask], rtol=1e-5, atol=0)


def test_depth_of_a_sphere(name: str) -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    cameras = ring(3, (20.0,), 40.0).fit(torch.tensor(ball.vertices, dtype=torch.float32), 0.9)
    fragments = registry.make("renderers", name)(
        torch.tensor(ball.vertices).float(), torch.tensor(ball.faces), cameras, SIZE
    )
    rays = unproject(cameras, pixel_centres(3, SIZE), torch.ones(3, SIZE * SIZE), SIZE)
    centre = -(cameras.rotation @ cameras.translation[..., None])[..., 0]
    rays = rays - centre[:, None]
    a, b, c = (rays**2).sum(-1), (rays * centre[:, None]).sum(-1), (centre**2).sum(-1)[:, None] - 0.25
    root = b**2 - a * c
    expected = ((-b - root.clamp(min=0).sqrt()) / a).view(3, SIZE, SIZE)
    inner = (root > 0.03 * c).view(3, SIZE, SIZE)  # near the rim the depth of a faceted ball is another
    assert (
        fragments.mask[inner].all()
        and not fragments.mask[(root < 0).view(3, SIZE, SIZE)].any()
        and inner.sum() > 1000
    )
    torch.testing.assert_close(fragments.zbuf[inner], expected[inner], rtol=0, atol=5e-3)


def test_barycentric_coordinates_give_back_the_point(name: str, small_template: Template) -> None:
    verts, faces = torch.tensor(small_template.verts), torch.tensor(small_template.faces).long()
    cameras = ring(4, (10.0,), 30.0).fit(verts, 0.9)
    fragments = registry.make("renderers", name)(verts, faces, cameras, SIZE)
    points = unproject(cameras, pixel_centres(4, SIZE), fragments.zbuf.flatten(1), SIZE).view(
        4, SIZE, SIZE, 3
    )
    mask = fragments.mask
    corners = verts[faces[fragments.face[mask]]]
    torch.testing.assert_close(
        (corners * fragments.bary[mask][..., None]).sum(1), points[mask], atol=1e-5, rtol=0
    )
    assert mask.sum() > 1000


def test_the_nearest_surface_is_seen_from_either_side(name: str) -> None:
    verts = torch.cat([square(-0.1), square(0.1, half=0.1)])
    for winding in (QUAD, QUAD.flip(1)):
        fragments = registry.make("renderers", name)(
            verts, torch.cat([winding, winding + 4]), front(), SIZE + 1
        )
        middle = (SIZE + 1) // 2
        assert (
            fragments.face[0, middle + 1, middle - 2] >= 2
            and 0 <= fragments.face[0, middle + 7, middle - 6] < 2
        )


def test_what_sees_nothing_is_minus_one(name: str) -> None:
    fragments = registry.make("renderers", name)(square(0.0, half=0.1), QUAD, front(), SIZE)
    outside = ~fragments.mask
    assert (
        fragments.face.dtype == torch.int64 and fragments.bary.dtype == fragments.zbuf.dtype == torch.float32
    )
    assert outside[0, 0, 0] and fragments.mask.any()
    assert (
        (fragments.face[outside] == -1).all()
        and (fragments.bary[outside] == -1).all()
        and (fragments.zbuf[outside] == -1).all()
    )


def test_pictures_are_not_mirrored(name: str) -> None:
    corner = square(0.0, half=0.1) + torch.tensor([0.2, 0.15, 0.0])  # at the object's left and above
    row, column = (
        registry.make("renderers", name)(corner, QUAD, front(), SIZE).mask[0].nonzero().float().mean(0)
    )
    assert row < SIZE * 0.45 and column > SIZE * 0.55


def compare(one: Fragments, other: Fragments) -> None:
    """The acceptance of one renderer beside another: the same faces but for edges, and the same values where
    faces agree.
    """
    assert (one.face == other.face).float().mean() > 0.999
    assert (one.mask != other.mask).float().mean() < 1e-3
    same = (one.face == other.face) & one.mask
    assert same.sum() > 1000
    torch.testing.assert_close(one.zbuf[same], other.zbuf[same], rtol=1e-5, atol=0)
    torch.testing.assert_close(one.bary[same], other.bary[same], rtol=0, atol=1e-4)


def some_views(template: Template) -> tuple[torch.Tensor, torch.Tensor, Cameras, int]:
    verts = torch.tensor(template.verts)
    return verts, torch.tensor(template.faces).long(), ring(5, (-20.0, 35.0), 30.0).fit(verts, 0.9), 96


@needs_pytorch3d
def test_pytorch3d_and_warp_agree(small_template: Template) -> None:
    arguments = some_views(small_template)
    compare(
        registry.make("renderers", "warp")(*arguments), registry.make("renderers", "pytorch3d")(*arguments)
    )


@pytest.mark.cuda
def test_cuda_and_cpu_agree(small_template: Template) -> None:
    arguments = some_views(small_template)
    found = registry.make("renderers", "warp", device="cuda")(*arguments)
    assert found.face.is_cuda
    compare(
        Fragments(found.face.cpu(), found.bary.cpu(), found.zbuf.cpu()),
        registry.make("renderers", "warp")(*arguments),
    )


def test_tensors_of_any_layout_are_taken(small_template: Template) -> None:
    verts, faces, cameras, size = some_views(small_template)
    plain = registry.make("renderers", "warp")(verts, faces, cameras, size)
    strided = np.asfortranarray(small_template.verts.astype(np.float64))
    found = registry.make("renderers", "warp")(torch.from_numpy(strided), faces.int(), cameras, size)
    assert torch.equal(found.face, plain.face)


def test_missing_pytorch3d_is_said_and_auto_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    monkeypatch.setitem(sys.modules, "pytorch3d.renderer", None)
    with pytest.raises(MissingError, match="pytorch3d can't be imported"):
        registry.make("renderers", "pytorch3d")
    assert registry.resolve("renderers", "auto", "cuda:0") == "warp"


def test_auto_takes_pytorch3d_where_it_is_and_is_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pytorch3dRenderer, "check", classmethod(lambda *_: None))
    assert registry.resolve("renderers", "auto", torch.device("cuda", 0)) == "pytorch3d"
    assert registry.resolve("renderers", "auto", torch.device("cpu")) == "warp"
