"""The errors that users meet: each says what is wrong, with what, and the next step."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

log = logging.getLogger("shic")


# An object as Python shows it, <_io.BytesIO object at 0x7f0e4c5d6b10>; libraries put it into their messages.
ADDRESS = re.compile(r"<([^<>]*?)(?: object)? at 0x[0-9a-fA-F]+>")


def printable(text: str) -> str:
    """`text` with escapes in place of control characters, because messages hold names from files.

    Objects of Python are shown without their addresses, which tell a user nothing.
    """
    text = ADDRESS.sub(r"<\1>", text)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ShicError(Exception):
    """Something that the user can correct; `message` says what is wrong, `hint` the next step."""

    exit_code = 1
    stops_all = False  # True: every other input would fail with the same error

    def __init__(self, message: str, hint: str = "") -> None:
        message = printable(message)
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[type[ShicError], tuple[str, str]]:
        """So that a worker's error reaches the first process whole."""
        return type(self), (self.message, self.hint)

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class InputError(ShicError):
    """A file or a folder that was given can't be used."""


class TargetError(InputError):
    """The folder or the file to write to can't be used; whatever the input, it would fail alike."""

    stops_all = True


class SettingError(ShicError):
    """A setting is out of range or two of them contradict each other; status 2 like any wrong usage."""

    exit_code = 2
    stops_all = True


class PictureError(InputError):
    """One picture of a generator, or one that was made elsewhere, can't be used; others may be usable."""


class MissingError(ShicError):
    """An optional package or a model's weights are not on this machine."""

    exit_code = 3
    stops_all = True


class UnfinishedError(MissingError):
    """Only a part of a model's weights was fetched."""


class PartialError(ShicError):
    """The result is written, but some inputs failed; each was named when it failed. `names` are theirs."""

    exit_code = 4

    def __init__(self, message: str, hint: str = "", names: Sequence[str] = ()) -> None:
        super().__init__(message, hint)
        self.names = list(names)


class Failures:
    """Collects the inputs that fail in a loop, so that one bad image does not end the run.

    Each is named in a warning, unless it is one of `number` 1: then its error ends the run.
    """

    def __init__(self, number: int = 0) -> None:
        self.number = number
        self.names: list[str] = []
        self.first: ShicError | None = None

    @contextmanager
    def catch(self, name: str) -> Iterator[None]:
        """Note a ShicError of the block under `name`; other errors, and those that stop all, pass."""
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
        if self.number != 1:
            log.warning("left out %s", error)

    def check(self, total: int) -> None:
        """Raise the first error if all of `total` inputs failed; call it before the result is written."""
        if self.first is not None and len(self.names) == total:
            said = f"all {total} inputs failed; the first: " if total > 1 else ""
            raise InputError(f"{said}{self.first.message}", self.first.hint)

    def report(self, total: int) -> None:
        """Raise PartialError (status 4) if any input failed; call it after the result is written."""
        if self.names:
            fact = f"{len(self.names)} of {total} inputs failed: {some(self.names)}"
            raise PartialError(fact, "the rest is written", self.names)


def lacks_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, of the machine or of a GPU.

    numpy raises MemoryError, and torch's allocator for GPUs OutOfMemoryError. torch's allocator for CPUs,
    cuBLAS, cuSOLVER, cuDNN and Warp raise a RuntimeError that only its words tell from others.
    """
    words = ("allocate memory", "ALLOC_FAILED", "out of memory", "Failed to allocate")
    named = type(error).__name__ == "OutOfMemoryError"  # without an import of torch
    told = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return isinstance(error, MemoryError) or named or told


def lacks_operator(error: BaseException) -> str:
    """What Apple's GPU (mps) lacks by `error`, an operator or a kind of number; "" if it is another error."""
    if found := re.search(r"operator '([^']+)' is not current\w* implemented for the MPS", str(error)):
        return f"the operator {found[1]}"
    return "numbers in double precision" if "MPS Tensor to float64" in str(error) else ""


def counted(number: int, things: str) -> str:
    """`1 epoch`, `2 epochs`: a number of `things`, a plural with s."""
    return f"{number} {things if number != 1 else things.removesuffix('s')}"


def some(names: list[str]) -> str:
    """The first five of `names` in one line, for a message."""
    return ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
