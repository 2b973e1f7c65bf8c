"""Another program's answers, read to be scored beside ours: vertices at points, or transferred keypoints.

Points are a .csv with the columns `image`, `x`, `y`, `vertex` and optionally `score`, or an .npz with one
array for each. x and y are pixels of the photo, and (0, 0) is its top left corner, as in an annotation's box.
Vertices are those of the mesh file, counted from 0. Keypoints are a .csv like PF-PASCAL's, in which XB and YB
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
from scipy.spatial import KDTree

from shic_cli.base.errors import InputError
from shic_cli.files.annotations import Points, numbers
from shic_cli.files.keypoints import Pair, read_csv
from shic_cli.files.layouts import Template
from shic_cli.files.names import meet

NAMES = (".csv", ".npz")
COLUMNS = ("image", "x", "y", "vertex")
LARGEST = 1 << 28  # bytes; the largest array that an .npz may hold
REACH = 1.5  # pixels; a point takes the nearest answer in its own pixel or in one beside it


class GivenPoints:
    """Predictions as points: an annotated point takes the nearest answer in its pixel or beside it.

    A point without such an answer has no prediction.
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
        rows_of_image: dict[str, list[int]] = defaultdict(list)
        for i, name in enumerate(image.tolist()):
            rows_of_image[name].append(i)
        vertex = template.source_to_vertex[vertex.astype(int)]
        self.images = {
            name: (KDTree(yx[rows]), vertex[rows], score[rows]) for name, rows in rows_of_image.items()
        }

    def meet(self, wanted: Iterable[str]) -> dict[str, str | None]:
        """For each wanted image the name that it has here; names are compared with and without folders."""
        return meet(wanted, list(self.images))

    def look_up(self, item: str, group: list[Points]) -> list[tuple[np.ndarray, float]]:
        """The nearest answers `(P,)` for each object, and the mean score of its answers as confidence."""
        tree, vertex, score = self.images[item]
        answers = []
        for points in group:
            distance, row = map(np.asarray, tree.query(points.yx, distance_upper_bound=REACH))
            answered = np.isfinite(distance)
            nearest = np.full(len(points.yx), -1)
            nearest[answered] = vertex[row[answered]]
            answers.append((nearest, float(score[row[answered]].mean()) if answered.any() else 0.0))
        return answers


def _read_csv(path: Path) -> dict[str, np.ndarray]:
    """The columns of a .csv by name; InputError if one is missing or holds no numbers."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            rows = [(reader.line_num, row) for row in reader]
            names = [name for name in (*COLUMNS, "score") if name in (reader.fieldnames or ())]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: can't be read ({error})", "check the path") from error
    if missing := [name for name in COLUMNS if name not in names]:
        raise InputError(
            f"{path}: has no column `{missing[0]}`", f"columns: {','.join(COLUMNS)} and optionally score"
        )
    values: list[np.ndarray] = []
    for line, row in rows:
        values.append(numbers([row[name] for name in names[1:]], (len(names) - 1,), f"{path}: line {line}"))
    if not values:
        raise InputError(f"{path}: holds no points", f"write one point a line: {','.join(COLUMNS)}")
    return {
        "image": np.array([row["image"] for _, row in rows]),
        **dict(zip(names[1:], np.stack(values, 1), strict=True)),
    }


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz by name; InputError if one is missing, too large or of the wrong type."""
    hint = f"store arrays of one length: {', '.join(COLUMNS)} and optionally score"
    try:
        with zipfile.ZipFile(path) as archive:
            if large := [member.filename for member in archive.infolist() if member.file_size > LARGEST]:
                raise InputError(f"{path}: {large[0]} is larger than {LARGEST >> 20} MB", hint)
        with np.load(path, allow_pickle=False) as data:
            arrays: dict[str, Any] = {name: data[name] for name in (*COLUMNS, "score") if name in data.files}
    except InputError:
        raise
    except Exception as error:  # the parsers of zipfile and numpy may raise anything
        raise InputError(f"{path}: can't be read as .npz ({error})", hint) from error
    if missing := [name for name in COLUMNS if name not in arrays]:
        raise InputError(f"{path}: has no array `{missing[0]}`", hint)
    image = arrays.pop("image")
    if image.ndim != 1 or image.dtype.kind != "U" or not len(image):
        raise InputError(f"{path}: image is not a list of names", hint)
    return {
        "image": image,
        **{name: numbers(values, (len(image),), f"{path}: {name}") for name, values in arrays.items()},
    }


class GivenPairs:
    """Another program's answers to the keypoints of pairs, from a .csv like PF-PASCAL's.

    XB and YB are the answers.
    """

    def __init__(self, path: Path) -> None:
        self.answers: dict[tuple[str, str], Pair] = {}
        for pair in read_csv(path):
            if self.answers.setdefault((pair.source, pair.target), pair) is not pair:
                raise InputError(
                    f"{path}: holds {pair.source} to {pair.target} twice", "keep one line for each pair"
                )

    def __call__(self, pair: Pair) -> np.ndarray | None:
        """The answers `(P, 2)` at the pair's keypoints, NaN where there is none.

        It is None if no line has the pair.
        """
        answer = self.answers.get((pair.source, pair.target))
        if answer is None:
            return None
        distance, row = KDTree(np.floor(answer.source_yx)).query(
            np.floor(pair.source_yx), distance_upper_bound=REACH
        )
        padded = np.concatenate([pair.compared(answer.target_yx), np.full((1, 2), np.nan)])
        return padded[np.where(np.isfinite(distance), row, -1)]
