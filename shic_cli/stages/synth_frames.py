"""Random views of a posed mesh: the camera, the scene for a generator, and the labels.

K vertices, F faces, pictures of S by S pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from shic_cli.base.errors import PictureError, SettingError
from shic_cli.base.settings import SynthConfig
from shic_cli.learning.views import interpolate, pixel_vertex
from shic_cli.parts import registry
from shic_cli.parts.generators.contract import Scene
from shic_cli.parts.renderers.contract import Fragments
from shic_cli.surface.cameras import Cameras, look_at
from shic_cli.surface.limbs import Limb
from shic_cli.surface.mesh import vertex_normals
from shic_cli.surface.viewpoints import parse_views, random_viewpoint

BLANK = 8  # grey levels; a picture whose values span less than this shows nothing
EYE = (9.0, 6.0)  # degrees, mean and standard deviation of the elevation that people take photos from
TILT = 1.5  # degrees, standard deviation of how they hold the camera
NEAR = 15.0  # degrees, standard deviation of a view from that of the photo that it is like


@dataclass(frozen=True)
class Picture:
    """A synthetic picture `rgb` `(S, S, 3)` uint8 and its labels `vertex` `(S, S)` i4, -1 for none.

    `cameras` and `fragments` are the camera and the render from which the labels come.
    """

    rgb: np.ndarray
    vertex: np.ndarray
    cameras: Cameras
    fragments: Fragments

    @property
    def mask(self) -> np.ndarray:
        """The object `(S, S)` bool; `vertex` may lack its rim."""
        return self.fragments.mask[0].numpy()


@dataclass(frozen=True)
class Frame:
    """A pose `verts` `(K, 3)` of the mesh, and the camera that sees it.

    `azimuth` and `elevation` are the camera's, in degrees. `coat` `(K, 3)` uint8 has the colours of a photo.
    """

    verts: np.ndarray
    cameras: Cameras
    azimuth: float
    elevation: float
    coat: np.ndarray | None = None


class Framer:
    """Random views of a mesh: the camera, the labels, and the scene for a generator.

    `verts` are `(K, 3)` and `faces` `(F, 3)`.
    """

    def __init__(
        self,
        verts: np.ndarray,
        faces: np.ndarray,
        config: SynthConfig,
        device: torch.device,
        limbs: Sequence[Limb] = (),
        azimuths: np.ndarray | None = None,
        coats: np.ndarray | None = None,
    ) -> None:
        for name in ("elevation", "fov", "fill"):
            if len(limits := getattr(config, name)) != 2 or limits[0] > limits[1]:
                given = ",".join(f"{value:g}" for value in limits)
                raise SettingError(
                    f"--{name} {given}: is not a range",
                    "give the lowest and the highest value, separated by a comma",
                )
        parse_views(config.views, config.elevation)
        self.verts, self.faces = np.asarray(verts, np.float32), np.asarray(faces, np.int64)
        self.config, self.device, self.azimuths = config, device, azimuths
        self.coats = () if coats is None else coats
        self.kinds = tuple(limb.kind for limb in limbs)
        self.painted = np.concatenate([self.verts, *_limb_values(self.verts, self.faces, limbs)], 1)
        self.renderer = registry.make("renderers", config.renderer, device=device)

    def frame(self, rng: np.random.Generator, verts: np.ndarray | None = None) -> Frame:
        """A random view within the ranges of the settings.

        `verts` `(K, 3)` is a pose of the mesh, in its vertex order.
        """
        posed = self.verts if verts is None else np.asarray(verts, np.float32)
        camera = random_camera(posed, self.config, rng, self.azimuths)
        wears = len(self.coats) > 0 and rng.random() < self.config.photo_coats
        return Frame(posed, *camera, self.coats[rng.integers(len(self.coats))] if wears else None)

    def label(self, frame: Frame, rgb: np.ndarray, fragments: Fragments | None = None) -> Picture:
        """The labelled picture of `frame` that a generator painted as `rgb`, uint8 RGB of any size.

        `fragments` is the render of `frame` where there is one. PictureError if the picture shows nothing, or
        if no label is left.
        """
        if np.ptp(rgb) < BLANK:
            raise PictureError(
                "the picture is black or of one colour",
                "its generator failed or blanked it; give another --seed or --prompt",
            )
        size, erode = self.config.size, self.config.erode
        if fragments is None or fragments.face.shape[-1] != size:
            fragments = self.render(frame, size)
        vertex = pixel_vertex(fragments, torch.from_numpy(self.faces))[0].numpy().astype(np.int32)
        if erode > 0:
            vertex[
                cv2.distanceTransform((vertex >= 0).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
                <= erode
            ] = -1
            if vertex.max() < 0:
                raise PictureError(
                    f"--erode {erode} leaves no label", "give a smaller one, or a larger --size or --fill"
                )
        return Picture(
            cv2.resize(rgb, (size, size), interpolation=cv2.INTER_AREA), vertex, frame.cameras, fragments
        )

    def render(self, frame: Frame, size: int) -> Fragments:
        """The mesh in `frame`, `size` pixels a side, on the CPU whatever the device: one picture is small."""
        verts, faces = (torch.from_numpy(each).to(self.device) for each in (frame.verts, self.faces))
        return self.renderer(verts, faces, frame.cameras.to(self.device), size).cpu()

    def scene(self, frame: Frame, size: int, fragments: Fragments | None = None) -> Scene:
        """The scene of `frame` for a generator, `size` pixels a side; `fragments` is its render, if known."""
        fragments = self.render(frame, size) if fragments is None else fragments
        rotation = frame.cameras.rotation[0].numpy()
        # row vectors, from world to view
        normals = vertex_normals(frame.verts, self.faces).astype(np.float32) @ rotation
        values = torch.from_numpy(np.concatenate([normals, self.painted], 1))
        image = interpolate(fragments, torch.from_numpy(self.faces), values)[0].numpy()
        coat = frame.coat
        if coat is not None:
            values = torch.from_numpy(coat.astype(np.float32) / 255)
            coat = interpolate(fragments, torch.from_numpy(self.faces), values)[0].numpy()
        mask, depth = fragments.mask[0].numpy(), fragments.zbuf[0].numpy()
        normal, seen = np.zeros_like(image[..., :3]), image[mask, :3]
        normal[mask] = seen / np.linalg.norm(seen, axis=1, keepdims=True).clip(1e-6)
        return Scene(
            mask, depth, normal, image[..., 3:6], rotation[1], frame.azimuth, frame.elevation,
            image[..., 7:], self.kinds, image[..., 6], coat,
        )  # fmt: skip


def _limb_values(verts: np.ndarray, faces: np.ndarray, limbs: Sequence[Limb]) -> list[np.ndarray]:
    """What coats and light depend on, for every vertex, as arrays `(K, 1)` and `(K, L)` in 0..1.

    The first is how far the vertex faces the middle of the body. The second is 1 at the tip of each of the L
    limbs and 0 where the limb ends.
    """
    normals = vertex_normals(verts, faces)[:, :1]
    inner = (-normals * np.sign(verts[:, :1]) * (np.abs(verts[:, :1]) > 0.02)).clip(0, 1)
    out = [(1 - limb.distance[:, None] / limb.end).clip(0, 1) for limb in limbs]
    return [each.astype(np.float32) for each in (inner, *out)]


def random_camera(
    verts: np.ndarray, config: SynthConfig, rng: np.random.Generator, azimuths: np.ndarray | None = None
) -> tuple[Cameras, float, float]:
    """A random camera on the CPU, its azimuth and its elevation in degrees.

    The camera sees one of the views of `config` and stays in its ranges. The longer side of the projected
    `verts` `(K, 3)` takes a share of the frame within `config.fill`, and the frame holds the whole object.
    `azimuths` `(N,)` are those of photos: a share of the cameras is near one of them, unless `config` names
    views.
    """
    views = parse_views(config.views, config.elevation)
    azimuth, elevation = random_viewpoint(views, config.elevation, rng)
    if azimuths is not None and len(azimuths) and not views and rng.random() < config.like_photos:
        azimuth = float(rng.choice(azimuths) + rng.normal(0, NEAR)) % 360
    roll, fov = rng.uniform(-config.roll, config.roll), rng.uniform(config.fov[0], config.fov[1])
    if not views and config.level > 0 and rng.random() < config.level:
        elevation = float(np.clip(rng.normal(*EYE), config.elevation[0], config.elevation[1]))
        roll = float(np.clip(rng.normal(0, TILT), -config.roll, config.roll))
    places = (torch.tensor([value], dtype=torch.float32) for value in (azimuth, elevation, roll, fov))
    points = torch.from_numpy(verts)
    fitted = look_at(*places).fit(points, rng.uniform(config.fill[0], config.fill[1]))
    yx, _ = fitted.project(points, config.size)
    # width and height in normalised device coordinates
    extent = (yx[0].amax(0) - yx[0].amin(0)).flip(0) * 2 / config.size
    shift = (1 - extent / 2).clamp(min=0) * torch.from_numpy(rng.uniform(-1, 1, 2).astype(np.float32))
    return replace(fitted, principal=fitted.principal + shift), azimuth, elevation
