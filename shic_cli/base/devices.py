"""Where tensors live, where chance comes from, and how much is done at a time."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from shic_cli.base.errors import ShicError

if TYPE_CHECKING:
    import torch

log = logging.getLogger("shic")
R = TypeVar("R")
TOGETHER = {
    "cpu": 1,
    "cuda": 16,
}  # pictures that an encoder gets at a time: more is quicker on a GPU, and moves their last digits


def resolve_device(name: str) -> torch.device:
    """The device that `auto`, `cpu`, `cuda` or `cuda:N` means, of torchrun's ranks each its own GPU;
    ShicError if it is not there.
    """
    import torch  # here, for `chance` serves commands that need no tensors

    if name in ("auto", "cuda") and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
        torch.cuda.set_device(device)  # for libraries that ask for the current one
        return device
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ShicError(f"--device {name}: is no device", "give auto, cpu, cuda or cuda:N") from error
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise ShicError(
            f"--device {name}: there is no such device here ({torch.cuda.device_count()} CUDA devices)",
            "give --device cpu, or auto",
        )
    if device.type not in ("cpu", "cuda"):
        raise ShicError(f"--device {name}: is not supported", "give auto, cpu, cuda or cuda:N")
    return device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device computes in bfloat16; others only imitate it, more slowly than they compute in
    float32.
    """
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    able = getattr(torch.cpu, "get_capabilities", dict)()  # older versions do not know it
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def chance(seed: int, *parts: int | str) -> np.random.Generator:
    """A random generator of its own for `parts` (a stage, an image, an epoch), so that any of them can be
    made again alone.
    """
    keys = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in parts]
    return np.random.default_rng([seed, *keys])


class Fitting:
    """How many things are done at a time: `size`, halved, with a warning, whenever the GPU's memory does not
    hold them.
    """

    def __init__(self, what: str, size: int) -> None:
        self.what, self.size = what, size

    def run(self, work: Callable[[int], R], most: int) -> R:
        """What `work(size)` gives, with a size of at most `most`; it starts again with half as many when
        memory runs out.

        torch.OutOfMemoryError when one alone is too many.
        """
        import torch

        while True:
            size = min(self.size, most)
            try:
                return work(size)
            except torch.OutOfMemoryError:
                if size <= 1:
                    raise
            self.size = (
                size // 2
            )  # outside of the clause above, in which the error holds on to what filled the memory
            torch.cuda.empty_cache()
            log.warning(
                "out of GPU memory: %s goes on with %d at a time in place of %d", self.what, self.size, size
            )

    def each(self, work: Callable[[Any], R], items: Any) -> Iterator[R]:
        """What `work` gives for the `items`, a sequence or a tensor, some at a time."""
        start = 0
        while start < len(items):
            found, done = self.run(
                lambda size, start=start: (work(items[start : start + size]), size), len(items) - start
            )
            yield found
            start += done


def ahead(calls: Iterable[Callable[[], R]]) -> Iterator[R]:
    """What each of `calls` gives, in their order; the next is made in a thread of its own while the last is
    used.
    """
    with ThreadPoolExecutor(1) as thread:
        waiting = None
        for call in calls:
            following = thread.submit(call)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
