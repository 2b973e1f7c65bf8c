"""Views: where vertices are seen (Eq. 1), what the pictures show, and the views file."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from inverse import unproject

from shic_cli.base.errors import InputError
from shic_cli.base.settings import RenderConfig
from shic_cli.files.layouts import Template
from shic_cli.learning.views import (
    Views,
    interpolate,
    pixel_vertex,
    read_views,
    vertex_positions,
    write_views,
)
from shic_cli.parts import registry
from shic_cli.parts.renderers.contract import Fragments
from shic_cli.stages import render
from shic_cli.stages.render import SHARE, render_views, style_depth, style_normals, style_shaded
from shic_cli.surface.cameras import Cameras, look_at, ring

CONFIG = RenderConfig(azimuths=8, elevations=(0.0, 30.0), size=64, renderer="warp")


@pytest.fixture(scope="module")
def views(small_template: Template) -> Views:
    return render_views(small_template, CONFIG)


@pytest.fixture(scope="module")
def faces(small_template: Template) -> torch.Tensor:
    return torch.tensor(small_template.faces).long()


def cast(mesh: trimesh.Trimesh, cameras: Cameras, size: int) -> tuple[Fragments, torch.Tensor, torch.Tensor]:
    verts, faces = torch.tensor(mesh.vertices).float(), torch.tensor(mesh.faces).long()
    return registry.make("renderers", "warp")(verts, faces, cameras, size), verts, faces


def front(azimuth: float = 0.0) -> Cameras:
    return look_at(*torch.tensor([[azimuth], [0.0], [0.0], [30.0]]))


def test_visible_vertices_come_back_within_half_a_pixel(views: Views, small_template: Template) -> None:
    verts = torch.tensor(small_template.verts)
    _, z = views.cameras.project(verts, CONFIG.size)
    back, _ = views.cameras.project(unproject(views.cameras, views.vertex_yx, z, CONFIG.size), CONFIG.size)
    projected, _ = views.cameras.project(verts, CONFIG.size)
    row, column = projected.round().long().clamp(0, CONFIG.size - 1).unbind(-1)
    on_mask = views.mask.flatten(1).gather(1, row * CONFIG.size + column)
    tight = views.vertex_visible & on_mask
    assert tight.sum() > 0.9 * views.vertex_visible.sum() > 2000
    assert (back - projected).norm(dim=-1)[tight].max() < 1e-3
    assert (back - projected).norm(dim=-1)[
        views.vertex_visible
    ].max() < 1.5  # at the outline the nearest pixel of the mask


def test_positions_are_the_nearest_on_the_mask(views: Views, small_template: Template) -> None:
    projected, _ = views.cameras.project(torch.tensor(small_template.verts), CONFIG.size)
    moved = 0
    for yx, mask, found in zip(projected, views.mask, views.vertex_yx, strict=True):
        row, column = yx.round().long().unbind(-1)
        pixels = mask.nonzero().float()
        distances = (yx[:, None] - pixels[None]).norm(dim=-1)
        expected = torch.where(mask[row, column][:, None], yx, pixels[distances.argmin(1)])
        torch.testing.assert_close((found - yx).norm(dim=-1), (expected - yx).norm(dim=-1), atol=1e-4, rtol=0)
        assert mask[tuple(found.round().long().unbind(-1))].all()
        moved += int((~mask[row, column]).sum())
    assert moved > 20


@pytest.mark.parametrize("size", [32, 256])
def test_visibility_on_a_sphere_is_that_of_geometry_but_for_the_rim(size: int) -> None:
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.5)
    cameras = ring(3, (0.0, 40.0), 30.0).fit(torch.tensor(ball.vertices).float(), 0.9)
    fragments, verts, faces = cast(ball, cameras, size)
    _, visible = vertex_positions(fragments, faces, cameras, verts)
    centres = -(cameras.rotation @ cameras.translation[..., None])[..., 0]
    above_horizon = (centres @ verts.T - 0.25) / centres.norm(
        dim=1, keepdim=True
    )  # of the plane that touches the rim
    clear = (
        above_horizon.abs() > 0.06 + 1 / size**0.5
    )  # farther from the rim than the tolerance and than the outline's last pixel
    assert torch.equal(visible[clear], above_horizon[clear] > 0)
    assert clear.float().mean() > 0.5 and visible[clear].any() and not visible[clear].all()


def test_a_steep_surface_is_visible_though_its_depth_changes_within_a_pixel() -> None:
    plate = trimesh.Trimesh(*trimesh.remesh.subdivide_loop(*plane(), iterations=3))
    fragments, verts, faces = cast(plate, front(80.0), 64)
    _, visible = vertex_positions(fragments, faces, front(80.0), verts)
    assert visible.float().mean() > 0.97


def plane(z: float = 0.0, half: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    return np.array([[-half, -half, z], [half, -half, z], [half, half, z], [-half, half, z]]), np.array(
        [[0, 1, 2], [0, 2, 3]]
    )


@pytest.mark.parametrize("winding", [1, -1])
def test_what_is_behind_is_not_visible_however_faces_wind(winding: int) -> None:
    near, far = plane(0.1, 0.3), plane(0.05, 0.2)
    mesh = trimesh.Trimesh(
        np.concatenate([near[0], far[0]]), np.concatenate([near[1], far[1] + 4])[:, ::winding], process=False
    )
    fragments, verts, faces = cast(mesh, front(), 65)
    assert vertex_positions(fragments, faces, front(), verts)[1].tolist() == [[True] * 4 + [False] * 4]
    fragments, verts, faces = cast(mesh, front(180.0), 65)
    assert vertex_positions(fragments, faces, front(180.0), verts)[1].all()


def test_out_of_the_frame_is_not_visible() -> None:
    wide = trimesh.Trimesh(*plane(0.0, 3.0), process=False)
    fragments, verts, faces = cast(wide, front(), 32)
    yx, visible = vertex_positions(fragments, faces, front(), verts)
    assert fragments.mask.all() and not visible.any()
    assert sorted(map(tuple, yx[0].tolist())) == [(0, 0), (0, 31), (31, 0), (31, 31)]


def test_an_empty_picture_moves_nothing() -> None:
    away = replace(front(), principal=torch.tensor([[50.0, 0.0]]))
    fragments, verts, faces = cast(trimesh.Trimesh(*plane(), process=False), away, 32)
    yx, visible = vertex_positions(fragments, faces, away, verts)
    assert not fragments.mask.any() and not visible.any()
    torch.testing.assert_close(yx, away.project(verts, 32)[0])


def test_vertices_never_seen_are_counted_in_a_warning(
    small_template: Template, caplog: pytest.LogCaptureFixture
) -> None:
    ball = trimesh.creation.icosphere(subdivisions=0, radius=0.01)
    verts = np.concatenate([small_template.verts, ball.vertices.astype(np.float32)])
    faces = np.concatenate([small_template.faces, ball.faces + len(small_template.verts)])
    with caplog.at_level(logging.WARNING, "shic"):
        found = render_views(replace(small_template, verts=verts, faces=faces), CONFIG)
    assert not found.vertex_visible[:, -12:].any()
    assert f"{int((~found.vertex_visible.any(0)).sum())} of 654 vertices" in caplog.text


def test_interpolated_positions_are_what_the_pixels_see(
    views: Views, small_template: Template, faces: torch.Tensor
) -> None:
    points = interpolate(views.fragments, faces, torch.tensor(small_template.verts))
    pixels = torch.cartesian_prod(*[torch.arange(CONFIG.size).float()] * 2).expand(len(views), -1, -1)
    expected = unproject(views.cameras, pixels, views.depth.flatten(1), CONFIG.size).view_as(points)
    torch.testing.assert_close(points[views.mask], expected[views.mask], atol=1e-5, rtol=0)
    assert (points[~views.mask] == 0).all()


def test_pixel_vertex_is_the_corner_with_the_largest_share(views: Views, faces: torch.Tensor) -> None:
    found = pixel_vertex(views.fragments, faces)
    assert torch.equal(found < 0, ~views.mask) and found.dtype == torch.int64
    for n, i, j in views.mask.nonzero()[::97].tolist():
        shares = dict(zip(views.bary[n, i, j].tolist(), faces[views.face[n, i, j]].tolist(), strict=True))
        assert found[n, i, j] == shares[max(shares)]


def test_object_takes_its_share_of_every_frame(views: Views) -> None:
    for mask in views.mask:
        rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert abs(max(height, width) - SHARE * CONFIG.size) <= 2
        assert (
            abs(rows[-1] + rows[0] - CONFIG.size + 1) <= 2
            and abs(columns[-1] + columns[0] - CONFIG.size + 1) <= 2
        )


def test_views_from_left_and_right_mirror_each_other(views: Views) -> None:
    for i in range(8):
        assert (views.mask[i].flip(1) == views.mask[-i % 8]).float().mean() > 0.99
    assert (
        views.mask[2].flip(1) == views.mask[2]
    ).float().mean() < 0.97  # from the side it is no mirror image of itself


def test_views_do_not_depend_on_the_batch(
    views: Views, small_template: Template, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(render, "BATCH", 3)
    again = render_views(small_template, CONFIG)
    assert torch.equal(again.image, views.image) and torch.equal(again.vertex_yx, views.vertex_yx)
    assert torch.equal(again.vertex_visible, views.vertex_visible)


def test_given_cameras_and_pose_take_the_place_of_the_templates(small_template: Template) -> None:
    posed = torch.tensor(small_template.verts) * 0.5
    found = render_views(small_template, CONFIG, cameras=front(90.0), verts=posed)
    assert len(found) == 1 and found.template == small_template.fingerprint
    torch.testing.assert_close(found.cameras.focal, front().focal)
    torch.testing.assert_close(
        found.vertex_yx[0, 0], front(90.0).project(posed[:1], CONFIG.size)[0][0, 0], atol=1.5, rtol=0
    )


@pytest.mark.parametrize("winding", [1, -1])
@pytest.mark.parametrize(
    ("azimuth", "red", "blue"), [(0, 0.0, 1.0), (30, -0.5, 0.866), (-30, 0.5, 0.866), (180, 0.0, 1.0)]
)
def test_normals_are_colours_of_right_top_and_viewer(
    azimuth: float, red: float, blue: float, winding: int
) -> None:
    vertices, faces = plane(0.0, 0.2)
    fragments, verts, faces = cast(
        trimesh.Trimesh(vertices, faces[:, ::winding], process=False), front(azimuth), 33
    )
    image = style_normals(fragments, verts, faces, front(azimuth))
    expected = (np.array([red, 0.0, blue]) + 1) / 2 * 255
    assert image[0, 16, 16].numpy() == pytest.approx(expected, abs=1)
    assert (image[~fragments.mask] == 0).all()


def test_shading_is_grey_and_lit_from_the_upper_left() -> None:
    fragments, verts, faces = cast(trimesh.creation.icosphere(subdivisions=3, radius=0.4), front(), 65)
    image = style_shaded(fragments, verts, faces, front())[0].int()
    assert (image == image[..., :1]).all() and (image[~fragments.mask[0]] == 0).all()
    assert image[25, 25, 0] > image[32, 32, 0] > image[39, 39, 0] > 60


def test_depth_is_white_where_it_is_near() -> None:
    steps = [plane(0.2, 0.1), plane(0.1, 0.2), plane(0.0, 0.3)]
    corners = np.concatenate([each[0] for each in steps])
    fragments, verts, faces = cast(
        trimesh.Trimesh(corners, np.concatenate([steps[0][1] + 4 * i for i in range(3)])), front(), 65
    )
    image = style_depth(fragments, verts, faces, front())[0]
    assert image[32, 32].tolist() == [255] * 3 and image[0, 0].tolist() == [0] * 3
    assert sorted(set(image.flatten().tolist())) == [0, 51, 153, 255]


def test_views_file_gives_back_the_views(views: Views, tmp_path: Path) -> None:
    write_views(tmp_path / "views.h5", views, params=CONFIG.params(), sources={})
    found = read_views(tmp_path / "views.h5")
    for each in fields(views):
        one, other = getattr(found, each.name), getattr(views, each.name)
        if each.name == "cameras":
            assert all(
                torch.equal(getattr(one, name.name), getattr(other, name.name)) for name in fields(other)
            )
        elif each.name == "template":
            assert one == other
        else:
            assert one.dtype == other.dtype and torch.equal(one, other), each.name


def test_another_kind_of_file_is_refused(small_template_file: Path) -> None:
    with pytest.raises(InputError, match="expected shic/views, found shic/template"):
        read_views(small_template_file)


def test_damaged_views_are_refused(views: Views, tmp_path: Path) -> None:
    short = replace(views, vertex_visible=views.vertex_visible[:, :-1])
    write_views(tmp_path / "views.h5", short, params={}, sources={})
    with pytest.raises(InputError, match="vertex_visible has 641 on its axis K, expected 642"):
        read_views(tmp_path / "views.h5")
