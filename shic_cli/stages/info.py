"""What a file is: an HDF5 file of shic's, or a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shic_cli.files import items


def describe(path: Path) -> dict[str, Any]:
    """Kind, fields with shapes, settings and sources of `path`, as JSON values; InputError if it is no file
    of shic's.
    """
    if path.suffix == ".safetensors":
        from shic_cli.learning import model_file

        return model_file.describe(path)
    return items.describe(path)
