"""Work for test_workers.py, in a module that worker processes can import."""

from __future__ import annotations

import os
from collections.abc import Callable

from shic_cli.base.errors import InputError


def doubler(offset: int) -> Callable[[int], int]:
    return lambda value: 2 * value + offset


def at_two(kind: str) -> Callable[[int], int]:
    def work(value: int) -> int:
        if value == 2 and kind == "error":
            raise InputError("two: is refused", "give three")
        if value == 2:
            os._exit(1)
        return value

    return work


def refused() -> Callable[[int], int]:
    raise InputError("all: is refused", "give something else")
