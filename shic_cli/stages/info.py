"""What a file is: an HDF5 file of shic's, or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shic_cli import schema


def describe(path: Path) -> dict[str, Any]:
    """Kind, fields with shapes, settings and sources of `path`, as JSON values; InputError if it is no file
    of shic's.
    """
    if path.suffix == ".safetensors":
        from shic_cli import model

        return model.describe(path)
    return schema.describe(path)
