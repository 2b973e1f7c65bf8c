"""The demo's animal: a T-Rex as a smooth union of capsules, with bones that pose it.

Axes: +y up, +z to the head, +x to the animal's left. Units are about metres. E bones, K vertices, F faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

BLEND = 0.045  # width over which capsules blend into each other
SKIN = 0.06  # width over which a vertex passes from one bone to the next
MARGIN = 0.6  # distance between the bones' ends and the grid's border; wider than any radius
CELL = 0.055  # side of a cell of the grid from which the surface is extracted


@dataclass(frozen=True)
class Bone:
    """A capsule from `start` to `end` with a radius at each end.

    `turn` is how far its joint, at `start`, may turn about x, y and z, in degrees.
    """

    name: str
    parent: str
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radii: tuple[float, float]
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def mirrored(self) -> Bone:
        """The same bone of the right side."""
        flip = [(-x, y, z) for x, y, z in (self.start, self.end)]
        parent = self.parent.replace("left", "right")
        return Bone(self.name.replace("left", "right"), parent, flip[0], flip[1], self.radii, self.turn)


MIDDLE = (
    Bone("body", "", (0, 1.58, -0.1), (0, 1.66, 0.75), (0.44, 0.41)),
    Bone("belly", "body", (0, 1.42, 0.05), (0, 1.5, 0.68), (0.35, 0.31)),
    Bone("neck", "body", (0, 1.8, 0.85), (0, 2.26, 1.25), (0.31, 0.26), (12, 12, 0)),
    Bone("skull", "neck", (0, 2.42, 1.3), (0, 2.46, 1.72), (0.29, 0.31), (14, 18, 10)),
    Bone("snout", "skull", (0, 2.44, 1.75), (0, 2.34, 2.55), (0.28, 0.19)),
    Bone("jaw", "skull", (0, 2.14, 1.48), (0, 1.83, 2.34), (0.15, 0.11), (7, 0, 0)),
    Bone("tail1", "body", (0, 1.57, -0.35), (0, 1.56, -0.95), (0.4, 0.28), (9, 9, 0)),
    Bone("tail2", "tail1", (0, 1.56, -0.95), (0, 1.6, -1.55), (0.28, 0.19), (10, 13, 0)),
    Bone("tail3", "tail2", (0, 1.6, -1.55), (0, 1.7, -2.15), (0.19, 0.11), (12, 16, 0)),
    Bone("tail4", "tail3", (0, 1.7, -2.15), (0, 1.84, -2.75), (0.11, 0.05), (14, 20, 0)),
)
LEFT = (
    Bone("left thigh", "body", (0.29, 1.42, 0.0), (0.38, 0.9, 0.3), (0.31, 0.19), (28, 0, 5)),
    Bone("left shin", "left thigh", (0.38, 0.88, 0.3), (0.39, 0.46, -0.12), (0.18, 0.1), (22, 0, 0)),
    Bone("left foot", "left shin", (0.39, 0.46, -0.12), (0.4, 0.11, 0.08), (0.105, 0.1), (22, 0, 0)),
    Bone("left outer toe", "left foot", (0.41, 0.09, 0.1), (0.63, 0.06, 0.38), (0.09, 0.055)),
    Bone("left middle toe", "left foot", (0.4, 0.09, 0.1), (0.4, 0.06, 0.54), (0.1, 0.055)),
    Bone("left inner toe", "left foot", (0.39, 0.09, 0.1), (0.17, 0.06, 0.38), (0.09, 0.055)),
    Bone("left arm", "body", (0.32, 1.5, 0.95), (0.4, 1.26, 1.04), (0.1, 0.07), (25, 0, 10)),
    Bone("left forearm", "left arm", (0.4, 1.24, 1.04), (0.37, 1.19, 1.27), (0.065, 0.05), (25, 10, 0)),
    Bone("left finger", "left forearm", (0.37, 1.19, 1.27), (0.4, 1.07, 1.37), (0.04, 0.033)),
    Bone("left thumb", "left forearm", (0.36, 1.19, 1.27), (0.29, 1.13, 1.38), (0.04, 0.033)),
    Bone("left brow", "skull", (0.16, 2.68, 1.62), (0.17, 2.65, 1.82), (0.1, 0.085)),
)
BONES = (*MIDDLE, *LEFT, *(bone.mirrored() for bone in LEFT))


def capsule_distances(points: np.ndarray) -> np.ndarray:
    """Signed distances `(P, E)` of `points` `(P, 3)` to each bone's capsule, negative inside.

    A capsule's radius changes along its bone.
    """
    start, end, radii = (
        np.array([getattr(bone, name) for bone in BONES]) for name in ("start", "end", "radii")
    )
    axis = end - start
    share = (((points[:, None] - start) * axis).sum(-1) / (axis**2).sum(-1)).clip(0, 1)
    nearest = start + share[..., None] * axis
    return np.linalg.norm(points[:, None] - nearest, axis=-1) - (
        radii[:, 0] + share * (radii[:, 1] - radii[:, 0])
    )


def rest_mesh(vertices: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices `(K, 3)` f4 and outward faces `(F, 3)` i4 of the animal at rest; the mesh is watertight.

    K is about `vertices`.
    """
    import fast_simplification
    import warp as wp
    from warp.geometry import IsoSurfaceMarchingCubes

    from shic_cli.parts.renderers.warp import WarpRenderer

    WarpRenderer()  # this starts Warp without its banner
    ends = np.array([point for bone in BONES for point in (bone.start, bone.end)])
    lower, upper = ends.min(0) - MARGIN, ends.max(0) + MARGIN
    counts = np.ceil((upper - lower) / CELL).astype(int)
    axes = [np.linspace(low, high, count) for low, high, count in zip(lower, upper, counts, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    # A smooth minimum over the capsules. It is computed in parts, because all distances at once would fill
    # the memory.
    field = np.concatenate(
        [
            -BLEND * np.log(np.exp(-capsule_distances(part) / BLEND).sum(-1))
            for part in np.array_split(grid, 64)
        ]
    )
    values: Any = wp.array(field.reshape(counts), dtype=wp.float32, device="cpu")
    points, corners = IsoSurfaceMarchingCubes.extract(
        values, 0.0, lower=wp.vec3(*lower), upper=wp.vec3(*upper)
    )
    fine_verts: Any = points.numpy()
    fine_faces: Any = corners.numpy().reshape(-1, 3)
    verts, faces = fast_simplification.simplify(fine_verts, fine_faces, target_count=2 * vertices)[:2]
    return verts.astype(np.float32), faces.astype(np.int32)


def skin_weights(verts: np.ndarray) -> np.ndarray:
    """How much each vertex `(K, 3)` follows each bone, `(K, E)`: more for a nearer capsule.

    Rows sum to 1.
    """
    distance = capsule_distances(verts)
    closeness = np.exp(-(distance - distance.min(1, keepdims=True)) / SKIN)
    return closeness / closeness.sum(1, keepdims=True)


def bone_motions(angles: np.ndarray) -> np.ndarray:
    """Affine motions `(E, 3, 4)` of the bones if their joints turn by `angles` `(E, 3)` in degrees.

    A bone carries its children along.
    """
    motions: dict[str, np.ndarray] = {"": np.eye(4)}
    for bone, turn in zip(BONES, angles, strict=True):
        joint = np.eye(4)
        joint[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
        joint[:3, 3] = np.array(bone.start) - joint[:3, :3] @ bone.start
        motions[bone.name] = motions[bone.parent] @ joint
    return np.stack([motions[bone.name][:3] for bone in BONES])


@dataclass(frozen=True)
class Animal:
    """The animal as a mesh whose longest side is 1, with what poses it.

    `verts` `(K, 3)` f4 are at rest, `faces` are `(F, 3)` i4 and `weights` `(K, E)` are its skin weights.
    `center` and `side` convert the vertices to metres.
    """

    verts: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    center: np.ndarray
    side: float

    @classmethod
    def make(cls, vertices: int) -> Animal:
        """The animal with about that many vertices."""
        verts, faces = rest_mesh(vertices)
        center, side = (verts.max(0) + verts.min(0)) / 2, float(np.ptp(verts, axis=0).max())
        return cls((verts - center) / side, faces, skin_weights(verts), center, side)

    def pose(self, rng: np.random.Generator) -> np.ndarray:
        """The vertices `(K, 3)` f4 of a random pose, by linear blend skinning.

        Each joint turns by a random angle inside its range.
        """
        motions = bone_motions(rng.uniform(-1, 1, (len(BONES), 3)) * [bone.turn for bone in BONES])
        blended = np.einsum("ke,eij->kij", self.weights, motions)
        posed = (
            np.einsum("kij,kj->ki", blended[..., :3], self.verts * self.side + self.center) + blended[..., 3]
        )
        return ((posed - self.center) / self.side).astype(np.float32)
