"""Annotated points beside maps, for the page of `shic view`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shic_cli.evaluation.geodesic import MapsFile, scored
from shic_cli.evaluation.report import swapped
from shic_cli.files.annotations import read_annotations, read_json
from shic_cli.files.keypoints import read_keypoints
from shic_cli.files.layouts import Template
from shic_cli.files.names import meet
from shic_cli.stages.export_points import read_named_vertices
from shic_cli.stages.view import Layer, Page, PagePoint


def add_points(page: Page, annotations: Path, template: Template) -> None:
    """Add to each layer of `page` the annotated points of its photos, with their geodesic errors.

    Points are DensePose points, or named ones of a keypoint JSON; these have an error where the file gives
    their names a vertex, as that of `shic annotate` does. InputError if the annotations can't be read, or
    don't belong to the template's mesh.
    """
    held = read_json(annotations)
    if isinstance(held, dict) and isinstance(held.get("images"), dict):
        vertices = read_named_vertices(annotations, template) if held.get("vertices") else {}
        _add_keypoints(page, read_keypoints(annotations)[0], vertices, template)
        return
    points = read_annotations(annotations)
    for layer in page.layers:
        name_on_page = meet({group.name for group in points}, layer.maps.names)
        shown = [group for group in points if name_on_page[group.name] in page.names]
        for entry in scored(MapsFile(layer.maps, template), shown, template):
            mirrored = swapped(entry.error, entry.mirrored)
            layer.points.setdefault(str(entry.item), []).extend(
                PagePoint(int(x), int(y), int(truth), int(predicted), round(float(error), 4), bool(mixed))
                for (y, x), truth, predicted, error, mixed in zip(
                    entry.points.yx, entry.truth, entry.predicted, entry.error, mirrored, strict=True
                )
            )


def _add_keypoints(
    page: Page, images: dict[str, dict[str, np.ndarray]], vertices: dict[str, int], template: Template
) -> None:
    """Add named points (y, x) of `images` to the layers; `vertices` are those of the names that have one."""
    for layer in page.layers:
        maps = MapsFile(layer.maps, template)
        for name, item in meet(images, layer.maps.names, stems=True).items():
            if item in page.names:
                layer.points[item] = _named(maps, layer, item, images[name], vertices, template)


def _named(
    maps: MapsFile, layer: Layer, item: str, points: dict[str, np.ndarray], vertices: dict[str, int],
    template: Template,
) -> list[PagePoint]:  # fmt: skip
    """The named points of a photo that lie in it."""
    found, vertex = [], layer.maps[item].vertex
    for name, place in points.items():
        y, x = np.floor(place).astype(int).tolist()
        if not (0 <= y < vertex.shape[0] and 0 <= x < vertex.shape[1]):
            continue
        truth, predicted = vertices.get(name, -1), int(vertex[y, x])
        error, mixed = None, False
        if truth >= 0:
            both = [predicted, int(template.mirror[predicted])]
            errors = template.geodesic[both, truth] if predicted >= 0 else [template.geodesic.max()] * 2
            error, mixed = round(float(errors[0]), 4), bool(errors[1] < errors[0] / 2)
        found.append(PagePoint(x, y, truth, predicted, error, mixed, name))
    return found
