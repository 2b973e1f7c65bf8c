"""Synthetic pictures with exact labels (sec. 3.5): a generator paints a view of the template.

The labels come from the template's projection. Axes: K vertices, F faces, S by S pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from shic_cli.base.devices import chance
from shic_cli.base.errors import PictureError, SettingError, ShicError, lacks_memory
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.recipes import by_recipe
from shic_cli.base.settings import SynthConfig
from shic_cli.base.workers import number_of, spread
from shic_cli.files.layouts import Template
from shic_cli.files.photos import list_images, listing
from shic_cli.files.shards import WHOLE, Part
from shic_cli.learning.views import interpolate, pixel_vertex
from shic_cli.parts import registry
from shic_cli.parts.generators.contract import Scene
from shic_cli.parts.renderers.contract import Fragments
from shic_cli.stages.synth_writing import Check, Labelled, Target, collect
from shic_cli.surface.cameras import Cameras, look_at
from shic_cli.surface.mesh import vertex_normals
from shic_cli.surface.poses import Poser
from shic_cli.surface.viewpoints import parse_views, random_viewpoint

log = logging.getLogger("shic")

POSES = 2.0  # what `--poses -1` stands for
BLANK = 8  # grey levels; a picture whose values span less than this shows nothing


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

    `azimuth` and `elevation` are the camera's, in degrees.
    """

    verts: np.ndarray
    cameras: Cameras
    azimuth: float
    elevation: float


class Framer:
    """Random views of a mesh: the camera, the labels, and the scene for a generator.

    `verts` are `(K, 3)` and `faces` `(F, 3)`.
    """

    def __init__(
        self, verts: np.ndarray, faces: np.ndarray, config: SynthConfig, device: torch.device
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
        self.config, self.device = config, device
        self.renderer = registry.make("renderers", config.renderer, device=device)

    def frame(self, rng: np.random.Generator, verts: np.ndarray | None = None) -> Frame:
        """A random view within the ranges of the settings.

        `verts` `(K, 3)` is a pose of the mesh, in its vertex order.
        """
        posed = self.verts if verts is None else np.asarray(verts, np.float32)
        return Frame(posed, *random_camera(posed, self.config, rng))

    def label(self, frame: Frame, rgb: np.ndarray) -> Picture:
        """The labelled picture of `frame` that a generator painted as `rgb`, uint8 RGB of any size.

        PictureError if it shows nothing, or if no label is left.
        """
        if np.ptp(rgb) < BLANK:
            raise PictureError(
                "the picture is black or of one colour",
                "its generator failed or blanked it; give another --seed or --prompt",
            )
        size, erode = self.config.size, self.config.erode
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

    def scene(self, frame: Frame, size: int) -> Scene:
        """The scene of `frame` for a generator, `size` pixels a side."""
        fragments = self.render(frame, size)
        rotation = frame.cameras.rotation[0].numpy()
        # row vectors, from world to view
        normals = vertex_normals(frame.verts, self.faces).astype(np.float32) @ rotation
        values = torch.from_numpy(np.concatenate([normals, self.verts], 1))
        image = interpolate(fragments, torch.from_numpy(self.faces), values)[0].numpy()
        mask, depth = fragments.mask[0].numpy(), fragments.zbuf[0].numpy()
        normal = image[..., :3]
        normal[mask] /= np.linalg.norm(normal[mask], axis=-1, keepdims=True).clip(1e-6)
        return Scene(mask, depth, normal, image[..., 3:], rotation[1], frame.azimuth, frame.elevation)


class Synthesizer(Framer):
    """Makes pictures of a mesh with `verts` `(K, 3)` and `faces` `(F, 3)`.

    A picture depends only on the random generator `rng` with which it is made.
    """

    def __init__(
        self,
        verts: np.ndarray,
        faces: np.ndarray,
        config: SynthConfig,
        device: torch.device,
        weights: Path | None = None,
    ) -> None:
        config = settled(config, device, weights)
        super().__init__(verts, faces, config, device)
        self.generator = registry.make(
            "generators", config.generator, device=device, weights=weights, config=config
        )

    def make(self, rng: np.random.Generator, verts: np.ndarray | None = None) -> Picture:
        """One picture from a random viewpoint; PictureError if the generator gives none.

        `verts` `(K, 3)` is a pose of the mesh, in its vertex order.
        """
        frame = self.frame(rng, verts)
        scene = self.scene(frame, self.generator.side(self.config.size))
        return self.label(frame, self.generator(scene, rng))


def settled(config: SynthConfig, device: torch.device, weights: Path | None = None) -> SynthConfig:
    """`config` with a value for every setting that is left open.

    The generator is one that this machine can use; the views and the erosion are those that the generator is
    made for, or the recipe's.
    """
    config = by_recipe(config)
    auto = "" if config.class_name.strip() else "classless generators"
    name = registry.resolve("generators", config.generator, device, weights, auto)
    generator = registry.find("generators", registry.Spec.parse(name).name)
    views = generator.views if config.views == "auto" else config.views
    erode = generator.erode if config.erode < 0 else config.erode
    return posed(replace(config, generator=name, views=views, erode=erode))


def posed(config: SynthConfig) -> SynthConfig:
    """`config` with a value for `poses`."""
    return replace(config, poses=POSES) if config.poses < 0 else config


def random_camera(
    verts: np.ndarray, config: SynthConfig, rng: np.random.Generator
) -> tuple[Cameras, float, float]:
    """A random camera on the CPU, its azimuth and its elevation in degrees.

    The camera sees one of the views of `config` and stays in its ranges. The longer side of the projected
    `verts` `(K, 3)` takes a share of the frame within `config.fill`, and the frame holds the whole object.
    """
    azimuth, elevation = random_viewpoint(parse_views(config.views, config.elevation), config.elevation, rng)
    roll, fov = rng.uniform(-config.roll, config.roll), rng.uniform(config.fov[0], config.fov[1])
    places = (torch.tensor([value], dtype=torch.float32) for value in (azimuth, elevation, roll, fov))
    points = torch.from_numpy(verts)
    fitted = look_at(*places).fit(points, rng.uniform(config.fill[0], config.fill[1]))
    yx, _ = fitted.project(points, config.size)
    # width and height in normalised device coordinates
    extent = (yx[0].amax(0) - yx[0].amin(0)).flip(0) * 2 / config.size
    shift = (1 - extent / 2).clamp(min=0) * torch.from_numpy(rng.uniform(-1, 1, 2).astype(np.float32))
    return replace(fitted, principal=fitted.principal + shift), azimuth, elevation


def synthesize(
    template: Template,
    path: Path,
    config: SynthConfig,
    device: torch.device,
    seed: int = 0,
    *,
    sources: dict[str, Any] | None = None,
    weights: Path | None = None,
    masker: str = "auto",
    overwrite: bool = False,
    track: Track = plain_track,
    part: Part = WHOLE,
    workers: int | None = 1,
) -> None:
    """Write `config.number` pictures, or those of `config.only`, or a `part`, to the maps file `path`.

    The labels are `synthetic`. An unfinished run continues. Picture i depends on `seed` and i only, so each
    can be made again alone. It shows a random pose of the template, unless `config.poses` is 0. With
    `config.check`, pictures are dropped if their object is not where `masker` finds one. On a CPU so
    many processes as `workers` paint, or as many as pay if it is None, if the generator is small; this makes
    no difference to the file. PartialError if a generator failed for some.
    """
    config = settled(config, device, weights)
    sources = dict(sources or {})
    if config.backgrounds:
        sources["backgrounds"] = listing(list_images([config.backgrounds]))
    check = Check.of(config, masker, device, weights)
    try:
        poser = Poser.of(template, config.poses)
        # the table of distances, which no pose needs, is much to hand over
        poser = replace(poser, template=replace(template, geodesic=template.geodesic[:0]))
        given = (template.faces, poser, config, device, weights, seed)

        def make(numbers: Sequence[int]) -> Iterator[Labelled | PictureError]:
            small = registry.find("generators", registry.Spec.parse(config.generator).name).small
            if not (small and device.type == "cpu"):
                if (workers or 1) > 1:
                    log.info("one worker: only --device cpu and a small generator, as plain is, take more")
                return spread(painter, given, numbers, 1)
            return spread(painter, given, numbers, number_of(workers, len(numbers)))

        target = Target(path, template, {**config.params(), "seed": seed}, sources, overwrite)
        collect(target, chosen(config), make, check, track=track, part=part)
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        generator = registry.find("generators", registry.Spec.parse(config.generator).name)
        hint = f"{generator.saves_memory}; what is finished is kept"
        raise ShicError(f"out of GPU memory in {config.generator}", hint) from error


def painter(
    faces: np.ndarray,
    poser: Poser,
    config: SynthConfig,
    device: torch.device,
    weights: Path | None,
    seed: int,
) -> Callable[[int], Labelled | PictureError]:
    """A function that makes the picture of a number."""
    maker = Synthesizer(poser.template.verts, faces, config, device, weights)

    def make(i: int) -> Picture:
        rng = chance(seed, "synth", i)
        return maker.make(rng, poser(rng))

    return partial(Labelled.attempt, make)


def chosen(config: SynthConfig) -> list[int]:
    """The numbers of the pictures to make: `config.only`, or else all of `config.number`.

    SettingError if one is not a whole number.
    """
    if any(value != int(value) for value in config.only):
        raise SettingError(
            f"--only {','.join(f'{value:g}' for value in config.only)}: is not a whole number",
            "give pictures' numbers, 0 and up",
        )
    return sorted({int(value) for value in config.only}) or list(range(config.number))
