"""Mutations of HDF5 files that know their structure: types, shapes, chunks, filters, links, other files,
attributes, names.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

TRAP = "trap.fifo"  # who opens it waits for ever, and is found out by the alarm
NAMES = (
    "../up.png",
    "/{escape}/a.png",
    "a/../../../b.png",
    "..",
    ".",
    "",
    "a\x1b[31m.png",
    "\n",
    "x" * 5000,
    "a/" * 300 + "b",
    "~/x",
    "..\\x",
    "é",
)


def mutate_hdf5(path: Path, rng: np.random.Generator, folder: Path) -> None:
    """Change the structure of the file at `path` at one to three places."""
    with h5py.File(path, "a") as file:
        for _ in range(int(rng.integers(1, 4))):
            names: list[str] = []
            file.visit(names.append)
            name = names[int(rng.integers(len(names)))] if names else "x"
            what = HDF5_CHANGES[int(rng.integers(len(HDF5_CHANGES)))]
            try:
                what(file, name, rng, folder)
            except (
                KeyError,
                ValueError,
                TypeError,
                RuntimeError,
                OSError,
                IndexError,
                MemoryError,
                AttributeError,
            ):
                continue  # one change made another impossible
            if what in (_huge, _bomb, _elsewhere):
                # the library reads and writes such data by itself in what would come next, and may crash
                break


def _data(file: h5py.File, name: str, rng: np.random.Generator) -> tuple[str, h5py.Dataset]:
    """The data set `name`, or another one where that is a group."""
    found: list[str] = []
    file.visititems(lambda each, item: found.append(each) if isinstance(item, h5py.Dataset) else None)
    name = name if name in found else found[int(rng.integers(len(found)))]
    return name, file[name]


def _dtype(file: h5py.File, name: str, rng: np.random.Generator, folder: Path) -> None:
    name, data = _data(file, name, rng)
    kinds = [
        "f8",
        "i8",
        "u1",
        "f2",
        "?",
        "S4",
        ">f4",
        "c8",
        np.dtype([("a", "i4")]),
        h5py.string_dtype(),
        h5py.ref_dtype,
        h5py.regionref_dtype,
    ]
    shape = data.shape
    del file[name]
    file.create_dataset(
        name,
        shape,
        [*kinds, h5py.vlen_dtype(np.dtype("i4")), h5py.opaque_dtype(np.dtype("V4"))][int(rng.integers(14))],
    )


def _shape(file: h5py.File, name: str, rng: np.random.Generator, folder: Path) -> None:
    name, data = _data(file, name, rng)
    shape, dtype = list(data.shape), data.dtype
    what = int(rng.integers(5))
    if what == 0:
        shape = shape[:-1]
    elif what == 1:
        shape.append(1)
    else:
        shape[int(rng.integers(len(shape)))] = int(rng.choice([0, 1, 2, 3, 5, 1000]))
    del file[name]
    if what == 4:
        file[name] = h5py.Empty(dtype)
    else:
        file.create_dataset(name, shape, dtype)


def _huge(file: h5py.File, name: str, rng: np.random.Generator, folder: Path) -> None:
    """Every data set declares a huge axis where one of its axes is as long as one of `name`; nothing is
    stored.
    """
    _, data = _data(file, name, rng)
    old, new = data.shape[int(rng.integers(data.ndim))], int(rng.choice([30_000, 10**6, 2**31, 10**12]))
    found: list[str] = []
    file.visititems(lambda each, item: found.append(each) if isinstance(item, h5py.Dataset) else None)
    packed = bool(rng.integers(2))
    for each in found:
        shape, dtype = tuple(new if side == old else side for side in file[each].shape), file[each].dtype
        if shape != file[each].shape:
            chunks = tuple(min(side, 64) for side in shape)
            del file[each]
            file.create_dataset(
                each, shape, dtype, **({"chunks": chunks, "compression": "gzip"} if packed else {})
            )


def _bomb(file: h5py.File, name: str, rng: np.random.Generator, folder: Path) -> None:
    """Chunks that unpack to far more than they say, or honest ones of zeros that share their bytes."""
    name, data = _data(file, name, rng)
    shape, dtype = list(data.shape), data.dtype
    size = int(rng.choice([1 << 20, 1 << 26]))
    if rng.random() < 0.5:
        shape[0] = max(size // max(int(np.prod(shape[1:])) * dtype.itemsize, 1), 1)
    del file[name]
    filters = [
        {"compression": "gzip"},
        {"compression": "gzip", "shuffle": True},
        {"compression": "lzf"},
        {"fletcher32": True},
    ]
    made = file.create_dataset(name, shape, dtype, chunks=tuple(shape), **filters[int(rng.integers(4))])
    packs = [
        lambda: zlib.compress(bytes(size)),
        lambda: zlib.compress(bytes(min(max(made.nbytes - 1, 0), 1 << 26))),
        lambda: zlib.compress(zlib.compress(bytes(size))),
        lambda: b"",
        lambda: bytes(99),
    ]
    made.id.write_direct_chunk((0,) * len(shape), packs[int(rng.integers(5))](), int(rng.integers(3)))


def _filter(file: h5py.File, name: str, rng: np.random.Generator, folder: Path) -> None:
    name, data = _data(file, name, rng)
    array = data[()]
    del file[name]
    ways = [
        {"fletcher32": True},
        {"compression": "lzf"},
        {"scaleoffset": 2},
        {"compression": "gzip", "fletcher32": True},
        {"shuffle": True},
    ]
    chunks = tuple(max(1, side // int(rng.choice([1, 2, 7, 1000]))) for side in array.shape)
    file.create_dataset(
        name, data=array, chunks=chunks, maxshape=(None,) * array.ndim, **ways[int(rng.integers(5))]
    )


def _values(file: h5py.File, name: str, rng: np.random.Generator, folder: Path) -> None:
    name, data = _data(file, name, rng)
    array = data[()]
    flat = array.reshape(-1)
    number = [
        0.0,
        -1.0,
        np.nan,
        np.inf,
        -np.inf,
        1e30,
        65504.0,
        2.0**31 - 1,
        -(2.0**31),
        1.0,
        12345.0,
        1e-30,
    ][int(rng.integers(12))]
    where = slice(None) if rng.random() < 0.3 else rng.integers(len(flat), size=int(rng.integers(1, 9)))
    if array.dtype.kind == "f":
        flat[where] = number
    else:
        flat[where] = (
            int(np.nan_to_num(number, posinf=2**31 - 1, neginf=-(2**31))) % 256
            if array.dtype.itemsize == 1
            else int(np.clip(np.nan_to_num(number), -(2**31), 2**31 - 1))
        )
    data[...] = array


def _link(file: h5py.File, name: str, rng: np.random.Generator, folder: Path) -> None:
    trap, other = str(folder / TRAP), str(folder / "other.h5")
    made = [
        h5py.ExternalLink(trap, "/"),
        h5py.ExternalLink(other, "/"),
        h5py.ExternalLink(other, "/" + name),
        h5py.SoftLink("/" + name),
        h5py.SoftLink("/nowhere"),
        h5py.SoftLink("/"),
        h5py.ExternalLink("../../../etc/passwd", "/"),
    ]
    if rng.random() < 0.3 and "/" in name:
        name = name.split("/")[0]
    del file[name]
    file[name] = made[int(rng.integers(len(made)))]


def _elsewhere(file: h5py.File, name: str, rng: np.random.Generator, folder: Path) -> None:
    """The data set's bytes are in another file: an external raw one, or a virtual data set's source."""
    name, data = _data(file, name, rng)
    shape, dtype = data.shape, data.dtype
    del file[name]
    if rng.random() < 0.5:
        target = str(rng.choice([str(folder / TRAP), "/etc/passwd", "../x"]))
        file.create_dataset(name, shape, dtype, external=[(target, 0, h5py.h5f.UNLIMITED)])
    else:
        endless = rng.random() < 0.5
        source = h5py.VirtualSource(
            str(folder / TRAP), "x", shape, dtype, (None, *shape[1:]) if endless else shape
        )
        layout = h5py.VirtualLayout(shape, dtype, (None, *shape[1:]) if endless else shape)
        layout[...] = source[...]
        file.create_virtual_dataset(name, layout)


def _member(file: h5py.File, name: str, rng: np.random.Generator, folder: Path) -> None:
    """Something missing, something more, a group in place of data or the other way round, a circle."""
    what = int(rng.integers(5))
    if what == 1:
        file[name + "_more"] = np.zeros(3)
    elif what == 2:
        file["items/extra" if "items" in file else "extra"] = np.zeros(3)
    else:
        del file[name]
        if what == 3:
            file.create_group(name)
        elif what == 4:
            file[name] = file["/"]


def _attribute(file: h5py.File, name: str, rng: np.random.Generator, folder: Path) -> None:
    attrs = file.attrs if rng.random() < 0.6 else file[name].attrs
    key = str(rng.choice(list(attrs) or ["name"]))
    values = [
        0,
        2,
        -1,
        1.5,
        "",
        "x",
        "\x1b[2J",
        b"\xff\xfe",
        np.arange(9),
        h5py.Empty("f4"),
        "[" * 100_000,
        "{",
        '{"a": NaN}',
        "[]",
        "x" * 60_000,
        np.array(["a", "b"], h5py.string_dtype()),
        file.ref,
        file["/"].ref,
        "predicted",
        "shic/maps",
        "shic/views",
        "9" * 5000,
        True,
        2**63,
    ]
    if rng.random() < 0.2:
        del attrs[key]
    else:
        attrs[key] = values[int(rng.integers(len(values)))]


def _name(file: h5py.File, name: str, rng: np.random.Generator, folder: Path) -> None:
    """An image's name that leads out of the folder, or that no folder can hold."""
    groups = list(file["items"])
    key = groups[int(rng.integers(len(groups)))]
    given = NAMES[int(rng.integers(len(NAMES)))].replace("/{escape}", str(folder / "escape"))
    if rng.random() < 0.7:
        file["items"][key].attrs["name"] = given
    else:
        del file["items"][key].attrs["name"]
        file["items"].move(key, given)


HDF5_CHANGES: list[Callable[[h5py.File, str, np.random.Generator, Path], None]] = [
    _dtype,
    _shape,
    _huge,
    _bomb,
    _filter,
    _values,
    _values,
    _values,
    _link,
    _elsewhere,
    _member,
    _attribute,
    _attribute,
    _name,
]
