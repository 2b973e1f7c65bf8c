"""What the four contracts share: what a part of any kind may have, and how a part is checked.

Each kind has its own contract: extractors/contract.py, renderers/contract.py, generators/contract.py and
maskers/contract.py. docs/contracts.md explains them with an example.
"""

from __future__ import annotations

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from shic_cli.base.errors import ShicError


class PartDefaults(Protocol):
    """What a part of any kind may have, with the value that counts where a part does not have it.

    `auto` reads these from the class, before a part is made.
    """

    slow_on: tuple[str, ...] = ()  # "cpu", "cuda" or "mps", if `auto` passes the part over there
    packages: tuple[str, ...] = ()  # modules that it imports and that may be missing
    folders: tuple[str, ...] = ()  # options that name other weights than those that `check` looks for

    @classmethod
    def check(cls, weights: Path | None = None) -> None:
        """Nothing; MissingError where the part lacks its weights, which may be in `weights`.

        Called before a part is made without an argument. It has to be quick: it does not load the weights.
        """
        return


class PartError(ShicError):
    """A part does not keep its contract. Its author can mend it; every input would meet the same fault."""

    stops_all = True


@dataclass(frozen=True)
class Contract:
    """The contract of one kind of part.

    `required` is the Protocol of all that a part has; `defaults` is the part of it that may be missing.
    `fault_of_part(part, name)` and `fault_of_answer(part, answer, *arguments)` say what is wrong with the
    values of a part that was made, and with what a call returned; "" means nothing.
    """

    kind: str  # extractors, renderers, generators or maskers
    required: type
    defaults: type
    fault_of_part: Callable[[Any, str], str]
    fault_of_answer: Callable[..., str]

    def error(self, name: str, part: type | str, fault: str) -> PartError:
        """The error that the part `name`, a class or where it should be, has this `fault`."""
        where = part if isinstance(part, str) else f"{part.__module__}:{part.__qualname__}"
        return PartError(f"{self.kind[:-1]} {name} ({where}): {fault}", self.hint)

    @property
    def hint(self) -> str:
        """Where to read what a part of this kind must have."""
        module = f"shic_cli.parts.{self.kind}.contract"
        return f"docs/contracts.md says what a part must have, and so does `python -m pydoc {module}`"


@functools.cache
def completed(part: type, name: str, contract: Contract) -> type:
    """The class `part` with the defaults for what it lacks, and with a check of what each call returns.

    PartError if it lacks a method.
    """
    for method in _methods(contract.required):
        if not any(method in vars(base) for base in part.__mro__ if base is not contract.required):
            raise contract.error(name, part, f"has no method {method}")

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        answer = part.__call__(self, *arguments, **named)
        if fault := contract.fault_of_answer(self, answer, *arguments, **named):
            raise contract.error(name, part, fault)
        return answer

    def reduce(self: Any) -> tuple[Any, ...]:
        return _blank, (part, name, contract), vars(self)

    body = {
        "__call__": call,
        "__reduce__": reduce,
        "__module__": part.__module__,
        "__qualname__": part.__qualname__,
        "__doc__": part.__doc__,
    }
    return types.new_class(
        part.__name__, (part, contract.defaults), exec_body=lambda space: space.update(body)
    )


def _blank(part: type, name: str, contract: Contract) -> Any:
    """A part without its attributes, in which another process unpacks one: pickle can't find its class."""
    kind = completed(part, name, contract)
    return object.__new__(kind)


def check_part(part: object, name: str, contract: Contract) -> None:
    """PartError unless `part`, asked for as `name`, has each attribute of its contract in the right kind."""
    for attribute, kind in _attributes(contract.required):
        try:
            value = getattr(part, attribute)
        except AttributeError as error:
            fault = f"has no {attribute}" if not hasattr(type(part), attribute) else f"{attribute}: {error}"
            raise contract.error(name, type(part), fault) from error
        wanted = typing.get_origin(kind) or kind
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            fault = f"its {attribute} is {_described(value)}, not of type {_qualified(wanted)}"
            raise contract.error(name, type(part), fault)
    if fault := contract.fault_of_part(part, name):
        raise contract.error(name, type(part), fault)


def _methods(contract: type) -> Iterator[str]:
    """The names of the methods that a Protocol asks for."""
    for name, value in vars(contract).items():
        if inspect.isfunction(value) and (name == "__call__" or not name.startswith("_")):
            yield name


def _attributes(contract: type) -> Iterator[tuple[str, Any]]:
    """The name and the type of each attribute and property that a Protocol asks for."""
    yield from typing.get_type_hints(contract).items()
    for name, value in vars(contract).items():
        if isinstance(value, property):
            yield name, typing.get_type_hints(value.fget)["return"]


def _described(value: object) -> str:
    """A value as an error message shows it, for example `'red' of type str`."""
    shown = repr(value)
    return f"{shown if len(shown) <= 40 else shown[:40] + '…'} of type {_qualified(type(value))}"


def _qualified(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def said(error: Exception) -> str:
    """The kind of an error and the first line of what it says."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": ")
