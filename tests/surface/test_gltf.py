"""glTF as exporters and packers write it: skins, morphs, sparse and packed numbers, compression, names."""

from __future__ import annotations

import json
import logging
import time
import tracemalloc
from pathlib import Path
from typing import Any

import DracoPy
import numpy as np
import pytest
import trimesh
from gltf_files import File
from scipy.spatial.transform import Rotation

from shic_cli.base.errors import InputError
from shic_cli.surface.mesh_file import read_mesh


def box(size: tuple[float, float, float], middle: tuple[float, float, float]) -> trimesh.Trimesh:
    return trimesh.creation.box(size).apply_translation(middle)


def bounds(verts: np.ndarray) -> np.ndarray:
    return np.stack([verts.min(0), verts.max(0)])


BODY, TAIL = box((1, 2, 4), (0, 3, 0)), box((0.2, 1.5, 0.2), (0, 2.5, -2.2))


def skinned(file: File, shape: trimesh.Trimesh, space: np.ndarray, own: list[float]) -> None:
    """Add `shape`, its vertices in a `space` of its own, from which its joint's inverse matrix leads to the
    world, and a node turned by `own`, which must not matter.
    """
    local = shape.copy().apply_transform(np.linalg.inv(space))
    joints, weights = np.zeros((len(local.vertices), 4), "u1"), np.zeros((len(local.vertices), 4), "f4")
    weights[:, 0] = 1
    number = len(file.tree["nodes"])
    stands = trimesh.transformations.translation_matrix([0, 1, 2])
    file.tree["nodes"] += [
        {"mesh": len(file.tree["meshes"]), "skin": len(file.tree.setdefault("skins", [])), "rotation": own},
        {"translation": [0, 1, 2]},
    ]
    inverse = np.array(np.linalg.inv(stands) @ space, "f4").T.reshape(1, 16)
    file.tree["skins"].append({"joints": [number + 1], "inverseBindMatrices": file.add(inverse)})
    part = file.primitive(local, JOINTS_0=file.add(joints), WEIGHTS_0=file.add(weights))
    file.tree["meshes"].append({"primitives": [part]})


def test_parts_skinned_in_spaces_of_their_own_stand_together(tmp_path: Path) -> None:
    file = File()
    over = trimesh.transformations.rotation_matrix(np.pi, [1, 0, 0])
    skinned(file, BODY, over, [1.0, 0, 0, 0])
    skinned(file, TAIL, 0.01 * np.eye(4) + np.diag([0, 0, 0, 0.99]), [0, 0, 0.7071068, 0.7071068])
    file.tree["scenes"][0]["nodes"] = list(range(4))
    found = read_mesh(file.save(tmp_path / "horse.glb"))
    np.testing.assert_allclose(bounds(found.verts[:8]), BODY.bounds, atol=1e-5)
    np.testing.assert_allclose(bounds(found.verts[8:]), TAIL.bounds, atol=1e-5)


def test_a_vertex_between_two_joints_goes_with_both_by_weight(tmp_path: Path) -> None:
    file = File()
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], "f4")
    weights = np.array([[255, 0, 0, 0], [51, 204, 0, 0], [0, 0, 0, 0]], "u1")
    joints = np.tile(np.array([[0, 1, 0, 0]], "u2"), (3, 1))
    attributes = {
        "POSITION": file.add(points),
        "JOINTS_0": file.add(joints),
        "WEIGHTS_0": file.add(weights, normalized=True),
    }
    joint_nodes = [{"scale": [2, 2, 2]}, {"translation": [0, 0, 5]}]
    file.tree["nodes"] = [{"mesh": 0, "skin": 0, "children": [1, 2]}, *joint_nodes]
    file.tree["meshes"] = [{"primitives": [{"attributes": attributes}]}]
    file.tree["skins"] = [{"joints": [1, 2]}]
    found = read_mesh(file.save(tmp_path / "x.gltf"))
    # the second: 0.2 of twice its place, 0.8 of its place moved by 5; the third has none: the first joint
    np.testing.assert_allclose(found.verts, [[0, 0, 0], [1.2, 0, 4], [0, 2, 0]], atol=1e-6)


def test_morph_weights_move_the_vertices_the_node_s_before_the_mesh_s(tmp_path: Path) -> None:
    file = File()
    part = file.primitive(BODY)
    shift = np.tile(np.array([[0, 0, 1]], "f4"), (8, 1))
    part["targets"] = [{"POSITION": file.add(shift)}, {"NORMAL": file.add(shift)}]
    file.tree["nodes"] = [{"mesh": 0, "weights": [3.0, 9.0]}, {"mesh": 0}]
    file.tree["meshes"] = [{"primitives": [part], "weights": [0.5, 0.0]}]
    file.tree["scenes"][0]["nodes"] = [0, 1]
    found = read_mesh(file.save(tmp_path / "x.glb"))
    np.testing.assert_allclose(found.verts[:8], BODY.vertices + np.array([0, 0, 3]), atol=1e-6)
    np.testing.assert_allclose(found.verts[8:], BODY.vertices + np.array([0, 0, 0.5]), atol=1e-6)


@pytest.mark.parametrize("base", [True, False])
def test_sparse_accessors_put_their_values_in(tmp_path: Path, base: bool) -> None:
    file = File()
    part = file.primitive(BODY)
    accessor = file.tree["accessors"][part["attributes"]["POSITION"]]
    low = np.flatnonzero(BODY.vertices[:, 1] < 3).astype("u2")
    accessor["sparse"] = {
        "count": len(low),
        "indices": {"bufferView": file.view(low.tobytes()), "componentType": 5123},
        "values": {"bufferView": file.view(np.array(BODY.vertices[low] - [0, 2, 0], "f4").tobytes())},
    }
    expected = np.array(BODY.vertices)
    if not base:
        del accessor["bufferView"]
        expected[:] = 0
    expected[low] = BODY.vertices[low] - [0, 2, 0]
    file.tree["nodes"], file.tree["meshes"] = [{"mesh": 0}], [{"primitives": [part]}]
    np.testing.assert_allclose(read_mesh(file.save(tmp_path / "x.glb")).verts, expected, atol=1e-6)


@pytest.mark.parametrize("kind, most", [("i1", 127), ("u1", 255), ("i2", 32767), ("u2", 65535)])
@pytest.mark.parametrize("normalized", [True, False])
def test_integers_are_places_and_normalised_ones_shares(
    tmp_path: Path, kind: str, most: int, normalized: bool
) -> None:
    file = File()
    corners = np.array([[0, 0, 0, 0], [most, 0, 0, 0], [0, most // 5, 0, 0]], kind)  # padded to whole words
    place = file.add(corners, normalized=normalized, type="VEC3")
    width = 4 * np.dtype(kind).itemsize
    file.tree["bufferViews"][0]["byteStride"] = width
    file.tree["nodes"] = [{"mesh": 0, "scale": [2, 2, 2]}]
    file.tree["meshes"] = [{"primitives": [{"attributes": {"POSITION": place}}]}]
    found = read_mesh(file.save(tmp_path / "x.glb"))
    size = 1 if normalized else most
    expected = 2 * np.array([[0, 0, 0], [size, 0, 0], [0, most // 5 * size / most, 0]])
    np.testing.assert_allclose(found.verts, expected, rtol=1e-6)


def test_the_least_normalised_integer_is_minus_one(tmp_path: Path) -> None:
    file = File()
    place = file.add(np.array([[-128, 0, 0], [127, 0, 0], [0, 127, 0]], "i1"), normalized=True)
    file.tree["nodes"] = [{"mesh": 0}]
    file.tree["meshes"] = [{"primitives": [{"attributes": {"POSITION": place}}]}]
    np.testing.assert_allclose(
        read_mesh(file.save(tmp_path / "x.glb")).verts, [[-1, 0, 0], [1, 0, 0], [0, 1, 0]]
    )


@pytest.mark.parametrize("written", ["my%20h%C3%B6rse.bin", "my hörse.bin"])
def test_buffer_names_are_percent_encoded_or_not(tmp_path: Path, written: str) -> None:
    file = File()
    file.tree["nodes"], file.tree["meshes"] = [{"mesh": 0}], [{"primitives": [file.primitive(BODY)]}]
    tree = {**file.tree, "buffers": [{"byteLength": len(file.buffer), "uri": written}]}
    (tmp_path / "x.gltf").write_text(json.dumps(tree))
    (tmp_path / "my hörse.bin").write_bytes(file.buffer)
    assert len(read_mesh(tmp_path / "x.gltf").faces) == 12
    (tmp_path / "my hörse.bin").unlink()
    with pytest.raises(InputError, match=r"its buffer my hörse\.bin is not there"):
        read_mesh(tmp_path / "x.gltf")


def test_draco_is_decoded(tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(2)
    packed = DracoPy.encode(np.array(ball.vertices, "f4"), np.array(ball.faces, "u4"), quantization_bits=14)
    file = File()
    part = file.primitive(ball)
    for number in part["attributes"]["POSITION"], part["indices"]:
        del file.tree["accessors"][number]["bufferView"]
    extension = {"bufferView": file.view(packed), "attributes": {"POSITION": 0}}
    part["extensions"] = {"KHR_draco_mesh_compression": extension}
    file.tree["nodes"] = [{"mesh": 0, "translation": [0, 7, 0]}]
    file.tree["meshes"] = [{"primitives": [part]}]
    found = read_mesh(file.save(tmp_path / "x.glb"))
    assert len(found.faces) == 320
    np.testing.assert_allclose(np.linalg.norm(found.verts - [0, 7, 0], axis=1), 1, atol=1e-3)


@pytest.mark.parametrize("name", ["EXT_meshopt_compression", "KHR_meshopt_compression"])
def test_meshopt_is_refused_by_name_with_the_way_out(tmp_path: Path, name: str) -> None:
    file = File()
    part = file.primitive(BODY)
    file.tree["bufferViews"][0]["extensions"] = {name: {"buffer": 0}}
    file.tree["nodes"], file.tree["meshes"] = [{"mesh": 0}], [{"primitives": [part]}]
    with pytest.raises(InputError, match=name) as caught:
        read_mesh(file.save(tmp_path / "x.glb"))
    assert "gltfpack -noq -i x.glb" in caught.value.hint


def test_strips_and_fans_are_triangles_with_one_winding(tmp_path: Path) -> None:
    file = File()
    square = file.add(np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], "f4"))
    strip, fan = file.add(np.array([0, 1, 2, 3], "u1")), file.add(np.array([0, 1, 3, 2], "u1"))
    file.tree["nodes"], parts = [{"mesh": 0}], []
    for mode, order in ((5, strip), (6, fan)):
        parts.append({"attributes": {"POSITION": square}, "indices": order, "mode": mode})
    file.tree["meshes"] = [{"primitives": [*parts, {"attributes": {"POSITION": square}, "mode": 0}]}]
    found = read_mesh(file.save(tmp_path / "x.glb"))
    a, b, c = found.verts[found.faces].swapaxes(0, 1)
    np.testing.assert_allclose(np.cross(b - a, c - a), np.tile([0, 0, 1], (4, 1)))


def test_a_required_extension_that_changes_shapes_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = File()
    file.tree["nodes"], file.tree["meshes"] = [{"mesh": 0}], [{"primitives": [file.primitive(BODY)]}]
    file.tree["extensionsRequired"] = ["KHR_materials_unlit", "EXT_mesh_gpu_instancing"]
    read_mesh(file.save(tmp_path / "x.glb"))
    assert "x.glb: uses EXT_mesh_gpu_instancing, which is not read" in caplog.text


def test_a_node_turned_scaled_and_moved_stands_by_the_specification(tmp_path: Path) -> None:
    file = File()
    turn = Rotation.from_euler("yx", [40, 20], degrees=True)
    file.tree["nodes"] = [
        {"children": [1], "matrix": np.diag([3.0, 3, 3, 1]).T.reshape(-1).tolist()},
        {"mesh": 0, "translation": [1, 2, 3], "rotation": turn.as_quat().tolist(), "scale": [1, 2, 1]},
    ]
    file.tree["meshes"] = [{"primitives": [file.primitive(BODY)]}]
    expected = 3 * (turn.apply(BODY.vertices * [1, 2, 1]) + np.array([1, 2, 3]))
    np.testing.assert_allclose(read_mesh(file.save(tmp_path / "x.glb")).verts, expected, atol=1e-5)


BROKEN = {
    "a circle of nodes": lambda tree: tree["nodes"].extend([{"children": [2]}, {"children": [1]}]),
    "a node twice": lambda tree: tree["scenes"][0].update(nodes=[0, 0]),
    "an accessor beyond its buffer": lambda tree: tree["accessors"][0].update(count=10**6),
    "a negative count": lambda tree: tree["accessors"][0].update(count=-1),
    "rows that overlap": lambda tree: tree["bufferViews"][0].update(byteStride=1),
    "a face beyond the vertices": lambda tree: tree["accessors"][0].update(count=3),
    "another version": lambda tree: tree["asset"].update(version="1.0"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_files_are_an_input_error(tmp_path: Path, what: str) -> None:
    file = File()
    file.tree["nodes"], file.tree["meshes"] = [{"mesh": 0}], [{"primitives": [file.primitive(BODY)]}]
    BROKEN[what](file.tree)
    with pytest.raises(InputError, match=r"x\.glb") as caught:
        read_mesh(file.save(tmp_path / "x.glb"))
    assert caught.value.hint and "\n" not in caught.value.message


def memory_of(path: Path) -> int:
    """The most bytes that reading `path`, which must be refused, takes at once."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="more than is read of a file of"):
            read_mesh(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("field", ["POSITION", "target", "shown often"])
def test_memory_is_in_proportion_to_the_file(tmp_path: Path, field: str) -> None:
    file = File()
    part = file.primitive(trimesh.creation.icosphere(3))
    mesh: dict[str, Any] = {"primitives": [part]}
    file.tree["nodes"], file.tree["meshes"] = [{"mesh": 0}], [mesh]
    if field == "shown often":
        file.tree["nodes"] = [{"mesh": 0} for _ in range(3000)]
        file.tree["scenes"][0]["nodes"] = list(range(3000))
    else:
        many = {"componentType": 5126, "count": 200_000_000, "type": "VEC3"}
        file.tree["accessors"].append(many)
        if field == "POSITION":
            part["attributes"]["POSITION"] = len(file.tree["accessors"]) - 1
        else:
            mesh["weights"], part["targets"] = [1.0], [{"POSITION": len(file.tree["accessors"]) - 1}]
    assert memory_of(file.save(tmp_path / "x.glb")) < 200e6


@pytest.mark.parametrize("what", ["primitives", "nodes", "chain"])
def test_time_is_in_proportion_to_the_file(tmp_path: Path, what: str) -> None:
    file = File()
    part = file.primitive(trimesh.creation.box())
    count = 20_000
    file.tree["meshes"] = [{"primitives": [part] * (count if what == "primitives" else 1)}]
    if what == "primitives":
        file.tree["nodes"] = [{"mesh": 0}]
    elif what == "nodes":
        file.tree["nodes"] = [{"mesh": 0, "translation": [i, 0, 0]} for i in range(count)]
        file.tree["scenes"][0]["nodes"] = list(range(count))
    else:
        file.tree["nodes"] = [{"mesh": 0, "children": [i + 1]} for i in range(count)] + [{}]
    path = file.save(tmp_path / "x.glb")
    begun = time.process_time()
    assert len(read_mesh(path).faces) == 12 * count
    assert time.process_time() - begun < 12  # 2 where it is measured; 60,000 took minutes


def test_points_and_lines_that_are_left_out_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = File()
    part = file.primitive(BODY)
    file.tree["nodes"], file.tree["meshes"] = [{"mesh": 0}], [{"primitives": [part, {**part, "mode": 1}]}]
    with caplog.at_level(logging.INFO, "shic"):
        assert len(read_mesh(file.save(tmp_path / "x.glb")).faces) == 12
    assert "x.glb: left out 1 parts of points or lines" in caplog.text
