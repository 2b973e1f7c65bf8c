"""The pretended GPU, for the tests in this folder."""

from gpu.pretend import gpu

__all__ = ["gpu"]
