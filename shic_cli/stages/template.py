"""The template of a class: from any mesh to everything that the other stages need to know about its surface."""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import cKDTree

from shic_cli import geometry
from shic_cli.config import GEODESIC_MAXIMUM, TemplateConfig
from shic_cli.errors import InputError, SettingError
from shic_cli.mesh import MUCH, Mesh, largest_part, normalised, part_areas, read_mesh, resample, sound
from shic_cli.pickles import read_arrays
from shic_cli.progress import Track, plain_track
from shic_cli.schema import LAYOUTS, Template, check_indices, source, write_arrays

if TYPE_CHECKING:
    import torch

log = logging.getLogger("shic")

LARGEST = 30_000  # vertices; the table of distances between them has 3.6 GB


def prepare(
    path: Path, config: TemplateConfig, track: Track = plain_track, device: torch.device | None = None
) -> Template:
    """The Template of the mesh in `path`: cleaned, oriented, resampled, with all that its surface is asked
    for later.

    On a CUDA `device` its basis and distances are computed there, unless they need more memory than it has;
    then, as everywhere else, by the sparse factorisations that suit a CPU. InputError if the file is no mesh,
    SettingError if `config.up` and `config.front` contradict each other.
    """
    mesh, fields = surface(path, config)
    points, faces = fields["verts"].astype(float), fields["faces"]
    vectors, values, geodesic = _measured(
        points, faces, config, track, device if device is not None and device.type == "cuda" else None
    )
    return Template(
        **fields,
        eigenvectors=vectors.astype(np.float32),
        eigenvalues=values.astype(np.float32),
        geodesic=geodesic,
        source_to_vertex=cKDTree(points).query(mesh.source)[1].astype(np.int32),
    )


def _measured(
    verts: np.ndarray, faces: np.ndarray, config: TemplateConfig, track: Track, device: torch.device | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Eigenvectors, eigenvalues and distances, on `device`, or the sparse way where that is None or has too
    little memory.
    """
    try:
        vectors, values, _ = geometry.laplacian_basis(verts, faces, config.eigenvectors, device)
        return vectors, values, geometry.geodesics(verts, faces, track, device)
    except RuntimeError as error:
        if device is None or type(error).__name__ != "OutOfMemoryError":
            raise
    log.warning(
        "%d vertices need more memory than %s has free: measured on the CPU instead", len(verts), device
    )
    return _measured(verts, faces, config, track, None)


def with_catalogue(template: Template, geodesics: Path | None, symmetry: Path | None) -> Template:
    """`template` with the distances and the mirror map of the DensePose mesh catalogue, where files of them
    are given, in place of its own.

    InputError if a file does not fit, or if the template's vertices are not those of its mesh file in their
    order.
    """
    count = len(template.verts)
    if not np.array_equal(template.source_to_vertex, np.arange(count)):
        raise InputError(
            "the template's vertices are not those of its mesh file in their order",
            "prepare it with --vertices 0",
        )
    changed: dict[str, np.ndarray] = {}
    if geodesics is not None:
        (distances,) = read_arrays(geodesics, ())
        _check_shape(distances, (count, count), geodesics)
        if (distances < 0).any() or not distances.any():
            raise InputError(
                f"{geodesics}: holds no distances",
                "fetch it again, or leave it out: they are computed from the mesh",
            )
        symmetric = (distances + distances.T) / 2
        changed["geodesic"] = (symmetric * (GEODESIC_MAXIMUM / symmetric.max())).astype(np.float32)
    if symmetry is not None:
        (mirror,) = read_arrays(symmetry, ("vertex_transforms",))
        _check_shape(mirror, (count,), symmetry)
        check_indices(mirror, count, f"{symmetry}: vertex_transforms")
        changed["mirror"] = mirror.astype(np.int32)
    return replace(template, **changed)


def _check_shape(array: np.ndarray, shape: tuple[int, ...], path: Path) -> None:
    if array.shape != shape:
        raise InputError(
            f"{path}: is {array.shape}, the template needs {shape}",
            "give the catalogue's file of the same mesh",
        )


def surface(path: Path, config: TemplateConfig) -> tuple[Mesh, dict[str, Any]]:
    """The mesh in `path`, cleaned, oriented and resampled, and those fields of its Template that need no
    spectrum and no distances.

    Raises what `prepare` raises.
    """
    if config.remesh == "on" and not config.vertices:
        raise SettingError(
            "--remesh on --vertices 0: a new surface has other vertices", "give their number with --vertices"
        )
    path = Path(path)
    mesh = largest_part(_whole(sound(read_mesh(path), path.name), config, path.name), path.name)
    mesh = normalised(mesh.moved(geometry.orientation(mesh.verts, config.up, config.front)))
    axis, _ = geometry.mirror_plane(mesh.verts)
    mesh = normalised(resample(mesh, config.vertices, path.name))
    if len(mesh.verts) > LARGEST:
        raise InputError(
            f"{path}: has {len(mesh.verts)} vertices, at most {LARGEST} are used",
            "give fewer with --vertices",
        )
    # everything is computed from the vertices as the file holds them, so that the file alone gives the same
    # values again
    verts = mesh.verts.astype(np.float32)
    points = verts.astype(float)
    _, place = geometry.mirror_plane(points, (axis,))
    uv, face_uv = geometry.texture_coordinates(mesh)
    fields = {
        "verts": verts,
        "faces": mesh.faces.astype(np.int32),
        "mirror": geometry.mirror_map(points, axis, place).astype(np.int32),
        "colors": vertex_colors(points),
        "uv": uv.astype(np.float32),
        "face_uv": face_uv.astype(np.int32),
        "mirror_axis": "xyz"[axis],
    }
    return mesh, fields


def _whole(mesh: Mesh, config: TemplateConfig, name: str) -> Mesh:
    """The mesh with its parts grown together, as `config` says; the mesh itself where its largest part is
    nearly all of it.
    """
    if config.remesh == "off" or not config.vertices:
        return mesh
    area = part_areas(mesh)[1]
    if config.remesh == "auto" and area.max() >= (1 - MUCH) * area.sum():
        if np.count_nonzero(area) > 1:
            log.info(
                "%s: its small parts are left out; --remesh on makes one surface of those that touch", name
            )
        return mesh
    from shic_cli.remesh import remeshed

    return remeshed(mesh, name)


def write(
    path: Path, template: Template, config: TemplateConfig, mesh: Path, overwrite: bool = False, **others: Path | None
) -> None:  # fmt: skip
    """Write `template`, which `prepare` made of the file `mesh`, as a template file; `others` went into it
    too, by their role.
    """
    arrays = {name: getattr(template, name) for name in LAYOUTS["shic/template"].fields}
    files = {"mesh": mesh, **others}
    sources, attrs = (
        {role: source(file) for role, file in files.items() if file is not None},
        {"mirror_axis": template.mirror_axis},
    )
    write_arrays(
        path,
        "shic/template",
        arrays,
        params=config.params(),
        sources=sources,
        attrs=attrs,
        overwrite=overwrite,
    )


def vertex_colors(verts: np.ndarray) -> np.ndarray:
    """`(K, 3)` u1 RGB, smooth over the surface of oriented `verts` (K, 3), no two alike.

    The animal's left is warm and its right cool; the hue goes along the longer of length and height, from
    violet at the head to green at the tail, and the lightness along the other.
    """
    extent = np.maximum(np.ptp(verts, axis=0), 1e-9)
    x, y, z = ((verts - (verts.min(0) + verts.max(0)) / 2) / extent).T
    along, across = (z, y) if extent[2] >= extent[1] else (y, z)
    left = (1 + np.tanh(x / 0.08)) / 2
    hues = np.deg2rad(np.stack([50 - 150 * along, 230 + 150 * along]))
    red_green, yellow_blue = 0.15 * (
        left * [np.cos(hues[0]), np.sin(hues[0])] + (1 - left) * [np.cos(hues[1]), np.sin(hues[1])]
    )
    rgb = oklab_to_rgb(np.stack([0.69 + 0.28 * across, red_green, yellow_blue], axis=1))
    return _distinct(np.round(255 * rgb).astype(np.uint8))


def oklab_to_rgb(lab: np.ndarray) -> np.ndarray:
    """sRGB `(P, 3)` in 0..1 of OKLab colours `(P, 3)`, in which equal steps look equal."""
    to_cones = np.array(
        [
            [1, 0.3963377774, 0.2158037573],
            [1, -0.1055613458, -0.0638541728],
            [1, -0.0894841775, -1.2914855480],
        ]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_cones.T) ** 3 @ to_linear.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def _distinct(colors: np.ndarray) -> np.ndarray:
    """`colors` (K, 3) with every colour that an earlier vertex has moved to the nearest free one."""
    steps = np.stack(np.meshgrid(*[np.arange(-8, 9)] * 3, indexing="ij"), -1).reshape(-1, 3)
    steps = steps[np.argsort((steps**2).sum(1), kind="stable")]
    place = np.array([1 << 16, 1 << 8, 1])
    codes, taken = [], set()
    for color in colors.astype(int):
        code = int(color @ place)
        if code in taken:
            near = color + steps
            near = near[((near >= 0) & (near <= 255)).all(1)] @ place
            code = next(each for each in chain(near.tolist(), range(1 << 24)) if each not in taken)
        codes.append(code)
        taken.add(code)
    return (np.array(codes)[:, None] >> [16, 8, 0] & 255).astype(np.uint8)


def uv_picture(template: Template, size: int = 2048) -> np.ndarray:
    """`(size, size, 3)` u1: the texture to paint on, each chart filled with the vertex colours, with its
    outline and its edges.
    """
    import cv2
    from scipy.ndimage import distance_transform_edt

    corners = (template.uv * [1, -1] + [0, 1]) * size - 0.5
    corners = corners[template.face_uv]
    face = np.full((size, size), -1, np.int32)
    for i, triangle in enumerate(np.round(corners * 16).astype(np.int32)):
        cv2.fillConvexPoly(face, triangle, i, shift=4)
    row, column = np.nonzero(face >= 0)
    number = face[row, column]
    weights = _barycentric(np.stack([column, row], 1), corners[number])
    picture = np.full((size, size, 3), 245, np.uint8)
    picture[row, column] = (template.colors[template.faces[number]] * weights[..., None]).sum(1).round()
    # colours go on a little beyond each chart, so that a renderer's smoothing finds no seam
    distance, nearest = distance_transform_edt(face < 0, return_indices=True)
    near = distance <= 4
    picture[near] = picture[nearest[0][near], nearest[1][near]]
    return _outlined(picture, template.face_uv, (template.uv * [1, -1] + [0, 1]) * size - 0.5)


def _barycentric(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """`(P, 3)` coordinates of `points` (P, 2) in `triangles` (P, 3, 2), kept inside."""
    a = triangles[:, 0]
    (ux, uy), (vx, vy), (px, py) = (triangles[:, 1] - a).T, (triangles[:, 2] - a).T, (points - a).T
    doubled = ux * vy - uy * vx
    doubled = np.where(doubled == 0, 1, doubled)
    second, third = (px * vy - py * vx) / doubled, (ux * py - uy * px) / doubled
    weights = np.clip(np.stack([1 - second - third, second, third], 1), 0, 1)
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)


def _outlined(picture: np.ndarray, face_uv: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """`picture` with the edges of `face_uv` (F, 3) at `positions` (T, 2) drawn faintly, and those of one face
    only strongly.
    """
    import cv2

    edges = np.sort(face_uv[:, [[0, 1], [1, 2], [2, 0]]], axis=2).reshape(-1, 2)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    for chosen, strength in ((count > 1, 0.15), (count == 1, 0.8)):
        ink = np.zeros(picture.shape[:2], np.uint8)
        lines = list(np.round(positions[edges[chosen]] * 16).astype(np.int32))
        cv2.polylines(ink, lines, False, 255, 1, cv2.LINE_AA, shift=4)
        drawn = ink > 0
        picture[drawn] = (picture[drawn] * (1 - strength * ink[drawn, None] / 255)).round()
    return picture


def sides_picture(template: Template, size: int = 512) -> np.ndarray:
    """`(size, 4 size, 3)` u1: the template in its vertex colours from its front, left, back and right."""
    import cv2
    import torch

    from shic_cli import registry
    from shic_cli.cameras import ring
    from shic_cli.render import interpolate, style_shaded

    verts, faces = torch.as_tensor(template.verts), torch.as_tensor(template.faces).long()
    cameras = ring(4, (15.0,), 30.0).fit(verts, 0.85)
    fragments = registry.make("renderers", "auto")(verts, faces, cameras, size)
    light = 0.5 + 0.5 * style_shaded(fragments, verts, faces, cameras) / 230
    colors = interpolate(fragments, faces, torch.as_tensor(template.colors).float()) * light
    pictures = torch.where(fragments.mask[..., None], colors, 255).clamp(0, 255).round().byte().numpy()
    for picture, name in zip(pictures, ("front", "left side", "back", "right side"), strict=True):
        cv2.putText(
            picture,
            name,
            (size // 40, size // 18),
            cv2.FONT_HERSHEY_SIMPLEX,
            size / 730,
            (90, 90, 90),
            1,
            cv2.LINE_AA,
        )
    return np.concatenate(list(pictures), axis=1)
