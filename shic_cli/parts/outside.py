"""What is fetched from elsewhere than the hub, checked by its digest; a model that is one such file."""

from __future__ import annotations

import hashlib
import io
import json
import urllib.request
import warnings
from pathlib import Path
from typing import Any

from shic_cli.base.errors import InputError, ShicError
from shic_cli.files.atomic import atomic
from shic_cli.parts.weights import MODELS, fault_in, kept_outside

LARGEST = 1 << 26  # bytes
SECONDS = 30  # without an answer


def fetch(name: str, weights: Path | None = None) -> Path:
    """The folder of the model `name`, after fetching its file unless it is there already.

    The folder gets config.json and model.safetensors. InputError if the file is not the one that is known;
    ShicError if its address does not answer.
    """
    model, folder = MODELS[name], kept_outside(name) if weights is None else Path(weights) / name
    if folder.is_dir() and not fault_in(folder, ("",)):
        return folder
    return write_converted(download(model.address, model.digest), folder, model.address)


def download(address: str, digest: str) -> bytes:
    """The file at `address`, whose sha256 is `digest`.

    InputError if it is another file; ShicError if the address does not answer.
    """
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:
            data = answer.read(LARGEST)
    except OSError as error:
        hint = "check the network; docs/how-to/meshes.md and models.md say where else to find them"
        raise ShicError(f"{address}: does not answer ({error})", hint) from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise InputError(f"{address}: is not the file that is known under this address", "report it")
    return data


def write_converted(data: bytes, folder: Path, where: str) -> Path:
    """`folder` with the adapter of DIY-SC that the checkpoint `data` holds; nothing in it is run."""
    import torch
    from safetensors.torch import save

    from shic_cli.parts.extractors.diy_sc import convert

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of pickles of other versions
            state: Any = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader may raise anything for a damaged file
        fact = f"{where}: is damaged, or holds more than tensors; code in a file is never run"
        raise InputError(fact, "fetch it again") from error
    if not isinstance(state, dict):
        raise InputError(f"{where}: holds no tensors by name", "fetch it again")
    tensors = convert(state, Path(where))
    folder.mkdir(parents=True, exist_ok=True)
    # the weights last: without them the folder counts as unfinished
    settings = json.dumps({"model_type": "diy-sc"}).encode()
    for file, content in (("config.json", settings), ("model.safetensors", save(tensors))):
        with atomic(folder / file, overwrite=True) as partial:
            partial.write_bytes(content)
    return folder
