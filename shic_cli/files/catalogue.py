"""Arrays out of pickles, such as those of the DensePose mesh catalogue, without unpickling.

A pickle is a program. Here nothing of it is run: its instructions are read one by one and the few that make
containers and numpy arrays are followed. Functions are never looked up; the names below, which numpy writes,
stand for steps that are done here, and every other name is refused. Memory goes no further than the file's
own size.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from shic_cli.base.errors import InputError

HINT = "it holds something else than dictionaries, lists and arrays of numbers; convert it to .obj or .npz where it came from"
LARGEST = 1 << 32  # bytes of a file; the catalogue's largest tables of distances have 0.5 GB
CORE = ("numpy.core", "numpy._core")  # before numpy 2, and since


KNOWN = {
    ("numpy", "ndarray"): "class",
    ("numpy", "dtype"): "dtype",
    ("_codecs", "encode"): "encode",
    **{(f"{core}.multiarray", "_reconstruct"): "array" for core in CORE},
    **{(f"{core}.multiarray", "scalar"): "scalar" for core in CORE},
    **{(f"{core}.numeric", "_frombuffer"): "buffer" for core in CORE},
}


class _Refused(ValueError):
    """An instruction that is not followed, with the reason."""


class _Mark:
    """Where a run of items on the stack begins."""


class _Name:
    """A function or class that the pickle names: one that numpy writes, or `_codecs.encode`, with which bytes
    were written once.
    """

    def __init__(self, module: Any, name: Any) -> None:
        if (module, name) not in KNOWN:
            raise _Refused(f"names {module}.{name}, which is no array")
        self.kind = KNOWN[module, name]


class _Dtype:
    """A numpy dtype of plain numbers."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"b1|[iu][1248]|f[248]", code):
            raise _Refused(f"holds an array of {code!r}, not of numbers")
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise _Refused(f"has the byte order {state[1]!r}")
        self.dtype = self.dtype.newbyteorder(state[1]) if state[1] in "<>" else self.dtype


class _Array:
    """An array that the pickle makes empty first and fills then."""

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray | None = None

    def build(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.array = _filled(data, dtype, shape, "F" if fortran else "C")


def _filled(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    data = data.encode("latin1") if isinstance(data, str) else data  # as Python 2 wrote it
    if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray)):
        raise _Refused("holds an array of objects")
    whole = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
    if not whole or prod(shape) * dtype.dtype.itemsize != len(data) or order not in ("C", "F"):
        raise _Refused(f"says that an array is {shape}, and holds {len(data)} bytes for it")
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


def _call(name: Any, args: Any) -> Any:
    """What one of the known names makes of its arguments."""
    if not isinstance(name, _Name) or not isinstance(args, tuple):
        raise _Refused("calls something that is no array")
    if name.kind == "encode":
        text, encoding = args
        if encoding != "latin1":
            raise _Refused(f"encodes text as {encoding!r}")
        return text.encode("latin1")
    if name.kind == "scalar":
        return _filled(args[1], args[0], (), "C")[()]
    if name.kind == "class":
        raise _Refused("makes an array in a way that numpy does not write")
    return {"dtype": _Dtype, "array": _Array, "buffer": _filled}[name.kind](*args)


class _Reader:
    """The stack and the memo of a pickle that is being read."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """What the pickle holds. _Refused at an instruction that is not followed."""
        for code, argument, _ in pickletools.genops(data):
            if code.name == "STOP":
                return self.stack.pop()
            if code.name in VALUES:
                self.stack.append(VALUES[code.name](argument))
            elif code.name in STEPS:
                STEPS[code.name](self, argument)
            elif code.name not in ("PROTO", "FRAME"):
                raise _Refused(f"has the instruction {code.name}, which arrays need not")
        raise _Refused("is cut off")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def since_mark(self) -> list[Any]:
        """The items above the last mark, which goes."""
        at = next(i for i in range(len(self.stack) - 1, -1, -1) if isinstance(self.stack[i], _Mark))
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def taken(self, number: int) -> list[Any]:
        """The last `number` items, which go."""
        if len(self.stack) < number:
            raise _Refused("takes more than it made")
        items = self.stack[len(self.stack) - number :]
        del self.stack[len(self.stack) - number :]
        return items

    def extend(self, items: list[Any]) -> None:
        """Add items to the list that is last on the stack."""
        if not isinstance(self.stack[-1], list):
            raise _Refused("adds to something that is no list")
        self.stack[-1].extend(items)

    def update(self, items: list[Any]) -> None:
        """Add keys and values in turn to the dictionary that is last on the stack."""
        if not isinstance(self.stack[-1], dict):
            raise _Refused("adds to something that is no dictionary")
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def name(self, module: Any, name: Any) -> None:
        self.push(_Name(module, name))

    def build(self, target: Any, state: Any) -> None:
        if not isinstance(target, (_Array, _Dtype)) or not isinstance(state, tuple):
            raise _Refused("fills something that is no array")
        target.build(state)
        self.push(target)


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return dict(zip(items[::2], items[1::2], strict=True))


VALUES: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(
        ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        lambda value: value,
    ),
    **dict.fromkeys(
        (
            "STRING",
            "BINSTRING",
            "SHORT_BINSTRING",
            "UNICODE",
            "BINUNICODE",
            "SHORT_BINUNICODE",
            "BINUNICODE8",
        ),
        lambda value: value,
    ),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"), lambda value: value),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    "EMPTY_DICT": lambda _: {},
    "MARK": lambda _: _Mark(),
}
STEPS: dict[str, Callable[[_Reader, Any], Any]] = {
    "POP": lambda reader, _: reader.taken(1),
    "POP_MARK": lambda reader, _: reader.since_mark(),
    "LIST": lambda reader, _: reader.push(reader.since_mark()),
    "TUPLE": lambda reader, _: reader.push(tuple(reader.since_mark())),
    "TUPLE1": lambda reader, _: reader.push(tuple(reader.taken(1))),
    "TUPLE2": lambda reader, _: reader.push(tuple(reader.taken(2))),
    "TUPLE3": lambda reader, _: reader.push(tuple(reader.taken(3))),
    "DICT": lambda reader, _: reader.push(_pairs(reader.since_mark())),
    "APPEND": lambda reader, _: reader.extend(reader.taken(1)),
    "APPENDS": lambda reader, _: reader.extend(reader.since_mark()),
    "SETITEM": lambda reader, _: reader.update(reader.taken(2)),
    "SETITEMS": lambda reader, _: reader.update(reader.since_mark()),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda reader, at: reader.push(reader.memo[int(at)])),
    **dict.fromkeys(
        ("PUT", "BINPUT", "LONG_BINPUT"),
        lambda reader, at: reader.memo.__setitem__(int(at), reader.stack[-1]),
    ),
    "MEMOIZE": lambda reader, _: reader.memo.__setitem__(len(reader.memo), reader.stack[-1]),
    "GLOBAL": lambda reader, both: reader.name(*both.split(" ", 1)),
    "STACK_GLOBAL": lambda reader, _: reader.name(*reader.taken(2)),
    "REDUCE": lambda reader, _: reader.push(_call(*reader.taken(2))),
    "BUILD": lambda reader, _: reader.build(*reader.taken(2)),
}


def read_arrays(path: Path, names: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """The arrays of those `names` in a pickled dictionary; with no name the one array that the pickle is.
    Nothing of the file is run.

    InputError if it holds anything but plain containers, numbers, text and arrays of numbers, or not what is
    asked for.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: is larger than {LARGEST >> 30} GB", "no file of the mesh catalogue is")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error
    try:
        held = _Reader().run(data)
    except _Refused as error:
        raise InputError(f"{path}: is refused: it {error}", HINT) from error
    except Exception as error:  # a damaged pickle stumbles anywhere
        raise InputError(
            f"{path}: can't be read as a pickle of arrays", "it is damaged, or another kind of file"
        ) from error
    values = [held.get(name) for name in names] if isinstance(held, dict) else [] if names else [held]
    arrays = [value.array if isinstance(value, _Array) else value for value in values] or [None]
    for name, array in zip(names or ("",), arrays, strict=False):
        if not isinstance(array, np.ndarray):
            raise InputError(f"{path}: holds no array{f' `{name}`' if name else ''}", HINT)
        if not np.isfinite(array).all():
            raise InputError(f"{path}: holds numbers that are not finite", "fetch or export it again")
    return tuple(arrays)
