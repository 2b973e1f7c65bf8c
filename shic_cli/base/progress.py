"""How a stage reports progress: it is given a function that passes its items through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
Track = Callable[[Iterable, int, str], Iterable]


def plain_track(items: Iterable[T], total: int, description: str) -> Iterator[T]:
    """`items` as they are; `total` and `description` are for trackers that show them."""
    yield from items
