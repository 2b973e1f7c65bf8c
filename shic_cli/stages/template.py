"""Prepare the template of a class: everything that the other stages need to know about a mesh's surface."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.spatial import KDTree

from shic_cli.base.devices import free_memory
from shic_cli.base.errors import InputError, lacks_memory
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import GEODESIC_MAXIMUM, TemplateConfig
from shic_cli.files.arrays import source, write_arrays
from shic_cli.files.catalogue import read_arrays
from shic_cli.files.checks import check_indices
from shic_cli.files.layouts import LAYOUTS, Template
from shic_cli.surface import geometry
from shic_cli.surface.prepared import surface

if TYPE_CHECKING:
    import torch

log = logging.getLogger("shic")


def prepare(
    path: Path, config: TemplateConfig, track: Track = plain_track, device: torch.device | None = None
) -> Template:
    """Return the Template of the mesh in `path`: cleaned, oriented, resampled and with all its fields.

    The fields are everything that the other stages need to know about the surface. On a CUDA `device` the
    basis and the distances are computed there, unless they need more memory than it has. In that case, and on
    all other devices, they are computed by sparse factorisations, which suit a CPU.

    Raises InputError if the file is not a mesh, and SettingError if `config.up` and `config.front` contradict
    each other.
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
        source_to_vertex=np.asarray(KDTree(points).query(mesh.source)[1], np.int32),
    )


def _measured(
    verts: np.ndarray, faces: np.ndarray, config: TemplateConfig, track: Track, device: torch.device | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return eigenvectors, eigenvalues and distances, computed on `device`.

    They are computed the sparse way if `device` is None or has too little memory.
    """
    try:
        if device is None or has_room(len(verts), device):
            vectors, values, _ = geometry.laplacian_basis(verts, faces, config.eigenvectors, device)
            return vectors, values, geometry.geodesics(verts, faces, track, device)
    except RuntimeError as error:
        if device is None or not lacks_memory(error):
            raise
    log.warning(
        "%d vertices need more memory than %s has free: measured on the CPU instead", len(verts), device
    )
    return _measured(verts, faces, config, track, None)


def has_room(count: int, device: torch.device) -> bool:
    """Return whether the dense matrices of `count` vertices fit into the free memory.

    The memory of the GPU `device` and the memory of the host are both checked.
    """
    import torch

    from shic_cli.surface import heat_gpu

    square = 8 * count**2  # number of bytes of one matrix
    places = {device: heat_gpu.ON_DEVICE, torch.device("cpu"): heat_gpu.ON_HOST}
    return all(number * square < free_memory(place) for place, number in places.items())


def with_catalogue(template: Template, geodesics: Path | None, symmetry: Path | None) -> Template:
    """Return `template` with distances and mirror map replaced by those of the DensePose mesh catalogue.

    Only what a file is given for is replaced. Raises InputError if a file does not fit, or if the template's
    vertices are not those of its mesh file in the same order.
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


def write(
    path: Path,
    template: Template,
    config: TemplateConfig,
    mesh: Path,
    overwrite: bool = False,
    **others: Path | None,
) -> None:
    """Write `template` as a template file.

    `prepare` made the template from the file `mesh`. `others` are the further files that it was made from, by
    their role.
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
