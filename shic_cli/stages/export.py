"""`shic export`: templates, maps and models as files of other programs, by the ending of the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import torch

from shic_cli.base.errors import InputError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.result_settings import ExportConfig
from shic_cli.files.arrays import opened, read_template
from shic_cli.files.atomic import atomic
from shic_cli.files.checks import check_indices
from shic_cli.files.items import Item, ItemReader
from shic_cli.files.layouts import Surface, Template
from shic_cli.files.names import check_template
from shic_cli.files.photos import decode, encode
from shic_cli.files.pictures import color_map
from shic_cli.learning.model_file import find_surface
from shic_cli.stages import export_mesh, export_points, export_video
from shic_cli.stages.remap import lay, load_texture
from shic_cli.stages.template_pictures import uv_picture
from shic_cli.surface.surface_points import SurfacePoints

MESHES, TABLES, MODELS = (".glb", ".ply"), (".npz", ".csv", ".json"), (".onnx",)
SURFACES = (*MESHES, ".png")
MAPS = (*MESHES, *TABLES, ".mp4")


def kind_of(path: Path) -> str:
    """The kind of an HDF5 file of shic's, as in `shic/maps`; InputError if it is none."""
    with opened(path) as (_, header):
        return header.kind


def check_ending(path: Path, known: Sequence[str], what: str) -> str:
    """The ending of the file to write; InputError if it is none of `known`, those of `what`."""
    suffix = path.suffix.lower()
    if suffix not in known:
        raise InputError(
            f"{path}: {what} is not written as {suffix or 'a file without ending'}",
            f"known here: {' '.join(known)}",
        )
    return suffix


def export_surface(surface: Surface, path: Path, overwrite: bool) -> str:
    """Write the template's mesh with its colours, one vertex for each of the template's, or as PNG the
    texture to paint on; what was written.
    """
    suffix = check_ending(path, SURFACES, "a template")
    if suffix == ".png":
        data, said = encode(uv_picture(surface)), "the texture to paint on"
    else:
        data = export_mesh.mesh_bytes(export_mesh.colored(surface, surface.colors), suffix)
        said = f"{len(surface.verts)} vertices with colours"
    with atomic(path, overwrite) as partial:
        partial.write_bytes(data)
    return said


@dataclass(frozen=True)
class Maps:
    """Maps to export: the photos `names` of a maps file, and the settings; `track` shows progress."""

    reader: ItemReader
    template: Path | None
    names: list[str]
    config: ExportConfig
    track: Track = plain_track

    @classmethod
    def of(
        cls, path: Path, template: Path | None, only: Sequence[str], config: ExportConfig, track: Track
    ) -> Maps:
        """The photos whose names fit a pattern of `only`, all without one. InputError if none does."""
        reader = ItemReader(path, "shic/maps")
        names = [
            name for name in reader.names if not only or any(fnmatchcase(name, pattern) for pattern in only)
        ]
        if not names:
            raise InputError(f"{path}: none of {len(reader)} photos is called like {' or '.join(only)}", "")
        return cls(reader, template, sorted(names), config, track)

    def surface(self) -> Surface:
        """The maps' surface, of a template or a model."""
        surface = find_surface(self.template)
        check_template(self.reader, surface.fingerprint)
        return surface

    def prepared(self) -> Template:
        """The maps' template; a model does not know the mesh file's vertices."""
        template = read_template(self.template or Path("template.h5"))
        check_template(self.reader, template.fingerprint)
        return template

    def items(self, vertices: int) -> Iterator[Item]:
        """The maps one after the other, checked."""
        for name in self.track(self.names, len(self.names), "export"):
            item = self.reader[name]
            check_indices(item.vertex, vertices, f"{self.reader.path}: {name}: vertex", lowest=-1)
            yield item

    def photos(self, vertices: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Photo, vertices and scores of each map."""
        for item in self.items(vertices):
            rgb, _ = decode(item.encoded.tobytes(), item.name)
            if rgb.shape[:2] != item.vertex.shape:
                raise InputError(
                    f"{item.name}: the map and the image differ in size", "make the maps file again"
                )
            yield rgb, item.vertex, item.score


def export_maps(
    maps: Maps, path: Path, points: Path | None, category: str, seed: int, overwrite: bool
) -> str:
    """Write maps as the file `path`, by its ending, whole or not at all; what was written."""
    suffix = check_ending(path, MAPS, "a maps file")
    with atomic(path, overwrite) as partial:
        if suffix in MESHES:
            return _mesh(maps, partial, suffix)
        if suffix == ".mp4":
            return _video(maps, partial)
        if suffix == ".json":
            return _coco(maps, partial, points, category, seed)
        return _table(maps, partial, suffix)


def _mesh(maps: Maps, partial: Path, suffix: str) -> str:
    surface = maps.surface()
    photos = maps.photos(len(surface.verts))
    if suffix == ".glb":
        picture = export_mesh.bake(surface, photos, maps.config.size)
        partial.write_bytes(export_mesh.mesh_bytes(export_mesh.textured(surface, picture), suffix))
        return f"the template with a texture of {len(maps.names)} photos"
    colors, share = export_mesh.vertex_colors(surface, photos)
    partial.write_bytes(export_mesh.mesh_bytes(export_mesh.colored(surface, colors), suffix))
    return f"the template with vertex colours of {len(maps.names)} photos, which show {share:.0%} of it"


def _table(maps: Maps, partial: Path, suffix: str) -> str:
    template = maps.prepared()
    columns = export_points.table(maps.items(len(template.verts)), template)
    if suffix == ".csv":
        export_points.write_csv(partial, columns)
    else:
        with open(partial, "wb") as stream:
            np.savez_compressed(stream, **columns)  # type: ignore[arg-type]
    return f"{len(columns['x'])} pixels of {len(maps.names)} photos"


def _coco(maps: Maps, partial: Path, points: Path | None, category: str, seed: int) -> str:
    template = maps.prepared()
    names = export_points.read_named_vertices(points, template) if points else {}
    items = maps.items(len(template.verts))
    value = export_points.coco(items, template, names, maps.config.number, maps.config.near, category, seed)
    partial.write_text(json.dumps(value), encoding="utf-8")
    return f"{len(value['annotations'])} objects, {len(names)} keypoints each"


def _video(maps: Maps, partial: Path) -> str:
    surface = maps.surface()
    draw = painter(surface, maps.config.texture)
    pictures = ((rgb, draw(rgb, vertex)) for rgb, vertex, _ in maps.photos(len(surface.verts)))
    frames = (np.concatenate([rgb, drawn], 1) if maps.config.beside else drawn for rgb, drawn in pictures)
    count = export_video.write_video(partial, frames, maps.config.fps)
    return f"{count} frames"


def painter(surface: Surface, texture: str) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """What draws a map over its photo: the vertices' colours, or a texture where one is named."""
    if not texture:
        return lambda rgb, vertex: color_map(rgb, vertex, surface.colors)
    laid, finder = load_texture(texture, surface), SurfacePoints(surface, torch.device("cpu"))
    return lambda rgb, vertex: lay(rgb, vertex, finder, laid)
