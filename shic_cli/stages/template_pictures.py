"""Draw pictures of a template: four sides of it, and its texture to paint on."""

from __future__ import annotations

import numpy as np

from shic_cli.files.layouts import Surface, Template


def uv_picture(template: Template | Surface, size: int = 2048) -> np.ndarray:
    """Return the texture to paint on, `(size, size, 3)` u1.

    Each chart is filled with the vertex colours and drawn with its outline and its edges.
    """
    import cv2
    from scipy.ndimage import distance_transform_edt

    corners = (template.uv * [1, -1] + [0, 1]) * size - 0.5
    corners = corners[template.face_uv]
    face = np.full((size, size), -1, np.int32)
    for i, triangle in enumerate(np.round(corners * 16).astype(np.int32)):
        cv2.fillConvexPoly(face, triangle, i, shift=4)
    row, column = np.nonzero(face >= 0)
    number = face[row, column]
    weights = _barycentric(np.stack([column, row], 1), corners[number])
    picture = np.full((size, size, 3), 245, np.uint8)
    picture[row, column] = (template.colors[template.faces[number]] * weights[..., None]).sum(1).round()
    # The colours continue a little beyond each chart, so that a renderer's smoothing shows no seam.
    beyond = face < 0
    distance = np.asarray(distance_transform_edt(beyond))
    nearest = np.asarray(distance_transform_edt(beyond, return_distances=False, return_indices=True))
    near = distance <= 4
    picture[near] = picture[nearest[0][near], nearest[1][near]]
    return _outlined(picture, template.face_uv, (template.uv * [1, -1] + [0, 1]) * size - 0.5)


def _barycentric(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Return barycentric coordinates `(P, 3)` of `points` `(P, 2)` in `triangles` `(P, 3, 2)`.

    The coordinates are clipped, so that the points stay inside.
    """
    a = triangles[:, 0]
    (ux, uy), (vx, vy), (px, py) = (triangles[:, 1] - a).T, (triangles[:, 2] - a).T, (points - a).T
    doubled = ux * vy - uy * vx
    doubled = np.where(doubled == 0, 1, doubled)
    second, third = (px * vy - py * vx) / doubled, (ux * py - uy * px) / doubled
    weights = np.clip(np.stack([1 - second - third, second, third], 1), 0, 1)
    return weights / np.maximum(weights.sum(1, keepdims=True), 1e-9)


def _outlined(picture: np.ndarray, face_uv: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return `picture` with the edges of `face_uv` `(F, 3)` drawn at `positions` `(T, 2)`.

    Edges of two faces are drawn faintly, and edges of only one face strongly.
    """
    import cv2

    edges = np.sort(face_uv[:, [[0, 1], [1, 2], [2, 0]]], axis=2).reshape(-1, 2)
    edges, count = np.unique(edges, axis=0, return_counts=True)
    for chosen, strength in ((count > 1, 0.15), (count == 1, 0.8)):
        ink = np.zeros(picture.shape[:2], np.uint8)
        lines = list(np.round(positions[edges[chosen]] * 16).astype(np.int32))
        cv2.polylines(ink, lines, False, 255, 1, cv2.LINE_AA, shift=4)
        drawn = ink > 0
        picture[drawn] = (picture[drawn] * (1 - strength * ink[drawn, None] / 255)).round()
    return picture


def sides_picture(template: Template | Surface, size: int = 512) -> np.ndarray:
    """Return a picture `(size, 4 size, 3)` u1 of the template's front, left side, back and right side.

    The template has its vertex colours.
    """
    import cv2
    import torch

    from shic_cli.learning.views import interpolate
    from shic_cli.parts import registry
    from shic_cli.stages.render import style_shaded
    from shic_cli.surface.cameras import ring

    verts, faces = torch.as_tensor(template.verts), torch.as_tensor(template.faces).long()
    cameras = ring(4, (15.0,), 30.0).fit(verts, 0.85)
    fragments = registry.make("renderers", "auto")(verts, faces, cameras, size)
    light = 0.5 + 0.5 * style_shaded(fragments, verts, faces, cameras) / 230
    colors = interpolate(fragments, faces, torch.as_tensor(template.colors).float()) * light
    pictures = torch.where(fragments.mask[..., None], colors, 255).clamp(0, 255).round().byte().numpy()
    for picture, name in zip(pictures, ("front", "left side", "back", "right side"), strict=True):
        cv2.putText(
            picture,
            name,
            (size // 40, size // 18),
            cv2.FONT_HERSHEY_SIMPLEX,
            size / 730,
            (90, 90, 90),
            1,
            cv2.LINE_AA,
        )
    return np.concatenate(list(pictures), axis=1)
