"""Points for other programs: tables of a map's pixels, and COCO files with keypoints and DensePose points."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from shic_cli.base.devices import chance
from shic_cli.base.errors import InputError
from shic_cli.base.settings import DP_SCALE, GPS_KAPPA
from shic_cli.files.annotations import get, read_json
from shic_cli.files.checks import check_indices
from shic_cli.files.items import Item
from shic_cli.files.layouts import Template
from shic_cli.stages.annotate import sources_of
from shic_cli.stages.match import Paths, ThroughTemplate

COLUMNS = ("image", "x", "y", "vertex", "score", "template_vertex")


def mesh_vertices(template: Template) -> np.ndarray:
    """For each template vertex `(K,)` a vertex of the mesh file: one that it is nearest to, else one of the
    nearest template vertex that has one.
    """
    source = sources_of(template)
    known = np.flatnonzero(source >= 0)
    return source[known[template.geodesic[:, known].argmin(1)]]


def table(items: Iterable[Item], template: Template) -> dict[str, np.ndarray]:
    """Every labelled pixel of maps as columns, which `shic eval geodesic` reads too.

    They are the image, x and y of the pixel's middle from the photo's top left corner, the mesh file's
    vertex, the score and the template's vertex.
    """
    source, columns = mesh_vertices(template), {name: [] for name in COLUMNS}
    for item in items:
        y, x = np.nonzero(item.vertex >= 0)
        vertex = item.vertex[y, x]
        rows = (np.full(len(x), item.name), x + 0.5, y + 0.5, source[vertex], item.score[y, x], vertex)
        for name, values in zip(COLUMNS, rows, strict=True):
            columns[name].append(values)
    return {name: np.concatenate(values) for name, values in columns.items()}


def write_csv(path: Path, columns: dict[str, np.ndarray]) -> None:
    """The columns as a CSV with a heading."""
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        values = {name: array.tolist() for name, array in columns.items()}
        values["score"] = [f"{score:.5g}" for score in values["score"]]
        writer.writerows(zip(*values.values(), strict=True))


def read_named_vertices(path: Path, template: Template) -> dict[str, int]:
    """The template vertices of named points in a keypoints.json of `shic annotate`. InputError if it has
    none, or is of another template.
    """
    held = read_json(path)
    vertices = get(held, "vertices", dict, str(path))
    if held.get("template") != template.fingerprint:
        raise InputError(f"{path}: was made on another template", "give the template that it was made on")
    if not vertices or not all(isinstance(vertex, int) for vertex in vertices.values()):
        raise InputError(
            f"{path}: no name has a vertex", "click the names' places on the mesh in `shic annotate`"
        )
    check_indices(np.array(list(vertices.values())), len(template.verts), f"{path}: vertices")
    return vertices


def coco(
    items: Iterable[Item], template: Template, names: dict[str, int], number: int, near: float, category: str,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """A COCO file of maps, an object an image: mask, DensePose points, and keypoints for `names`.

    `number` DensePose points are drawn from each map's pixels. A keypoint has v = 2 where a pixel lies within
    `near` of it along the surface, else 0, as COCO has it for what is not labelled.
    """
    source, paths = mesh_vertices(template), Paths(template.verts, template.faces)
    random, images, annotations = chance(seed, "export"), [], []
    for i, item in enumerate(items, 1):
        height, width = map(int, item.vertex.shape)
        images.append({"id": i, "file_name": item.name, "width": width, "height": height})
        drawn = np.argwhere(item.vertex >= 0)
        if len(drawn):
            drawn = drawn[np.sort(random.choice(len(drawn), min(number, len(drawn)), replace=False))]
            annotations.append(
                {"id": i, "image_id": i, "category_id": 1, "iscrowd": 0}
                | _outline(item.mask | (item.vertex >= 0), drawn, source[item.vertex[tuple(drawn.T)]])
                | (_keypoints(item, list(names.values()), paths, near) if names else {})
            )
    kind: dict[str, Any] = {"id": 1, "name": category}
    if names:
        kind |= {"keypoints": list(names), "skeleton": []}
    return {"images": images, "annotations": annotations, "categories": [kind]}


def _outline(mask: np.ndarray, drawn: np.ndarray, vertex: np.ndarray) -> dict[str, Any]:
    """The mask as COCO has it, its box and area, and the pixels `drawn` `(P, 2)` as DensePose points."""
    y, x = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    box = [int(x[0]), int(y[0]), int(x[-1] - x[0] + 1), int(y[-1] - y[0] + 1)]
    flat = np.concatenate([[0], mask.ravel(order="F").astype(np.int8), [0]])
    ends = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], ends, [mask.size]])).tolist()
    inside = (drawn[:, ::-1] + 0.5 - box[:2]) / box[2:] * DP_SCALE
    return {
        "bbox": box,
        "area": int(mask.sum()),
        "segmentation": {"size": list(map(int, mask.shape)), "counts": counts},
        "dp_x": inside[:, 0].tolist(),
        "dp_y": inside[:, 1].tolist(),
        "dp_vertex": vertex.tolist(),
    }


def _keypoints(item: Item, vertices: Sequence[int], paths: Paths, near: float) -> dict[str, Any]:
    """COCO's list x, y, v for each of the vertices."""
    places, similarity = ThroughTemplate(item.name, item.vertex, item.score, paths).find(np.array(vertices))
    distance = GPS_KAPPA * np.sqrt(-2 * np.log(np.clip(similarity, 1e-300, 1)))
    values: list[float] = []
    for (y, x), away in zip(places.tolist(), distance, strict=True):
        values += [x, y, 2] if away <= near else [0, 0, 0]
    return {"keypoints": values, "num_keypoints": sum(v > 0 for v in values[2::3])}
