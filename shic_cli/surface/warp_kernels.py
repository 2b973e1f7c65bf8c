"""Prepares NVIDIA Warp: its device, and its kernels compiled for that device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import warp as wp

from shic_cli.base.errors import ShicError


def prepared(kernel: wp.Kernel, device: torch.device) -> wp.Device:
    """Warp's device, with the module of `kernel` compiled for it; ShicError where that can't be kept."""
    try:
        with _no_driver_warning():
            wp.init()
        where = wp.device_from_torch(
            str(device)
        )  # a string, since Warp takes no torch.device("cuda") without a number
        wp.load_module(kernel.module, device=where)
    except OSError as error:
        raise ShicError(
            f"{error.filename}: Warp can't keep its compiled kernels there", "set WARP_CACHE_PATH to a folder"
        ) from error
    return where


@contextmanager
def _no_driver_warning() -> Iterator[None]:
    """Warp's native part writes a line to stderr wherever there is no CUDA driver, which is no news to who
    works on a CPU.
    """
    if torch.cuda.is_available():
        yield
        return
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)
