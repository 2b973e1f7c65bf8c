"""Work for test_fit.py, in a module that worker processes can import."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shic_cli.stages.fit import _photo_fitter
from shic_cli.surface import body_fit


def quick_fitter(*given: Any) -> Callable[[str], Any]:
    """What a worker of `shic fit` makes, with few steps."""
    body_fit.STEPS = 20
    return _photo_fitter(*given)
