"""Descriptions of files: HDF5 files of the four kinds, and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shic_cli.files import items
from shic_cli.files.arrays import opened


def describe(path: Path) -> dict[str, Any]:
    """The kind, fields with shapes, settings and sources of `path`, as JSON values.

    InputError if it is neither a file of the four kinds nor a model.
    """
    if path.suffix == ".safetensors":
        from shic_cli.learning import model_file

        return model_file.describe(path)
    return items.describe(path)


def counts(path: Path) -> dict[str, int]:
    """How many of what an HDF5 file holds: vertices and faces, views, pictures or photos."""
    with opened(path) as (file, header):
        if header.kind == "shic/template":
            return {"vertices": file["verts"].shape[0], "faces": file["faces"].shape[0]}  # type: ignore[union-attr]
        if header.kind == "shic/views":
            return {"views": file["image"].shape[0]}  # type: ignore[union-attr]
        is_made = header.attrs.get("labels") == "synthetic"
        is_views = header.kind == "shic/features" and header.attrs["template"]
        name = "views" if is_views else "pictures" if is_made else "photos"
        return {name: len(file["items"])}  # type: ignore[arg-type]
