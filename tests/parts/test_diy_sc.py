"""DIY-SC: the adapter as its layers say, from a checkpoint in which nothing is run, on DINOv2's features."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_diffusion import save_dinov2
from torch.nn import functional as F

from shic_cli.base.errors import InputError, MissingError, ShicError
from shic_cli.parts import pull, weights
from shic_cli.parts.extractors.diy_sc import Adapter, DiySc, convert

CPU = torch.device("cpu")
PREFIX = "bottleneck_layers.0.0."


def checkpoint(channels: int = 64, width: int = 32, dim: int = 64) -> dict[str, torch.Tensor]:
    """Random numbers by the names of the authors' checkpoint."""
    chance = torch.Generator().manual_seed(0)
    shapes = {"conv1": (width, channels, 1, 1), "conv2": (width, width, 3, 3), "conv3": (dim, width, 1, 1)}
    if dim != channels:
        shapes["shortcut"] = (dim, channels, 1, 1)
    state = {"logit_scale": torch.tensor(2.6), "mixing_weights": torch.ones(1)}
    for name, shape in shapes.items():
        state[f"{PREFIX}{name}.weight"] = torch.randn(shape, generator=chance) / 8
        for kind in ("weight", "bias"):
            state[f"{PREFIX}{name}.norm.{kind}"] = torch.randn(shape[0], generator=chance)
    return state


@pytest.mark.parametrize("dim", [64, 96])
def test_the_adapter_is_the_layers_written_out(dim: int) -> None:
    state = checkpoint(dim=dim)
    x = torch.randn(2, 64, 5, 5, generator=torch.Generator().manual_seed(1))

    def layer(name: str, value: torch.Tensor) -> torch.Tensor:
        weight, scale, shift = (
            state[f"{PREFIX}{name}.{end}"] for end in ("weight", "norm.weight", "norm.bias")
        )
        return F.group_norm(F.conv2d(value, weight, padding=weight.shape[-1] // 2), 32, scale, shift)

    inner = layer("conv3", F.relu(layer("conv2", F.relu(layer("conv1", x)))))
    expected = F.relu(inner + (x if dim == 64 else layer("shortcut", x)))
    found = Adapter.of(convert(state, Path("best.pth")), Path("best.pth"))(x)
    torch.testing.assert_close(found, expected)


def known(path: Path, state: object, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file at the address of the adapter, with its digest."""
    torch.save(state, path)
    model = weights.MODELS["diy-sc-adapter"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    changed = replace(model, address=path.as_uri(), digest=digest)
    monkeypatch.setitem(weights.MODELS, "diy-sc-adapter", changed)
    return path


def test_pull_converts_and_the_extractor_refines_dinov2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "w"
    with pytest.raises(MissingError, match="shic models pull diy-sc-adapter"):
        DiySc.check(place)
    path = known(tmp_path / "best.pth", checkpoint(16, 32, 32), monkeypatch)
    assert pull.pull("diy-sc-adapter", place) == place / "diy-sc-adapter"
    assert pull.pull("diy-sc-adapter") == weights.locate("diy-sc-adapter")  # in the hub's cache
    path.unlink()
    assert (
        pull.pull("diy-sc-adapter", place) == place / "diy-sc-adapter"
    )  # what is there is not fetched again
    save_dinov2(place / "dinov2-base")
    DiySc.check(place)
    part = DiySc(device=CPU, weights=place, side=70)
    images = torch.rand(2, 3, 70, 70, generator=torch.Generator().manual_seed(2))
    features = part(images, torch.ones(2, 1, 70, 70))
    adapter = Adapter.of(load_file(place / "diy-sc-adapter/model.safetensors"), place)
    assert features.shape == (2, part.dim, 5, 5) == (2, 32, 5, 5)
    torch.testing.assert_close(features, adapter(part._dino(images, torch.ones(2, 1, 70, 70))))
    assert part.fingerprint == DiySc(device=CPU, weights=place, side=70).fingerprint
    assert part.fingerprint != DiySc(device=CPU, weights=place, side=56).fingerprint


class Trap:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mark = tmp_path / "mark"
    path = known(tmp_path / "best.pth", {"x": Trap(mark)}, monkeypatch)
    with pytest.raises(InputError, match="more than tensors"):
        pull.pull("diy-sc-adapter", tmp_path / "w")
    assert not mark.exists()
    path.write_bytes(pickle.dumps(1))
    with pytest.raises(InputError, match="not the file that is known"):
        pull.pull("diy-sc-adapter", tmp_path / "w")
    path.unlink()
    with pytest.raises(ShicError, match="does not answer"):
        pull.pull("diy-sc-adapter", tmp_path / "w")
    with pytest.raises(InputError, match="it has something"):
        convert({"something": torch.ones(1)}, Path("x"))
