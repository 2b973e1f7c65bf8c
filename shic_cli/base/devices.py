"""Devices, random generators, and batches that fit the memory."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from shic_cli.base.errors import ShicError, lacks_memory

if TYPE_CHECKING:
    import torch

log = logging.getLogger("shic")
R = TypeVar("R")
TOGETHER = {
    "cpu": 1,
    "cuda": 16,
    "mps": 16,
}  # pictures that an encoder gets at a time: more is quicker on a GPU, and moves their last digits


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda`, `cuda:N` or `mps` means, of torchrun's ranks each its own GPU;
    ShicError if it is not there.

    `auto` is CUDA, else Apple's GPU (mps), else the CPU. Ranks can't share Apple's GPU.
    """
    import torch  # here, for `chance` serves commands that need no tensors

    has_mps = torch.backends.mps.is_available()
    if name in ("auto", "cuda") and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(device)  # for libraries that ask for the current one
        return device
    if name == "auto":
        apple = "mps" if has_mps and "LOCAL_RANK" not in os.environ else "cpu"
        return torch.device("cuda" if torch.cuda.is_available() else apple)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ShicError(f"--device {name}: is no device", "give auto, cpu, cuda, cuda:N or mps") from error
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise ShicError(
            f"--device {name}: there is no such device here ({torch.cuda.device_count()} CUDA devices)",
            "give --device cpu, or auto",
        )
    if device.type == "mps" and not has_mps:
        raise ShicError(f"--device {name}: torch finds no Apple GPU here", "give --device cpu, or auto")
    if device.type == "mps" and "LOCAL_RANK" in os.environ:
        raise ShicError(
            f"--device {name}: torchrun's ranks can't share it", "give --device cpu, or one process"
        )
    if device.type not in TOGETHER:
        raise ShicError(f"--device {name}: is not supported", "give auto, cpu, cuda, cuda:N or mps")
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16; others emulate it, more slowly than float32."""
    import torch

    if device.type == "mps":
        return False
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    able = getattr(torch.cpu, "get_capabilities", dict)()  # older versions do not know it
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def chance(seed: int, *parts: int | str) -> np.random.Generator:
    """The random generator of `parts` (a stage, an image, an epoch), so that each can be made again alone."""
    keys = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in parts]
    return np.random.default_rng([seed, *keys])


def with_double(device: torch.device) -> torch.device:
    """Where numbers of `device` are computed in double precision: there, but on the CPU for mps."""
    import torch

    return torch.device("cpu") if device.type == "mps" else device


def to_host(*tensors: torch.Tensor) -> list[np.ndarray]:
    """`tensors` of one shape, of float32 or whole numbers, as arrays; a GPU is waited for once."""
    import torch

    if tensors[0].device.type != "cuda":
        return [tensor.cpu().numpy() for tensor in tensors]
    both = torch.stack([tensor.double() for tensor in tensors]).cpu()
    return [values.to(tensor.dtype).numpy() for values, tensor in zip(both, tensors, strict=True)]


def _no_room() -> bool:
    """No memory can be given back."""
    return False


def free_memory(device: torch.device) -> int:
    """How many bytes are free on `device` now: of the GPU, or of the machine for the CPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    import psutil

    return psutil.virtual_memory().available


class Fitting:
    """A batch size that is halved, with a warning, whenever the memory does not suffice.

    `make_room` is called before that, to give memory back; it returns whether it did.
    """

    def __init__(self, what: str, size: int, make_room: Callable[[], bool] = _no_room) -> None:
        self.what, self.size, self.make_room = what, size, make_room

    def run(self, work: Callable[[int], R], most: int) -> R:
        """The result of `work(size)`, where size is at most `most`, and halved as often as memory runs out.

        Raises the error of `work` if a batch of one is too large.
        """
        import torch

        while True:
            size = min(self.size, most)
            try:
                return work(size)
            except (RuntimeError, MemoryError) as error:
                if not lacks_memory(error):
                    raise
                last = error if size <= 1 else None
            # After the clause above, because in it the error keeps alive what fills the memory.
            if self.make_room():
                log.warning("out of memory: %s goes on without what was kept for later", self.what)
            elif last is not None:
                raise last
            else:
                self.size = size // 2
                log.warning(
                    "out of memory: %s goes on with %d at a time in place of %d", self.what, self.size, size
                )
            torch.cuda.empty_cache()
            if torch.backends.mps.is_available():
                torch.mps.empty_cache()

    def each(self, work: Callable[[Any], R], items: Any) -> Iterator[R]:
        """The results of `work` for batches of `items`, a sequence or a tensor."""
        start = 0
        while start < len(items):
            results, done = self.run(
                lambda size, start=start: (work(items[start : start + size]), size), len(items) - start
            )
            yield results
            start += done


def ahead(calls: Iterable[Callable[[], R]]) -> Iterator[R]:
    """The result of each of `calls`, in their order; a thread makes the next one while the last is used."""
    with ThreadPoolExecutor(1) as thread:
        waiting = None
        for call in calls:
            following = thread.submit(call)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
