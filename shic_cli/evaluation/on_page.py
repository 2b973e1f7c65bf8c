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
    """Put beside each layer of the page the points of its photos, with the errors of `shic eval geodesic`.

    InputError if the annotations can't be read, or are not on the template's mesh."""
    points = read_annotations(annotations)
    for layer in page.layers:
        met = meet({each.name for each in points}, layer.maps.names)
        here = [each for each in points if met[each.name] in page.names]
        for each in scored(MapsFile(layer.maps, template), here, template):
            wrong = swapped(each.error, each.mirrored)
            layer.points.setdefault(str(each.item), []).extend(
                PagePoint(int(x), int(y), int(truth), int(found), round(float(error), 4), bool(mixed))
                for (y, x), truth, found, error, mixed in zip(
                    each.points.yx, each.truth, each.found, each.error, wrong, strict=True
                )
            )
