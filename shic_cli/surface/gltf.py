"""glTF 2.0, its geometry alone: every part of the scene as it stands at rest, with skins and morph weights
applied. The specification's sections are named where they decide.

V vertices, F faces, J joints, N nodes of a file.
"""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
from scipy.spatial.transform import Rotation

from shic_cli.base.errors import InputError
from shic_cli.base.packages import needed
from shic_cli.surface.allowance import Allowance

log = logging.getLogger("shic")

TYPES = {5120: np.int8, 5121: np.uint8, 5122: np.int16, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
TRIANGLES, STRIP, FAN = 4, 5, 6
DRACO = "KHR_draco_mesh_compression"
MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
# what a file may require and a reader of shapes may leave out: looks, light and names
LOOKS = (
    "KHR_materials",
    "KHR_texture",
    "KHR_lights",
    "KHR_xmp",
    "KHR_animation",
    "EXT_texture",
    "EXT_lights",
)
READ = (DRACO, *MESHOPT, "KHR_mesh_quantization")


class Gltf:
    """The JSON tree and the buffers of a .glb or .gltf file; InputError or ValueError if it is none."""

    def __init__(self, path: Path) -> None:
        data = path.read_bytes()
        self.path, self.binary = path, b""
        if data[:4] == b"glTF":
            text, self.binary = _chunks(data)
        elif path.suffix.lower() == ".glb":
            raise ValueError("it does not begin as a glb file does")
        else:
            text = data
        self.tree: dict[str, Any] = json.loads(text.decode("utf-8-sig"))
        self.inside: dict[int, bytes] = {}
        self.files: dict[Path, bytes] = {}
        for number in range(len(self.items("buffers"))):
            self.buffer(number)
        self.allowance = Allowance(len(data) + sum(map(len, self.files.values())))
        if not str(self.tree.get("asset", {}).get("version", "2")).startswith("2"):
            raise InputError(f"{path}: is glTF {self.tree['asset']['version']}", "export it as glTF 2.0")
        self._check_extensions()

    def items(self, name: str) -> list[dict[str, Any]]:
        """The objects in the tree's list `name`; none where there is no such list."""
        return self.tree.get(name, [])

    def _check_extensions(self) -> None:
        others = [
            name for name in self.tree.get("extensionsRequired", []) if not name.startswith((*LOOKS, *READ))
        ]
        if others:
            log.warning(
                "%s: uses %s, which is not read; look at the picture", self.path.name, ", ".join(others)
            )

    def buffer(self, index: int) -> bytes:
        """The bytes of a buffer: of the file itself, of a data address, or of a file in the same folder or
        below.
        """
        uri = self.items("buffers")[index].get("uri")
        if uri is None:
            return self.binary
        if not uri.startswith("data:"):
            return self._beside(uri)
        if index not in self.inside:
            head, _, body = uri.partition(",")
            encoded = head.endswith("base64")
            self.inside[index] = base64.b64decode(body) if encoded else unquote_to_bytes(body)
        return self.inside[index]

    def _beside(self, uri: str) -> bytes:
        folder = self.path.parent.resolve()
        for name in (unquote(uri), uri):  # names are percent-encoded (3.6.1.1); some exporters forget to
            path = (folder / name).resolve()
            if not path.is_relative_to(folder):
                raise ValueError(f"it names {name}, which is not below its folder")
            if path.is_file():
                if path not in self.files:
                    self.files[path] = path.read_bytes()
                return self.files[path]
        raise InputError(
            f"{self.path}: its buffer {unquote(uri)} is not there",
            "keep it beside the file, or export a .glb",
        )

    def view(self, index: int) -> memoryview:
        """The bytes of a buffer view; InputError if they are compressed by meshopt."""
        view = self.items("bufferViews")[index]
        used = [name for name in MESHOPT if name in view.get("extensions", {})]
        if used:
            raise InputError(
                f"{self.path}: is compressed with {used[0]}, which is not read",
                f"undo it: gltfpack -noq -i {self.path.name} -o plain.glb; or export it without compression",
            )
        start = view.get("byteOffset", 0)
        data = memoryview(self.buffer(view["buffer"]))[start : start + view["byteLength"]]
        if start < 0 or len(data) < view["byteLength"]:
            raise ValueError("a buffer is shorter than the file says")
        return data

    def array(self, index: int) -> np.ndarray:
        """Accessor `index` as `(count, width)` f8, shares of normalised integers (3.6.2.2) among them."""
        accessor = self.items("accessors")[index]
        kind, width, count = TYPES[accessor["componentType"]], WIDTHS[accessor["type"]], accessor["count"]
        if "bufferView" in accessor:
            rows = self._rows(accessor["bufferView"], accessor.get("byteOffset", 0), count, width, kind)
            values = rows.astype(float)
        else:
            self.allowance.take(count * width // 3 + 1)
            values = np.zeros((count, width))
        if "sparse" in accessor:
            few = accessor["sparse"]
            place, put = few["indices"], few["values"]
            rows = self._rows(
                place["bufferView"],
                place.get("byteOffset", 0),
                few["count"],
                1,
                TYPES[place["componentType"]],
            )
            values[rows[:, 0]] = self._rows(
                put["bufferView"], put.get("byteOffset", 0), few["count"], width, kind
            )
        if accessor.get("normalized") and np.issubdtype(kind, np.integer):
            values = np.maximum(values / np.iinfo(kind).max, -1)
        return values

    def _rows(self, view: int, offset: int, count: int, width: int, kind: type) -> np.ndarray:
        """`(count, width)` numbers of a buffer view, from its byte `offset` on."""
        row = width * np.dtype(kind).itemsize
        step = self.items("bufferViews")[view].get("byteStride", row)
        if step < row:
            raise ValueError("rows of a buffer overlap")
        return np.ndarray((count, width), kind, self.view(view), offset, (step, np.dtype(kind).itemsize))


def _chunks(data: bytes) -> tuple[bytes, bytes]:
    """The JSON and the binary chunk of a .glb file (4.4)."""
    if int.from_bytes(data[4:8], "little") != 2:
        raise ValueError("it is glTF of another version; export it as glTF 2.0")
    text, binary, at = b"", b"", 12
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "little"), data[at + 4 : at + 8]
        chunk = data[at + 8 : at + 8 + length]
        if len(chunk) < length:
            raise ValueError("it ends too early")
        text, binary = (chunk, binary) if kind == b"JSON" else (text, chunk if kind == b"BIN\0" else binary)
        at += 8 + length
    return text, binary


def read_gltf(path: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """The vertices `(V, 3)` and faces `(F, 3)` of every part of the file's scene, each where it stands at
    rest.

    A skinned part is placed by its joints alone, whatever its own node says (3.7.3.1). Points and lines are
    left out, which is logged. Raises InputError, and what Python raises over a file that is broken.
    """
    gltf = Gltf(path)
    worlds = node_matrices(gltf.items("nodes"))
    parts, meshes, left_out = [], {}, 0
    for number in _shown(gltf):
        node = gltf.items("nodes")[number]
        if "mesh" not in node:
            continue
        weights = tuple(node.get("weights") or gltf.items("meshes")[node["mesh"]].get("weights") or ())
        joints = _joint_matrices(gltf, node["skin"], worlds) if "skin" in node else None
        for index, primitive in enumerate(gltf.items("meshes")[node["mesh"]]["primitives"]):
            if primitive.get("mode", TRIANGLES) not in (TRIANGLES, STRIP, FAN):
                left_out += 1
                continue
            key = (node["mesh"], index, weights)
            if key not in meshes:
                meshes[key] = _primitive(gltf, primitive, weights)
            verts, faces, binding = meshes[key]
            gltf.allowance.take(len(verts))
            gltf.allowance.take(len(faces), "faces")
            if joints is None or binding is None:
                parts.append((_moved(verts, worlds[number]), faces))
            else:
                parts.append((skinned(verts, binding[0], binding[1], joints), faces))
    if left_out:
        log.info("%s: left out %d parts of points or lines", path.name, left_out)
    return parts


def node_matrices(nodes: list[dict[str, Any]]) -> np.ndarray:
    """`(N, 4, 4)`: the matrix of each of a file's nodes from its own space to the world (3.5.2).

    Level by level from the roots, so that long chains and wide trees take the time of their length.
    ValueError if nodes hang on each other in a circle.
    """
    worlds, parent = _locals(nodes), np.full(len(nodes), -1)
    for number, node in enumerate(nodes):
        parent[node.get("children", [])] = number
    level, reached = np.flatnonzero(parent < 0), 0
    while len(level) and reached <= len(nodes):
        below = parent[level] >= 0
        worlds[level[below]] = worlds[parent[level[below]]] @ worlds[level[below]]
        reached += len(level)
        level = np.array([child for i in level for child in nodes[i].get("children", [])], int)
    if reached != len(nodes):
        raise ValueError("its nodes hang on each other in a circle")
    return worlds


def _shown(gltf: Gltf) -> list[int]:
    """The nodes that the file's scene shows, in its order; all of them where it has no scene."""
    nodes, scenes = gltf.items("nodes"), gltf.items("scenes")
    if not scenes:
        return list(range(len(nodes)))
    todo = list(reversed(scenes[gltf.tree.get("scene", 0)].get("nodes", [])))
    shown = []
    while todo:
        shown.append(int(todo.pop()))
        todo.extend(reversed(nodes[shown[-1]].get("children", [])))
        if len(shown) > len(nodes):
            raise ValueError("its scene shows a node twice")
    return shown


def _locals(nodes: list[dict[str, Any]]) -> np.ndarray:
    """`(N, 4, 4)`: the matrix of each node from its own to its parent's space (3.5.2)."""
    matrices = np.tile(np.eye(4), (len(nodes), 1, 1))
    if not nodes:
        return matrices
    turns = Rotation.from_quat([node.get("rotation", (0, 0, 0, 1)) for node in nodes]).as_matrix()
    sizes = np.array([node.get("scale", (1, 1, 1)) for node in nodes], float)
    matrices[:, :3, :3] = turns * sizes[:, None]
    matrices[:, :3, 3] = [node.get("translation", (0, 0, 0)) for node in nodes]
    for number, node in enumerate(nodes):
        if "matrix" in node:
            matrices[number] = np.reshape(node["matrix"], (4, 4)).T
    return matrices


def _joint_matrices(gltf: Gltf, skin: int, worlds: np.ndarray) -> np.ndarray:
    """`(J, 4, 4)`: from the skinned mesh to the world, as each joint of `skin` takes it (3.7.3.2)."""
    described = gltf.items("skins")[skin]
    matrices = worlds[described["joints"]]
    if "inverseBindMatrices" not in described:
        return matrices
    inverse = gltf.array(described["inverseBindMatrices"])[: len(matrices)]
    return matrices @ inverse.reshape(-1, 4, 4).transpose(0, 2, 1)


Binding = tuple[np.ndarray, np.ndarray]  # joints (V, B) and their weights (V, B)


def _primitive(
    gltf: Gltf, primitive: dict[str, Any], weights: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray, Binding | None]:
    """Vertices `(V, 3)` in their mesh's space, morphed by `weights`, faces `(F, 3)`, and how joints hold the
    vertices.
    """
    attributes = _attributes(gltf, primitive)
    verts = attributes("POSITION")
    for target, weight in zip(primitive.get("targets", []), weights, strict=False):
        if weight and "POSITION" in target:
            verts = verts + weight * gltf.array(target["POSITION"])
    order = attributes("indices")
    order = np.arange(len(verts)) if order is None else order.reshape(-1).astype(np.int64)
    faces = _faces(order, primitive.get("mode", TRIANGLES))
    held = []
    while (joints := attributes(f"JOINTS_{len(held)}")) is not None:
        held.append((joints.astype(np.int64), attributes(f"WEIGHTS_{len(held)}")))
    binding = (np.hstack([pair[0] for pair in held]), np.hstack([pair[1] for pair in held])) if held else None
    return verts, faces, binding


def _attributes(gltf: Gltf, primitive: dict[str, Any]) -> Any:
    """The function that gives a primitive's attribute by its name, or its `indices`, None if it has none."""
    packed = primitive.get("extensions", {}).get(DRACO)
    numbers = {**primitive["attributes"]}
    if "indices" in primitive:
        numbers["indices"] = primitive["indices"]
    known = _draco(gltf, packed, numbers["POSITION"]) if packed else {}

    def attribute(name: str) -> np.ndarray | None:
        if name in known or name not in numbers:
            return known.get(name)
        return gltf.array(numbers[name])

    return attribute


def _draco(gltf: Gltf, packed: dict[str, Any], position: int) -> dict[str, np.ndarray]:
    """The faces, as `indices`, and the attributes of a primitive that Draco has compressed."""
    with needed("a mesh that Draco has compressed"):
        import DracoPy

    gltf.allowance.take(gltf.items("accessors")[position]["count"])
    decoded = DracoPy.decode(bytes(gltf.view(packed["bufferView"])))
    names = {number: name for name, number in packed["attributes"].items()}
    known = {names.get(data["unique_id"], ""): np.asarray(data["data"], float) for data in decoded.attributes}
    return {**known, "indices": np.asarray(getattr(decoded, "faces", np.zeros((0, 3))))}


def _faces(order: np.ndarray, mode: int) -> np.ndarray:
    """`(F, 3)` faces of the vertices in their `order` (3.7.2.1)."""
    if mode == TRIANGLES:
        return order[: len(order) // 3 * 3].reshape(-1, 3)
    if mode == FAN:
        faces = np.stack([order[1:-1], order[2:], np.full(max(len(order) - 2, 0), order[0])], 1)
    else:
        faces = strip_faces(order)
    return faces


def strip_faces(order: np.ndarray) -> np.ndarray:
    """`(F, 3)` faces of a strip of triangles through the vertices in their `order`; those that only turn the
    strip around, which name a vertex twice, are left out.
    """
    faces = np.stack([order[:-2], order[1:-1], order[2:]], 1)
    faces[1::2] = faces[1::2, [1, 0, 2]]
    return faces[(faces != np.roll(faces, 1, axis=1)).all(1)]


def _moved(verts: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return verts @ matrix[:3, :3].T + matrix[:3, 3]


def skinned(verts: np.ndarray, joints: np.ndarray, weights: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """`(V, 3)`: the vertices where their joints take them, each by the mean of its joints' `matrices` (J, 4,
    4).

    A vertex that no joint holds goes with the first one, as in other viewers.
    """
    total = weights.sum(1, keepdims=True)
    weights = np.where(total > 0, weights / np.where(total > 0, total, 1), np.eye(1, weights.shape[1]))
    placed = np.zeros(verts.shape)
    for joint, weight in zip(joints.T, weights.T, strict=True):
        turned = np.einsum("vij,vj->vi", matrices[joint, :3, :3], verts) + matrices[joint, :3, 3]
        placed += weight[:, None] * turned
    return placed
