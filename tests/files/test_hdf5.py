"""HDF5 files that name other files, declare more than they hold, or unpack to more than they say: refused,
and nothing is touched.
"""

from __future__ import annotations

import errno
import io
import os
import resource
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from fuzz_stages import make_seeds

from shic_cli.base.errors import InputError, ShicError
from shic_cli.files import hdf5
from shic_cli.files.arrays import read_template
from shic_cli.files.items import ItemReader
from shic_cli.stages import info

Change = Callable[[h5py.File, Path], object]


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds") / "seeds"
    make_seeds(folder)
    return folder


def replace(name: str, **made: object) -> Change:
    def change(file: h5py.File, folder: Path) -> None:
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
        file.create_dataset(name, **(made if "data" in made else {"shape": shape, "dtype": dtype, **made}))

    return change


def link(name: str, made: Callable[[Path], object]) -> Change:
    def change(file: h5py.File, folder: Path) -> None:
        del file[name]
        file[name] = made(folder)

    return change


def external(file: h5py.File, folder: Path) -> None:
    shape, dtype = file["verts"].shape, file["verts"].dtype
    del file["verts"]
    file.create_dataset("verts", shape, dtype, external=[(str(folder / "trap"), 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File, folder: Path) -> None:
    """Without end, so that even asking for its shape would open the other file."""
    dtype = file["verts"].dtype
    del file["verts"]
    layout = h5py.VirtualLayout((42, 3), dtype, (None, 3))
    layout[...] = h5py.VirtualSource(str(folder / "trap"), "x", (42, 3), dtype, (None, 3))[...]
    file.create_virtual_dataset("verts", layout)


def chunk(name: str, packed: bytes, **filters: object) -> Change:
    def change(file: h5py.File, folder: Path) -> None:
        shape, dtype = file[name].shape, file[name].dtype
        del file[name]
        made = file.create_dataset(name, shape, dtype, chunks=shape, **filters)
        if packed:
            made.id.write_direct_chunk((0,) * len(shape), packed)

    return change


def grow(size: int, **filters: object) -> Change:
    """Every axis K declares `size` vertices, and nothing is stored."""

    def change(file: h5py.File, folder: Path) -> None:
        for name in list(file):
            shape = tuple(size if side == 42 else side for side in file[name].shape)
            dtype = file[name].dtype
            if size in shape:
                del file[name]
                file.create_dataset(name, shape, dtype, **filters)

    return change


BOMB = zlib.compress(bytes(1 << 28))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (link("verts", lambda folder: h5py.ExternalLink(str(folder / "trap"), "/verts")), "is a link"),
        (link("verts", lambda folder: h5py.SoftLink("/uv")), "is a link"),
        (link("verts", lambda folder: h5py.SoftLink("/verts")), "is a link"),
        (external, "kept in another file"),
        (virtual, "kept in another file"),
        (grow(10**6, chunks=True, compression="gzip"), "MiB in a file of"),
        (grow(10**8), "MiB in a file of"),
        (grow(10**4), "declares more than the file holds"),
        (grow(3000, chunks=True, compression="gzip"), "missing or out of proportion"),
        (chunk("verts", BOMB, compression="gzip"), "out of proportion"),
        (chunk("geodesic", zlib.compress(bytes(1 << 22)), compression="gzip"), "unpacks to more"),
        (chunk("geodesic", zlib.compress(bytes(99)), compression="gzip"), "does not have its size"),
        (chunk("geodesic", zlib.compress(bytes(42 * 42 * 4))[:-1], compression="gzip"), "is cut off"),
        (chunk("verts", b"", compression="gzip"), "missing"),
        (replace("verts", chunks=(1, 1), compression="lzf"), "by a filter that is not read"),
        (replace("verts", dtype=h5py.ref_dtype), "is object, expected float32"),
        (replace("verts", dtype=h5py.string_dtype()), "is object, expected float32"),
        (replace("verts", data=h5py.Empty("f4")), "has no shape"),
        (replace("verts", data=np.full((42, 3), np.nan, "f4")), "not finite"),
        (replace("geodesic", data=np.full((42, 42), np.inf, "f4")), "not finite"),
        (replace("uv", data=np.full((9, 2), 1e9, "f4")), "outside 0 to 1"),
        (replace("verts", data=np.zeros((42, 3), "f4")), "no surface"),
        (lambda file, _: file.attrs.__setitem__("mirror_axis", "\x1b[31m"), "mirror_axis is '\\x1b[31m'"),
        (lambda file, _: file.attrs.__setitem__("format", np.arange(3)), "is no text"),
        (lambda file, _: file.attrs.__setitem__("format", file.ref), "is no text"),
        (lambda file, _: file.attrs.__setitem__("format", 2.5), "is no text"),
        (lambda file, _: file.attrs.__setitem__("params", "[" * 100_000), "nested too deep"),
        (lambda file, _: file.attrs.__setitem__("sources", "[]"), "are JSON objects"),
    ],
)
def test_templates(seeds: Path, tmp_path: Path, change: Change, said: str) -> None:
    path = copied(seeds / "template.h5", tmp_path, change)
    started = time.process_time()
    with pytest.raises(InputError) as caught:
        read_template(path)
    # Without the path, in which pytest puts the case's name.
    assert said in caught.value.message.replace(str(path), "") and caught.value.hint
    assert time.process_time() - started < 5


def copied(seed: Path, folder: Path, change: Change) -> Path:
    """A copy of `seed` after `change`; the file called trap in `folder` makes whoever opens it wait
    for ever.
    """
    path = shutil.copy(seed, folder)
    os.mkfifo(folder / "trap")
    with h5py.File(path, "a") as file:
        change(file, folder)
    return Path(path)


@pytest.mark.parametrize(
    "link", [lambda path: h5py.ExternalLink(path, "/items"), lambda path: h5py.SoftLink("/nowhere")]
)
def test_items_behind_a_link(seeds: Path, tmp_path: Path, link: Callable[[str], object]) -> None:
    def change(file: h5py.File, folder: Path) -> None:
        del file["items"]
        file["items"] = link(str(folder / "trap"))

    with pytest.raises(InputError, match="is a link"):
        ItemReader(copied(seeds / "maps.h5", tmp_path, change), "shic/maps")


@pytest.mark.parametrize(
    "name",
    ["../a.png", "/tmp/a.png", "a/../../b.png", "", ".", "..", "a\x1b[2J.png", "a\nb", "x" * 300, "\udcff"],
)
def test_names_that_lead_elsewhere(seeds: Path, tmp_path: Path, name: str) -> None:
    def change(file: h5py.File, folder: Path) -> None:
        file["items/00000000"].attrs["name"] = (
            np.bytes_(name.encode("utf-8", "surrogateescape")) if name == "\udcff" else name
        )

    with pytest.raises(InputError) as caught:
        ItemReader(copied(seeds / "maps.h5", tmp_path, change), "shic/maps")
    assert caught.value.message.isprintable()


def test_two_items_of_one_name(seeds: Path, tmp_path: Path) -> None:
    def change(file: h5py.File, folder: Path) -> None:
        file["items/00000001"].attrs["name"] = file["items/00000000"].attrs["name"]

    with pytest.raises(InputError, match="like another"):
        ItemReader(copied(seeds / "maps.h5", tmp_path, change), "shic/maps")


@pytest.mark.parametrize(
    "filters", [{}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True}, {"shuffle": True}]
)
@pytest.mark.parametrize("dtype", ["f4", "f2", "i4", "u1", "?"])
def test_chunks_come_back_as_the_library_reads_them(tmp_path: Path, dtype: str, filters: dict) -> None:
    chance = np.random.default_rng(0)
    array = (chance.random((7, 5, 11)) * 100).astype(dtype)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", data=array, chunks=(3, 5, 4), **filters)
        hdf5.check_dataset(data, np.dtype(dtype), "x")
        found = hdf5.read_array(data, "x")
        assert found.dtype == array.dtype and np.array_equal(found, data[()]) and np.array_equal(found, array)


@pytest.mark.parametrize(
    ("shape", "chunks", "said"),
    [
        ((3000,), (1,), "has 3000 chunks of 4 bytes"),
        ((1040, 512), (1, 512), ""),  # many, of a size that programs write
        ((1032,), (1,), ""),  # small, but few: 1024, and one for each 512 bytes
        ((1033,), (1,), "has 1033 chunks of 4 bytes"),
        ((8,), (4096,), "has 1 chunks of 16384 bytes"),
        ((8,), (512,), ""),
        ((1024,), (4096,), ""),  # four times as large as what is in it
    ],
)
def test_chunks_of_a_size_or_number_that_no_program_writes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    said: str,
) -> None:
    monkeypatch.setattr(hdf5, "FREE", 2048)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", shape, "f4", chunks=chunks, maxshape=(None,) * len(shape))
        data[:] = 1
        file.flush()
        if not said:
            hdf5.check_dataset(data, np.dtype("f4"), "x")
            assert np.array_equal(hdf5.read_array(data, "x"), np.ones(shape))
            return
        with pytest.raises(InputError, match=said):
            hdf5.check_dataset(data, np.dtype("f4"), "x")


def test_what_is_packed_twice_is_refused(tmp_path: Path) -> None:
    """Each packing multiplies what a few bytes can unpack to."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_chunk((64,))
        how.set_deflate(9)
        how.set_deflate(9)
        kind, space = h5py.h5t.py_create(np.dtype("u1")), h5py.h5s.create_simple((64,))
        h5py.h5d.create(file.id, b"x", kind, space, how)
        file["x"][:] = 7
        with pytest.raises(InputError, match="by a filter that is not read"):
            hdf5.check_dataset(file["x"], np.dtype("u1"), "x")


def test_a_chunk_may_leave_filters_out(tmp_path: Path) -> None:
    """A bit of its mask says so, for each filter; programs leave out the packing of what it makes larger."""
    array = np.arange(48, dtype="<i4").reshape(6, 8)
    shuffled = array[3:].reshape(-1).view("u1").reshape(-1, 4).T.tobytes()
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", (6, 8), "<i4", chunks=(3, 8), compression="gzip", shuffle=True)
        data.id.write_direct_chunk((0, 0), zlib.compress(array[:3].tobytes()), filter_mask=0b01)
        data.id.write_direct_chunk((3, 0), shuffled, filter_mask=0b10)
        assert np.array_equal(data[()], array)
        assert np.array_equal(hdf5.read_array(data, "x"), array)


def test_a_bool_of_another_byte_counts_once(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        data = file.create_dataset("x", (4,), "?", chunks=(4,))
        data.id.write_direct_chunk((0,), bytes([0, 1, 2, 255]))
        assert hdf5.read_array(data, "x").view(np.uint8).tolist() == [0, 1, 1, 1]


def test_an_attribute_is_not_read_if_it_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "LONGEST", 100)
    monkeypatch.setattr(hdf5, "_frugal", lambda: pytest.fail("its text was asked for"))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["long"] = np.bytes_("x" * 101)
        with pytest.raises(InputError, match="the attribute long is no text"):
            hdf5.attribute(file, "long", "x")
        monkeypatch.undo()
        assert hdf5.attribute(file, "long", "x") == "x" * 101


@pytest.mark.parametrize("value", ["é", "", 7, -3])
def test_attributes_come_back(tmp_path: Path, value: str | int) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["a"] = value
        assert hdf5.attribute(file, "a", "x") == value and hdf5.attribute(file, "b", "x") is None
        file.attrs["bytes"] = np.bytes_(b"\xff")
        with pytest.raises(InputError, match="the attribute bytes can't be read"):
            hdf5.attribute(file, "bytes", "x")


def test_a_large_data_set_is_read_where_its_file_is_large_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5, "FREE", 1 << 16)
    array = np.random.default_rng(0).random((100, 1000)).astype("f4")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("x", data=array, compression="gzip")
        file.create_dataset("zeros", (10_000, 5_000), "f4", compression="gzip", chunks=(1000, 5000))
        file.flush()
        hdf5.check_dataset(file["x"], array.dtype, "x")
        file.flush()
        size = (tmp_path / "x.h5").stat().st_size
        with pytest.raises(InputError, match=f"declares 190 MiB in a file of {size >> 10} KiB"):
            hdf5.check_dataset(file["zeros"], array.dtype, "zeros")


@pytest.mark.parametrize(("rows", "good"), [(63, True), (65, False)])
def test_64_mib_may_be_unpacked_from_any_file(tmp_path: Path, rows: int, good: bool) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        zeros = file.create_dataset("x", (rows, 1 << 18), "f4", compression="gzip", chunks=(1, 1 << 18))
        file.flush()
        if good:
            hdf5.check_dataset(zeros, np.dtype("f4"), "x")
            return
        with pytest.raises(InputError, match=f"declares {rows} MiB"):
            hdf5.check_dataset(zeros, np.dtype("f4"), "x")


def test_empty_and_compact_data_sets_come_back(tmp_path: Path) -> None:
    """Neither has an address of its own in the file."""
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("empty", (0, 3), "f4")
        how = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        how.set_layout(h5py.h5d.COMPACT)
        kind, space = h5py.h5t.py_create(np.dtype("i4")), h5py.h5s.create_simple((3,))
        h5py.h5d.create(file.id, b"compact", kind, space, how)
        file["compact"][:] = [1, 2, 3]
        for name, dtype, shape in (("empty", "f4", (0, 3)), ("compact", "i4", (3,))):
            hdf5.check_dataset(file[name], np.dtype(dtype), name)
            assert hdf5.read_array(file[name], name).shape == shape
        assert hdf5.read_array(file["compact"], "compact").tolist() == [1, 2, 3]


def test_a_name_that_is_no_member(seeds: Path) -> None:
    with hdf5.opened(seeds / "maps.h5") as file:
        for name in ("", ".", "items/00000000", "/"):
            with pytest.raises(InputError, match="is no name"):
                hdf5.member(file, name, h5py.Group, f"file: {name}")
        assert hdf5.member(file, "nothing", h5py.Group, "file") is None


def test_info_of_a_changed_file(seeds: Path, tmp_path: Path) -> None:
    path = copied(seeds / "maps.h5", tmp_path, lambda file, _: file["items"].__setitem__("zz", np.zeros(3)))
    with pytest.raises(ShicError, match="zz is not a group"):
        info.describe(path)


@pytest.mark.parametrize("what", ["free space", "an item"])
def test_texts_that_the_library_never_ends_reading(seeds: Path, tmp_path: Path, what: str) -> None:
    """Found by the fuzzer: an item without a length in the heap where attributes' texts are."""
    path = Path(shutil.copy(seeds / "maps.h5", tmp_path))
    data = bytearray(path.read_bytes())
    at = data.find(b"GCOL") + 16
    if what == "free space":
        data[at : at + 16] = bytes(16)
    else:
        data[at + 8 : at + 16] = b"\xff" * 8
    path.write_bytes(data)
    with pytest.raises(InputError, match="heap of its texts is damaged"):
        ItemReader(path, "shic/maps")


def test_heaps_on_the_border_of_two_blocks_are_seen(
    seeds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray((seeds / "maps.h5").read_bytes())
    spot = data.find(b"GCOL")
    data[spot + 16 : spot + 32] = bytes(16)
    (tmp_path / "x.h5").write_bytes(data)
    for block in (spot + 1, spot + 3, spot + 4, spot + 5, 64):
        monkeypatch.setattr(hdf5, "BLOCK", block)
        with pytest.raises(InputError, match="heap of its texts is damaged"):
            ItemReader(tmp_path / "x.h5", "shic/maps")
        assert len(ItemReader(seeds / "maps.h5", "shic/maps")) == 2


def test_heaps_that_overlap(seeds: Path, tmp_path: Path) -> None:
    data = (seeds / "maps.h5").read_bytes()
    half = len(data) // 16 * 8
    heap = b"GCOL\x01\0\0\0" + half.to_bytes(8, "little")
    nested = heap + (1).to_bytes(8, "little") + (half - 32).to_bytes(8, "little")
    (tmp_path / "x.h5").write_bytes(data + nested * 5 + bytes(len(data)))
    with pytest.raises(InputError, match="heaps are damaged"):
        ItemReader(tmp_path / "x.h5", "shic/maps")


def test_a_text_that_says_it_is_4_gb_long(seeds: Path, tmp_path: Path) -> None:
    """Found by the fuzzer. The text's length, its heap's address and its number there follow each other."""
    path = Path(shutil.copy(seeds / "maps.h5", tmp_path))
    data = bytearray(path.read_bytes())
    heap = data.find(b"GCOL").to_bytes(8, "little")
    spots = [
        at
        for at in range(len(data) - 16)
        if data[at + 4 : at + 12] == heap and data[at + 12 : at + 16] != bytes(4)
    ]
    assert len(spots) > 5
    for at in spots:
        data[at : at + 4] = b"\xf0\xff\xff\xff"
    path.write_bytes(data)
    before, limit = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, resource.getrlimit(resource.RLIMIT_AS)
    with pytest.raises(InputError):
        ItemReader(path, "shic/maps")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 << 10  # KiB
    assert resource.getrlimit(resource.RLIMIT_AS) == limit


def heap_of(*items: tuple[int, int, int], length: int | None = None) -> bytes:
    """A global heap of items, each with its number, the length that it says, and the bytes that it takes.

    The bytes that mean something else to the library are full of ones. `length` is what the heap says.
    """
    body = b"".join(
        number.to_bytes(2, "little") + b"\x01" * 6 + said.to_bytes(8, "little") + b"\x01" * taken
        for number, said, taken in items
    )
    return b"GCOL\x01\0\0\0" + (16 + len(body) if length is None else length).to_bytes(8, "little") + body


@pytest.mark.parametrize(
    ("heap", "found"),
    [
        (heap_of((1, 8, 8), (2, 9, 16), (0, 32, 16)), 104),
        (heap_of((1, 8, 8), (0, 16, 0)), 56),  # free space of a header alone
        (heap_of((300, 0, 0), (1, 8, 8)), 56),  # an empty text
        (heap_of(), 16),
        (heap_of(length=15), 0),
        (heap_of((1, 8, 8), length=41), 0),  # longer than the file: no heap
        (heap_of((1, 9, 8)), None),  # 9 bytes take 16
        (heap_of((1, 17, 16)), None),
        (heap_of((0, 15, 16)), None),
        (heap_of((0, 33, 16)), None),
    ],
)
def test_the_items_of_a_heap_fit_in_it(heap: bytes, found: int | None) -> None:
    """By section III.E of the format; the second heap of a file, which lies behind another one."""
    data = io.BytesIO(b"\x02" * 7 + heap)
    if found is not None:
        assert hdf5._check_heap(data, 7, 7 + len(heap), "x") == found
        return
    with pytest.raises(InputError, match="x: a heap of its texts is damaged"):
        hdf5._check_heap(data, 7, 7 + len(heap), "x")


@pytest.mark.parametrize("version", ["earliest", "latest"])
@pytest.mark.parametrize("size", [8, 4])
def test_files_of_other_sizes_than_8_bytes_are_not_read(tmp_path: Path, version: str, size: int) -> None:
    """The heaps of those are laid out in another way; old and new headers say the sizes in other places."""
    made, access = h5py.h5p.create(h5py.h5p.FILE_CREATE), h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    made.set_sizes(size, size)
    bound = h5py.h5f.LIBVER_EARLIEST if version == "earliest" else h5py.h5f.LIBVER_LATEST
    access.set_libver_bounds(bound, h5py.h5f.LIBVER_LATEST)
    path = tmp_path / "x.h5"
    h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, made, access).close()
    if size == 8:
        with hdf5.opened(path) as file:
            assert not list(file)
        return
    with pytest.raises(InputError, match=r"x\.h5: has a header, or a size of offsets"), hdf5.opened(path):
        raise AssertionError


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.GLB", "template prep"),
        ("a.png", "is a picture"),
        ("a.safetensors", "is a model"),
        ("a", "another"),
    ],
)
def test_what_is_no_hdf5_file_gets_the_step_that_fits(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(InputError, match="can't be read as HDF5") as caught, hdf5.opened(tmp_path / name):
        raise AssertionError
    assert hint in caught.value.hint
    for path, said in ((tmp_path / "none.h5", "there is no such file"), (tmp_path, "is a folder")):
        with pytest.raises(InputError, match=said), hdf5.opened(path):
            raise AssertionError


def test_long_texts_are_read_and_the_process_grows_by_few_of_them(tmp_path: Path) -> None:
    text = "x" * (12 << 20)
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.attrs["long"] = text
        assert hdf5.attribute(file, "long", "x") == text
    with pytest.raises(InputError, match="longer than any that is read"), hdf5._frugal():
        bytes(1 << 32)
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    with hdf5._frugal():
        assert 3 < (resource.getrlimit(resource.RLIMIT_AS)[0] - size) / hdf5.LONGEST < 5
    resource.setrlimit(resource.RLIMIT_AS, (size + hdf5.LONGEST, before[1]))
    try:
        with hdf5._frugal():  # a limit that was set is not lifted
            assert resource.getrlimit(resource.RLIMIT_AS)[0] == size + hdf5.LONGEST
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_a_new_file_is_closed_whatever_happens_and_gets_no_more_bytes(tmp_path: Path) -> None:
    """One that is left open would be written when the process ends, and crash it."""
    with pytest.raises(KeyboardInterrupt), hdf5.created(tmp_path / "x.h5") as (file, _):
        file.create_dataset("x", data=np.arange(100_000))
        size = (tmp_path / "x.h5").stat().st_size
        raise KeyboardInterrupt
    assert not file and (tmp_path / "x.h5").stat().st_size == size


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (BlockingIOError(11, "locked"), "another program has it open for writing"),
        *((kind("odd"), "can't be read as HDF5") for kind in (OSError, RuntimeError, ValueError, KeyError)),
        (OSError(errno.ENOLCK, "no locks"), ""),
    ],
)
def test_what_the_library_raises_when_it_opens_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    """Where there are no locks, it is asked once more to do without."""
    h5py.File(tmp_path / "x.h5", "w").close()
    real = h5py.File

    def file(path: Path, mode: str, locking: bool = True) -> h5py.File:
        if locking or said:
            raise error
        return real(path, mode, locking=False)

    monkeypatch.setattr(h5py, "File", file)
    if not said:
        with hdf5.opened(tmp_path / "x.h5") as found:
            assert not list(found)
        return
    with pytest.raises(InputError, match=rf"x\.h5: {said}"), hdf5.opened(tmp_path / "x.h5"):
        raise AssertionError


def test_errors_of_ours_and_of_memory_come_through_and_others_are_damage(tmp_path: Path) -> None:
    for error, kind in (
        (MemoryError(), MemoryError),
        (ShicError("ours", ""), ShicError),
        (ZeroDivisionError(), InputError),
    ):
        with pytest.raises(kind) as caught, hdf5.damaged("x"):
            raise error
        assert (caught.value is error) == (kind is not InputError)
    assert hdf5.state(tmp_path / "none") is None
