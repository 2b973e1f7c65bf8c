"""Descriptions of files: HDF5 files of the four kinds, and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shic_cli.files import items


def describe(path: Path) -> dict[str, Any]:
    """The kind, fields with shapes, settings and sources of `path`, as JSON values.

    InputError if it is neither a file of the four kinds nor a model.
    """
    if path.suffix == ".safetensors":
        from shic_cli.learning import model_file

        return model_file.describe(path)
    return items.describe(path)
