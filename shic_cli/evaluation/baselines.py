"""Baselines that don't look at the photo: chance, and position alone, as rows beside real predictions."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from scipy.spatial import KDTree

from shic_cli.base.devices import chance
from shic_cli.files.annotations import Points
from shic_cli.files.keypoints import Pair
from shic_cli.files.layouts import Template

NAMES = ("chance", "position")
VIEW = 256  # pixels a side of the template's side view
FOV = 10.0  # degrees; a camera far away


def make_vertices(name: str, template: Template, seed: int) -> ChanceVertex | PositionVertex:
    """The baseline `name` for annotated points."""
    return PositionVertex(template) if name == "position" else ChanceVertex(template, seed)


def make_pixels(name: str, masks: dict[str, np.ndarray], seed: int) -> Callable[[Pair], np.ndarray | None]:
    """The baseline `name` for keypoints of photos whose masks are `masks`, by the photos' names."""
    return position_pixels(masks) if name == "position" else chance_pixels(masks, seed)


class ChanceVertex:
    """Predictions by chance: each point gets a random vertex of the template, all equally likely."""

    def __init__(self, template: Template, seed: int) -> None:
        self.vertices, self.seed = len(template.verts), seed

    def meet(self, wanted: Iterable[str]) -> dict[str, str | None]:
        """Every image has predictions."""
        return {name: name for name in wanted}

    def look_up(self, item: str, group: list[Points]) -> list[tuple[np.ndarray, float]]:
        """Random vertices `(P,)` for each object, all with confidence 1."""
        random = chance(self.seed, "baseline", item)
        return [(random.integers(self.vertices, size=len(points.vertex)), 1.0) for points in group]


class PositionVertex:
    """Predictions by position: a point's place in the object's box gives the vertex.

    The vertex is the one at the same place in the box of the template, seen from its left side with the head
    on the left. A place off the template takes the template's nearest pixel.
    """

    def __init__(self, template: Template) -> None:
        view = side_view(template)
        pixels = np.argwhere(view >= 0)
        self.low, self.size = pixels.min(0), np.ptp(pixels, axis=0)
        self.tree, self.vertex = KDTree(pixels), view[tuple(pixels.T)]

    def meet(self, wanted: Iterable[str]) -> dict[str, str | None]:
        """Every image has predictions."""
        return {name: name for name in wanted}

    def look_up(self, item: str, group: list[Points]) -> list[tuple[np.ndarray, float]]:
        """The vertices `(P,)` at the points' places for each object, all with confidence 1."""
        return [
            (self.vertex[self.tree.query(self.low + points.inside * self.size)[1]], 1.0) for points in group
        ]


def side_view(template: Template) -> np.ndarray:
    """`(VIEW, VIEW)` int: the vertex that each pixel sees of the template from its left side, -1 for none."""
    import torch

    from shic_cli.learning.views import pixel_vertex
    from shic_cli.parts import registry
    from shic_cli.surface.cameras import look_at

    verts, faces = torch.as_tensor(template.verts), torch.as_tensor(template.faces).long()
    camera = look_at(*(torch.tensor([value]) for value in (90.0, 0.0, 0.0, FOV))).fit(verts, 1.0)
    return pixel_vertex(registry.make("renderers", "auto")(verts, faces, camera, VIEW), faces)[0].numpy()


def position_pixels(masks: dict[str, np.ndarray]) -> Callable[[Pair], np.ndarray | None]:
    """A transfer that takes a keypoint to the same place in the box of the target's mask, pixels `(P, 2)`."""

    def transfer(pair: Pair) -> np.ndarray | None:
        if pair.source not in masks or pair.target not in masks:
            return None
        (low, size), (to_low, to_size) = (_box(masks[name]) for name in (pair.source, pair.target))
        return to_low + (np.floor(pair.source_yx) - low) / np.maximum(size, 1) * to_size

    return transfer


def chance_pixels(masks: dict[str, np.ndarray], seed: int) -> Callable[[Pair], np.ndarray | None]:
    """A transfer that takes keypoints to random pixels `(P, 2)` of the target's mask, all equally likely."""

    def transfer(pair: Pair) -> np.ndarray | None:
        if pair.target not in masks:
            return None
        pixels = np.argwhere(masks[pair.target])
        random = chance(seed, "baseline", pair.source, pair.target)
        return pixels[random.integers(len(pixels), size=len(pair.source_yx))]

    return transfer


def _box(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first pixel (y, x) of the box of `mask`, and the distance (y, x) from it to the last pixel."""
    filled = [np.flatnonzero(mask.any(axis)) for axis in (1, 0)]
    return np.array([indices[0] for indices in filled]), np.array(
        [indices[-1] - indices[0] for indices in filled]
    )
