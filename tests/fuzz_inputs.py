"""Small valid files of every sort that shic reads, and mutations of them that know their structure. Seeded:
one number, one file.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from fuzz_hdf5 import TRAP, mutate_hdf5

INTS = (
    0,
    1,
    -1,
    2,
    7,
    127,
    128,
    255,
    256,
    32767,
    65535,
    65536,
    10**6,
    2**31 - 1,
    -(2**31),
    2**32 - 1,
    2**40,
    2**63 - 1,
)
NUMBERS = (
    "nan",
    "inf",
    "-inf",
    "1e308",
    "-1e308",
    "1e400",
    "0",
    "-1",
    "1",
    "1e-320",
    "4294967295",
    "9223372036854775808",
    "",
    "x",
    "1/2",
)
VALUES = (
    None,
    True,
    0,
    -1,
    1,
    2**31,
    2**64,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../../x",
    "/etc/x",
    [],
    {},
    [[]],
    [1],
    "\ud800",
)


def mutate_bytes(data: bytes, rng: np.random.Generator, others: list[bytes]) -> bytes:
    """`data` after one to eight changes: bits, numbers of 1 to 8 bytes, runs cut, doubled, moved, mixed with
    another file's.
    """
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        if not out:
            break
        at, length = int(rng.integers(len(out))), int(rng.integers(1, 65))
        what = int(rng.integers(9))
        if what <= 1:
            out[at] ^= 1 << int(rng.integers(8))
        elif what == 2:
            out[at] = int(rng.integers(256))
        elif what <= 4:
            width = int(rng.choice([1, 2, 4, 8]))
            number = int(rng.choice(np.array(INTS, object))) & (256**width - 1)
            out[at : at + width] = number.to_bytes(width, "little" if rng.random() < 0.7 else "big")
        elif what == 5:
            del out[at : at + length]
        elif what == 6:
            out[at:at] = out[at : at + length]
        elif what == 7:
            other = others[int(rng.integers(len(others)))]
            start = int(rng.integers(max(len(other), 1)))
            out[at : at + length] = other[start : start + length]
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


def mutate_json(value: Any, rng: np.random.Generator, times: int = 0) -> Any:
    """`value` with one to four of its parts replaced, removed, doubled, renamed or nested deep."""
    value = json.loads(json.dumps(value))
    for _ in range(times or int(rng.integers(1, 5))):
        places = list(_places(value))
        if not places:
            break
        parent, key = places[int(rng.integers(len(places)))]
        what = int(rng.integers(8))
        if what <= 3:
            parent[key] = json.loads(
                json.dumps(VALUES[int(rng.integers(len(VALUES)))])
            )  # a list is changed later
        elif what == 4:
            del parent[key]
        elif what == 5:
            other, there = places[int(rng.integers(len(places)))]
            if isinstance(other, list) == isinstance(parent, list) and (
                isinstance(other, dict) or there < len(other)
            ):
                parent[key] = json.loads(json.dumps(other[there]))
        elif what == 6 and isinstance(parent, dict):
            parent[str(VALUES[int(rng.integers(11, 15))])] = parent.pop(key)
        elif isinstance(parent, list):
            parent.extend(json.loads(json.dumps(parent[key])) for _ in range(int(rng.integers(1, 20))))
    return value


def _places(value: Any) -> Any:
    for key in (
        list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    ):
        yield value, key
        yield from _places(value[key])


def json_text(value: Any, rng: np.random.Generator) -> bytes:
    """`value` as JSON, now and then inside brackets without end."""
    text = json.dumps(value)
    if rng.random() < 0.03:
        depth = int(rng.choice([900, 10_000, 200_000]))
        text = text[:-1] + ', "deep": ' + "[" * depth + "]" * depth + "}"
    return text.encode("utf-8", "surrogatepass")


# Models: 8 bytes of length, JSON, tensors


def mutate_safetensors(data: bytes, rng: np.random.Generator) -> bytes:
    """A safetensors file with another header, another `meta` in it, or other tensors."""
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
    what = int(rng.integers(6))
    if what == 0:
        header = mutate_json(header, rng)
    elif what == 1:
        header["__metadata__"]["meta"] = json_text(
            mutate_json(json.loads(header["__metadata__"]["meta"]), rng), rng
        ).decode("utf-8", "replace")
    else:
        names = [name for name in header if name != "__metadata__"]
        for _ in range(int(rng.integers(1, 4))):
            entry = header[names[int(rng.integers(len(names)))]]
            start, end = entry["data_offsets"]
            if what == 2:
                entry["dtype"] = str(
                    rng.choice(
                        [
                            "F64",
                            "F32",
                            "F16",
                            "BF16",
                            "I64",
                            "I32",
                            "U8",
                            "BOOL",
                            "F8_E4M3",
                            "F8_E5M2",
                            "C64",
                            "X",
                        ]
                    )
                )
            elif what == 3:
                entry["shape"] = [
                    int(rng.choice([0, 1, 3, 2**31, 2**62, *entry["shape"]]))
                    for _ in range(int(rng.integers(5)))
                ]
            elif what == 4:
                pattern = struct.pack("<f", float(rng.choice([np.nan, np.inf, 3e38, -1.0, 0.0, 1e-40])))
                body[start:end] = (pattern * (end - start))[: end - start]
            else:
                at = int(rng.integers(start, max(end - 4, start + 1)))
                body[at : at + 4] = struct.pack("<f", float(rng.choice([np.nan, np.inf, 3e38, -1.0, 1e9])))
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return (
        struct.pack("<Q", len(text) + (int(rng.choice(INTS[:8])) if rng.random() < 0.05 else 0))
        + text
        + bytes(body)
    )


# Pictures


def mutate_picture(data: bytes, rng: np.random.Generator) -> bytes:
    """A picture with its structure changed: chunks of a PNG with right check sums, sizes and segments of a
    JPEG; bytes of the others.
    """
    if data[:4] == b"\x89PNG":
        return _mutate_png(data, rng)
    if data[:2] == b"\xff\xd8":
        at = [i for i in range(len(data) - 9) if data[i] == 0xFF and data[i + 1] not in (0, 0xFF)]
        out, spot = bytearray(data), at[int(rng.integers(len(at)))]
        if rng.random() < 0.5:
            spot = next((i for i in at if data[i + 1] in (0xC0, 0xC2)), spot)
            out[spot + 5 : spot + 9] = struct.pack(
                ">HH", *(int(rng.choice([0, 1, 7, 8, 40, 3000, 65535])) for _ in "hw")
            )
        else:
            out[spot + 2 : spot + 4] = struct.pack(">H", int(rng.choice([0, 1, 2, 3, 100, 65535])))
        return bytes(out)
    return mutate_bytes(data[: max(64, len(data) // 4)], rng, [data]) + data[max(64, len(data) // 4) :]


def _mutate_png(data: bytes, rng: np.random.Generator) -> bytes:
    chunks, at = [], 8
    while at < len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        chunks.append([data[at + 4 : at + 8], data[at + 8 : at + 8 + length]])
        at += 12 + length
    for _ in range(int(rng.integers(1, 4))):
        spot, what = int(rng.integers(len(chunks))), int(rng.integers(7))
        if what == 0:
            sides = [int(rng.choice([0, 1, 8, 24, 1000, 30_000, 2**31 - 1])) for _ in "wh"]
            chunks[0][1] = struct.pack(">II", *sides) + chunks[0][1][8:]
        elif what == 1:
            chunks[0][1] = chunks[0][1][:8] + bytes(
                int(rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 255])) for _ in range(5)
            )
        elif what == 2:
            chunks.insert(spot, list(chunks[int(rng.integers(len(chunks)))]))
        elif what == 3:
            del chunks[spot]
            if not chunks:
                return data[:8]
        elif what == 4:
            chunks[spot][1] = mutate_bytes(chunks[spot][1] or b"\0", rng, [data])
        elif what == 5:
            names = [
                b"zTXt",
                b"iCCP",
                b"iTXt",
                b"eXIf",
                b"tRNS",
                b"PLTE",
                b"acTL",
                b"fcTL",
                b"fdAT",
                b"IDAT",
                b"pHYs",
                b"gAMA",
                b"sBIT",
            ]
            body = [
                b"a\0\0" + zlib.compress(bytes(1 << 22)),
                b"",
                bytes(300),
                b"II*\0\x08\0\0\0\xff\xff" + bytes(50),
                zlib.compress(bytes(1 << 20)),
            ]
            chunks.insert(
                min(spot, 1), [names[int(rng.integers(len(names)))], body[int(rng.integers(len(body)))]]
            )
        elif rng.random() < 0.02:  # a bomb that keeps its word
            side = int(rng.choice([3000, 8192, 9000, 13_000]))
            chunks = [
                [b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)],
                [b"IDAT", zlib.compress(bytes(side * (side + 1)))],
                [b"IEND", b""],
            ]
            break
    out = data[:8]
    for name, body in chunks:
        out += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return out


# Meshes and tables


def mutate_text(text: str, rng: np.random.Generator) -> str:
    """Lines removed, doubled and moved, words replaced by numbers that no file should hold."""
    lines = text.splitlines()
    for _ in range(int(rng.integers(1, 7))):
        if not lines:
            break
        at, what = int(rng.integers(len(lines))), int(rng.integers(8))
        if rng.random() < 0.2:
            at = int(rng.integers(min(len(lines), 12)))  # headers
        if what == 0:
            del lines[at]
        elif what == 1:
            lines[at:at] = [lines[at]] * int(rng.choice([1, 2, 500]))
        elif what == 2:
            other = int(rng.integers(len(lines)))
            lines[at], lines[other] = lines[other], lines[at]
        elif what == 3:
            lines.insert(
                at,
                str(
                    rng.choice(
                        [
                            "mtllib /etc/passwd",
                            "usemtl x",
                            "comment TextureFile /etc/passwd",
                            "f 1 2 3",
                            "f -1 -2 -9",
                            "l 1 2",
                            "",
                            "#",
                        ]
                    )
                ),
            )
        else:
            separator = "," if "," in lines[at] else " "
            words = lines[at].split(separator)
            words[int(rng.integers(len(words)))] = NUMBERS[int(rng.integers(len(NUMBERS)))]
            lines[at] = separator.join(words)
    return "\n".join(lines)


def mutate_glb(data: bytes, rng: np.random.Generator) -> bytes:
    """A GLB with another JSON part."""
    length = struct.unpack("<I", data[12:16])[0]
    tree = json.loads(data[20 : 20 + length])
    if rng.random() < 0.1:
        tree.setdefault("images", []).append(
            {"uri": str(rng.choice(["/etc/passwd", "../x.png", "http://localhost:1/x"]))}
        )
        tree.setdefault("buffers", []).append(
            {"uri": str(rng.choice(["/etc/passwd", "../x.bin", "file:///etc/passwd"])), "byteLength": 9}
        )
    if rng.random() < 0.1:
        tree["nodes"] = tree["nodes"] + [
            {"mesh": 0, "children": [int(rng.integers(len(tree["nodes"]) + 1))]} for _ in range(50)
        ]
        tree["scenes"][0]["nodes"] = list(range(len(tree["nodes"])))
    text = json_text(mutate_json(tree, rng), rng)
    text += b" " * (-len(text) % 4)
    rest = data[20 + length :]
    return (
        struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest))
        + struct.pack("<I4s", len(text), b"JSON")
        + text
        + rest
    )


def mutate_mesh(path: Path, rng: np.random.Generator) -> None:
    """Change the mesh file at `path` by what its ending says it is."""
    data = path.read_bytes()
    if path.suffix == ".glb":
        data = mutate_glb(data, rng)
    elif path.suffix == ".gltf":
        tree = json.loads(data)
        if rng.random() < 0.2:
            tree["buffers"][0]["uri"] = str(
                rng.choice(["/etc/passwd", "../../../etc/passwd", "http://localhost:1/x", "data:,", "x"])
            )
        data = json_text(mutate_json(tree, rng), rng)
    elif b"\0" in data:
        data = mutate_bytes(data[:300], rng, [data]) + data[300:]
    else:
        data = mutate_text(data.decode(), rng).encode()
    path.write_bytes(data)


def mutate(sort: str, seeds: list[Path], target: Path, number: int) -> Path:
    """The mutated file number `number` of `sort`, made from one of `seeds` in the folder `target`. The same
    every time.
    """
    rng = np.random.default_rng([number, *sort.encode()])
    seed = seeds[int(rng.integers(len(seeds)))]
    path = target / f"mutated{seed.suffix}"
    shutil.copyfile(seed, path)
    data = seed.read_bytes()
    if rng.random() < 0.3:
        path.write_bytes(mutate_bytes(data, rng, [each.read_bytes() for each in seeds]))
    elif sort in ("template", "views", "features", "maps"):
        mutate_hdf5(path, rng, target.parent)
    elif sort == "model":
        path.write_bytes(mutate_safetensors(data, rng))
    elif sort == "image":
        path.write_bytes(mutate_picture(data, rng))
    elif sort == "mesh":
        mutate_mesh(path, rng)
    elif seed.suffix == ".npz" or sort == "video":
        path.write_bytes(mutate_bytes(data, rng, [data]))
    elif seed.suffix == ".json":
        path.write_bytes(json_text(mutate_json(json.loads(data), rng), rng))
    else:
        text = mutate_text(data.decode(), rng)
        if rng.random() < 0.02:
            text += "\n" + "x" * int(rng.choice([1000, 200_000])) + ",a"
        path.write_text(text)
    return path


def traps(folder: Path) -> None:
    """What a file must not make anybody open: a FIFO, and another HDF5 file."""
    if not (folder / TRAP).exists():
        os.mkfifo(folder / TRAP)
    with h5py.File(folder / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
