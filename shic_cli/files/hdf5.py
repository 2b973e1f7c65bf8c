"""HDF5 files: safe reading of files from anybody, and writing that survives a full disk.

HDF5 lets a file name other files, load filters from plugins, declare more than it holds, and unpack to any
size. None of this is allowed here. Only groups, data sets and short attributes of the file itself are read,
and a data set only when all its bytes are in the file. layouts.py says what the files hold.
"""

from __future__ import annotations

import math
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import h5py
import numpy as np

from shic_cli.base.errors import InputError, ShicError
from shic_cli.files.atomic import Sink
from shic_cli.files.checks import check_finite, check_regular
from shic_cli.files.locks import NO_LOCKS

FREE = 64 << 20  # bytes that any data set may unpack to, whatever the size of its file
# A larger data set may unpack to this many times the size of its file. Floating-point numbers are packed to a
# half of their size, labels of photos to a tenth.
RATIO = 100
BLOCK = 16 << 20  # bytes of a file that are searched at a time
LONGEST = 16 << 20  # bytes of one attribute
SMALLEST = 512  # least mean size of a chunk in bytes, where there are many; those of shic have 8 KiB and more
DEFLATE, SHUFFLE = h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE
AGAIN = "the file is damaged or was made by another program; make it again"
K = TypeVar("K", h5py.Group, h5py.Dataset)


@contextmanager
def damaged(where: str) -> Iterator[None]:
    """Turn whatever h5py raises in the block into an InputError: `where` can't be read."""
    try:
        yield
    except (ShicError, MemoryError):
        raise
    except Exception as error:  # of any class, depending on the damage
        raise InputError(f"{where} can't be read", AGAIN) from error


def _open(path: Path | str) -> h5py.File:
    """The file, opened for reading; without HDF5's lock where the file system has none.

    That is safe, because shic never changes a file that is in place.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return h5py.File(path, "r", locking=False)


@contextmanager
def opened(path: Path | str, attributes: bool = True) -> Iterator[h5py.File]:
    """The file, opened for reading; InputError if it is no HDF5 file.

    Read its members only with the functions of this module. With `attributes=False` it opens faster, and only
    data sets may be read.
    """
    check_regular(path)
    try:
        file = _open(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: there is no such file", "check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder", "name a file in it") from error
    except BlockingIOError as error:
        raise InputError(f"{path}: another program has it open for writing", "wait for it to end") from error
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"{path}: can't be read as HDF5", _what_to_do(path)) from error
    with file:
        if attributes:
            _check_heaps(path)
        yield file


def _what_to_do(path: Path | str) -> str:
    """The next step where `path` is no HDF5 file: many name a mesh, a picture or a model by mistake."""
    suffix = Path(path).suffix.lower()
    if suffix in (".obj", ".ply", ".glb", ".gltf", ".stl", ".off"):
        return f"it is a mesh: `shic template prep {path}` makes template.h5 of it"
    if suffix in (".jpg", ".jpeg", ".png", ".webp"):
        return "it is a picture: `shic predict` and `shic pseudo-gt` make maps of pictures"
    if suffix == ".safetensors":
        return f"it is a model: `shic predict imgs/ --model {path}` makes maps with it"
    return "it is another kind of file, or was cut off"


def _check_heaps(path: Path | str) -> None:
    """InputError if the file has a global heap, which holds texts, with an item of length 0.

    The library would read such a heap for ever. Section III.E of the format: a heap has a header of 16 bytes,
    with the length of the heap in the last 8. Each item has a header of 16 bytes: the first 2 are its number,
    which is 0 for free space, and the last 8 its length. The length of free space includes the header; that
    of other items does not, and is rounded up to a multiple of 8.
    """
    length, at = Path(path).stat().st_size, 0
    with open(path, "rb") as file:
        head = file.read(16)
        if head[:8] != b"\x89HDF\r\n\x1a\n" or (head[13:15] if head[8] < 2 else head[9:11]) != b"\x08\x08":
            raise InputError(f"{path}: has a header, or a size of offsets, that is not supported", AGAIN)
        file.seek(0)
        total, window = 0, b""
        while block := file.read(BLOCK):
            # With the end of the last block, to find a heap that begins on the border.
            window, start = window[-4:] + block, at - len(window[-4:])
            at += len(block)
            spot = -1
            while (spot := window.find(b"GCOL\x01", spot + 1)) >= 0:
                total += _check_heap(file, start + spot, length, str(path))
                if total > length:  # they overlap
                    raise InputError(f"{path}: its heaps are damaged", AGAIN)
            file.seek(at)


def _check_heap(file: BinaryIO, at: int, length: int, where: str) -> int:
    """The length of the heap at the offset `at`, 0 if there is none; InputError if its items do not fit."""
    file.seek(at + 8)
    size = int.from_bytes(file.read(8), "little")
    if not 16 <= size <= length - at:
        return 0
    data, place = file.read(size - 16), 0
    while place + 16 <= len(data):
        number = int.from_bytes(data[place : place + 2], "little")
        held = int.from_bytes(data[place + 8 : place + 16], "little")
        step = 16 + -(-held // 8) * 8 if number else held
        if step < 16 or place + step > len(data):
            raise InputError(f"{where}: a heap of its texts is damaged", AGAIN)
        place += step
    return size


@contextmanager
def _frugal() -> Iterator[None]:
    """In the block, the process may grow by at most 4 * LONGEST bytes; InputError if it needs more.

    Before the library reads a text it allocates as much as the file says, up to 4 GB, and there is no way to
    ask how much that will be.
    """
    if sys.platform != "linux":  # other systems do not enforce the limit, and Windows has none
        yield
        return
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    most = int(Path("/proc/self/statm").read_text("utf-8").split()[0]) * resource.getpagesize() + 4 * LONGEST
    limit = most if before[0] == resource.RLIM_INFINITY else min(most, before[0])
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        yield
    except MemoryError as error:
        raise InputError("a text of the file is longer than any that is read", AGAIN) from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def attribute(item: h5py.Group, name: str, where: str) -> str | int | None:
    """The attribute `name` of `item`: a string or a whole number; None if there is no such attribute.

    InputError if it is anything else.
    """
    with damaged(f"{where}: the attribute {name}"):
        key = name.encode()
        if not h5py.h5a.exists(item.id, key):
            return None
        held = h5py.h5a.open(item.id, key)
        known = held.get_type().get_class() in (h5py.h5t.STRING, h5py.h5t.INTEGER)
        scalar = held.get_space().get_simple_extent_type() == h5py.h5s.SCALAR
        if not known or not scalar or held.get_storage_size() > LONGEST:
            raise InputError(f"{where}: the attribute {name} is no text and no whole number", AGAIN)
        with _frugal():
            value: Any = item.attrs[name]
        text = value.decode() if isinstance(value, bytes) else value
        if isinstance(text, str):
            text.encode()  # fails for the surrogates that h5py makes of broken UTF-8
            return text
        return int(value)


def known_group(group: h5py.Group, name: str, where: str) -> h5py.Group:
    """The group under `name` in `group`; InputError if there is none."""
    found = member(group, name, h5py.Group, where)
    if found is None:
        raise InputError(f"{where} is missing", AGAIN)
    return found


def member(group: h5py.Group, name: str, kind: type[K], where: str) -> K | None:
    """What `group` holds under `name`; None if nothing.

    InputError if it is not of `kind`, or a link: no link is followed.
    """
    with damaged(where):
        if not name or "/" in name or name == ".":
            raise InputError(f"{where} is no name", AGAIN)
        link = group.get(name, getlink=True)
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise InputError(f"{where} is a link to elsewhere, which is not followed", AGAIN)
        found = group[name]
        if not isinstance(found, kind):
            expected = "data set" if kind is h5py.Dataset else "group of this file"
            raise InputError(f"{where} is not a {expected}", AGAIN)
        return found


def check_dataset(data: h5py.Dataset, dtype: np.dtype, where: str) -> None:
    """InputError unless `data` has `dtype` and the file can hold all its bytes; none of them is read."""
    with damaged(where):
        plist = data.id.get_create_plist()
        if plist.get_layout() == h5py.h5d.VIRTUAL or plist.get_external_count():
            raise InputError(f"{where} is kept in another file, which is not opened", AGAIN)
        if data.dtype != dtype:
            raise InputError(f"{where} is {data.dtype}, expected {dtype}", "make the file again")
        if data.shape is None:
            raise InputError(f"{where} has no shape", "make the file again")
        size, space = math.prod(data.shape) * dtype.itemsize, data.file.id.get_filesize()
        if size > max(FREE, RATIO * space):
            raise InputError(f"{where} declares {size >> 20} MiB in a file of {space >> 10} KiB", AGAIN)
        if not size or plist.get_layout() == h5py.h5d.COMPACT:
            return
        if plist.get_layout() == h5py.h5d.CONTIGUOUS:
            start = data.id.get_offset()
            if start is None or start + size > space:
                raise InputError(f"{where} declares more than the file holds", AGAIN)
        else:
            _check_chunks(data, plist, size, where)


def _check_chunks(data: h5py.Dataset, plist: h5py.h5p.PropDCID, size: int, where: str) -> None:
    """InputError for filters that are not read, and for chunks of a size or number that no program writes."""
    _filters(plist, where)
    chunks = data.chunks or ()
    number = math.prod(-(-side // step) for side, step in zip(data.shape, chunks, strict=True))
    chunk = math.prod(chunks) * data.dtype.itemsize
    if chunk > max(FREE, 4 * size) or number > 1024 + size // SMALLEST:
        raise InputError(f"{where} has {number} chunks of {chunk} bytes", AGAIN)


def _filters(plist: h5py.h5p.PropDCID, where: str) -> list[int]:
    """The numbers of the filters of a data set; InputError if one is not supported or comes twice."""
    filters = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if set(filters) - {DEFLATE, SHUFFLE} or len(set(filters)) < len(filters):
        fact = f"{where} is packed by a filter that is not read"
        raise InputError(fact, "pack it with gzip, or not at all")
    return filters


def read_array(data: h5py.Dataset, where: str) -> np.ndarray:
    """The array of a data set that passed `check_dataset`.

    InputError if a chunk is missing or damaged, or a number is not finite.
    """
    with damaged(where):
        array = _read_chunked(data, where) if data.chunks else data[()]
        check_finite(array, where)
        if array.dtype.kind == "b":  # a byte that is neither 0 nor 1 would count as both
            array = array.view(np.uint8) != 0
        return array


def _read_chunked(data: h5py.Dataset, where: str) -> np.ndarray:
    """The array of a chunked data set, unpacked here: the library sets no limit to the size of a chunk."""
    array = np.empty(data.shape, data.dtype)
    filters = _filters(data.id.get_create_plist(), where)
    steps = data.chunks or ()
    size = math.prod(steps) * array.itemsize
    for start in product(*(range(0, side, step) for side, step in zip(data.shape, steps, strict=True))):
        stored = data.id.get_chunk_info_by_coord(start)
        largest = size + size // 8 + 64  # of a chunk that packing makes larger
        if stored.byte_offset is None or not 0 < stored.size <= largest:
            raise InputError(f"{where}: a chunk is missing or out of proportion", AGAIN)
        mask, raw = data.id.read_direct_chunk(start)
        chunk = _unpacked(raw, mask, filters, size, array.itemsize, where).view(array.dtype).reshape(steps)
        place = tuple(slice(at, at + step) for at, step in zip(start, steps, strict=True))
        there = array[place]
        array[place] = chunk[tuple(map(slice, there.shape))]
    return array


def _unpacked(raw: bytes, mask: int, filters: list[int], size: int, width: int, where: str) -> np.ndarray:
    """The `size` bytes of a chunk with items of `width` bytes; `mask` has a bit for each filter left out."""
    for i, number in reversed(list(enumerate(filters))):
        if mask >> i & 1:
            continue
        if number == DEFLATE:
            stream = zlib.decompressobj()
            raw = stream.decompress(raw, size + 1)
            if not stream.eof:
                raise InputError(f"{where}: a chunk unpacks to more than its size, or is cut off", AGAIN)
        elif width > 1:
            raw = np.frombuffer(raw, np.uint8).reshape(width, -1).T.tobytes()
    if len(raw) != size:
        raise InputError(f"{where}: a chunk does not have its size", AGAIN)
    return np.frombuffer(raw, np.uint8)


def state(path: Path | str) -> tuple[int, ...] | None:
    """Numbers that change when the file is replaced or changed; None if there is no file."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def created(path: Path) -> Iterator[tuple[h5py.File, Sink]]:
    """A new HDF5 file, and the Sink that it is written through.

    The file is closed whatever happens in the block, so that HDF5 has nothing left to write when the process
    ends.
    """
    with Sink(path) as sink:
        file = h5py.File(path, "w", driver="fileobj", fileobj=sink)
        try:
            yield file, sink
            file.close()
        except BaseException as error:
            sink.drop(error)
            file.close()
            raise
