"""Prepares NVIDIA Warp: its device, and its kernels compiled for that device."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import warp as wp

from shic_cli.base.errors import ShicError

# Standard output is for data, and Warp would print a banner and its compilations there. `quiet` is for Warp
# below 1.13, `log_level` for later ones.
wp.config.quiet = True  # pyright: ignore[reportAttributeAccessIssue]
wp.config.log_level = 30


def prepared(kernel: wp.Kernel, device: torch.device) -> wp.Device:
    """Warp's device, with the module of `kernel` compiled for it; ShicError if that can't be stored."""
    try:
        with _no_driver_warning():
            wp.init()
        # a string, because Warp refuses torch.device("cuda") without a number
        warp_device = wp.device_from_torch(str(device))
        wp.load_module(kernel.module, device=warp_device)
    except OSError as error:
        raise ShicError(
            f"{error.filename}: Warp can't store its compiled kernels there",
            "set WARP_CACHE_PATH to a folder",
        ) from error
    return warp_device


@contextmanager
def _no_driver_warning() -> Iterator[None]:
    """Hide the line that Warp's native part writes to stderr if there is no CUDA driver.

    On a CPU that line tells the user nothing.
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
