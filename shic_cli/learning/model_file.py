"""The canonical map: a frozen encoder, a decoder for pixels, and E = U C for vertices (sec. 3.4). Saved as
one safetensors file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from shic_cli import __version__
from shic_cli.base.errors import InputError
from shic_cli.files.arrays import read_template
from shic_cli.files.atomic import atomic
from shic_cli.files.checks import check_axes, check_finite, check_surface, check_values, parse_json
from shic_cli.files.layouts import LAYOUTS, SURFACE, Surface
from shic_cli.learning.canonical_map import CanonicalMap

FORMAT, VERSION = "shic/model", 1
ENCODER = "encoder."  # what the names of a frozen encoder's tensors begin with


@dataclass(frozen=True)
class Saved:
    """A model file in memory: the map, its surface, and `meta` (encoder, decoder, params, template, sources,
    losses, class).

    `encoder` has the frozen encoder's own tensors where the file carries them, else None: it is made by its
    name then.
    """

    map: CanonicalMap
    surface: Surface
    meta: dict[str, Any]
    encoder: dict[str, torch.Tensor] | None = None


def save_model(path: Path, saved: Saved, overwrite: bool) -> None:
    """Write the model file, whole or not at all."""
    with atomic(path, overwrite) as partial:
        write_model(partial, saved)


def write_model(path: Path, saved: Saved) -> None:
    """Write the model file to `path`, as it is; OSError when the disk is full."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in saved.map.state_dict().items()}
    tensors |= {f"surface.{name}": torch.tensor(getattr(saved.surface, name)) for name in SURFACE}
    tensors |= {
        ENCODER + name: value.detach().cpu().contiguous() for name, value in (saved.encoder or {}).items()
    }
    meta = {
        "format": FORMAT,
        "format_version": str(VERSION),
        "shic_version": __version__,
        "meta": json.dumps(saved.meta),
    }
    write_tensors(path, tensors, meta)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], meta: dict[str, str]) -> None:
    """Write a safetensors file: the same bytes for the same tensors and metadata, which the library itself
    writes in random order.

    Nor is the library's own writing to a file used: a run that is killed meanwhile leaves a file of another
    name behind.
    """
    data = memoryview(save(tensors, metadata=meta))
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8:start]))
    header["__metadata__"] = dict(sorted(meta.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.writelines([len(text).to_bytes(8, "little"), text, data[start:]])


BUILT = {"decoder": str, "channels": int, "dim": int}  # what of the metadata the map is built by


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The safetensors file; InputError in place of what its reader raises."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        fact = (
            "there is no such file" if not Path(path).exists() else f"can't be read as safetensors ({error})"
        )
        raise InputError(f"{path}: {fact}", "make a model with `shic train`") from error


def read_meta(path: Path) -> dict[str, Any]:
    """The metadata of a model file; InputError if it is none."""
    with _opened(path) as file:
        meta = file.metadata() or {}
    if meta.get("format") != FORMAT or meta.get("format_version") != str(VERSION):
        found = f"{meta.get('format')} {meta.get('format_version')}"
        raise InputError(
            f"{path}: expected {FORMAT} {VERSION}, found {found}", "make a model with `shic train`"
        )
    found = parse_json(meta.get("meta", ""), f"{path}: its metadata")
    if not isinstance(found, dict):
        raise InputError(f"{path}: its metadata is damaged", "train again")
    return {**found, "shic_version": meta.get("shic_version")}


def require(meta: dict[str, Any], kinds: dict[str, type], path: Path) -> None:
    """InputError naming the first of `kinds` that the metadata lacks, or holds as something else."""
    for name, kind in kinds.items():
        if type(meta.get(name)) is not kind:
            raise InputError(
                f"{path}: its metadata is damaged ({name} is missing, or no {kind.__name__})", "train again"
            )


def load_model(path: Path, device: torch.device | str = "cpu") -> Saved:
    """The model in `path`; InputError if it is none, or a tensor is missing, of another size or type, or not
    finite.
    """
    meta = read_meta(path)
    require(meta, BUILT, path)
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    try:
        surface = _surface({name: tensors.pop(f"surface.{name}") for name in SURFACE}, path)
        encoder = {
            name.removeprefix(ENCODER): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(ENCODER)
        }
        found = _build(meta, tensors)
    except (KeyError, RuntimeError, TypeError, OverflowError) as error:
        raise InputError(
            f"{path}: a tensor is missing or has another size ({str(error).splitlines()[0]})", "train again"
        ) from error
    for name, value in {**tensors, **encoder}.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{path}: {name} is not finite", "train again, with a smaller --rate")
    if len(surface.verts) != len(tensors["eigenvectors"]):
        raise InputError(f"{path}: surface.verts and eigenvectors differ in length", "train again")
    return Saved(found.to(device).eval().requires_grad_(False), surface, meta, encoder or None)


def _build(meta: dict[str, Any], tensors: dict[str, torch.Tensor]) -> CanonicalMap:
    """The map of these tensors. It is laid out without memory first, for its sizes are what the file says and
    may be anything.
    """
    with torch.device("meta"):
        found = CanonicalMap(
            meta["decoder"],
            meta["channels"],
            meta["dim"],
            torch.empty_like(tensors["eigenvectors"], device="meta"),
        )
    for name, expected in found.state_dict().items():
        if tensors[name].dtype != expected.dtype:
            raise TypeError(f"{name} is {tensors[name].dtype}, expected {expected.dtype}")
    found.load_state_dict(tensors, assign=True)
    return found


def _surface(tensors: dict[str, torch.Tensor], path: Path) -> Surface:
    """The surface of a model file's tensors; InputError if it is none, by the layout of a template's."""
    sizes: dict[str, int] = {}
    arrays = {name: value.numpy() for name, value in tensors.items()}
    for name, array in arrays.items():
        field, where = LAYOUTS["shic/template"].fields[name], f"{path}: surface.{name}"
        if array.dtype != np.dtype(field.dtype):
            raise InputError(f"{where} is {array.dtype}, expected {np.dtype(field.dtype)}", "train again")
        check_axes(array.shape, field, where, sizes)
        check_finite(array, where, "train again")
        check_values(array, field, where)
    surface = Surface(**arrays)
    check_surface(surface, f"{path}: surface")
    return surface


def read_surface(path: Path) -> Surface:
    """The surface in a template file or a model file."""
    return (
        load_model(path).surface if Path(path).suffix == ".safetensors" else Surface.of(read_template(path))
    )


def describe(path: Path) -> dict[str, Any]:
    """What a model file is: its tensors with their shapes, of an encoder in it only their number, and its
    metadata, as JSON values.
    """
    meta = read_meta(path)
    with _opened(path) as file:
        names = list(file.keys())
        fields = {
            name: list(file.get_slice(name).get_shape()) for name in names if not name.startswith(ENCODER)
        }
    if carried := len(names) - len(fields):
        meta["encoder_tensors"] = carried
    return {"path": str(path), "kind": FORMAT, "version": VERSION, "fields": fields, **meta}


SURFACES = (
    "model.safetensors",
    "template.h5",
)  # a surface is found by these names, the quicker one to read first


def find_surface(path: Path | None) -> Surface:
    """The surface in `path`, or in whichever of model.safetensors and template.h5 is here; InputError if
    there is none.
    """
    from shic_cli.learning.model_file import read_surface

    found = path or next((Path(name) for name in SURFACES if Path(name).is_file()), None)
    if found is None:
        raise InputError(f"neither {' nor '.join(SURFACES)} is here", "name one of them with --template")
    return read_surface(found)
