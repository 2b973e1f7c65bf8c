"""The processes that torchrun starts, working together: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from shic_cli.base.errors import ShicError, lacks_memory

PATIENCE = timedelta(
    days=30
)  # a rank that has ended waits for the slowest one; torchrun itself stops all when one dies


def connect(size: int) -> None:
    """Join the ranks, of which torchrun started `size`, as one group until the process ends; nothing where
    there is one alone.
    """
    if size == 1 or dist.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    with _meeting():
        dist.init_process_group(backend, timeout=PATIENCE)
    atexit.register(dist.destroy_process_group)


@contextmanager
def _meeting() -> Iterator[None]:
    """ShicError in place of what torch raises when another rank is gone."""
    try:
        yield
    except RuntimeError as error:
        if lacks_memory(error):
            raise
        if "Duplicate GPU" in str(error):  # NCCL's words
            raise ShicError(
                "several ranks share one GPU, and NCCL can't join them",
                f"start no more ranks than there are GPUs: --nproc-per-node {torch.cuda.device_count()}",
            ) from error
        raise ShicError(
            "another rank has ended", "see what it said; the same line goes on with what is finished"
        ) from error


def gather(value: Any) -> list[Any]:
    """The `value` of every rank, in their order, on all of them."""
    if not dist.is_initialized():
        return [value]
    found = [None] * dist.get_world_size()
    with _meeting():
        dist.all_gather_object(found, value)
    return found


def share_of_machine() -> int:
    """How many ranks this machine has."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if dist.is_initialized() else 1
