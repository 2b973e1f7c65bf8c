"""examples/rigged.py: a glTF animal's rest pose, its poses by linear blend skinning, and pictures whose
annotations are exact.
"""

from __future__ import annotations

import importlib
import json
import struct
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from shic_cli.base.settings import MasksConfig
from shic_cli.files.annotations import read_annotations
from shic_cli.files.mask_sources import MaskSource
from shic_cli.files.photo_lists import list_images
from shic_cli.surface.mesh_file import read_mesh

SCALE = 100.0  # of the mesh's own units


@pytest.fixture
def rigged(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "examples")
    monkeypatch.delitem(sys.modules, "rigged", raising=False)
    return importlib.import_module("rigged")


@pytest.fixture
def beast(tmp_path: Path) -> Path:
    """A bar along z, halves of two colours, whose front half (z > 0) a joint lifts by 90 degrees in its one
    clip that is not its death.
    """
    bar = trimesh.creation.box((0.4, 0.6, 2.0)).subdivide().subdivide()
    front = bar.triangles_center[:, 2] > 0
    data, views, accessors = b"", [], []

    def put(array: np.ndarray, kind: str, component: int) -> int:
        nonlocal data
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": array.nbytes})
        accessors.append(
            {"bufferView": len(views) - 1, "componentType": component, "count": len(array), "type": kind}
        )
        data += array.tobytes()
        return len(accessors) - 1

    primitives = []
    for material, chosen in enumerate(
        (front, ~front)
    ):  # each with vertices of its own, as exporters write them
        verts = (bar.triangles[chosen].reshape(-1, 3) / SCALE).astype("f4")
        joints = np.zeros((len(verts), 4), "u1")
        joints[:, 0] = verts[:, 2] > 1e-6
        weights = np.tile([1, 0, 0, 0], (len(verts), 1)).astype("f4")
        attributes = {
            "POSITION": put(verts, "VEC3", 5126),
            "JOINTS_0": put(joints, "VEC4", 5121),
            "WEIGHTS_0": put(weights, "VEC4", 5126),
        }
        indices = put(np.arange(len(verts), dtype="u2"), "SCALAR", 5123)
        primitives.append({"attributes": attributes, "indices": indices, "material": material})
    inverse = np.tile(np.diag([SCALE, SCALE, SCALE, 1]).astype("f4").T.reshape(1, 16), (2, 1))
    turns = np.array([[0, 0, 0, 1], Rotation.from_euler("x", -90, degrees=True).as_quat()], "f4")
    sampler = {"input": put(np.array([0, 2], "f4"), "SCALAR", 5126), "output": put(turns, "VEC4", 5126)}
    channel = {"sampler": 0, "target": {"node": 1, "path": "rotation"}}
    colors = [
        {"pbrMetallicRoughness": {"baseColorFactor": [*color, 1]}} for color in ((0.8, 0, 0), (0, 0, 0.8))
    ]
    gltf = {
        "nodes": [{"children": [1]}, {}, {"mesh": 0, "skin": 0, "scale": [SCALE] * 3}],
        "meshes": [{"primitives": primitives}],
        "materials": colors,
        "skins": [{"joints": [0, 1], "inverseBindMatrices": put(inverse, "MAT4", 5126)}],
        "animations": [
            {"name": "Death", "channels": [], "samplers": []},
            {"name": "Lift", "channels": [channel], "samplers": [sampler]},
        ],
        "bufferViews": views,
        "accessors": accessors,
        "buffers": [{"byteLength": len(data)}],
    }
    text = json.dumps(gltf).encode()
    text += b" " * (-len(text) % 4)
    chunks = (
        struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(data), 0x004E4942) + data
    )
    (tmp_path / "Beast.glb").write_bytes(b"glTF" + struct.pack("<II", 2, 12 + len(chunks)) + chunks)
    return tmp_path / "Beast.glb"


def test_the_rest_pose_is_one_surface(rigged: ModuleType, beast: Path) -> None:
    rig = rigged.Rig.read(beast, 100)
    surface = trimesh.Trimesh(rig.verts, rig.faces, process=False)
    assert (
        surface.is_watertight
        and surface.volume == pytest.approx(0.4 * 0.6 * 2, rel=1e-4)
        and len(rig.verts) >= 100
    )
    front = rig.verts[rig.faces].mean(1)[:, 2] > 0
    assert np.array_equal(rig.color[front], np.tile(np.float32([0.8, 0, 0]), (front.sum(), 1)))


def test_a_pose_is_the_clips(rigged: ModuleType, beast: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rigged, "TURN", 0)
    rig, rng = rigged.Rig.read(beast, 1), np.random.default_rng(5)
    rng.integers(1)  # what picks the clip
    angle = -90 * rng.random()
    expected, front = rig.verts.copy(), rig.verts[:, 2] > 1e-4
    expected[front] = Rotation.from_euler("x", angle, degrees=True).apply(expected[front])
    expected -= (expected.min(0) + expected.max(0)) / 2
    assert np.abs(rig.pose(np.random.default_rng(5)) - expected / 2).max() < 1e-5


def test_its_pictures_are_a_class_of_the_data_set(
    rigged: ModuleType, beast: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = [
        "rigged.py",
        str(beast),
        "-o",
        str(tmp_path / "rigged"),
        "--train",
        "1",
        "--val",
        "3",
        "--vertices",
        "100",
    ]
    monkeypatch.setattr(sys, "argv", line)
    rigged.main()
    folder = tmp_path / "rigged/beast"
    mesh, photos = read_mesh(folder / "beast.obj"), list_images([str(folder / "val/images")])
    assert (
        len(photos) == 3
        and len(list((folder / "train/masks").iterdir())) == 1
        and not (folder / "train/annotations.json").exists()
    )
    points = {each.name: each for each in read_annotations(folder / "val/annotations.json")}
    for image in photos:
        photo, found = (
            MaskSource(MasksConfig(masks=str(folder / "val/masks"))).read(image),
            points[image.name],
        )
        rows, columns = np.floor(found.yx).astype(int).T
        assert photo.mask[rows, columns].all() and found.vertex.max() < len(mesh.verts)
        shown = photo.rgb[rows, columns].astype(int)
        sure = np.abs(mesh.verts[found.vertex, 2]) > 0.1 * np.ptp(mesh.verts[:, 2])
        assert np.array_equal(
            (shown[:, 0] > shown[:, 2])[sure], (mesh.verts[found.vertex, 2] > 0)[sure]
        )  # red in front, blue behind


def test_what_is_no_rigged_animal_is_refused(rigged: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.glb").write_bytes(b"solid")
    with pytest.raises(SystemExit, match=r"a\.glb: is not glTF"):
        rigged.Rig.read(tmp_path / "a.glb", 1)
