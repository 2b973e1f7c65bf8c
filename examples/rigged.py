"""A class for the data set `rigged` of examples/paper: photos of a rigged animal with exact ground truth,
which no one has to annotate.

    python rigged.py Fox.glb -o rigged/
    python paper/table1.py --dataset rigged --data rigged/ --classes fox

FILE is glTF with a skin and animations, as in Quaternius' packs of animals and dinosaurs (CC0). A
picture shows a random moment of a random clip, its joints turned a little more, in the materials' colours
under a random light. The class's folder, here rigged/fox/, gets fox.obj (the rest pose in glTF's axes: y up,
z to the front), train/ with images/ and masks/, and val/ with annotations.json too.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation, Slerp
from trimesh.remesh import subdivide

from shic_cli.base.devices import chance
from shic_cli.base.errors import InputError
from shic_cli.base.settings import SynthConfig
from shic_cli.parts.generators.backgrounds import Photos
from shic_cli.parts.generators.plain import background, photo
from shic_cli.stages.demo import annotate, write_obj, write_photo
from shic_cli.stages.synth_frames import Framer, Picture
from shic_cli.surface.gltf import Gltf, node_matrices, skinned

VIEWS = SynthConfig(size=320, elevation=(-10, 40), fov=(25, 45), fill=(0.35, 0.85))
TURN = 6  # degrees, standard deviation: how far a joint is turned beside the clip's pose


@dataclass(frozen=True)
class Rig:
    """A skinned mesh: `verts` (K, 3) at rest, outward `faces` (F, 3), the material's colour of each face `(F,
    3)`, linear, in 0..1; `weights` (K, J) of the joints `nodes` (J,), whose matrices `inverse` (J, 4, 4) lead
    from the mesh to each joint."""

    gltf: Gltf
    local: np.ndarray
    verts: np.ndarray
    faces: np.ndarray
    color: np.ndarray
    weights: np.ndarray
    nodes: list[int]
    inverse: np.ndarray

    @classmethod
    def read(cls, path: Path, least: int) -> Rig:
        """The first skinned mesh of a file, its faces quartered until it has at least that many vertices."""
        try:
            gltf = Gltf(path)
        except (ValueError, InputError) as error:
            raise SystemExit(f"{path}: is not glTF ({error})") from error
        if not gltf.items("skins") or not gltf.items("animations"):
            raise SystemExit(f"{path}: has no skin or no animation")
        node = next(node for node in gltf.items("nodes") if "skin" in node)
        skin, parts = gltf.items("skins")[node["skin"]], []
        for part in gltf.items("meshes")[node["mesh"]]["primitives"]:
            joints, shares = (gltf.array(part["attributes"][name]) for name in ("JOINTS_0", "WEIGHTS_0"))
            weights = np.zeros((len(joints), len(skin["joints"])), np.float32)
            for joint, share in zip(joints.T, shares.T, strict=True):
                weights[np.arange(len(joints)), joint.astype(int)] += share
            factor = gltf.items("materials")[part["material"]]["pbrMetallicRoughness"].get(
                "baseColorFactor", [0.8] * 4
            )
            parts.append(
                (
                    gltf.array(part["attributes"]["POSITION"]),
                    weights,
                    gltf.array(part["indices"]).reshape(-1, 3),
                    factor[:3],
                )
            )
        starts = np.cumsum([0, *(len(part[0]) for part in parts)])
        faces = np.concatenate(
            [part[2].astype(np.int64) + start for part, start in zip(parts, starts, strict=False)]
        )
        color = np.concatenate([np.tile(part[3], (len(part[2]), 1)) for part in parts]).astype(np.float32)
        verts, weights = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        # a file has a vertex once for each material and crease; a surface has it once
        _, first, same = np.unique(
            (verts / np.ptp(verts) * 1e5).round(), axis=0, return_index=True, return_inverse=True
        )
        verts, weights, faces = verts[first], weights[first], same.reshape(-1)[faces]
        while len(verts) < least:
            verts, faces, found = subdivide(verts, faces, vertex_attributes={"weights": weights})
            weights, color = found["weights"], color.repeat(4, 0)
        rest = node_matrices([{**node, "children": []}])[0]
        inverse = gltf.array(skin["inverseBindMatrices"]).reshape(-1, 4, 4).transpose(0, 2, 1)
        weights /= weights.sum(1, keepdims=True)
        return cls(
            gltf, verts, verts @ rest[:3, :3].T + rest[:3, 3], faces, color, weights, skin["joints"], inverse
        )

    def pose(self, rng: np.random.Generator) -> np.ndarray:
        """The vertices `(K, 3)` at a random moment of a random clip in which the animal lives, each joint
        turned a little more.

        They lie around the origin; the longest side of the mesh at rest is 1.
        """
        clips = [clip for clip in self.gltf.items("animations") if "death" not in clip["name"].lower()]
        nodes = [dict(node) for node in self.gltf.items("nodes")]
        clip, moment = clips[rng.integers(len(clips))], rng.random()
        for channel in clip["channels"]:
            sampler = clip["samplers"][channel["sampler"]]
            times, values = self.gltf.array(sampler["input"])[:, 0], self.gltf.array(sampler["output"])
            nodes[channel["target"]["node"]][channel["target"]["path"]] = between(times, values, moment)
        for joint in self.nodes:
            turn = Rotation.from_rotvec(rng.normal(0, np.radians(TURN), 3))
            nodes[joint]["rotation"] = (
                Rotation.from_quat(nodes[joint].get("rotation", (0, 0, 0, 1))) * turn
            ).as_quat()
        places = node_matrices(nodes)[self.nodes] @ self.inverse
        joints = np.tile(np.arange(len(self.nodes)), (len(self.local), 1))
        posed = skinned(self.local, joints, self.weights, places)
        return ((posed - (posed.min(0) + posed.max(0)) / 2) / np.ptp(self.verts, axis=0).max()).astype(
            np.float32
        )


def between(times: np.ndarray, values: np.ndarray, moment: float) -> np.ndarray:
    """A channel's value at `moment`, 0..1 of its clip."""
    time = times[0] + moment * (times[-1] - times[0])
    if len(times) == 1:
        return values[0]
    if values.shape[1] == 4:
        return Slerp(times, Rotation.from_quat(values))(time).as_quat()
    return np.array([np.interp(time, times, column) for column in values.T])


def paint(
    framer: Framer, rig: Rig, verts: np.ndarray, photos: Photos | None, rng: np.random.Generator
) -> Picture:
    """A picture of the posed `verts`: the materials' colours, a little off, under light from one side, before
    a background.
    """
    frame, size = framer.frame(rng, verts), 2 * framer.config.size
    scene, face = framer.scene(frame, size), framer.render(frame, size).face[0].cpu().numpy()
    materials, of = np.unique(rig.color, axis=0, return_inverse=True)
    shown = (materials ** (1 / 2.2) * rng.uniform(0.7, 1.3) * rng.uniform(0.8, 1.2, materials.shape)).astype(
        np.float32
    )[of.reshape(-1)]
    light = scene.up * rng.uniform(0.2, 1) + [*rng.normal(0, 0.7, 2), -0.6]
    shade = 0.55 + 0.6 * (scene.normal @ (light / np.linalg.norm(light)).astype(np.float32)).clip(0)
    behind = cv2.resize(photo(photos, size // 2, rng) if photos else background(size // 2, rng), (size, size))
    picture = np.where(scene.mask[..., None], shown[face] * shade[..., None], behind)
    return framer.label(frame, (picture.clip(0, 1) * 255).astype(np.uint8))


def write_class(
    file: Path, folder: Path, numbers: dict[str, int], vertices: int, photos: Photos | None, seed: int
) -> None:
    """Write the class of `file` below `folder`, with that many pictures in each of its splits."""
    name, rig = file.stem.lower(), Rig.read(file, vertices)
    framer = Framer(rig.verts, rig.faces, VIEWS, torch.device("cpu"))
    (folder / name).mkdir(parents=True, exist_ok=True)
    write_obj(folder / name / f"{name}.obj", rig.verts, rig.faces)
    for split, number in numbers.items():
        truth = {}
        for i in range(number):
            rng, stem = chance(seed, name, split, i), f"{name}_{split}_{i:04d}"
            picture = paint(framer, rig, rig.pose(rng), photos, rng)
            write_photo(folder / name / split, stem, picture, "images")
            truth[f"{stem}.jpg"] = picture.vertex
        if split == "val":
            (folder / name / split / "annotations.json").write_text(
                json.dumps(annotate(truth, name, chance(seed, name, "points")))
            )


def main() -> None:
    """Read the command line, draw, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "file", type=Path, nargs="+", metavar="FILE", help="a rigged, animated animal, .glb or .gltf"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("rigged"), metavar="FOLDER")
    parser.add_argument("--train", type=int, default=240, help="pictures with masks alone")
    parser.add_argument("--val", type=int, default=40, help="pictures with 150 annotated points each")
    parser.add_argument(
        "--vertices", type=int, default=2000, help="a mesh's faces are quartered until it has as many"
    )
    parser.add_argument("--backgrounds", type=Path, help="folder of photos; none: made-up ones")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    photos = Photos(str(given.backgrounds)) if given.backgrounds else None
    for file in given.file:
        write_class(
            file, given.output, {"train": given.train, "val": given.val}, given.vertices, photos, given.seed
        )


if __name__ == "__main__":
    main()
