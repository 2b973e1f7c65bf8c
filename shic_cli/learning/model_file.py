"""The model file: a canonical map and its surface in one safetensors file."""

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
from shic_cli.files.checks import (
    check_axes,
    check_finite,
    check_regular,
    check_surface,
    check_values,
    parse_json,
)
from shic_cli.files.layouts import LAYOUTS, SURFACE, Surface
from shic_cli.learning.canonical_map import CanonicalMap

FORMAT, VERSION = "shic/model", 1
ENCODER = "encoder."  # the names of a frozen encoder's tensors begin with this


@dataclass(frozen=True)
class Saved:
    """The contents of a model file: the map, its surface and `meta`.

    `meta` has encoder, decoder, params, template, sources, losses and class. `encoder` has the frozen
    encoder's own tensors if the file carries them; else it is None, and the encoder is made by its name.
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
    """Write the model file directly to `path`; OSError if the disk is full."""
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
    """Write a safetensors file, with the same bytes for the same tensors and metadata.

    The library writes metadata in random order, so the header is sorted here. The library's own function for
    files is not used either, because a run that is killed in it leaves a file of another name behind.
    """
    data = memoryview(save(tensors, metadata=meta))
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8:start]))
    header["__metadata__"] = dict(sorted(meta.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.writelines([len(text).to_bytes(8, "little"), text, data[start:]])


BUILT = {"decoder": str, "channels": int, "dim": int}  # the metadata from which the map is built


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """The open safetensors file; errors of its reader become an InputError."""
    check_regular(path)  # the library would wait for a named pipe for ever
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        if Path(path).suffix == ".h5" and Path(path).is_file():
            raise InputError(
                f"{path}: is an HDF5 file, not a model", "make a model with `shic train`"
            ) from error
        fact = (
            "there is no such file" if not Path(path).exists() else f"can't be read as safetensors ({error})"
        )
        raise InputError(f"{path}: {fact}", "make a model with `shic train`") from error


def read_meta(path: Path) -> dict[str, Any]:
    """The metadata of a model file; InputError if the file is no model."""
    with opened(path) as file:
        meta = file.metadata() or {}
    if meta.get("format") != FORMAT or meta.get("format_version") != str(VERSION):
        kind = f"{meta.get('format')} {meta.get('format_version')}"
        raise InputError(
            f"{path}: expected {FORMAT} {VERSION}, found {kind}", "make a model with `shic train`"
        )
    content = parse_json(meta.get("meta", ""), f"{path}: its metadata")
    if not isinstance(content, dict):
        raise InputError(f"{path}: its metadata is damaged", "train again")
    return {**content, "shic_version": meta.get("shic_version")}


def require(meta: dict[str, Any], kinds: dict[str, type], path: Path) -> None:
    """InputError that names the first of `kinds` that the metadata lacks or holds with another type."""
    for name, kind in kinds.items():
        if type(meta.get(name)) is not kind:
            raise InputError(
                f"{path}: its metadata is damaged ({name} is missing, or is not of type {kind.__name__})",
                "train again",
            )


def load_model(path: Path, device: torch.device | str = "cpu") -> Saved:
    """The model in `path`, on `device`.

    InputError if it is no model, or if a tensor is missing, is not finite, or has another size or type.
    """
    meta = read_meta(path)
    require(meta, BUILT, path)
    with opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    try:
        surface = _surface({name: tensors.pop(f"surface.{name}") for name in SURFACE}, path)
        encoder = {
            name.removeprefix(ENCODER): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(ENCODER)
        }
        canonical = _build(meta, tensors)
    except (KeyError, RuntimeError, TypeError, OverflowError) as error:
        said = str(error).splitlines()[-1].strip()  # torch names the tensors below a heading
        raise InputError(
            f"{path}: a tensor is missing or has another size ({said})", "train again"
        ) from error
    for name, value in {**tensors, **encoder}.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{path}: {name} is not finite", "train again, with a smaller --rate")
    if len(surface.verts) != len(tensors["eigenvectors"]):
        raise InputError(f"{path}: surface.verts and eigenvectors differ in length", "train again")
    return Saved(canonical.to(device).eval().requires_grad_(False), surface, meta, encoder or None)


def _build(meta: dict[str, Any], tensors: dict[str, torch.Tensor]) -> CanonicalMap:
    """The map of these tensors.

    It is first laid out on the meta device, which takes no memory, because the sizes come from the file and
    may be anything.
    """
    with torch.device("meta"):
        canonical = CanonicalMap(
            meta["decoder"],
            meta["channels"],
            meta["dim"],
            torch.empty_like(tensors["eigenvectors"], device="meta"),
        )
    for name, expected in canonical.state_dict().items():
        if tensors[name].dtype != expected.dtype:
            raise TypeError(f"{name} is {tensors[name].dtype}, expected {expected.dtype}")
    canonical.load_state_dict(tensors, assign=True)
    return canonical


def _surface(tensors: dict[str, torch.Tensor], path: Path) -> Surface:
    """The surface of a model file's tensors, checked by a template's layout; InputError if it is none."""
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
    """The contents of a model file as JSON values: its tensors with their shapes, and its metadata.

    For the tensors of an encoder in the file only their number is given.
    """
    meta = read_meta(path)
    with opened(path) as file:
        names = list(file.keys())
        fields = {
            name: list(file.get_slice(name).get_shape()) for name in names if not name.startswith(ENCODER)
        }
    if carried := len(names) - len(fields):
        meta["encoder_tensors"] = carried
    return {"path": str(path), "kind": FORMAT, "version": VERSION, "fields": fields, **meta}


# A surface is found by these names; the one that is faster to read comes first.
SURFACES = ("model.safetensors", "template.h5")


def find_surface(path: Path | None) -> Surface:
    """The surface in `path`, or in model.safetensors or template.h5 of this folder; InputError if none."""
    path = path or next((Path(name) for name in SURFACES if Path(name).is_file()), None)
    if path is None:
        raise InputError(f"neither {' nor '.join(SURFACES)} is here", "name one of them with --template")
    return read_surface(path)
