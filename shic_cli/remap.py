"""A texture laid over a photo, following the surface that the photo's map gives.

A map has one vertex a pixel. So that the texture runs smoothly, each pixel first gets a continuous point of the surface: the
vertices' positions are averaged over the pixels around, but only with those that are near on the template (limbs don't mix),
and the average is put back onto the faces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from shic_cli.config import BUILTIN_TEXTURES
from shic_cli.errors import Failures, InputError
from shic_cli.images import decode
from shic_cli.maps import check_template
from shic_cli.mesh import vertex_normals
from shic_cli.model import Surface
from shic_cli.progress import Track, plain_track
from shic_cli.schema import ItemReader, check_indices

PATCH = 2.5  # pixels across the patch of one vertex on the grid where positions are averaged
REACH = 1.0  # standard deviation of the average, in patches
NEAR = 3.0  # pixels whose vertices are this many usual steps apart stop mixing
LIMB = 0.1  # of the template's longest side: limbs are farther apart than this
CHUNK = 1 << 17  # pixels put onto the faces at a time
CELL = 0.1  # side of a checker's field and of the grid's mesh, in the template's longest side
OPACITY = 0.9  # of the texture over the photo
SHADE = 0.35  # how much of the photo's light and dark stays: the exponent of its luminance


@dataclass(frozen=True)
class Points:
    """Points of the surface, one for each of P pixels: `face` (P,), `bary` (P, 3), `position` (P, 3), and how far apart neighbours are."""

    face: np.ndarray
    bary: np.ndarray
    position: np.ndarray
    normal: np.ndarray
    spacing: float


Texture = Callable[[Points], np.ndarray]  # colours (P, 3), 0 to 255


def surface_points(vertex: np.ndarray, surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """The face `(H, W)` and barycentric coordinates `(H, W, 3)` of each pixel's point, from its vertex `(H, W)`; -1 for none."""
    face, bary = np.full(vertex.shape, -1), np.full((*vertex.shape, 3), -1.0, np.float32)
    inside = vertex >= 0
    face[inside], bary[inside] = _onto_faces(smooth_positions(vertex, surface), vertex[inside], surface)
    return face, bary


def smooth_positions(vertex: np.ndarray, surface: Surface) -> np.ndarray:
    """Template positions `(P, 3)` of the P pixels of `vertex` (H, W) that have one, without the steps between vertices."""
    rows, columns = (np.flatnonzero((vertex >= 0).any(axis)) for axis in (1, 0))
    vertex = vertex[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = vertex >= 0
    patch, near = _scales(vertex, surface)
    step = max(int(patch / PATCH), 1)
    coarse = vertex[step // 2 :: step, step // 2 :: step]
    if not (coarse >= 0).any():
        return surface.verts[vertex[inside]]
    averaged = _average(coarse, surface.verts, REACH * max(patch / step, 1.0), near)
    return _spread(averaged, coarse >= 0, step, inside, surface.verts[vertex[inside]], near)


def _scales(vertex: np.ndarray, surface: Surface) -> tuple[float, float]:
    """How many pixels side by side share a vertex on average, and how far apart on the template vertices are that still mix."""
    left, right = vertex[:, :-1], vertex[:, 1:]
    both = (left >= 0) & (right >= 0)
    apart = np.linalg.norm(surface.verts[left[both]] - surface.verts[right[both]], axis=1)
    steps = apart[apart > 0]
    edge = float(np.median(np.linalg.norm(surface.verts[surface.faces[:, 0]] - surface.verts[surface.faces[:, 1]], axis=1)))
    if not len(steps):
        return float(max(vertex.shape)), NEAR * edge
    rough = min(float(np.median(steps)), LIMB / NEAR)  # a rough map takes larger steps than an edge
    return len(apart) / len(steps), NEAR * max(edge, rough)


def _average(vertex: np.ndarray, verts: np.ndarray, reach: float, near: float) -> np.ndarray:
    """Positions `(h, w, 3)`: at each pixel a plane fitted to the positions around it (Gaussian of `reach` pixels, and of `near` on the
    template). A plane and not a mean, for at the outline the pixels around lie to one side."""
    radius = int(np.ceil(2 * reach))
    here = np.where((vertex >= 0)[..., None], verts[vertex], 1e3).astype(np.float32)  # 1e3: far from everything
    padded = np.pad(here, ((radius, radius), (radius, radius), (0, 0)), constant_values=1e3)
    shape = vertex.shape
    sums = np.zeros((6, *shape), np.float32)  # of w, w x, w y, w x x, w x y, w y y
    values = np.zeros((3, *shape, 3), np.float32)  # of w P, w x P, w y P, with P relative to `here`
    for y in range(-radius, radius + 1):
        for x in range(-radius, radius + 1):
            if (fall := (x * x + y * y) / (2 * reach**2)) > 2:
                continue
            apart = padded[radius + y : radius + y + shape[0], radius + x : radius + x + shape[1]] - here
            weight = np.exp(-np.einsum("hwc,hwc->hw", apart, apart) / (2 * near**2) - fall)
            sums += weight * np.array([1, x, y, x * x, x * y, y * y], np.float32)[:, None, None]
            apart *= weight[..., None]
            values += apart * np.array([1, x, y], np.float32)[:, None, None, None]
    return here + _plane_at_origin(sums, values)


def _plane_at_origin(sums: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The constant term `(h, w, 3)` of the weighted least-squares plane, by Cramer's rule."""
    w, x, y, xx, xy, yy = sums.astype(np.float64)
    damp = 0.02 * w  # few pixels on a line have no slope across it
    xx, yy = xx + damp, yy + damp
    minors = np.stack([xx * yy - xy * xy, xy * y - x * yy, x * xy - xx * y])
    determinant = w * minors[0] + x * minors[1] + y * minors[2]
    return ((minors[..., None] * values).sum(0) / np.maximum(determinant, 1e-12)[..., None]).astype(np.float32)


def _spread(coarse: np.ndarray, known: np.ndarray, step: int, inside: np.ndarray, own: np.ndarray, near: float) -> np.ndarray:
    """The coarse positions `(h, w, 3)` between grid points, at the pixels `inside`: bilinear over those near the pixel's `own`."""
    if step == 1:
        return coarse[inside]
    yx = (np.argwhere(inside) - step // 2) / step
    corner = np.floor(yx).astype(int)
    part = (yx - corner).astype(np.float32)
    total, weights = np.zeros_like(own), np.full(len(own), 1e-6, np.float32)
    for dy in (0, 1):
        for dx in (0, 1):
            y, x = np.clip(corner[:, 0] + dy, 0, known.shape[0] - 1), np.clip(corner[:, 1] + dx, 0, known.shape[1] - 1)
            apart = coarse[y, x] - own
            weight = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1]) * known[y, x]
            weight *= np.exp(-np.einsum("pc,pc->p", apart, apart) / (2 * near**2))
            total += weight[:, None] * apart
            weights += weight
    return own + total / weights[:, None]


def _onto_faces(position: np.ndarray, vertex: np.ndarray, surface: Surface) -> tuple[np.ndarray, np.ndarray]:
    """The nearest faces `(P,)` to positions `(P, 3)` and barycentric coordinates `(P, 3)` there, found by walking from `vertex` (P,)."""
    around, neighbours = _rings(surface.faces, len(surface.verts))
    frames = _face_frames(surface.verts, surface.faces)
    face, bary = np.zeros(len(position), int), np.zeros((len(position), 3), np.float32)
    for start in range(0, len(position), CHUNK):
        part = slice(start, start + CHUNK)
        at = _walk(position[part], vertex[part].copy(), surface.verts, neighbours)
        best = np.full(len(at), np.inf, np.float32)
        for column in range(around.shape[1]):
            rows = np.flatnonzero(around[at, column] >= 0)
            if not len(rows):
                break
            tried = around[at[rows], column]
            weights, distance = _project(position[part][rows], frames[tried])
            better = distance < best[rows]
            rows = rows[better]
            best[rows], face[part][rows], bary[part][rows] = distance[better], tried[better], weights[better]
    return face, bary


def _project(place: np.ndarray, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Barycentric coordinates `(P, 3)` of places `(P, 3)` on one face each, held inside it, and the squared distance `(P,)`."""
    offset = place - frame[:, 0]
    u = np.einsum("pj,pj->p", frame[:, 1], offset).clip(0)
    v = np.einsum("pj,pj->p", frame[:, 2], offset).clip(0)
    over = np.maximum(u + v, 1)
    u, v = u / over, v / over
    offset -= u[:, None] * frame[:, 3] + v[:, None] * frame[:, 4]
    return np.stack([(1 - u - v).clip(0), u, v], 1), np.einsum("pj,pj->p", offset, offset)


def _walk(place: np.ndarray, at: np.ndarray, verts: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """From the vertices `at` (P,) along edges to the vertex nearest to each place; so a limb's other side is never reached."""
    moving, best = np.arange(len(at)), np.full(len(at), np.inf, np.float32)
    for _ in range(8):
        start, nearest = at[moving], best[moving]
        end = start.copy()
        for to in (start, *(neighbours[start, column] for column in range(neighbours.shape[1]))):
            offset = place[moving] - verts[to]
            distance = np.einsum("pj,pj->p", offset, offset)
            better = distance < nearest
            nearest[better], end[better] = distance[better], to[better]
        best[moving], at[moving] = nearest, end
        moving = moving[end != start]
    return at


def _rings(faces: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of `count` vertices the faces around it, in rows filled up with -1, and the vertices beside it, filled up with itself."""
    edges = np.unique(np.concatenate([faces[:, [a, b]] for a in range(3) for b in range(3) if a != b]), axis=0)
    beside = _rows(edges[:, 0], edges[:, 1], count)
    around = _rows(faces.ravel(), np.repeat(np.arange(len(faces)), 3), count)
    return around, np.where(beside < 0, np.arange(count)[:, None], beside)


def _rows(keys: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    order = np.argsort(keys, kind="stable")
    keys, values = keys[order], values[order]
    column = np.arange(len(keys)) - np.searchsorted(keys, keys)
    table = np.full((count, column.max() + 1), -1)
    table[keys, column] = values
    return table


def _face_frames(verts: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """For each face `(F, 5, 3)`: its first corner, two rows that take an offset from it to the other corners' weights, two edges."""
    a, b, c = (verts[faces[:, i]].astype(np.float64) for i in range(3))
    edges = np.stack([b - a, c - a], 1)
    return np.concatenate([a[:, None], np.linalg.pinv(edges.transpose(0, 2, 1)), edges], 1).astype(np.float32)


def load_texture(name: str, surface: Surface) -> Texture:
    """The texture `name`: a built-in one (checker, colors, grid) or a picture file, looked up through the surface's uv."""
    if name in BUILTIN_TEXTURES:
        return {"checker": checker(surface), "grid": grid, "colors": lambda points: _corners(surface.faces, surface.colors, points)}[name]
    path = Path(name)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{name}: is no picture file ({error.strerror})", f"or name one of {', '.join(BUILTIN_TEXTURES)}") from error
    return Painted(decode(data, name)[0], surface)


def _corners(faces: np.ndarray, values: np.ndarray, points: Points) -> np.ndarray:
    """`values` of the faces' corners, interpolated inside."""
    return np.einsum("pi,pij->pj", points.bary, values[faces[points.face]].astype(np.float32))


def _share(x: np.ndarray) -> np.ndarray:
    return x.clip(0, 1)[:, None]


def checker(surface: Surface) -> Texture:
    """A checkerboard of cubes cut by the surface, without seams. The animal's left is dark blue, its right dark red."""
    narrow = np.ptp(surface.verts[:, 0]) < 5 * CELL  # then a border beside the mirror plane would run along the flanks

    def paint(points: Points) -> np.ndarray:
        wave = np.sin(np.pi * (points.position / CELL + 0.5))
        wave[:, 0] = points.position[:, 0] * np.pi / CELL if narrow else np.sin(np.pi * points.position[:, 0] / CELL)
        soft = (wave / (np.pi * points.spacing / CELL)).clip(-1, 1)  # one pixel wide
        light = _share(0.5 + 0.5 * soft.prod(1))
        left = _share(0.5 + points.position[:, 0] / points.spacing)
        dark = left * np.array([25.0, 45, 120]) + (1 - left) * np.array([130.0, 30, 35])
        return light * np.array([250.0, 245, 230]) + (1 - light) * dark

    return paint


def grid(points: Points) -> np.ndarray:
    """Lines where the surface crosses planes, a colour an axis, on a light ground; no seams."""
    colors = np.full((len(points.face), 3), 240.0)
    for axis, line in enumerate(((60.0, 130, 60), (40.0, 70, 170), (190.0, 50, 40))):
        across = np.sqrt(np.maximum(1 - points.normal[:, axis] ** 2, 1e-4))  # how fast the plane's distance grows along the surface
        place = points.position[:, axis] / CELL
        away = np.abs(place - np.rint(place)) * CELL / across
        runs = (across - 0.35) / 0.3  # no line where the surface runs along the plane
        colors += _share(0.5 + (0.07 * CELL - away) / points.spacing) * _share(runs) * (np.array(line) - colors)
    return colors


class Painted:
    """A picture `(h, w, 3)` laid on by uv, (0, 0) at its bottom left. What no face covers takes the nearest covered colour, so that
    the ground between charts doesn't bleed in."""

    def __init__(self, picture: np.ndarray, surface: Surface) -> None:
        self.uv, self.face_uv = surface.uv, surface.face_uv
        height, width = picture.shape[:2]
        corners = (self._texels(self.uv, height, width)[self.face_uv] * 16).round().astype(np.int32)
        covered = np.zeros((height, width), np.uint8)
        for triangle in corners:
            cv2.fillConvexPoly(covered, triangle, 1, shift=4)
        covered = cv2.erode(covered, np.ones((3, 3), np.uint8))  # the fill takes texels that a face only touches
        if covered.any() and not covered.all():
            _, label = cv2.distanceTransformWithLabels(1 - covered, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
            nearest = np.zeros((label.max() + 1, 3), np.uint8)
            nearest[label[covered > 0]] = picture[covered > 0]
            picture = nearest[label]
        self.picture = picture
        edges = surface.verts[surface.faces]
        solid = np.linalg.norm(np.cross(edges[:, 1] - edges[:, 0], edges[:, 2] - edges[:, 0]), axis=1).sum()
        (ax, ay), (bx, by) = ((corners[:, i] - corners[:, 0]).T / 16 for i in (1, 2))
        flat = np.abs(ax * by - ay * bx).sum()
        self.density = float(np.sqrt(flat / max(solid, 1e-12)))  # texels a unit of length

    @staticmethod
    def _texels(uv: np.ndarray, height: int, width: int) -> np.ndarray:
        """Positions (x, y) in the picture, texel centres at integers."""
        return np.stack([uv[..., 0] * width - 0.5, (1 - uv[..., 1]) * height - 0.5], -1).astype(np.float32)

    def __call__(self, points: Points) -> np.ndarray:
        picture, shrink = self.picture, self.density * points.spacing
        if shrink > 1.5:  # several texels a pixel
            size = tuple(max(round(side / shrink), 1) for side in picture.shape[1::-1])
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        uv = np.einsum("pi,pij->pj", points.bary, self.uv[self.face_uv[points.face]])
        x, y = self._texels(uv, *picture.shape[:2]).astype(np.float32).T
        return sample_bilinear(picture, y, x)


def sample_bilinear(picture: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Colours `(P, 3)` of the picture `(h, w, 3)` at positions `(P,)`, the border continued."""
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = (y - top)[:, None], (x - left)[:, None]
    rows, columns = ([np.clip(at + i, 0, size - 1) for i in (0, 1)] for at, size in ((top, picture.shape[0]), (left, picture.shape[1])))
    upper, lower = ((1 - fx) * picture[row, columns[0]] + fx * picture[row, columns[1]] for row in rows)
    return (1 - fy) * upper + fy * lower


def lay(rgb: np.ndarray, vertex: np.ndarray, surface: Surface, texture: Texture, opacity: float = OPACITY) -> np.ndarray:
    """The photo `(H, W, 3)` uint8 with the texture over the pixels that have a vertex `(H, W)`, keeping some of its light and dark."""
    inside = vertex >= 0
    if not inside.any():
        return rgb.copy()
    face, bary = surface_points(vertex, surface)
    face, bary = face[inside], bary[inside]
    position = np.einsum("pi,pij->pj", bary, surface.verts[surface.faces[face]])
    normals = vertex_normals(surface.verts, surface.faces)
    normal = np.einsum("pi,pij->pj", bary, normals[surface.faces[face]])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    colors = texture(Points(face, bary, position, normal, _spacing(position, inside)))
    shaded = (colors * _shade(rgb, inside)[:, None]).clip(0, 255)
    cover = opacity * cv2.GaussianBlur(inside.astype(np.float32), (0, 0), 0.7)[inside][:, None]  # a soft outline
    out = rgb.copy()
    out[inside] = np.rint(cover * shaded + (1 - cover) * rgb[inside]).astype(np.uint8)
    return out


def remap(
    maps: ItemReader,
    surface: Surface,
    texture: Texture,
    write: Callable[[str, np.ndarray], None],
    opacity: float,
    track: Track = plain_track,
) -> None:
    """Call `write(name, picture)` with each image of a maps file under the texture.

    InputError if the maps are of another template. An image that fails is named and left out, and PartialError at the end says how many.
    """
    check_template(maps, surface.fingerprint)
    failures = Failures()
    for name in track(maps.names, len(maps), "remap"):
        with failures.catch(name):
            item = maps[name]
            rgb, _ = decode(item.encoded.tobytes(), name)
            check_indices(item.vertex, len(surface.verts), f"{maps.path}: {name}: vertex", lowest=-1)
            if item.vertex.shape != rgb.shape[:2]:
                raise InputError(f"{maps.path}: {name}: the map and the image differ in size", "make the maps file again")
            write(name, lay(rgb, item.vertex, surface, texture, opacity))
    failures.check(len(maps))
    failures.report(len(maps))


def _spacing(position: np.ndarray, inside: np.ndarray) -> float:
    """The median distance on the template between pixels side by side."""
    image = np.full((*inside.shape, 3), np.nan, np.float32)
    image[inside] = position
    steps = np.linalg.norm(np.diff(image, axis=1), axis=-1)
    steps = steps[np.isfinite(steps)]
    return max(float(np.median(steps)), 1e-4) if len(steps) else 1e-2


def _shade(rgb: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A factor `(P,)` for each pixel inside: its luminance against the object's median, softened."""
    light = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[inside].astype(np.float32) + 16
    return ((light / np.median(light)) ** SHADE).clip(0.6, 1.25)
