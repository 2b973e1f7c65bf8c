"""Checkpoints of training: one safetensors file with all that is needed to resume."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open

from shic_cli.files.atomic import replacing
from shic_cli.learning.canonical_map import CanonicalMap
from shic_cli.learning.model_file import write_tensors

History = list[dict[str, float]]  # the mean losses of each epoch, by name


def write_checkpoint(
    path: Path, map: CanonicalMap, optimizer: torch.optim.Optimizer, epoch: int, history: History
) -> None:
    """Write the map, the state of Adam, the number of finished epochs and their losses to `path`."""
    tensors = {f"map.{name}": value for name, value in map.state_dict().items()}
    names = [name for name, _ in map.named_parameters()]
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{names[i]}.{key}": value for key, value in state.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as partial:
        write_tensors(partial, tensors, {"epoch": str(epoch), "history": json.dumps(history)})


def read_checkpoint(path: Path, map: CanonicalMap, optimizer: torch.optim.Optimizer) -> tuple[int, History]:
    """Restore `map` and `optimizer`; the number of finished epochs and their losses come back."""
    with safe_open(path, "pt") as file:
        tensors, meta = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    map.load_state_dict(
        {name.removeprefix("map."): value for name, value in tensors.items() if name.startswith("map.")}
    )
    state: dict[int, dict[str, torch.Tensor]] = {}
    for i, (name, _) in enumerate(map.named_parameters()):
        prefix = f"adam.{name}."
        state[i] = {
            key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
        }
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    return int(meta["epoch"]), json.loads(meta["history"])
