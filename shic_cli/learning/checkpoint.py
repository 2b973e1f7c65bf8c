"""The state of a training that was stopped, in one safetensors file: the map, Adam's means and the losses."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open

from shic_cli.files.atomic import replacing
from shic_cli.learning.canonical_map import CanonicalMap
from shic_cli.learning.model_file import write_tensors

History = list[dict[str, float]]


def save(
    path: Path, canonical_map: CanonicalMap, optimizer: torch.optim.Adam, epoch: int, history: History
) -> None:
    """Write everything that going on after `epoch` needs, whole or not at all."""
    tensors = {f"map.{name}": value for name, value in canonical_map.state_dict().items()}
    names = [name for name, _ in canonical_map.named_parameters()]
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"adam.{names[i]}.{key}": value for key, value in state.items()}
    meta = {"epoch": str(epoch), "history": json.dumps(history)}
    with replacing(path) as partial:
        write_tensors(
            partial, {name: value.detach().cpu().contiguous() for name, value in tensors.items()}, meta
        )


def load(path: Path, canonical_map: CanonicalMap, optimizer: torch.optim.Adam) -> tuple[int, History]:
    """The number of finished epochs and their losses; the map and the optimizer get the state of then."""
    with safe_open(path, "pt") as file:
        tensors, meta = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    canonical_map.load_state_dict(
        {name.removeprefix("map."): value for name, value in tensors.items() if name.startswith("map.")}
    )
    state: dict[int, dict[str, torch.Tensor]] = {}
    for i, (name, _) in enumerate(canonical_map.named_parameters()):
        prefix = f"adam.{name}."
        state[i] = {
            key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)
        }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(meta["epoch"]), json.loads(meta["history"])
