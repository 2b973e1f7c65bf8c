"""Where the weights of a decoder begin: as random numbers, or as those of a decoder of other classes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from shic_cli.base.errors import InputError
from shic_cli.files.arrays import source
from shic_cli.learning.model_file import opened

ANIMALS = Path(__file__).with_name("animals.safetensors")  # examples/general_start.py makes it
DECODER = "decoder."  # the names of a decoder's tensors begin with this, in this file and in a model file
GUIDE = "guide."  # the layer of a U-Net that takes the features of a frozen network


def start_file(start: str) -> Path | None:
    """The file that `--start` means: None for none, else the package's own or the one named."""
    return None if start == "none" else ANIMALS if start == "animals" else Path(start)


def start_source(start: str) -> dict[str, dict[str, str]]:
    """What `sources` records about the file that `--start` means: nothing for none."""
    path = start_file(start)
    return {} if path is None else {"start": {**source(path), "path": start}}


def begin(decoder: nn.Module, start: str) -> None:
    """Give `decoder` the weights that `--start` means; none leaves it as it is.

    The embeddings of the vertices are not taken, because they are of another surface. The layer for a frozen
    network's features stays random where the file has none.

    InputError if the file is no model, or if its decoder has another layout.
    """
    path = start_file(start)
    if path is None:
        return
    with opened(path) as file:
        names = [name for name in file.keys() if name.startswith(DECODER)]  # noqa: SIM118 - no dict
        found = {name.removeprefix(DECODER): file.get_tensor(name) for name in names}
    own = decoder.state_dict()
    found = {name: value for name, value in found.items() if name in own or not name.startswith(GUIDE)}
    expected = {name for name in own if name in found or not name.startswith(GUIDE)}
    sizes = {name: [_size(each, name) for each in (found, own)] for name in sorted(expected | set(found))}
    if other := next((name for name, (here, wanted) in sizes.items() if here != wanted), None):
        here, wanted = sizes[other]
        raise InputError(
            f"{path}: its decoder is of another layout ({DECODER}{other} is {here}, expected {wanted})",
            "name a model that was trained with the same --encoder and --dim, or --start none",
        )
    if bad := next((name for name, value in found.items() if not torch.isfinite(value).all()), None):
        raise InputError(f"{path}: {DECODER}{bad} is not finite", "name another model, or --start none")
    decoder.load_state_dict(own | found)


def _size(tensors: dict[str, torch.Tensor], name: str) -> str:
    """The shape of a tensor, as a message has it."""
    return str(list(tensors[name].shape)) if name in tensors else "missing"
