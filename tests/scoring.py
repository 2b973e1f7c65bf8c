"""A template of four vertices with chosen distances, and annotation, keypoint and maps files written
by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from shic_cli.files.items import ItemReader, ItemWriter
from shic_cli.files.layouts import Template
from shic_cli.stages.match import Paths, ThroughTemplate

DISTANCES = np.array([[0, 10, 50, 228], [10, 0, 40, 100], [50, 40, 0, 90], [228, 100, 90, 0]], np.float32)


def four_vertices() -> Template:
    """Four vertices with chosen distances; vertex 0 mirrors 3. The mesh file had them in the
    opposite order.
    """
    return Template(
        verts=np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32),
        faces=np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32),
        eigenvectors=np.zeros((4, 1), np.float32),
        eigenvalues=np.zeros(1, np.float32),
        geodesic=DISTANCES,
        mirror=np.array([3, 1, 2, 0], np.int32),
        colors=np.zeros((4, 3), np.uint8),
        uv=np.zeros((4, 2), np.float32),
        face_uv=np.zeros((4, 3), np.int32),
        source_to_vertex=np.array([3, 2, 1, 0], np.int32),
    )


def write_maps(
    path: Path, maps: dict[str, np.ndarray], template: str, score: np.ndarray | None = None
) -> ItemReader:
    attrs = {"labels": "predicted", "template": template}
    with ItemWriter(path, "shic/maps", params={}, sources={}, attrs=attrs, overwrite=True) as writer:
        for name, vertex in maps.items():
            writer.add(
                name,
                encoded=np.zeros(1, np.uint8),
                mask=vertex >= 0,
                vertex=vertex,
                score=np.ones(vertex.shape) if score is None else score,
            )
    return ItemReader(path, "shic/maps")


def annotation(
    image: int, box: list[float], x: list[float], y: list[float], vertex: list[int], category: int = 1
) -> dict[str, Any]:
    return {
        "image_id": image,
        "category_id": category,
        "bbox": box,
        "dp_x": x,
        "dp_y": y,
        "dp_vertex": vertex,
    }


def write_annotations(
    path: Path, annotations: list[dict[str, Any]], names: tuple[str, ...] = ("a.jpg", "b.jpg")
) -> Path:
    images = [{"id": i, "file_name": name, "width": 10, "height": 10} for i, name in enumerate(names, 1)]
    categories = [{"id": 1, "name": "horse"}, {"id": 2, "name": "cow"}]
    path.write_text(json.dumps({"images": images, "categories": categories, "annotations": annotations}))
    return path


def one_map() -> np.ndarray:
    vertex = np.full((10, 10), -1, np.int32)
    vertex[2, 3], vertex[2, 4], vertex[5, 3] = 0, 1, 2
    return vertex


def keypoints(path: Path, **images: dict[str, list[float]]) -> Path:
    path.write_text(
        json.dumps(
            {"names": ["p", "q"], "images": {name: {"points": points} for name, points in images.items()}}
        )
    )
    return path


def side(
    template: Template, pixels: dict[tuple[int, int], int], shape: tuple[int, int] = (20, 40)
) -> ThroughTemplate:
    vertex = np.full(shape, -1, np.int32)
    for pixel, number in pixels.items():
        vertex[pixel] = number
    return ThroughTemplate("photo", vertex, np.ones(shape), Paths(template.verts, template.faces))
