"""Another program's answers, to be scored beside ours: the vertices at points of photos, or where keypoints
go in other photos.

Points are a .csv with the columns `image`, `x`, `y`, `vertex` and, if there is one, `score`, or an .npz with
an array of each. x and y are pixels of the photo, the top left corner is (0, 0) as in an annotation's box;
vertices are those of the mesh file, counted from 0. Keypoints are a .csv like PF-PASCAL's, whose XB and YB
are the answers.
"""

from __future__ import annotations

import csv
import zipfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from shic_cli.base.errors import InputError
from shic_cli.files.annotations import Points, numbers
from shic_cli.files.keypoints import Pair, read_csv
from shic_cli.files.layouts import Template
from shic_cli.files.names import meet

NAMES = (".csv", ".npz")
COLUMNS = ("image", "x", "y", "vertex")
LARGEST = 1 << 28  # bytes of one array of an .npz
REACH = 1.5  # pixels: an answer belongs to the point in the same pixel, or in one beside it


class GivenPoints:
    """Predictions as points; an annotated point takes the nearest answer that lies in its pixel or beside it,
    else it has none.
    """

    def __init__(self, path: Path, template: Template) -> None:
        columns = _read_csv(path) if path.suffix == ".csv" else _read_npz(path)
        image, vertex = columns["image"], columns["vertex"]
        yx = np.floor(np.stack([columns["y"], columns["x"]], 1))
        wrong = (vertex != np.rint(vertex)) | (vertex < 0) | (vertex >= len(template.source_to_vertex))
        if wrong.any():
            last = len(template.source_to_vertex) - 1
            raise InputError(
                f"{path}: vertex holds {vertex[wrong][0]:g}",
                f"give whole numbers from 0 to {last}: vertices of the mesh file",
            )
        score = columns.get("score", np.ones(len(image)))
        rows: dict[str, list[int]] = defaultdict(list)
        for i, name in enumerate(image.tolist()):
            rows[name].append(i)
        vertex = template.source_to_vertex[vertex.astype(int)]
        self.images = {name: (cKDTree(yx[part]), vertex[part], score[part]) for name, part in rows.items()}

    def meet(self, wanted: Iterable[str]) -> dict[str, str | None]:
        """The images by name, with or without folders."""
        return meet(wanted, list(self.images))

    def look_up(self, item: str, group: list[Points]) -> list[tuple[np.ndarray, float]]:
        """The answers nearest to the points; an object is as sure as its answers on average."""
        tree, vertex, score = self.images[item]
        answers = []
        for each in group:
            distance, row = tree.query(each.yx, distance_upper_bound=REACH)
            there = np.isfinite(distance)
            found = np.full(len(each.yx), -1)
            found[there] = vertex[row[there]]
            answers.append((found, float(score[row[there]].mean()) if there.any() else 0.0))
        return answers


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = [(reader.line_num, row) for row in reader]
            names = [name for name in (*COLUMNS, "score") if name in (reader.fieldnames or ())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: can't be read ({error})", "check the path") from error
    if lack := [name for name in COLUMNS if name not in names]:
        raise InputError(
            f"{path}: has no column `{lack[0]}`", f"columns: {','.join(COLUMNS)} and, if there is one, score"
        )
    values: list[np.ndarray] = []
    for line, row in rows:
        values.append(numbers([row[name] for name in names[1:]], (len(names) - 1,), f"{path}: line {line}"))
    if not values:
        raise InputError(f"{path}: holds no point", f"one a line: {','.join(COLUMNS)}")
    return {
        "image": np.array([row["image"] for _, row in rows]),
        **dict(zip(names[1:], np.stack(values, 1), strict=True)),
    }


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    hint = f"arrays of one length: {', '.join(COLUMNS)} and, if there is one, score"
    try:
        with zipfile.ZipFile(path) as archive:
            if large := [each.filename for each in archive.infolist() if each.file_size > LARGEST]:
                raise InputError(f"{path}: {large[0]} is larger than {LARGEST >> 20} MB", hint)
        with np.load(path, allow_pickle=False) as data:
            found: dict[str, Any] = {name: data[name] for name in (*COLUMNS, "score") if name in data.files}
    except InputError:
        raise
    except Exception as error:  # zip's and numpy's readers raise whatever their parsing stumbles over
        raise InputError(f"{path}: can't be read as .npz ({error})", hint) from error
    if lack := [name for name in COLUMNS if name not in found]:
        raise InputError(f"{path}: has no array `{lack[0]}`", hint)
    image = found.pop("image")
    if image.ndim != 1 or image.dtype.kind != "U" or not len(image):
        raise InputError(f"{path}: image is not a list of names", hint)
    return {
        "image": image,
        **{name: numbers(array, (len(image),), f"{path}: {name}") for name, array in found.items()},
    }


class GivenPairs:
    """Another program's answers to the keypoints of pairs, in a .csv like PF-PASCAL's whose XB and YB are the
    answers.
    """

    def __init__(self, path: Path) -> None:
        self.answers: dict[tuple[str, str], Pair] = {}
        for pair in read_csv(path):
            if self.answers.setdefault((pair.source, pair.target), pair) is not pair:
                raise InputError(
                    f"{path}: {pair.source} to {pair.target} is there twice", "give a pair one line"
                )

    def __call__(self, pair: Pair) -> np.ndarray | None:
        """The answers `(P, 2)` at the pair's keypoints, NaN where there is none; None if it has no line for
        the pair.
        """
        given = self.answers.get((pair.source, pair.target))
        if given is None:
            return None
        distance, row = cKDTree(np.floor(given.source_yx)).query(
            np.floor(pair.source_yx), distance_upper_bound=REACH
        )
        padded = np.concatenate([np.floor(given.target_yx), np.full((1, 2), np.nan)])
        return padded[np.where(np.isfinite(distance), row, -1)]
