"""Which of a mesh file's axes point up and to the front: what its kind of file says, weighed with its shape.

A reading is a pair of an up and a front axis; there are R = 24. Each gets a score, the sum of what the kind
of file says for it and of what the shape says, and its chance is the softmax of the scores. The weights of
the shape's cues were fitted to 60 models whose axes are known: 48 stand upright by their shape alone, and
what is missed are heads, fish and flying birds.
"""

from __future__ import annotations

import logging

import numpy as np
from scipy.spatial import ConvexHull, KDTree, QhullError

from shic_cli.base.errors import SettingError
from shic_cli.surface.mesh import Mesh, surface_points

log = logging.getLogger("shic")

POINTS = 4000
SURE = 0.8  # with less chance than that, the second reading is named
AXES = tuple(sign + axis for axis in "xyz" for sign in "+-")
READINGS = tuple((up, front) for up in AXES for front in AXES if up[1] != front[1])
# what each kind of file says for readings that match, "*" for any axis: glTF prescribes its axes (3.4), most
# exporters of OBJ have y up, CAD and Blender have z up and the front at -y
GLTF = {("+y", "*"): 6.0, ("*", "+z"): 3.0}
OBJ = {("+y", "*"): 3.0, ("+z", "*"): 1.0, ("+y", "+z"): 1.5, ("+z", "-y"): 1.0}
OTHERS = {("+y", "*"): 1.0, ("+z", "*"): 1.5, ("+y", "+z"): 0.5, ("+z", "-y"): 0.5}
KINDS = {".gltf": GLTF, ".glb": GLTF, ".obj": OBJ, ".pkl": OBJ}
MOST_DETAIL = 1.2  # of the logarithm of how much finer one end is modelled: a ball on sticks proves little
MIRROR = 80.0  # for a share of the size by which another plane mirrors the shape better
STANDING = np.array([0.9, 1.5, 6.5])
FACING = np.array([3.8, 5.9, 1.4, 1.7, 3.3])


def orientation(mesh: Mesh, kind: str, up: str = "auto", front: str = "auto") -> np.ndarray:
    """The rotation `(3, 3)` that takes the file's `up` axis to +y and its `front` axis to +z.

    What is `auto` is guessed from `kind`, the file's ending, and the mesh's shape; a warning names the second
    reading where the guess is unsure. SettingError if `up` and `front` are one axis.
    """
    possible = [
        i for i, pair in enumerate(READINGS) if up in (pair[0], "auto") and front in (pair[1], "auto")
    ]
    if not possible:
        raise SettingError(f"--up {up} and --front {front}: are one axis", "give two different axes")
    if len(possible) == 1:
        return rotation(*READINGS[possible[0]])
    chance = reading_chances(mesh, kind)[possible]
    first, second = (READINGS[possible[i]] for i in np.argsort(-chance, kind="stable")[:2])
    log.info("axes of the mesh file: %s is up, %s is the front; if not, give --up and --front", *first)
    share = chance.max() / chance.sum()
    if share < SURE:
        log.warning(
            "axes: the shape leaves it open (%.0f %%) whether %s is up and %s the front, or %s and %s:"
            " look at the picture, and say so with --up and --front", 100 * share, *first, *second,
        )  # fmt: skip
    return rotation(*first)


def rotation(up: str, front: str) -> np.ndarray:
    """The rotation `(3, 3)` that takes the axis `up` to +y and the axis `front` to +z."""
    rows = np.zeros((3, 3))
    for row, axis in ((1, up), (2, front)):
        rows[row, "xyz".index(axis[1])] = 1 if axis[0] == "+" else -1
    rows[0] = np.cross(rows[1], rows[2])
    return rows


def reading_chances(mesh: Mesh, kind: str) -> np.ndarray:
    """`(R,)`: the chance of each of READINGS, for a file with the ending `kind` that holds `mesh`."""
    table = KINDS.get(kind, OTHERS)
    said = [
        sum(score for (a, b), score in table.items() if a in (up, "*") and b in (front, "*"))
        for up, front in READINGS
    ]
    scores = np.array(said) + shape_scores(mesh)
    chances = np.exp(scores - scores.max())
    return chances / chances.sum()


def shape_scores(mesh: Mesh) -> np.ndarray:
    """`(R,)`: how far the shape alone speaks for each of READINGS."""
    points = surface_points(mesh, POINTS)
    middle, size = points.mean(0), max(np.linalg.norm(np.ptp(points, axis=0)), 1e-300)
    points, faces = (points - middle) / size, (mesh.verts[mesh.faces].mean(1) - middle) / size
    errors = np.array([_mirror_error(points, axis) for axis in range(3)])
    scores = []
    for reading in READINGS:
        turn = rotation(*reading)
        error = errors[np.abs(turn[0]).argmax()] - errors.min()
        turned = points @ turn.T
        scores.append(
            STANDING @ _standing(turned) + FACING @ _facing(turned, faces @ turn.T) - MIRROR * error
        )
    return np.array(scores)


def _mirror_error(points: np.ndarray, axis: int) -> float:
    """The mean distance of the points' mirror image from them, at the better of two planes across `axis`."""
    tree, errors = KDTree(points), []
    for place in ((points[:, axis].min() + points[:, axis].max()) / 2, points[:, axis].mean()):
        image = points.copy()
        image[:, axis] = 2 * place - image[:, axis]
        errors.append(tree.query(image)[0].mean())
    return min(errors)


def _standing(points: np.ndarray) -> np.ndarray:
    """How `points` (P, 3), in our axes, stand: the feet's spread to the sides, the gap between left and right
    legs, and how far inside the feet's outline the middle is, each larger the better.
    """
    x, y, _ = points.T
    height = (y - y.min()) / max(np.ptp(y), 1e-9)
    feet = points[height < 0.05]
    spread = min(feet[:, 0].std() / max(x.std(), 1e-9), 1.5)
    legs = x[height < 0.15]
    reach = max(np.abs(legs - np.median(legs)).max(), 1e-9)
    between = (np.abs(legs - (x.min() + x.max()) / 2) < 0.1 * reach).mean()
    try:
        outline, whole = ConvexHull(feet[:, ::2]), ConvexHull(points[:, ::2])
    except (QhullError, ValueError):  # the feet, or all, lie on a line
        return np.array([spread, 1 - min(10 * between, 1), -0.1])
    inside = -(outline.equations[:, :2] @ points[:, ::2].mean(0) + outline.equations[:, 2]).max()
    balance = np.clip(inside / np.sqrt(whole.volume), -0.3, 0.3)  # the volume of an outline is its area
    return np.array([spread, 1 - min(10 * between, 1), balance])


def _facing(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """How `points` (P, 3), in our axes, face the front, by the front end against the rear: height of the
    ends, width of the tips, detail in the mesh, whose `faces` (F, 3) are given by their middles, toes before
    the ankles, weight before the feet.

    Height and weight count for what is longer than tall, toes for what stands upright.
    """
    x, y, z = points.T
    tall, long = max(np.ptp(y), 1e-9), max(np.ptp(z), 1e-9)
    place, place_faces, height = (z - z.min()) / long, (faces[:, 2] - z.min()) / long, (y - y.min()) / tall
    front, rear = place > 0.85, place < 0.15
    if not (front.any() and rear.any()):  # flat
        return np.zeros(5)
    head = (y[front].mean() - y[rear].mean()) * min(long / tall, 1)
    width = x[place > 0.95].std() - x[place < 0.05].std()
    shares = [
        (np.mean(ends_faces) + 0.02) / (np.mean(ends) + 0.02)
        for ends_faces, ends in ((place_faces > 0.7, place > 0.7), (place_faces < 0.3, place < 0.3))
    ]
    detail = np.clip(np.log(shares[0] / shares[1]), -MOST_DETAIL, MOST_DETAIL)
    sole, ankle = z[height < 0.05], z[(height > 0.08) & (height < 0.25)]
    toes = (sole.mean() - ankle.mean()) / long * min(tall / long, 2) if len(ankle) else 0.0
    weight = -(sole.max() + sole.min()) / 2 * min(long / tall, 1)
    return np.nan_to_num(np.array([head, width, detail, toes, weight]))
