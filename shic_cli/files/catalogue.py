"""Arrays from pickles, such as those of the DensePose mesh catalogue, read without running anything in them.

A pickle is a program that may call any function by its name. Here `find_class` looks up no name at all: it
knows the few names that numpy writes, and gives a stand-in of this module for each; every other name is
refused. The stand-ins only accept arrays of plain numbers, with exactly the bytes that their shape needs.
numpy's own functions are not called, because hostile arguments make them allocate any amount of memory.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from shic_cli.base.errors import InputError

HINT = "only dictionaries, lists and arrays of numbers are read; convert it to .obj or .npz where it was made"
LARGEST = 1 << 32  # bytes of a file; the largest tables of distances in the catalogue have 0.5 GB


class _Refused(ValueError):
    """Something in a pickle that is not followed; the message completes `it …`."""


class _StandIn:
    """What a pickle gets for a name that numpy writes: it can be called, and nothing else."""

    __slots__ = ("make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *args: Any) -> Any:
        return self.make(*args)

    def __setstate__(self, state: Any) -> None:
        raise _Refused("fills something that is no array")


class _Dtype:
    """Stands for a numpy dtype of plain numbers."""

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not re.fullmatch(r"b1|[iu][1248]|f[248]", code):
            raise _Refused(f"holds an array of {code!r}, not of numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise _Refused(f"has the byte order {order!r}")
        self.dtype = self.dtype.newbyteorder(order) if order in "<>" else self.dtype


class _Array:
    """Stands for an array, which a pickle makes empty first and fills later."""

    def __init__(self, *_: Any) -> None:
        self.array: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.fill(data, dtype, shape, "F" if fortran else "C")

    def fill(self, data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
        data = data.encode("latin1") if isinstance(data, str) else data  # bytes that Python 2 wrote
        if not isinstance(dtype, _Dtype) or not isinstance(data, (bytes, bytearray)):
            raise _Refused("holds an array of objects")
        whole = isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape)
        if not whole or prod(shape) * dtype.dtype.itemsize != len(data) or order not in ("C", "F"):
            raise _Refused(f"says that an array is {shape}, and holds {len(data)} bytes for it")
        self.array = np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
        return self


def _encode(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise _Refused(f"encodes text as {encoding!r}")
    return text.encode("latin1")


def _no_call(*_: Any) -> None:
    raise _Refused("makes an array in a way that numpy does not write")


STAND_INS = {
    ("numpy", "ndarray"): _StandIn(_no_call),  # only ever an argument of _reconstruct
    ("numpy", "dtype"): _StandIn(_Dtype),
    ("_codecs", "encode"): _StandIn(_encode),
}
for _core in ("numpy.core", "numpy._core"):  # before numpy 2, and since
    STAND_INS |= {
        (f"{_core}.multiarray", "_reconstruct"): _StandIn(_Array),
        (f"{_core}.multiarray", "scalar"): _StandIn(lambda dtype, data: _Array().fill(data, dtype, (), "C")),
        (f"{_core}.numeric", "_frombuffer"): _StandIn(lambda *args: _Array().fill(*args)),
    }


class _Unpickler(pickle.Unpickler):
    """Follows a pickle's instructions with stand-ins in place of every function and class."""

    def find_class(self, module: str, name: str) -> _StandIn:
        if (module, name) not in STAND_INS:
            raise _Refused(f"names {module}.{name}, which is no array")
        return STAND_INS[module, name]


def _load(data: bytes) -> Any:
    """What the pickle holds; _Refused, or any other error that a damaged pickle leads to."""
    for code, argument, _ in pickletools.genops(data):  # checks that every length is within the file
        if code.name.endswith("PUT") and int(argument or 0) > len(data):
            raise _Refused(f"keeps a value under the number {argument}")  # pickle makes room for that many
    return _Unpickler(io.BytesIO(data), encoding="latin1").load()


def read_arrays(path: Path, names: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """The arrays under `names` in a pickled dictionary; without names, the one array that the pickle is.

    InputError if the pickle holds anything but plain containers, numbers, text and arrays of numbers, or
    lacks one of the arrays. No code of the file is run.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise InputError(f"{path}: is larger than {LARGEST >> 30} GB", "no file of the mesh catalogue is")
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error
    try:
        content = _load(data)
    except _Refused as error:
        raise InputError(f"{path}: is refused: it {error}", HINT) from error
    except Exception as error:  # of any class: a damaged pickle leads anywhere
        fact = f"{path}: can't be read as a pickle of arrays"
        raise InputError(fact, "it is damaged, or another kind of file") from error
    if isinstance(content, dict):
        values = [content.get(name) for name in names] or [None]
    else:
        values = [None if names else content]
    arrays = []
    for name, value in zip(names or ("",), values, strict=False):
        array = value.array if isinstance(value, _Array) else None
        if array is None:
            raise InputError(f"{path}: holds no array{f' `{name}`' if name else ''}", HINT)
        if not np.isfinite(array).all():
            raise InputError(f"{path}: holds numbers that are not finite", "fetch or export it again")
        arrays.append(array)
    return tuple(arrays)
