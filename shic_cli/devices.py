"""Where tensors live, and where chance comes from."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np

from shic_cli.errors import ShicError

if TYPE_CHECKING:
    import torch


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` means; ShicError if it is not there."""
    import torch  # here, for `chance` serves commands that need no tensors

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ShicError(f"--device {name}: is no device", "give auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        raise ShicError(
            f"--device {name}: there is no such device here ({torch.cuda.device_count()} CUDA devices)", "give --device cpu, or auto"
        )
    if device.type not in ("cpu", "cuda"):
        raise ShicError(f"--device {name}: is not supported", "give auto, cpu, cuda or cuda:N")
    return device


def chance(seed: int, *parts: int | str) -> np.random.Generator:
    """A random generator of its own for `parts` (a stage, an image, an epoch), so that any of them can be made again alone."""
    keys = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in parts]
    return np.random.default_rng([seed, *keys])
