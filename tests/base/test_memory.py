"""What counts as a lack of memory, how much is free, and what is said of ranks that share a GPU."""

from __future__ import annotations

import psutil
import pytest
import torch

from shic_cli.base.devices import free_memory
from shic_cli.base.errors import ShicError, lacks_memory
from shic_cli.base.ranks import _meeting

LACKS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
    RuntimeError("Failed to allocate 4096 bytes on device 'cuda:0'"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
]


@pytest.mark.parametrize("error", LACKS, ids=lambda error: str(error)[:40])
def test_every_library_says_it_in_its_own_words(error: Exception) -> None:
    assert lacks_memory(error)


def test_other_errors_are_not_taken_for_it() -> None:
    assert not lacks_memory(RuntimeError("expected dtype float for 'end' but got dtype c10::BFloat16"))
    assert not lacks_memory(OSError("cannot allocate memory"))  # the system's own, with a hint of its own


def test_free_memory_of_the_machine_is_some_of_it() -> None:
    assert 0 < free_memory(torch.device("cpu")) <= psutil.virtual_memory().total


def test_ranks_that_share_a_gpu_are_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """NCCL's error is no end of another rank; a lack of memory stays one."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ShicError, match="share one GPU") as found, _meeting():
        raise RuntimeError(
            "ncclInvalidUsage\nDuplicate GPU detected : rank 1 and rank 0 both on CUDA device 7000"
        )
    assert "--nproc-per-node 2" in found.value.hint
    with pytest.raises(ShicError, match="another rank has ended"), _meeting():
        raise RuntimeError("Connection closed by peer")
    with pytest.raises(torch.OutOfMemoryError), _meeting():
        raise torch.OutOfMemoryError("CUDA out of memory")
