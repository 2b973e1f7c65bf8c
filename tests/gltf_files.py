"""Small glTF files, built array by array."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

NUMBERS = {"i1": 5120, "u1": 5121, "i2": 5122, "u2": 5123, "u4": 5125, "f4": 5126}
NAMES = {np.dtype(kind): number for kind, number in NUMBERS.items()}
SHAPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}


class File:
    """A glTF tree and its buffer, to which arrays are added."""

    def __init__(self) -> None:
        self.buffer = b""
        self.tree: dict[str, Any] = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [], "meshes": [],
            "accessors": [], "bufferViews": [],
        }  # fmt: skip

    def view(self, data: bytes) -> int:
        self.buffer += b"\0" * (-len(self.buffer) % 4)
        self.tree["bufferViews"].append(
            {"buffer": 0, "byteOffset": len(self.buffer), "byteLength": len(data)}
        )
        self.buffer += data
        return len(self.tree["bufferViews"]) - 1

    def add(self, array: np.ndarray, **more: Any) -> int:
        width = int(np.prod(array.shape[1:]))
        view = self.view(array.tobytes())
        self.tree["accessors"].append(
            {
                "bufferView": view,
                "componentType": NAMES[array.dtype],
                "count": len(array),
                "type": SHAPES[width],
                **more,
            }
        )
        return len(self.tree["accessors"]) - 1

    def primitive(self, shape: trimesh.Trimesh, **attributes: int) -> dict[str, Any]:
        return {
            "attributes": {"POSITION": self.add(np.array(shape.vertices, "f4")), **attributes},
            "indices": self.add(np.array(shape.faces, "u2").reshape(-1)),
        }

    def save(self, path: Path) -> Path:
        tree = {**self.tree, "buffers": [{"byteLength": len(self.buffer)}]}
        if path.suffix == ".gltf":
            uri = "data:application/octet-stream;base64," + base64.b64encode(self.buffer).decode()
            tree["buffers"][0]["uri"] = uri
            path.write_text(json.dumps(tree))
            return path
        text = json.dumps(tree).encode()
        text += b" " * (-len(text) % 4)
        data = self.buffer + b"\0" * (-len(self.buffer) % 4)
        chunks = (
            struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(data), b"BIN\0") + data
        )
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
        return path


def rich() -> File:
    """A ball held by two joints, with a morph target, a sparse accessor and normalised weights."""
    ball, file = trimesh.creation.icosphere(1), File()
    count = len(ball.vertices)
    joints, weights = np.tile(np.array([[0, 1, 0, 0]], "u1"), (count, 1)), np.zeros((count, 4), "u1")
    weights[:, 0], weights[:, 1] = 200, 55
    part = file.primitive(ball, JOINTS_0=file.add(joints), WEIGHTS_0=file.add(weights, normalized=True))
    part["targets"] = [{"POSITION": file.add(np.full((count, 3), 0.1, "f4"))}]
    file.tree["accessors"][part["attributes"]["POSITION"]]["sparse"] = {
        "count": 1,
        "indices": {"bufferView": file.view(b"\1\0"), "componentType": 5123},
        "values": {"bufferView": file.view(np.array([0, 0, 1.5], "f4").tobytes())},
    }
    inverse = file.add(np.tile(np.eye(4, dtype="f4").reshape(1, 16), (2, 1)))
    file.tree["meshes"] = [{"primitives": [part], "weights": [0.5]}]
    file.tree["skins"] = [{"joints": [1, 2], "inverseBindMatrices": inverse}]
    file.tree["nodes"] = [
        {"mesh": 0, "skin": 0, "children": [1]},
        {"children": [2], "translation": [0, 1, 0]},
        {},
    ]
    return file
