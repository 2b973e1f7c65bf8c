"""shic: dense image-to-template correspondences for any class, without keypoint labels.

`import shic_cli as shic` gives `load`, `Map`, `Model`, `read_template`, `read_maps` and `write_maps`. They
are imported when they are first used, so that importing the package stays quick.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from shic_cli.files.arrays import read_template
    from shic_cli.stages.model import Map, Maps, Model, load, read_maps, write_maps

__all__ = ["Map", "Maps", "Model", "load", "read_maps", "read_template", "write_maps"]


def __getattr__(name: str) -> Any:
    """The objects of the Python API, by their name."""
    import importlib

    if name not in __all__:
        raise AttributeError(f"module 'shic_cli' has no attribute {name!r}")
    module = "shic_cli.files.arrays" if name == "read_template" else "shic_cli.stages.model"
    return getattr(importlib.import_module(module), name)
