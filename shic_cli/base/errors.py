"""The errors that users meet: each says what is wrong, with what, and the next step."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("shic")


def printable(text: str) -> str:
    """`text` with what a terminal would act on, or can't show, as escapes: names and words of files end up in
    messages.
    """
    return (
        text
        if text.isprintable()
        else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    )


class ShicError(Exception):
    """Something is wrong that the user can mend; `message` says what, `hint` the next step."""

    exit_code = 1
    stops_all = False  # True: it is not about one input, and every other input would meet it too

    def __init__(self, message: str, hint: str = "") -> None:
        message = printable(message)
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class InputError(ShicError):
    """A file or a folder that was given can't be used."""


class SettingError(ShicError):
    """A setting is out of range or two of them contradict each other; status 2 like any wrong usage."""

    exit_code = 2
    stops_all = True


class PictureError(InputError):
    """A generator gave no usable picture, or the one that was made elsewhere can't be used; the others may
    do.
    """


class MissingError(ShicError):
    """An optional package or a model's weights are not on this machine."""

    exit_code = 3
    stops_all = True


class UnfinishedError(MissingError):
    """A model's weights were fetched only in part."""


class PartialError(ShicError):
    """The work is done and written, but some of the inputs failed; each was named when it failed."""

    exit_code = 4


class Failures:
    """Collects the inputs that fail in a loop, so that one bad image costs that image and not the run."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.first: ShicError | None = None

    @contextmanager
    def catch(self, name: str) -> Iterator[None]:
        """Note a ShicError raised inside under `name` and go on; every other error passes, and what stops all
        does.
        """
        try:
            yield
        except ShicError as error:
            if error.stops_all:
                raise
            self.note(name, error)

    def note(self, name: str, error: ShicError) -> None:
        """Note that the input `name` failed."""
        self.names.append(name)
        self.first = self.first or error
        log.warning("left out %s", error)

    def check(self, total: int) -> None:
        """Raise the first error if all of `total` inputs failed; to be called before anything is written."""
        if self.first is not None and len(self.names) == total:
            raise InputError(f"all {total} inputs failed; the first: {self.first.message}", self.first.hint)

    def report(self, total: int) -> None:
        """Raise PartialError (status 4) if any input failed; to be called when the rest is written."""
        if self.names:
            some = ", ".join(self.names[:5]) + (" …" if len(self.names) > 5 else "")
            raise PartialError(f"{len(self.names)} of {total} inputs failed: {some}", "the rest is written")


def some(names: list[str]) -> str:
    """The first five of `names`, for a message."""
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
