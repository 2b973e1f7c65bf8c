"""Textures on a ball, where every pixel's true surface point is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import cKDTree

from shic_cli.base.errors import InputError
from shic_cli.files.layouts import Surface
from shic_cli.files.photos import encode
from shic_cli.stages.remap import Painted, Points, checker, grid, lay, load_texture, sample_bilinear
from shic_cli.surface.surface_points import SurfacePoints, walk

SIZE = 96


@pytest.fixture(scope="module")
def ball() -> Surface:
    """A ball of diameter 1; uv are x and y, so that a picture is projected along z."""
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    verts, faces = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)
    colors = ((verts + 0.5) * 255).astype(np.uint8)
    return Surface(
        verts, faces, np.arange(len(verts)), colors, (verts[:, :2] + 0.5).astype(np.float32), faces
    )


def seen(ball: Surface, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """The ball seen along z: the vertex (H, W) nearest to each pixel's point, and that point (H, W, 3)."""
    y, x = np.mgrid[:size, :size]
    point = np.stack([(x + 0.5) / size - 0.5, 0.5 - (y + 0.5) / size, np.zeros((size, size))], -1)
    depth = 0.25 - (point**2).sum(-1)
    inside = depth > 0.01
    point[..., 2] = np.sqrt(depth.clip(0))
    return np.where(inside, cKDTree(ball.verts).query(point)[1], -1).astype(np.int32), point


def positions(face: np.ndarray, bary: np.ndarray, surface: Surface) -> np.ndarray:
    return np.einsum("pi,pij->pj", bary, surface.verts[surface.faces[face]])


@pytest.mark.parametrize("size", [SIZE, 400])
def test_points_run_smoothly(ball: Surface, size: int) -> None:
    vertex, point = seen(ball, size)
    inside = vertex >= 0
    face, bary = SurfacePoints(ball)(vertex)
    assert len(face) == len(bary) == inside.sum()
    assert bary.min() >= 0 and bary.sum(-1) == pytest.approx(1, abs=1e-5)
    found = positions(face, bary, ball)
    error = np.linalg.norm(found - point[inside], axis=1)
    steps = np.linalg.norm(ball.verts[vertex[inside]] - point[inside], axis=1)
    middle = np.linalg.norm(point[inside][:, :2], axis=1) < 0.4
    assert np.median(error[middle]) < 0.2 * np.median(steps)  # a fifth of what one vertex a pixel leaves
    assert np.median(error) < 0.4 * np.median(steps)
    image = np.full((*vertex.shape, 3), np.nan)
    image[inside] = found
    core = slice(size // 4, -size // 4)
    jumps = np.linalg.norm(np.diff(image[core, core], axis=1), axis=-1)
    assert (
        jumps.max() < 1.8 / size
    )  # no steps: a pixel is 1 / size wide, and up to 1.4 times that on the surface here


def test_a_rough_map_is_smoothed(ball: Surface) -> None:
    """Points that are off by chance, in blocks of 3 pixels, as a map computed on a coarse grid has them."""
    _, point = seen(ball)
    noise = np.random.default_rng(0).normal(0, 0.04, (SIZE // 3, SIZE // 3, 3)).repeat(3, 0).repeat(3, 1)
    inside = np.linalg.norm(point[..., :2], axis=-1) < 0.45
    vertex = np.where(inside, cKDTree(ball.verts).query(point + noise)[1], -1)
    face, bary = SurfacePoints(ball)(vertex)
    error = np.linalg.norm(positions(face, bary, ball) - point[inside], axis=1)
    rough = np.linalg.norm(ball.verts[vertex[inside]] - point[inside], axis=1)
    assert np.median(error) < 0.5 * np.median(rough)


@pytest.mark.cuda
@pytest.mark.parametrize("size", [SIZE, 400])
def test_points_on_a_gpu_are_those_of_the_cpu(ball: Surface, size: int) -> None:
    vertex, _ = seen(ball, size)
    one, other = (positions(*SurfacePoints(ball, device)(vertex), ball) for device in ("cpu", "cuda"))
    assert np.linalg.norm(one - other, axis=1).max() < 1e-4


def test_a_map_without_a_pixel_has_no_points(ball: Surface) -> None:
    face, bary = SurfacePoints(ball)(np.full((5, 7), -1))
    assert face.shape == (0,) and bary.shape == (0, 3)


def test_limbs_do_not_mix(ball: Surface) -> None:
    left, right = int(ball.verts[:, 0].argmin()), int(ball.verts[:, 0].argmax())
    vertex = np.full((20, 20), left)
    vertex[:, 10:] = right
    face, bary = SurfacePoints(ball)(vertex)
    found = positions(face, bary, ball).reshape(20, 20, 3)
    assert found[:, :10] == pytest.approx(np.broadcast_to(ball.verts[left], (20, 10, 3)), abs=1e-4)
    assert found[:, 10:] == pytest.approx(np.broadcast_to(ball.verts[right], (20, 10, 3)), abs=1e-4)


def test_walk_stops_at_the_nearest_vertex(ball: Surface) -> None:
    edges = {i: set() for i in range(len(ball.verts))}
    for a, b, c in ball.faces.tolist():
        edges[a] |= {b, c}
        edges[b] |= {a, c}
        edges[c] |= {a, b}
    width = max(map(len, edges.values()))
    neighbours = np.array([[*near, *[i] * (width - len(near))] for i, near in edges.items()])
    place = ball.verts[::7] * 0.98
    start = cKDTree(ball.verts).query(place + np.array([0.1, 0.05, 0]))[1]
    found = walk(*map(torch.from_numpy, (place, start, ball.verts, neighbours))).numpy()
    assert (found == cKDTree(ball.verts).query(place)[1]).all()


@pytest.mark.parametrize("vertex", [np.full((9, 9), -1), np.where(np.arange(81).reshape(9, 9) == 40, 3, -1)])
def test_none_and_one_pixel(ball: Surface, vertex: np.ndarray) -> None:
    rgb = np.full((9, 9, 3), 77, np.uint8)
    out = lay(rgb, vertex, SurfacePoints(ball), load_texture("colors", ball))
    assert (out[vertex < 0] == 77).all()
    assert out.shape == rgb.shape and out is not rgb


def test_a_picture_lies_upright(ball: Surface) -> None:
    vertex, _ = seen(ball)
    painting = np.zeros((64, 64, 3), np.uint8)
    painting[:32, :32], painting[:32, 32:], painting[32:, :32], painting[32:, 32:] = (
        (250, 0, 0),
        (0, 250, 0),
        (0, 0, 250),
        (250, 250, 0),
    )
    out = lay(
        np.full((SIZE, SIZE, 3), 128, np.uint8),
        vertex,
        SurfacePoints(ball),
        Painted(painting, ball),
        opacity=1,
    )
    for y, x, color in (
        (30, 30, (250, 0, 0)),
        (30, 66, (0, 250, 0)),
        (66, 30, (0, 0, 250)),
        (66, 66, (250, 250, 0)),
    ):
        assert out[y, x] == pytest.approx(np.array(color), abs=3)
    assert (out[vertex < 0] == 128).all()


def test_a_gradient_is_reproduced(ball: Surface) -> None:
    """Painted by uv = (x, y), a ramp along x must come back as each pixel's own x."""
    vertex, point = seen(ball)
    ramp = np.repeat(np.linspace(0, 255, 256).round().astype(np.uint8)[None, :, None], 3, 2).repeat(256, 0)
    out = lay(
        np.full((SIZE, SIZE, 3), 128, np.uint8), vertex, SurfacePoints(ball), Painted(ramp, ball), opacity=1
    )
    middle = np.linalg.norm(point[..., :2], axis=-1) < 0.4
    assert out[middle][:, 0] == pytest.approx((point[middle][:, 0] + 0.5) * 255, abs=5)


def test_ground_between_charts_does_not_bleed(ball: Surface) -> None:
    half = Surface(ball.verts, ball.faces, ball.mirror, ball.colors, ball.uv * 0.5 + 0.25, ball.face_uv)
    painting = np.zeros((64, 64, 3), np.uint8)
    y, x = np.mgrid[:64, :64]
    painting[np.hypot(y - 31.5, x - 31.5) < 16] = 200
    assert (Painted(painting, half).picture >= 199).mean() > 0.9


def test_small_details_are_averaged_where_pixels_are_coarse(ball: Surface) -> None:
    noise = np.random.default_rng(0).integers(0, 2, (1024, 1024, 1), np.uint8).repeat(3, 2) * 255
    vertex, _ = seen(ball, 48)
    out = lay(
        np.full((48, 48, 3), 128, np.uint8), vertex, SurfacePoints(ball), Painted(noise, ball), opacity=1
    )
    assert out[16:32, 16:32].std() < 40  # single texels would give 127


def test_light_and_dark_of_the_photo_stay(ball: Surface) -> None:
    vertex, _ = seen(ball)
    rgb = np.full((SIZE, SIZE, 3), 160, np.uint8)
    rgb[:, : SIZE // 2] = 60
    out = lay(
        rgb, vertex, SurfacePoints(ball), lambda points: np.full((len(points.face), 3), 150.0), opacity=1
    )
    assert out[48, 20, 0] < 0.8 * out[48, 76, 0]


def test_opacity(ball: Surface) -> None:
    vertex, _ = seen(ball)
    rgb = np.full((SIZE, SIZE, 3), 100, np.uint8)

    def white(points: Points) -> np.ndarray:
        return np.full((len(points.face), 3), 200.0)

    assert (lay(rgb, vertex, SurfacePoints(ball), white, opacity=0) == 100).all()
    assert lay(rgb, vertex, SurfacePoints(ball), white, opacity=0.5)[48, 48] == pytest.approx(150, abs=1)
    edge = np.argwhere(vertex[48] >= 0)[0, 0]
    assert 100 < lay(rgb, vertex, SurfacePoints(ball), white, opacity=1)[48, edge, 0] < 200  # a soft outline


def points_at(position: list[list[float]], normal: list[float]) -> Points:
    count = len(position)
    normals = np.broadcast_to(np.array(normal, float), (count, 3))
    return Points(np.zeros(count, int), np.full((count, 3), 1 / 3), np.array(position, float), normals, 0.001)


def test_checker_changes_at_the_planes(ball: Surface) -> None:
    light = (
        checker(ball)(
            points_at([[0.02, 0, 0], [0.02, 0.1, 0], [0.02, 0.1, 0.1], [-0.02, 0, 0]], [1, 0, 0])
        ).sum(1)
        > 400
    )
    assert light[0] != light[1] and light[0] == light[2] and light[0] != light[3]


def test_grid_draws_planes_but_not_along_the_surface() -> None:
    off = 0.05
    across = grid(points_at([[off, off, 0], [off, off, off], [off, 0, off]], [1, 0, 0]))
    assert (across[1] == 240).all() and (across[0] != 240).any() and (across[2] != 240).any()
    assert (
        grid(points_at([[0, off, off]], [1, 0, 0])) == 240
    ).all()  # this plane lies in the surface: it would fill it


def test_bilinear_between_texels() -> None:
    picture = np.array([[[0] * 3, [100] * 3], [[200] * 3, [100] * 3]], np.uint8)
    found = sample_bilinear(picture, np.array([0, 0.5, 0.5, -3, 9]), np.array([0.25, 0, 0.5, 0, 9]))
    assert found[:, 0].tolist() == [25, 100, 100, 0, 100]


def test_textures_by_name(ball: Surface, tmp_path: Path) -> None:
    for bad in ("chequer", str(tmp_path)):
        with pytest.raises(InputError, match="can't be read") as caught:
            load_texture(bad, ball)
        assert "checker, colors, grid" in caught.value.hint
    (tmp_path / "cut.png").write_bytes(encode(np.zeros((32, 32, 3), np.uint8))[:60])
    with pytest.raises(InputError, match="can't be read as an image"):
        load_texture(str(tmp_path / "cut.png"), ball)
