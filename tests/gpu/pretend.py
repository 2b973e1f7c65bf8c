"""A GPU that is not there: numbers are computed on the CPU, and every tensor remembers where it would be.

Where tensors of two devices meet, an error is raised as CUDA raises one; where the host would wait for the
GPU, it is counted, with the line of the program that waits.
"""

from __future__ import annotations

import concurrent.futures as futures
import sys
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import warp as wp
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)  # the fixture `apple` makes the latter mps
# what looks at no values, or may take tensors of two devices
FREE = """
copy_ _has_compatible_shallow_copy_type requires_grad_ numel dim size is_floating_point __len__
""".split()  # noqa: SIM905
WAITS = """
item tolist __bool__ __float__ __int__ __index__ nonzero unique _unique2 masked_select equal allclose
is_nonzero argwhere bincount cholesky __contains__
""".split()  # noqa: SIM905
SILENT = ("empty_cache", "set_rng_state", "current_stream")
waits: Counter[str] = Counter()  # how often the host waited, by line


class Mixed(RuntimeError):
    """Two devices met."""


def place(tensor: torch.Tensor) -> torch.device:
    """Where `tensor` pretends to be."""
    return getattr(tensor, "_place", CPU)


def put(tensor: torch.Tensor, where: torch.device) -> torch.Tensor:
    """`tensor`, which pretends to be there from now on."""
    tensor._place = where  # type: ignore[attr-defined]
    return tensor


def line() -> str:
    """The innermost line of the package that is being run."""
    frames = [frame for frame in traceback.extract_stack() if "shic_cli" in frame.filename]
    return f"{frames[-1].filename.split('shic_cli/')[-1]}:{frames[-1].lineno}" if frames else "elsewhere"


def tensors(tree: Any) -> list[torch.Tensor]:
    return [each for each in tree_flatten(tree)[0] if isinstance(each, torch.Tensor)]


def is_on_gpu(device: Any) -> bool:
    return device is not None and torch.device(device).type == GPU.type


def host_waits(name: str, args: tuple, kwargs: dict) -> bool:
    """Whether the call makes the host wait for values on the GPU."""
    if name == "repeat_interleave":
        return len(tensors(args)) > 1 and "output_size" not in kwargs
    if name == "where":
        return len(args) == 1
    if name in ("__getitem__", "__setitem__"):
        chosen = any(each.dtype == torch.bool and place(each) == GPU for each in tensors(args[1]))
        return chosen and (name == "__getitem__" or any(each.dim() for each in tensors(args[2:3])))
    return name in WAITS


def check_kind(tensor: torch.Tensor) -> None:
    """Raise what torch raises where a tensor can't be on Apple's GPU."""
    if GPU.type == "mps" and tensor.dtype == torch.float64:
        raise TypeError(f"{line()}: Cannot convert a MPS Tensor to float64 dtype")


def moved(first: torch.Tensor, name: str, words: list[Any], kwargs: dict[str, Any]) -> torch.Tensor:
    """`first.to(*words, **kwargs)`, of which `device` is pretended."""
    words += [kwargs.pop("device", None), *(["cpu"] if name == "cpu" else ["cuda"] if name == "cuda" else [])]
    named = [word for word in words if isinstance(word, (str, torch.device, torch.Tensor))]
    places = [place(word) if isinstance(word, torch.Tensor) else torch.device(word) for word in named]
    kinds = [word for word in words if isinstance(word, (torch.dtype, torch.Tensor))]
    dtypes = [word if isinstance(word, torch.dtype) else word.dtype for word in kinds]
    kwargs = {key: kwargs[key] for key in ("dtype", "memory_format", "copy") if key in kwargs}
    kwargs |= {"dtype": dtypes[0]} if dtypes else {}
    out = first.to(**kwargs) if kwargs else first
    where = (GPU if is_on_gpu(places[0]) else places[0]) if places else place(first)
    if GPU in (where, place(first)):
        check_kind(out if dtypes else first)
    if where == CPU and place(first) == GPU:
        waits[line()] += 1
    return put(out.clone() if out is first and where != place(first) else out, where)


class Pretend(TorchFunctionMode):
    """Every call of torch, with the devices that are pretended."""

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        first, given = (args[0] if tensors(args[:1]) else None), tensors((args, kwargs))
        field = (
            getattr(getattr(func, "__self__", None), "__name__", "") if name in ("__get__", "__set__") else ""
        )
        if name == "__get__" and field in ("device", "is_cuda"):
            return place(first) if field == "device" else place(first) == GPU
        if name in ("to", "cpu", "cuda"):
            return moved(first, name, list(args[1:]), kwargs)
        if name in ("numpy", "__array__") and place(first) == GPU:
            raise Mixed(f"{line()}: numpy of a cuda tensor")
        loose = name in ("__getitem__", "__setitem__")  # an index may be on the CPU; what is indexed may not
        indices = {id(each) for each in tensors(args[1:2])} if loose else set()
        strict = [each for each in given if place(each) == GPU or (each.dim() and id(each) not in indices)]
        if name not in FREE and not field and len({place(t) for t in strict}) > 1:
            raise Mixed(f"{line()}: {name} of {[(str(place(t)), tuple(t.shape)) for t in given]}")
        where = GPU if any(place(t) == GPU for t in given) else CPU
        if where == GPU and host_waits(name, args, kwargs):
            waits[line()] += 1
        if kwargs.get("device") is not None and torch.device(kwargs["device"]).type in ("cpu", GPU.type):
            where = GPU if is_on_gpu(kwargs["device"]) else CPU
            kwargs["device"] = "cpu"
        if kwargs.get("generator") is not None and where == GPU:
            raise Mixed(f"{line()}: {name}: a CPU generator for a cuda tensor")
        out = func(*args, **kwargs)
        if field == "data":
            put(first, place(args[1]) if name == "__set__" else place(first))
        elif where == GPU and name not in FREE and name != "__set__":
            for each in tensors(out):
                check_kind(put(each, GPU))
        return out


def other_gpu(number: int = 0) -> None:
    raise AssertionError(f"{line()}: asks every GPU for its random state, which makes a context on each")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a device that is pretended, an H100 alone, for as long as a test runs."""
    says = {"is_available": True, "device_count": 1, "get_device_capability": (9, 0)}
    says |= {"mem_get_info": (70 << 30, 80 << 30), **dict.fromkeys(SILENT)}
    for name, value in says.items():
        monkeypatch.setattr(torch.cuda, name, lambda *args, value=value: value)
    monkeypatch.setattr(torch.cuda, "get_rng_state", other_gpu)
    with pretending(monkeypatch):
        yield "cuda"


@pytest.fixture
def apple(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of Apple's GPU, which is pretended for as long as a test runs: no float64, and not Warp's."""
    monkeypatch.setattr(sys.modules[__name__], "GPU", torch.device("mps", 0))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: None)
    with pretending(monkeypatch):
        yield "mps"


@contextmanager
def pretending(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """torch and Warp pretend in the block, and in the threads that it starts."""
    autocast = torch.autocast  # of the CPU, where the numbers are
    monkeypatch.setattr(torch, "autocast", lambda kind, *rest, **more: autocast("cpu", *rest, **more))
    hand, where, start = wp.from_torch, wp.device_from_torch, wp.launch
    submit = futures.ThreadPoolExecutor.submit
    monkeypatch.setattr(wp, "device_from_torch", lambda name: where("cpu"))
    monkeypatch.setattr(wp, "stream_from_torch", lambda stream: None)

    arrays: list[torch.device] = []  # where the arrays of the next launch are

    def from_torch(tensor: torch.Tensor, *rest: Any) -> Any:
        arrays.append(place(tensor))
        with torch._C.DisableTorchFunction():
            return hand(tensor, *rest)

    def inside(call: Any, *args: Any) -> Any:
        with Pretend():
            return call(*args)

    def launch(*args: Any, **kwargs: Any) -> None:
        if len(set(arrays)) > 1 or torch.device("mps", 0) in arrays:
            raise Mixed(f"{line()}: a kernel of Warp with arrays on {sorted(map(str, arrays))}")
        arrays.clear()
        start(*args, **kwargs)

    monkeypatch.setattr(wp, "from_torch", from_torch)
    monkeypatch.setattr(wp, "launch", launch)
    monkeypatch.setattr(
        futures.ThreadPoolExecutor, "submit", lambda self, call, *args: submit(self, inside, call, *args)
    )
    waits.clear()
    with Pretend():
        yield
