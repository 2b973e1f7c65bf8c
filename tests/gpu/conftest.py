"""The pretended GPUs, for the tests in this folder."""

from gpu.pretend import apple, gpu

__all__ = ["apple", "gpu"]
