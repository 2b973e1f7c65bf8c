"""Synthetic pictures with exact labels (sec. 3.5): the template seen from somewhere, painted by a generator, labelled by its projection.

Axes: K vertices, F faces, S by S pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from shic_cli import draw, registry
from shic_cli.cameras import Cameras, look_at
from shic_cli.config import SynthConfig
from shic_cli.devices import chance
from shic_cli.errors import SettingError
from shic_cli.generators import Scene
from shic_cli.images import decode, encode, list_images, listing
from shic_cli.mesh import vertex_normals
from shic_cli.poses import Poser
from shic_cli.progress import Track, plain_track
from shic_cli.render import interpolate, pixel_vertex
from shic_cli.renderers import Fragments
from shic_cli.schema import ItemReader, ItemWriter, Template


@dataclass(frozen=True)
class Picture:
    """A synthetic picture `rgb` (S, S, 3) uint8, its labels `vertex` (S, S) i4 with -1 for none, and the render they come from."""

    rgb: np.ndarray
    vertex: np.ndarray
    cameras: Cameras
    fragments: Fragments

    @property
    def mask(self) -> np.ndarray:
        """The object, `(S, S)` bool."""
        return self.vertex >= 0


class Synthesizer:
    """Makes pictures of a mesh, `verts` (K, 3) and `faces` (F, 3); a picture depends on the generator `rng` that it is asked with alone."""

    def __init__(self, verts: np.ndarray, faces: np.ndarray, config: SynthConfig, device: torch.device) -> None:
        for name in ("elevation", "fov", "fill"):
            if len(limits := getattr(config, name)) != 2 or limits[0] > limits[1]:
                given = ",".join(f"{value:g}" for value in limits)
                raise SettingError(f"--{name} {given}: is no range", "give the lowest and the highest value, separated by a comma")
        self.verts, self.faces = np.asarray(verts, np.float32), np.asarray(faces, np.int64)
        self.config, self.device = config, device
        self.renderer = registry.make("renderers", config.renderer, device=device)
        self.generator = registry.make("generators", config.generator, device=device, config=config)

    def make(self, rng: np.random.Generator, verts: np.ndarray | None = None) -> Picture:
        """One picture, from a viewpoint of the settings' ranges; `verts` (K, 3) is a pose of the mesh, in its vertex order."""
        posed = self.verts if verts is None else np.asarray(verts, np.float32)
        cameras, azimuth, elevation = random_camera(posed, self.config, rng)
        size = self.config.size
        labels = self._render(posed, cameras, size)
        side = self.generator.side(size)
        scene = self._scene(posed, cameras, self._render(posed, cameras, side) if side != size else labels, azimuth, elevation)
        rgb = cv2.resize(self.generator(scene, rng), (size, size), interpolation=cv2.INTER_AREA)
        vertex = pixel_vertex(labels, self._tensor(self.faces))[0].cpu().numpy().astype(np.int32)
        return Picture(rgb, vertex, cameras, labels)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.device)

    def _render(self, verts: np.ndarray, cameras: Cameras, size: int) -> Fragments:
        return self.renderer(self._tensor(verts), self._tensor(self.faces), cameras.to(self.device), size)

    def _scene(self, verts: np.ndarray, cameras: Cameras, fragments: Fragments, azimuth: float, elevation: float) -> Scene:
        rotation = cameras.rotation[0].cpu().numpy()
        normals = vertex_normals(verts, self.faces).astype(np.float32) @ rotation  # row vectors: world to view
        values = self._tensor(np.concatenate([normals, self.verts], 1))
        image = interpolate(fragments, self._tensor(self.faces), values)[0].cpu().numpy()
        normal = image[..., :3] / np.linalg.norm(image[..., :3], axis=-1, keepdims=True).clip(1e-6)
        mask = (fragments.face[0] >= 0).cpu().numpy()
        depth = fragments.zbuf[0].cpu().numpy()
        return Scene(mask, depth, normal, image[..., 3:], rotation[1], azimuth, elevation)


def random_camera(verts: np.ndarray, config: SynthConfig, rng: np.random.Generator) -> tuple[Cameras, float, float]:
    """A camera on the CPU, its azimuth and its elevation in degrees: any azimuth, the rest inside the ranges of `config`.

    The longer side of the projected `verts` (K, 3) takes a share of the frame inside `config.fill`; the whole of it is in the frame.
    """
    azimuth, elevation = rng.uniform(0, 360), rng.uniform(*config.elevation)
    roll, fov = rng.uniform(-config.roll, config.roll), rng.uniform(*config.fov)
    places = (torch.tensor([value], dtype=torch.float32) for value in (azimuth, elevation, roll, fov))
    points = torch.from_numpy(verts)
    fitted = look_at(*places).fit(points, rng.uniform(*config.fill))
    yx, _ = fitted.project(points, config.size)
    extent = (yx[0].amax(0) - yx[0].amin(0)).flip(0) * 2 / config.size  # width and height in normalised device coordinates
    shift = (1 - extent / 2).clamp(min=0) * torch.from_numpy(rng.uniform(-1, 1, 2).astype(np.float32))
    return replace(fitted, principal=fitted.principal + shift), azimuth, elevation


def contact_sheet(path: Path, colors: np.ndarray, number: int = 12) -> np.ndarray:
    """The first pictures of a maps file, each beside its labels in the template's `colors` (K, 3), as one picture `(H, W, 3)` uint8."""
    items = [item for item, _ in zip(ItemReader(path, "shic/maps"), range(number), strict=False)]
    photos = [decode(item.encoded.tobytes(), item.name)[0] for item in items]
    labels = [draw.color_map(photo, item.vertex, colors) for photo, item in zip(photos, items, strict=True)]
    return draw.contact_sheet([image for pair in zip(photos, labels, strict=True) for image in pair], 6, side=192)


def picture_name(i: int) -> str:
    """What picture `i` is called in the maps file."""
    return f"synth_{i:05d}.jpg"


def synthesize(
    template: Template,
    path: Path,
    config: SynthConfig,
    device: torch.device,
    seed: int = 0,
    *,
    sources: dict[str, Any] | None = None,
    overwrite: bool = False,
    track: Track = plain_track,
) -> None:
    """Write `config.number` pictures to the maps file `path`, labels `synthetic`; an unfinished run goes on.

    Picture i depends on `seed` and i only, so any of them can be made again alone. Each shows a random pose of the template, unless
    `config.poses` is 0.
    """
    sources = dict(sources or {})
    if config.backgrounds:
        sources["backgrounds"] = listing(list_images([config.backgrounds]))
    maker = Synthesizer(template.verts, template.faces, config, device)
    poser = Poser.of(template, config.poses)
    attrs = {"labels": "synthetic", "template": template.fingerprint}
    with ItemWriter(path, "shic/maps", params={**config.params(), "seed": seed}, sources=sources, attrs=attrs, overwrite=overwrite) as out:
        left = [i for i in range(config.number) if picture_name(i) not in out]
        for i in track(left, len(left), "synth"):
            rng = chance(seed, "synth", i)
            picture = maker.make(rng, poser(rng))
            encoded = np.frombuffer(encode(picture.rgb, ".jpg"), np.uint8)
            out.add(picture_name(i), encoded=encoded, mask=picture.mask, vertex=picture.vertex, score=picture.mask.astype(np.float16))
