"""The template as a whole: from a mesh file to arrays that agree with each other, and its pictures."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import trimesh

from shic_cli.base.errors import InputError, SettingError
from shic_cli.base.settings import TemplateConfig
from shic_cli.files.arrays import read_arrays, read_template, source
from shic_cli.files.layouts import Template
from shic_cli.stages.template import prepare, write
from shic_cli.stages.template_pictures import sides_picture, uv_picture
from shic_cli.surface.colors import oklab_to_rgb, vertex_colors


def animal() -> trimesh.Trimesh:
    """A closed shape of 642 vertices with one mirror plane, x = 0, its raised head at +z."""
    shape = trimesh.creation.icosphere(3)
    x, y, z = shape.vertices.T
    return trimesh.Trimesh(
        np.stack([0.3 * x, 0.4 * y + 0.5 * np.maximum(z, 0) ** 2, z + 0.2 * y], 1), shape.faces, process=False
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template")
    animal().export(path / "animal.obj", digits=12)
    return path


@pytest.fixture(scope="module")
def made(folder: Path) -> Template:
    return prepare(folder / "animal.obj", TemplateConfig(vertices=0, eigenvectors=16))


def test_template_survives_its_file(folder: Path, made: Template) -> None:
    config = TemplateConfig(vertices=0, eigenvectors=16)
    write(folder / "template.h5", made, config, folder / "animal.obj", overwrite=True)
    back = read_template(folder / "template.h5")
    for each in fields(made):
        np.testing.assert_array_equal(getattr(back, each.name), getattr(made, each.name))
    header = read_arrays(folder / "template.h5", "shic/template")[1]
    assert header.params == config.params() and header.sources["mesh"] == source(folder / "animal.obj")


def test_vertices_are_the_files_own_in_order_centred_and_scaled(made: Template) -> None:
    verts = animal().vertices
    expected = (verts - (verts.min(0) + verts.max(0)) / 2) / np.ptp(verts, axis=0).max()
    np.testing.assert_allclose(made.verts, expected, atol=1e-6)
    np.testing.assert_array_equal(made.source_to_vertex, np.arange(642))


def test_arrays_agree_with_each_other(made: Template) -> None:
    assert made.mirror_axis == "x" and made.eigenvectors.shape == (642, 16)
    np.testing.assert_array_equal(made.mirror[made.mirror], np.arange(642))
    np.testing.assert_allclose(made.verts[made.mirror], made.verts * [-1, 1, 1], atol=1e-6)
    np.testing.assert_allclose(
        made.geodesic[made.mirror][:, made.mirror], made.geodesic, atol=1
    )  # mirrored distances are the same
    assert made.geodesic.max() == 228
    assert (np.diff(made.eigenvalues) >= 0).all() and made.eigenvalues[0] > 0


def test_same_mesh_gives_the_same_template(folder: Path, made: Template) -> None:
    again = prepare(folder / "animal.obj", TemplateConfig(vertices=0, eigenvectors=16))
    for each in fields(made):
        np.testing.assert_array_equal(getattr(again, each.name), getattr(made, each.name))


@pytest.mark.parametrize(
    "up, front, columns, signs", [("+z", "+y", (0, 2, 1), (-1, 1, 1)), ("+z", "-y", (0, 2, 1), (1, -1, 1))]
)
def test_another_axis_convention_gives_the_same_template(
    tmp_path: Path, made: Template, up: str, front: str, columns: tuple[int, ...], signs: tuple[int, ...]
) -> None:
    turned = animal()
    turned.vertices = turned.vertices[:, columns] * signs
    turned.export(tmp_path / "turned.obj", digits=12)
    found = prepare(tmp_path / "turned.obj", TemplateConfig(vertices=0, eigenvectors=16, up=up, front=front))
    np.testing.assert_allclose(found.verts, made.verts, atol=1e-6)
    np.testing.assert_array_equal(found.mirror, made.mirror)


@pytest.mark.parametrize("vertices", [300, 1500])
def test_source_to_vertex_is_the_nearest_vertex_after_resampling(
    folder: Path, made: Template, vertices: int
) -> None:
    found = prepare(folder / "animal.obj", TemplateConfig(vertices=vertices, eigenvectors=8))
    assert abs(len(found.verts) - vertices) <= 0.2 * vertices
    assert np.ptp(found.verts, axis=0).max() == pytest.approx(1)
    distance = np.linalg.norm(found.verts[None] - made.verts[:, None], axis=2)
    chosen = distance[np.arange(642), found.source_to_vertex]
    assert (chosen - distance.min(1)).max() < 0.01 and chosen.mean() < 0.03


def test_dropped_vertices_of_the_file_have_a_nearest_vertex_too(tmp_path: Path) -> None:
    verts, faces = trimesh.creation.icosphere(2).vertices, trimesh.creation.icosphere(2).faces
    lines = [f"v {x} {y} {z}" for x, y, z in [(0, 3, 0), *verts, *verts[:1], (0, -3, 0)]]
    lines += ["f {} {} {}".format(*(face + 2)) for face in faces]
    (tmp_path / "extra.obj").write_text("\n".join(lines))
    found = prepare(tmp_path / "extra.obj", TemplateConfig(vertices=0, eigenvectors=4))
    assert len(found.verts) == 162 and found.source_to_vertex.shape == (165,)
    np.testing.assert_array_equal(found.source_to_vertex[1:163], np.arange(162))
    assert found.source_to_vertex[163] == 0  # a copy of the first
    assert found.verts[found.source_to_vertex[0], 1] == found.verts[:, 1].max()
    assert found.verts[found.source_to_vertex[164], 1] == found.verts[:, 1].min()


def test_own_texture_coordinates_reach_the_template(tmp_path: Path) -> None:
    shape = animal()
    uv = np.random.default_rng(0).random((642, 2)).round(4)
    shape.visual = trimesh.visual.TextureVisuals(uv=uv)
    shape.export(tmp_path / "painted.obj")
    found = prepare(tmp_path / "painted.obj", TemplateConfig(vertices=0, eigenvectors=4))
    np.testing.assert_allclose(found.uv[found.face_uv], uv[found.faces], atol=1e-6)


def test_too_many_vertices_are_refused_before_the_work(tmp_path: Path) -> None:
    trimesh.creation.icosphere(6).export(tmp_path / "fine.ply")
    with pytest.raises(InputError, match="at most 30000"):
        prepare(tmp_path / "fine.ply", TemplateConfig(vertices=0))


def test_contradicting_axes(folder: Path) -> None:
    with pytest.raises(SettingError):
        prepare(folder / "animal.obj", TemplateConfig(up="+x", front="-x"))


def test_colors_are_distinct_smooth_and_warm_on_the_left(made: Template) -> None:
    colors = made.colors.astype(int)
    assert len(np.unique(colors, axis=0)) == 642
    edges = made.faces[:, [0, 1]]
    across = (
        np.abs(made.verts[edges, 0]).max(1) < 0.05
    )  # the side changes quickly at the mirror plane, and only there
    assert np.abs(colors[edges[~across, 0]] - colors[edges[~across, 1]]).max() < 70
    warmth = colors[:, 0] - colors[:, 2]
    side = np.abs(made.verts[:, 0]) > 0.08
    assert ((warmth > 0) == (made.verts[:, 0] > 0))[side].mean() > 0.9


def test_equal_positions_still_get_distinct_colors() -> None:
    verts = np.random.default_rng(0).normal(size=(1500, 3)) * 1e-4
    verts[0], verts[1] = -1, 1
    assert len(np.unique(vertex_colors(verts), axis=0)) == 1500


def test_oklab_gives_known_colours() -> None:
    lab = np.array(
        [[0, 0, 0], [1, 0, 0], [0.62796, 0.22486, 0.12585], [0.45201, -0.03246, -0.31153]]
    )  # black, white, red, blue
    np.testing.assert_allclose(oklab_to_rgb(lab), [[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 1]], atol=2e-3)


def test_uv_picture_shows_each_face_where_its_texture_is(made: Template) -> None:
    size = 1024
    picture = uv_picture(made, size).astype(int)
    assert picture.shape == (size, size, 3)
    middle = made.uv[made.face_uv].mean(1)
    row, column = (
        np.round((1 - middle[:, 1]) * size - 0.5).astype(int),
        np.round(middle[:, 0] * size - 0.5).astype(int),
    )
    expected = made.colors[made.faces].mean(1)
    assert np.median(np.abs(picture[row, column] - expected).max(1)) <= 2
    assert (picture == 245).all(2).mean() > 0.1  # between the charts


def test_sides_picture_has_the_head_on_the_left_seen_from_the_left(made: Template) -> None:
    size = 128
    views = np.split(sides_picture(made, size).astype(int), 4, axis=1)
    left, right = views[1], views[3]
    tall = [np.argmax((view[10:] < 250).any(2).any(1)) for view in (left, right)]  # the row of the head's top
    head = [
        np.nonzero((view[10 + row] < 250).any(1))[0].mean()
        for view, row in zip((left, right), tall, strict=True)
    ]
    assert head[0] < size / 2 < head[1]
    warmth = [(view[..., 0] - view[..., 2])[(view < 250).any(2)].mean() for view in (left, right)]
    assert warmth[0] > 20 and warmth[1] < -20
