"""OBJ text as people have it: what trimesh's parser should see of a file, whoever wrote it."""

from __future__ import annotations

import codecs
import re

import numpy as np

from shic_cli.surface.polygons import MOST, has_notch, triangles

MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
KEPT = ("v", "vt", "f")


def plain_obj(data: bytes) -> tuple[str, np.ndarray]:
    """The vertex, texture coordinate and face lines of an OBJ file, and its vertices `(M, 3)`.

    Read are UTF-8 and UTF-16 with a mark, any line ends, lines that go on after a `\\`, and decimal commas.
    Groups, materials and normals are left out, so that the faces of fifty thousand groups are one mesh.
    ValueError if a line holds no numbers where it should.
    """
    lines = [line.split() for line in _text(data).split("\n")]
    lines = [words for words in lines if words and words[0] in KEPT]
    if any("," in word for words in lines if words[0] != "f" for word in words):
        lines = [_with_points(words) for words in lines]
    verts = [words[1:4] for words in lines if words[0] == "v"]
    source = np.array(verts, float).reshape(-1, 3)
    lines = _without_notches(lines, source)
    return "\n".join(" ".join(words) for words in lines) + "\n", source


def _without_notches(lines: list[list[str]], verts: np.ndarray) -> list[list[str]]:
    """The lines with every polygon that has a notch as triangles; `verts` `(M, 3)` are the vertices."""
    by_size: dict[int, list[tuple[int, list[int]]]] = {}
    count = 0  # a negative number counts back from the vertices so far
    for i, words in enumerate(lines):
        count += words[0] == "v"
        if words[0] == "f" and 4 <= len(words) - 1 <= MOST:
            numbers = [int(word.partition("/")[0]) for word in words[1:]]
            numbers = [number - 1 if number > 0 else count + number for number in numbers]
            if min(numbers) >= 0 and max(numbers) < len(verts):  # others are refused later
                by_size.setdefault(len(numbers), []).append((i, numbers))
    instead: dict[int, list[list[str]]] = {}
    for faces in by_size.values():
        corners = verts[np.array([numbers for _, numbers in faces])]
        for place in np.flatnonzero(has_notch(corners)):
            i = faces[place][0]
            split = triangles(corners[place])
            instead[i] = [["f", *(lines[i][corner + 1] for corner in three)] for three in split] or [lines[i]]
    return [each for i, words in enumerate(lines) for each in instead.get(i, [words])] if instead else lines


def _text(data: bytes) -> str:
    """The text in whatever encoding, with `\\n` line ends, and lines that go on after a `\\` made one."""
    mark, encoding = next(
        (pair for pair in MARKS.items() if data.startswith(pair[0])), (b"", "utf-8")
    )  # names and comments may be in any encoding; numbers are ASCII in all of them
    if not mark and data[1:2] == b"\0":
        encoding = "utf-16-le"
    text = data[len(mark) :].decode(encoding, errors="replace")
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return re.sub(r"\\[ \t]*\n", " ", text)


def _with_points(words: list[str]) -> list[str]:
    """The words of a line with decimal points for commas."""
    if words[0] == "f":
        return words
    numbers = [DECIMAL_COMMA.sub(".", word) for word in words[1:]]
    if any("," in word or word.count(".") > 1 for word in numbers):
        raise ValueError(f"numbers parted by commas, as in: {' '.join(words)[:40]}")
    return [words[0], *numbers]
