"""Continuous points on the surface, found from a map that has one vertex for each pixel.

To make textures run smoothly, the positions of the vertices are averaged over neighbouring pixels. Only
pixels that are near each other on the template are averaged, so that limbs do not mix. The average is then
moved onto the nearest face.
"""

from __future__ import annotations

import numpy as np
import torch

from shic_cli.base.devices import to_host, with_double
from shic_cli.files.layouts import Surface

PATCH = 2.5  # width in grid pixels of a patch with one vertex, on the grid where positions are averaged
REACH = 1.0  # standard deviation of the averaging weights, in patches
NEAR = 3.0  # pixels mix only if their vertices are closer than about this many usual steps
LIMB = 0.1  # limbs are farther apart than this share of the template's longest side
CHUNK = 1 << 17  # number of pixels that are moved onto faces at a time
STEPS = 8  # a pixel's point moves at most this many edges from its vertex


class SurfacePoints:
    """Finds points of one surface for the pixels of maps; results on all devices agree up to rounding."""

    def __init__(self, surface: Surface, device: torch.device | str = "cpu") -> None:
        self.surface, self.device = surface, with_double(torch.device(device))
        around, neighbours = _rings(surface.faces, len(surface.verts))
        frames = _face_frames(surface.verts, surface.faces)
        self.on_host, sizes = torch.from_numpy(surface.verts), (around >= 0).sum(1)
        around = np.where(around < 0, around[:, :1], around)
        self.verts, self.around, self.sizes, self.neighbours, self.frames = (
            torch.from_numpy(array).to(self.device)
            for array in (surface.verts, around, sizes, neighbours, frames)
        )
        ends = surface.verts[surface.faces[:, :2]]
        self.edge = float(np.median(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)))

    def __call__(self, vertex: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the face `(P,)` and barycentric coordinates `(P, 3)` of each pixel with a vertex.

        `vertex` `(H, W)` is -1 where a pixel has no vertex; P pixels have one.
        """
        rows, columns = (np.flatnonzero((vertex >= 0).any(axis)) for axis in (1, 0))
        if not len(rows):
            return np.zeros(0, np.int64), np.zeros((0, 3), np.float32)
        cut = vertex[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        cut = torch.from_numpy(cut.astype(np.int64))  # on the CPU sizes are known without waiting
        face, bary = self._onto_faces(self._smooth(cut), cut[cut >= 0].to(self.device))
        face, *bary = to_host(face, *bary.unbind(1))
        return face, np.stack(bary, 1)

    def _smooth(self, vertex: torch.Tensor) -> torch.Tensor:
        """Return smoothed positions `(P, 3)` of the P pixels of `vertex` `(H, W)` that have a vertex.

        `vertex` is on the CPU.
        """
        inside = (vertex >= 0).nonzero()
        own = self.verts[vertex[vertex >= 0].to(self.device)]
        patch, near = self._scales(vertex)
        step = max(int(patch / PATCH), 1)
        coarse = vertex[step // 2 :: step, step // 2 :: step]
        if not (coarse >= 0).any():
            return own
        coarse, inside = coarse.to(self.device), inside.to(self.device)
        averaged = _average(coarse, self.verts, REACH * max(patch / step, 1.0), near)
        return _spread(averaged, coarse >= 0, step, inside, own, near)

    def _scales(self, vertex: torch.Tensor) -> tuple[float, float]:
        """Return the mean width of a patch and the distance within which vertices mix.

        A patch is a run of pixels with the same vertex. Its width is in pixels.
        """
        left, right = vertex[:, :-1], vertex[:, 1:]
        both = (left >= 0) & (right >= 0)
        apart = (self.on_host[left[both]] - self.on_host[right[both]]).norm(dim=1)
        steps = apart[apart > 0]
        if not len(steps):
            return float(max(vertex.shape)), NEAR * self.edge
        rough = min(float(np.median(steps.numpy())), LIMB / NEAR)  # a rough map has steps longer than an edge
        return len(apart) / len(steps), NEAR * max(self.edge, rough)

    def _onto_faces(self, position: torch.Tensor, vertex: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the faces `(P,)` nearest to `position` `(P, 3)` and barycentric coordinates `(P, 3)` there.

        The search starts at `vertex` `(P,)` and walks along edges.
        """
        parts = zip(position.split(CHUNK), vertex.split(CHUNK), strict=True)
        face, bary = zip(
            *(self._nearest_face(place, walk(place, at, self.verts, self.neighbours)) for place, at in parts),
            strict=True,
        )
        return torch.cat(face), torch.cat(bary)

    def _nearest_face(self, place: torch.Tensor, at: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the face `(P,)` nearest to `place` `(P, 3)` and barycentric coordinates `(P, 3)` on it.

        Only the faces around the vertices `at` `(P,)` are tried.
        """
        best = place.new_full((len(at),), torch.inf)
        face, bary = at.new_zeros(len(at)), place.new_zeros(len(at), 3)
        sizes, rows = self.sizes[at], torch.arange(len(at), device=at.device)
        for column in range(self.around.shape[1]):
            if _leaves_out(at):
                rows = (sizes > column).nonzero()[:, 0]
            tried = self.around[at[rows], column]  # a vertex with fewer faces repeats its first face
            weights, distance = _project(place[rows], self.frames[tried])
            better = distance < best[rows]
            best[rows] = torch.where(better, distance, best[rows])
            face[rows] = torch.where(better, tried, face[rows])
            bary[rows] = torch.where(better[:, None], weights, bary[rows])
        return face, bary


def _leaves_out(tensor: torch.Tensor) -> bool:
    """Return whether finished rows are left out of the computation, which is so on the CPU only.

    A GPU computes these rows again in less time than the host needs to learn which rows are finished.
    """
    return tensor.device.type == "cpu"


def _average(vertex: torch.Tensor, verts: torch.Tensor, reach: float, near: float) -> torch.Tensor:
    """Return smoothed positions `(h, w, 3)`, from a plane fitted around each pixel.

    The weights are Gaussians with a standard deviation of `reach` pixels and of `near` on the template. A
    plane is fitted instead of a mean, because all neighbours of a pixel at the outline lie to one side.
    """
    radius, (height, width) = int(np.ceil(2 * reach)), vertex.shape
    here = torch.where(
        (vertex >= 0)[..., None], verts[vertex.clamp_min(0)], 1e3
    )  # 1e3 is far from everything
    padded = torch.nn.functional.pad(here, (0, 0, radius, radius, radius, radius), value=1e3)
    sums = here.new_zeros(6, height, width)  # sums of w, w x, w y, w x x, w x y, w y y
    values = here.new_zeros(3, height, width, 3)  # sums of w P, w x P, w y P, with P relative to `here`
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if (fall := (x * x + y * y) / (2 * reach**2)) > 2:
                continue
            apart = padded[radius + y : radius + y + height, radius + x : radius + x + width] - here
            weight = torch.exp(-apart.square().sum(-1) / (2 * near**2) - fall)
            sums += weight * sums.new_tensor([1, x, y, x * x, x * y, y * y])[:, None, None]
            values += weight[..., None] * apart * values.new_tensor([1, x, y])[:, None, None, None]
    return here + _plane_at_origin(sums.double(), values)


def _plane_at_origin(sums: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Return the constant term `(h, w, 3)` of the weighted least-squares plane, by Cramer's rule."""
    w, x, y, xx, xy, yy = sums
    damp = 0.02 * w  # pixels on one line don't determine the slope across it
    xx, yy = xx + damp, yy + damp
    minors = torch.stack([xx * yy - xy * xy, xy * y - x * yy, x * xy - xx * y])
    determinant = w * minors[0] + x * minors[1] + y * minors[2]
    return ((minors[..., None] * values).sum(0) / determinant.clamp_min(1e-12)[..., None]).float()


def _spread(
    coarse: torch.Tensor, known: torch.Tensor, step: int, inside: torch.Tensor, own: torch.Tensor, near: float
) -> torch.Tensor:
    """Return positions `(P, 3)` at the pixels `inside` `(P, 2)`, interpolated bilinearly.

    The positions are interpolated from `coarse` `(h, w, 3)`. Only grid points near the pixel's `own` position
    on the template count.
    """
    if step == 1:
        return coarse[inside[:, 0], inside[:, 1]]
    yx = (inside - step // 2).double() / step
    corner = yx.floor().long()
    part = (yx - corner).float()
    total, weights = torch.zeros_like(own), own.new_full((len(own),), 1e-6)
    for dy in (0, 1):
        for dx in (0, 1):
            y, x = (
                (corner[:, 0] + dy).clamp(0, known.shape[0] - 1),
                (corner[:, 1] + dx).clamp(0, known.shape[1] - 1),
            )
            apart = coarse[y, x] - own
            weight = (1 - dy - part[:, 0]).abs() * (1 - dx - part[:, 1]).abs() * known[y, x]
            weight = weight * torch.exp(-apart.square().sum(1) / (2 * near**2))
            total += weight[:, None] * apart
            weights += weight
    return own + total / weights[:, None]


def _project(place: torch.Tensor, frame: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return barycentric coordinates `(P, 3)` of `place` `(P, 3)` and squared distances `(P,)`.

    Each place has one face. The point is held inside that face.
    """
    offset = place - frame[:, 0]
    u, v = ((frame[:, i] * offset).sum(1).clamp_min(0) for i in (1, 2))
    over = (u + v).clamp_min(1)
    u, v = u / over, v / over
    offset = offset - u[:, None] * frame[:, 3] - v[:, None] * frame[:, 4]
    return torch.stack([(1 - u - v).clamp_min(0), u, v], 1), offset.square().sum(1)


def walk(
    place: torch.Tensor, at: torch.Tensor, verts: torch.Tensor, neighbours: torch.Tensor
) -> torch.Tensor:
    """Return the vertices `(P,)` nearest to each `place`, reached along edges from the vertices `at` `(P,)`.

    Because the walk follows edges, it never jumps to the other side of a limb.
    """
    at, moving = at.clone(), torch.arange(len(at), device=at.device)
    for _ in range(STEPS):
        start, here = at[moving], place[moving]
        end, nearest = start, (here - verts[start]).square().sum(1)
        for column in range(neighbours.shape[1]):  # one by one, because a vertex may have very many
            to = neighbours[start, column]
            distance = (here - verts[to]).square().sum(1)
            better = distance < nearest
            nearest, end = torch.where(better, distance, nearest), torch.where(better, to, end)
        at[moving] = end
        if _leaves_out(at):
            moving = moving[end != start]
            if not len(moving):
                break
    return at


def _rings(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the faces around each vertex and the vertices beside it, one row for each vertex.

    There are `count` vertices. Rows of faces are filled up with -1, rows of vertices with the vertex itself.
    """
    edges = np.unique(
        np.concatenate([faces[:, [a, b]] for a in range(3) for b in range(3) if a != b]), axis=0
    )
    beside = _rows(edges[:, 0], edges[:, 1], count)
    around = _rows(faces.ravel(), np.repeat(np.arange(len(faces)), 3), count)
    return around, np.where(beside < 0, np.arange(count)[:, None], beside)


def _rows(keys: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """Return a table with one row for each key from 0 to `count` - 1, filled up with -1.

    A row holds the `values` of its key.
    """
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    column = np.arange(len(keys)) - np.searchsorted(keys, keys)
    table = np.full((count, column.max() + 1), -1)
    table[keys, column] = values
    return table


def _face_frames(verts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Return `(F, 5, 3)`: the first corner of each face, two weight rows and two edges.

    A weight row times an offset from the first corner gives the weight of one of the other two corners.
    """
    a, b, c = (verts[faces[:, i]].astype(np.float64) for i in range(3))
    edges = np.stack([b - a, c - a], 1)
    return np.concatenate([a[:, None], np.linalg.pinv(edges.transpose(0, 2, 1)), edges], 1).astype(np.float32)
