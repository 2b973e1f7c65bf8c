"""Reading, cleaning and resampling meshes."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import trimesh

from shic_cli.base.errors import InputError
from shic_cli.surface import mesh
from shic_cli.surface.mesh_file import read_mesh

SEAMS = """v 0 0 0
v 9 9 9
v 1 0 0
v 1 1 0
v 0 1 0
v 0 0 1
vt 0 0
vt 1 0
vt 1 1
vt 0 1
vt 0.5 0.5
f 6/5 3/2 1/4
f 1/1 3/2 4/3 5/4
"""


def saved(tmp_path: Path, shape: trimesh.Trimesh, name: str) -> Path:
    shape.export(tmp_path / name)
    return tmp_path / name


def volume(found: mesh.Mesh) -> float:
    return trimesh.Trimesh(found.verts, found.faces, process=False).volume


def test_obj_keeps_its_own_vertices_in_order_despite_seams_and_unreferenced_ones(tmp_path: Path) -> None:
    (tmp_path / "seams.obj").write_bytes(b"# made by Ren\xe9\nmtllib missing.mtl\n" + SEAMS.encode())
    read = read_mesh(tmp_path / "seams.obj")
    expected = [[0, 0, 0], [9, 9, 9], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]]
    np.testing.assert_array_equal(read.source, expected)
    found = mesh.clean(read)
    np.testing.assert_array_equal(found.verts, [expected[i] for i in (0, 2, 3, 4, 5)])
    assert len(found.faces) == 3  # the quad is two
    corner = found.corner_uv[(found.verts[found.faces] == [0, 0, 0]).all(2)]
    assert sorted(corner.tolist()) == [[0, 0], [0, 0], [0, 1]]  # one vertex, two places in the texture


@pytest.mark.parametrize("name", ["ball.stl", "ball.ply", "ball.off", "ball.obj", "ball.glb"])
def test_every_format_gives_the_same_closed_surface(tmp_path: Path, name: str) -> None:
    found = mesh.clean(read_mesh(saved(tmp_path, trimesh.creation.icosphere(2), name)))
    assert found.verts.shape == (162, 3) and found.faces.shape == (320, 3)
    assert trimesh.Trimesh(found.verts, found.faces, process=False).is_watertight


def test_scene_nodes_are_moved_to_their_places(tmp_path: Path) -> None:
    scene = trimesh.Scene()
    scene.add_geometry(
        trimesh.creation.box(), transform=trimesh.transformations.translation_matrix([0, 5, 0])
    )
    scene.export(tmp_path / "scene.glb")
    np.testing.assert_allclose(read_mesh(tmp_path / "scene.glb").verts.mean(0), [0, 5, 0], atol=1e-6)


def test_largest_component_is_kept_and_the_rest_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = trimesh.creation.icosphere(3, radius=0.2).apply_translation([3, 0, 0])  # more faces, less surface
    path = saved(tmp_path, trimesh.util.concatenate([small, trimesh.creation.icosphere(2)]), "two.ply")
    with caplog.at_level(logging.INFO, "shic"):
        found = mesh.clean(read_mesh(path), path.name)
    assert len(found.faces) == 320 and abs(found.verts).max() < 1.01
    assert "two.ply: kept the largest connected component; dropped 1 others with 1280 faces" in caplog.text


def test_degenerate_and_double_faces_are_dropped() -> None:
    verts = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0.5, 0, 0]], float)
    faces = np.array([[0, 1, 2], [2, 1, 0], [0, 1, 3], [0, 0, 1]])
    found = mesh.clean(mesh.Mesh(verts, faces, None, verts))
    assert len(found.verts) == 3 and len(found.faces) == 1


@pytest.mark.parametrize("turned", [slice(None), slice(None, None, 3), slice(0, 0)])
def test_faces_are_wound_outward(turned: slice) -> None:
    ball = trimesh.creation.icosphere(2)
    faces, uv = np.array(ball.faces), np.random.default_rng(0).random((len(ball.vertices), 2))
    faces[turned] = faces[turned][:, ::-1]
    found = mesh.clean(mesh.Mesh(np.array(ball.vertices), faces, uv[faces], np.array(ball.vertices)))
    assert volume(found) == pytest.approx(ball.volume)
    np.testing.assert_array_equal(found.corner_uv, uv[found.faces])  # the corners' coordinates turn with them


@pytest.mark.parametrize("target", [500, 1300])
def test_longest_edges_are_split_until_the_target_and_the_shape_stays(target: int) -> None:
    box = trimesh.creation.box(extents=(1, 2, 3))
    start = mesh.clean(mesh.Mesh(np.array(box.vertices), np.array(box.faces), None, np.array(box.vertices)))
    found = mesh.resample(start, target)
    after = trimesh.Trimesh(found.verts, found.faces, process=False)
    assert len(found.verts) == target and after.is_watertight and after.is_winding_consistent
    assert after.volume == pytest.approx(6) and after.area == pytest.approx(22)
    assert after.edges_unique_length.max() < 4 * after.edges_unique_length.min()


@pytest.mark.parametrize("places", ["0.5", "0.1 0.2 0.3"])
def test_texture_coordinates_that_are_not_pairs_are_left_out(tmp_path: Path, places: str) -> None:
    corners = "\n".join(f"vt {places}" for _ in range(3))
    (tmp_path / "flat.obj").write_text(f"v 0 0 0\nv 1 0 0\nv 0 1 0\n{corners}\nf 1/1 2/2 3/3\n")
    found = read_mesh(tmp_path / "flat.obj")
    assert len(found.faces) == 1 and (found.corner_uv is None or found.corner_uv.shape == (1, 3, 2))


def test_splitting_carries_texture_coordinates() -> None:
    verts = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    found = mesh.resample(mesh.Mesh(verts, faces, verts[faces][..., :2], verts), 200)
    np.testing.assert_allclose(found.corner_uv, found.verts[found.faces][..., :2])


def test_simplifying_keeps_a_closed_sphere() -> None:
    ball = trimesh.creation.icosphere(5)
    start = mesh.Mesh(np.array(ball.vertices), np.array(ball.faces), None, np.array(ball.vertices))
    found = mesh.resample(start, 1000)
    assert 0.9 * 1000 <= len(found.verts) <= 1.2 * 1000
    assert trimesh.Trimesh(found.verts, found.faces, process=False).is_watertight
    np.testing.assert_allclose(np.linalg.norm(found.verts, axis=1), 1, atol=0.02)


@pytest.mark.parametrize("target", [0, 140, 162, 324])
def test_near_the_target_the_mesh_is_left_alone(target: int) -> None:
    ball = trimesh.creation.icosphere(2)
    start = mesh.Mesh(np.array(ball.vertices), np.array(ball.faces), None, np.array(ball.vertices))
    assert mesh.resample(start, target) is start


def test_normalised_is_centred_with_longest_side_one_and_moves_the_source_along() -> None:
    verts = np.array([[0, 0, 0], [4, 0, 0], [0, 2, 1]], float)
    found = mesh.normalised(mesh.Mesh(verts, np.array([[0, 1, 2]]), None, verts))
    np.testing.assert_allclose(
        found.verts, [[-0.5, -0.25, -0.125], [0.5, -0.25, -0.125], [-0.5, 0.25, 0.125]]
    )
    np.testing.assert_array_equal(found.source, found.verts)


def test_vertex_normals_of_a_sphere_are_its_radii() -> None:
    ball = trimesh.creation.icosphere(3)
    normals = mesh.vertex_normals(np.array(ball.vertices), np.array(ball.faces))
    np.testing.assert_allclose(normals, ball.vertices, atol=0.02)


BAD = {
    "missing.obj": None,
    "folder": None,
    "empty.obj": "",
    "words.obj": "hello\n",
    "points.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\n",
    "nan.obj": "v 0 0 nan\nv 1 0 0\nv 0 1 0\nf 1 2 3\n",
    "beyond.obj": "v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n",
    "flat.obj": "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n",
    "noise.glb": "not a glb at all, only words",
    "noise.ply": "ply\nformat ascii 1.0\nelement vertex 3\n",
    "beyond.ply": "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\n"
    "property float z\nelement face 1\n"
    "property list uchar int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n",
    "points.ply": (
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\n"
        "property float z\nend_header\n0 0 0\n"
    ),
    "noise.stl": "\0\1\2\3",
    "noise.off": "OFF\nx y z\n",
    "notes.txt": "no mesh",
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_an_input_error_that_names_the_file_and_a_next_step(tmp_path: Path, name: str) -> None:
    if BAD[name] is not None:
        (tmp_path / name).write_text(BAD[name])
    with pytest.raises(InputError) as caught:
        mesh.clean(read_mesh(tmp_path / name), name)
    assert name in caught.value.message and caught.value.hint
    assert "\n" not in caught.value.message
