"""How a stage reports progress: it is given a function that passes its items through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Track(Protocol):
    """Passes `items` through and shows how many of `total` are done, under the name `description`.

    `status` gives what else is shown, such as a loss. `start` is how many were done before these items, where
    they are a part of a longer work.
    """

    def __call__(
        self,
        items: Iterable[T],
        total: int,
        description: str,
        status: Callable[[], str] | None = None,
        start: int = 0,
        /,
    ) -> Iterable[T]: ...


def plain_track(
    items: Iterable[T], total: int, description: str, status: Callable[[], str] | None = None, start: int = 0
) -> Iterator[T]:
    """`items` as they are; the other arguments are for trackers that show them."""
    yield from items


def duration(seconds: float) -> str:
    """A length of time in words: `8 s`, `12 min`, `1 h 5 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
