"""Pickles of arrays are read, and nothing in them is run."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shic_cli.base.errors import InputError
from shic_cli.files.catalogue import read_arrays

ARRAYS = {
    "floats": np.arange(12, dtype=np.float32).reshape(4, 3),
    "columns first": np.asfortranarray(np.arange(12.0).reshape(4, 3)),
    "big-endian": np.arange(6, dtype=">i4").reshape(2, 3),
    "every other": np.arange(12.0).reshape(6, 2)[::2],
    "bools": np.array([True, False]),
    "one number": np.array(3.0),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ARRAYS)
def test_every_protocol_of_pickle(tmp_path: Path, name: str, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(
        pickle.dumps(
            {"x": ARRAYS[name], "note": ["text", (1, None, 2.5, True)], "size": np.float64(2.5)}, protocol
        )
    )
    (found,) = read_arrays(path, ("x",))
    assert found.dtype == ARRAYS[name].dtype and np.array_equal(found, ARRAYS[name])
    path.write_bytes(pickle.dumps(ARRAYS[name], protocol))
    assert np.array_equal(read_arrays(path, ())[0], ARRAYS[name])


def test_as_numpy_1_and_python_2_wrote_them(tmp_path: Path) -> None:
    """numpy.core is numpy 1's name of numpy._core; Python 2 wrote bytes as text."""
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"x": ARRAYS["floats"]}, 2).replace(b"numpy._core", b"numpy.core"))
    assert np.array_equal(read_arrays(path, ("x",))[0], ARRAYS["floats"])
    data = np.array([1.5, -2], "<f8").tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    dtype = b"cnumpy\ndtype\n(S'f8'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    path.write_bytes(array + b"(I1\n(I2\nt" + dtype + b"I0\nT" + struct.pack("<i", len(data)) + data + b"tb.")
    assert read_arrays(path, ())[0].tolist() == [1.5, -2]


class Runs:
    """Unpickling one would run a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, (self.command,)


class Plain:
    """An object of a class."""


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_in_a_pickle_is_not_run(tmp_path: Path, protocol: int) -> None:
    path, trace = tmp_path / "a.pkl", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"x": ARRAYS["floats"], "y": Runs(f"touch {trace}")}, protocol))
    with pytest.raises(InputError, match=r"a\.pkl: is refused: it names (posix|nt)\.system") as caught:
        read_arrays(path, ("x",))
    assert not trace.exists() and caught.value.hint


def refused() -> dict[str, tuple[bytes, str]]:
    """Pickles with what is wrong about them."""
    opening = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tC\x01btR"
    floats = b"cnumpy\ndtype\n(X\x02\x00\x00\x00f8\x89\x88tR"
    huge = b"\x8a\x06" + (1 << 40).to_bytes(6, "little")
    return {
        "objects": (pickle.dumps(np.array([{}, None], object)), "'O8', not of numbers"),
        "a structure": (pickle.dumps(np.zeros(2, [("a", "f4")])), "'V4', not of numbers"),
        "an object": (pickle.dumps(Plain()), "Plain"),
        "a builtin": (b"cbuiltins\neval\n(X\x04\x00\x00\x001+11tR.", "builtins.eval"),
        "an attribute": (b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.", "ndarray.__class__"),
        "a name that is no text": (b"\x80\x04K\x01K\x02\x93.", "can't be read"),
        "an extension": (b"\x80\x02\x82\x01.", "can't be read"),
        "a persistent id": (b"Pfile\n.", "can't be read"),
        "a new object": (b"\x80\x02cnumpy\nndarray\n)\x81.", "can't be read"),
        "a call of an array": (opening + b")R.", "can't be read"),
        "a call of ndarray": (b"cnumpy\nndarray\n(K\x03tR.", "a way that numpy does not write"),
        "a build of a class": (b"cnumpy\nndarray\n}X\x01\x00\x00\x00aK\x01sb.", "fills something"),
        "a huge array": (
            opening + b"(K\x01" + huge + huge + b"\x86" + floats + b"\x89C\x08aaaaaaaatb.",
            "8 bytes for it",
        ),
        "a negative array": (
            opening + b"(K\x01J\xff\xff\xff\xff\x85" + floats + b"\x89C\x08aaaaaaaatb.",
            "8 bytes for it",
        ),
        "numbers in place of bytes": (
            opening + b"(K\x01K\x01\x85" + floats + b"\x89]tb.",
            "holds an array of objects",
        ),
        "a number in place of a dtype": (
            opening + b"(K\x01K\x01\x85K\x08\x89C\x08aaaaaaaatb.",
            "holds an array of objects",
        ),
        "huge bytes": (b"\x80\x04\x8e" + (1 << 60).to_bytes(8, "little") + b"abc.", "can't be read"),
        "a huge memo": (b"\x80\x02Nr\xff\xff\xff\xff.", "under the number 4294967295"),
        "a huge frame": (b"\x80\x04\x95" + (1 << 60).to_bytes(8, "little") + b"N.", "can't be read"),
        "text": (b"vertices", "can't be read"),
        "nothing": (b"", "can't be read"),
        "a cut": (pickle.dumps(ARRAYS["floats"])[:-20], "can't be read"),
        "an empty stack": (b".", "can't be read"),
        "another encoding": (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00hextR.", "'hex'"),
        "not finite": (pickle.dumps(np.array([1.0, np.nan])), "not finite"),
        "no array": (pickle.dumps([1, 2]), "holds no array"),
        "an empty array": (opening + b".", "holds no array"),
    }


@pytest.mark.parametrize("name", refused())
def test_what_is_refused(tmp_path: Path, name: str) -> None:
    data, said = refused()[name]
    (tmp_path / "a.pkl").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.pkl: ") as caught:
        read_arrays(tmp_path / "a.pkl", ())
    assert said in caught.value.message


def test_names_that_are_not_there(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"x": ARRAYS["floats"]}))
    with pytest.raises(InputError, match="holds no array `faces`"):
        read_arrays(path, ("x", "faces"))
    with pytest.raises(InputError, match="can't be read"):
        read_arrays(tmp_path / "none.pkl", ())


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(ARRAYS["floats"]))
    monkeypatch.setattr("shic_cli.files.catalogue.LARGEST", 10)
    with pytest.raises(InputError, match="is larger"):
        read_arrays(tmp_path / "a.pkl", ())
