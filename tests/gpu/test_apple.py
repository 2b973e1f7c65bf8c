"""Which device `--device` means where there is Apple's GPU, and what is said of what that GPU lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from shic_cli.base.devices import resolve_device
from shic_cli.base.errors import ShicError

LACKS = (
    "The operator 'aten::isin.Tensor_Tensor_out' is not currently implemented for the MPS device. If you want"
    " this op to be considered for addition please comment on an issue."
)
DOUBLE = (
    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64."
    " Please use float32 instead."
)


def test_auto_takes_cuda_then_apples_gpu_then_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    here: dict[object, bool] = {torch.cuda: False, torch.backends.mps: False}
    for place in here:
        monkeypatch.setattr(place, "is_available", lambda place=place: here[place])
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(ShicError, match="no Apple GPU"):
        resolve_device("mps")
    here[torch.backends.mps] = True
    assert resolve_device("auto").type == resolve_device("mps").type == "mps"
    here[torch.cuda] = True
    assert resolve_device("auto").type == "cuda"
    here[torch.cuda] = False
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(ShicError, match="ranks can't share"):
        resolve_device("mps")


@pytest.mark.parametrize(
    ("error", "lacking", "helps"),
    [
        (NotImplementedError(LACKS), "the operator aten::isin.Tensor_Tensor_out", True),
        (TypeError(DOUBLE), "numbers in double precision", False),
    ],
)
def test_what_apples_gpu_lacks_is_said_in_two_lines(
    error: Exception,
    lacking: str,
    helps: bool,
    monkeypatch: pytest.MonkeyPatch,
    shic: Callable[..., tuple[int, str, str]],
    folder: Path,
) -> None:
    def fail(*given: object, **named: object) -> None:
        raise error

    monkeypatch.setattr("shic_cli.stages.render.render_views", fail)
    status, out, err = shic("render", "-o", "v.h5")
    assert (status, out) == (1, "")
    fact, hint = err.strip().splitlines()[-2:]
    assert lacking in fact and "--device mps" in fact
    assert "--device cpu" in hint and ("PYTORCH_ENABLE_MPS_FALLBACK=1" in hint) == helps


def test_other_faults_of_the_program_are_not_taken_for_a_device_s(
    monkeypatch: pytest.MonkeyPatch, shic: Callable[..., tuple[int, str, str]], folder: Path
) -> None:
    def fail(*given: object, **named: object) -> None:
        raise TypeError("unsupported operand")

    monkeypatch.setattr("shic_cli.stages.render.render_views", fail)
    with pytest.raises(TypeError, match="unsupported"):
        shic("render", "-o", "v.h5")
