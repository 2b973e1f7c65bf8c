"""Read annotated DensePose points on a mesh from COCO and LVIS files.

The module also has the checks that every reader of annotations shares.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shic_cli.base.errors import InputError
from shic_cli.base.settings import DP_SCALE
from shic_cli.files.checks import parse_json, real_number, shorten

LARGEST = 1e6  # pixels; no picture is this wide
HINT = "docs/how-to/score.md says what an annotation file holds"
# What a value of a JSON file is called.
NAMES = {
    list: "a list",
    dict: "an object",
    str: "a text",
    int: "a number",
    float: "a number",
    bool: "a truth value",
}
# The next step where a file of one kind of annotations is given for one of the other.
OTHER = {
    ("images", list): "it is a file for `shic eval geodesic`; `eval pck` takes a keypoint JSON",
    ("images", dict): "it is a keypoint JSON, for `shic eval pck`; `eval geodesic` takes DensePose points",
}


@dataclass(frozen=True)
class Points:
    """Points are the annotated points of one object.

    `yx` `(P, 2)` are their pixels and `vertex` `(P,)` their vertices in the mesh file. `box` is (x, y, width,
    height) in pixels. `area` is the object's area in pixels, or the box's area if the file does not give it.
    `mesh` is the name of the vertices' mesh if the file gives it. `inside` `(P, 2)` are the positions (y, x)
    of the points in the box, from 0 to 1.
    """

    name: str
    shape: tuple[int, int] | None
    category: str
    yx: np.ndarray
    vertex: np.ndarray
    box: np.ndarray
    area: float
    mesh: str
    inside: np.ndarray


def read_json(path: Path) -> Any:
    """Return the JSON value in `path`; InputError if it can't be read."""
    try:
        return parse_json(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})", "check the path") from error


def get(value: Any, key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """Return `value[key]` if it is of `kind`; InputError names the field if it is not."""
    if not isinstance(value, dict) or key not in value:
        raise InputError(f"{where}: has no `{key}`", HINT)
    if not isinstance(value[key], kind) or isinstance(value[key], bool):
        found = NAMES.get(type(value[key]), "nothing")
        raise InputError(f"{where}.{key}: is {found}", OTHER.get((key, type(value[key])), HINT))
    return value[key]


def numbers(value: Any, shape: tuple[int | None, ...], where: str) -> np.ndarray:
    """Return `value` as finite numbers of `shape`, where None stands for any size."""
    array = np.zeros(0)
    try:
        array = np.asarray(value, float)
        fits = array.ndim == len(shape) and all(
            size in (None, found) for size, found in zip(shape, array.shape, strict=True)
        )
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits or not np.isfinite(array).all():
        raise InputError(f"{where}: is not a list of numbers of the right length", HINT)
    return array


def pixels(value: Any, shape: tuple[int | None, ...], where: str) -> np.ndarray:
    """Return `value` as numbers of `shape` that can be positions in a picture."""
    array = numbers(value, shape, where)
    if (np.abs(array) > LARGEST).any():
        raise InputError(f"{where}: holds {np.abs(array).max():g}, which is no pixel of a picture", HINT)
    return array


@dataclass(frozen=True)
class Entry:
    """An entry is one object of a COCO or LVIS file.

    It holds the object's `annotation` and `image` as JSON values, its class, and its place in the file,
    `where`.
    """

    annotation: dict[str, Any]
    image: dict[str, Any]
    category: str
    where: str
    image_where: str


def read_entries(path: Path) -> list[Entry]:
    """Return every object in a COCO or LVIS file that has DensePose points.

    InputError names the file and the field that is wrong.
    """
    data = read_json(path)
    images = {
        get(each, "id", (int, str), f"{path}: images[{i}]"): each
        for i, each in enumerate(get(data, "images", list, str(path)))
    }
    names = {
        get(each, "id", (int, str), f"{path}: categories[{i}]"): get(
            each, "name", str, f"{path}: categories[{i}]"
        )
        for i, each in enumerate(get(data, "categories", list, str(path)))
    }
    found = []
    for i, each in enumerate(get(data, "annotations", list, str(path))):
        where = f"{path}: annotations[{i}]"
        if isinstance(each, dict) and not {"dp_x", "dp_y", "dp_vertex"} & set(each):
            continue  # LVIS holds objects without points
        image, category = (
            get(each, "image_id", (int, str), where),
            get(each, "category_id", (int, str), where),
        )
        for key, known, value in (("image_id", images, image), ("category_id", names, category)):
            if value not in known:
                raise InputError(
                    f"{where}.{key}: {shorten(value)} is not listed",
                    f"check the file's list of {key[:-3]} ids",
                )
        found.append(Entry(each, images[image], names[category], where, f"{path}: image {image}"))
    return found


def read_annotations(path: Path, scale: float = DP_SCALE) -> list[Points]:
    """Return the DensePose points in a COCO or LVIS file, one entry for each object.

    `dp_x` and `dp_y` run from 0 to `scale` over the box. InputError names the file and the field that is
    wrong.
    """
    found = [read_points(entry, scale) for entry in read_entries(path)]
    if not sum(len(each.vertex) for each in found):
        raise InputError(f"{path}: holds no annotated point", "an annotation has dp_x, dp_y and dp_vertex")
    return found


def read_points(entry: Entry, scale: float = DP_SCALE) -> Points:
    """Return the points of one object.

    The position of a point is box corner + dp * box size / `scale`. Its pixel is the one that contains the
    position.
    """
    each, where = entry.annotation, entry.where
    box = numbers(get(each, "bbox", list, where), (4,), f"{where}.bbox")
    if (np.abs(box) > LARGEST).any() or (box[2:] < 0).any():
        raise InputError(
            f"{where}.bbox: {box.tolist()} is no box in a picture", "x, y, width and height in pixels"
        )
    x, y = (numbers(get(each, key, list, where), (None,), f"{where}.{key}") for key in ("dp_x", "dp_y"))
    vertex = numbers(get(each, "dp_vertex", list, where), (len(x),), f"{where}.dp_vertex")
    if len(y) != len(x):
        raise InputError(
            f"{where}.dp_y: has {len(y)} numbers, dp_x has {len(x)}", "give one of each for a point"
        )
    if (vertex != np.rint(vertex)).any() or (np.abs(vertex) > 2**31).any():
        raise InputError(
            f"{where}.dp_vertex: holds numbers that are not whole",
            "give vertex ids of the mesh file, counted from 0",
        )
    inside = np.stack([y, x], 1) / scale
    yx = box[[1, 0]] + inside * box[[3, 2]]
    last = np.ceil(box[[1, 0]] + box[[3, 2]]) - 1  # a point on the box's far edge belongs to its last pixel
    pixels = np.maximum(np.minimum(np.floor(yx), last), 0).astype(int)
    shape = (entry.image["height"], entry.image["width"]) if {"height", "width"} <= set(entry.image) else None
    area = each.get("area")
    area = float(box[2] * box[3]) if area is None else real_number(area, f"{where}.area", 0, LARGEST**2)
    mesh = str(each.get("ref_model") or "")
    return Points(
        image_name(entry), shape, entry.category, pixels, vertex.astype(int), box, area, mesh, inside
    )


def image_name(entry: Entry) -> str:
    """Return the name of an object's image.

    It is `file_name`, or else the last two parts of `coco_url`. LVIS gives train2017/NAME.jpg only there.
    """
    if "file_name" in entry.image or "coco_url" not in entry.image:
        return get(entry.image, "file_name", str, entry.image_where)
    return coco_path(entry)


def coco_path(entry: Entry) -> str:
    """Return the last two parts of the image's `coco_url`: its folder and its name.

    InputError if they are anything else.
    """
    parts = get(entry.image, "coco_url", str, entry.image_where).split("/")[-2:]
    if len(parts) < 2 or not all(parts) or {".", ".."} & set(parts):
        raise InputError(f"{entry.image_where}.coco_url: does not end in a folder and a file name", HINT)
    return "/".join(parts)


def check_mesh(points: list[Points], vertices: int) -> None:
    """Raise InputError if the annotations can't belong to one mesh file with that number of `vertices`.

    The check compares their `ref_model` and their vertex ids with it.
    """
    meshes = sorted({each.mesh for each in points} - {""})
    if len(meshes) > 1:
        raise InputError(
            f"the annotations are on several meshes: {', '.join(meshes)}",
            "score one class at a time, on its own template",
        )
    for mesh in meshes:  # the names in the catalogue end in the number of vertices
        count = re.search(r"_([0-9]+)$", mesh)
        if count and count[1].lstrip("0") != str(vertices):
            raise InputError(
                f"the annotations are on the mesh {shorten(mesh)}, the template's mesh file has {vertices}"
                " vertices",
                "make the template of that mesh with `shic template prep`",
            )
    for each in points:
        if len(each.vertex) and (each.vertex.min() < 0 or each.vertex.max() >= vertices):
            wrong = each.vertex[(each.vertex < 0) | (each.vertex >= vertices)][0]
            raise InputError(
                f"{each.name}: dp_vertex holds {wrong}, the template's mesh file has the vertices 0 to"
                f" {vertices - 1}",
                "give the template of the mesh that was annotated",
            )
