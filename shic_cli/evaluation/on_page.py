"""Annotated points beside maps, for the page of `shic view`."""

from __future__ import annotations

from pathlib import Path

from shic_cli.evaluation.geodesic import MapsFile, scored
from shic_cli.evaluation.report import swapped
from shic_cli.files.annotations import read_annotations
from shic_cli.files.layouts import Template
from shic_cli.files.names import meet
from shic_cli.stages.view import Page, PagePoint


def add_points(page: Page, annotations: Path, template: Template) -> None:
    """Add to each layer of `page` the annotated points of its photos, with their geodesic errors.

    InputError if the annotations can't be read, or don't belong to the template's mesh.
    """
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
