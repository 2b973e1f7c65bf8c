"""Viewpoints in words (front, side, back, top), and random cameras that see chosen sides (sec. 3.5, 7.3)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from shic_cli.base.errors import SettingError
from shic_cli.files.checks import check_indices
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import Template
from shic_cli.files.names import check_template
from shic_cli.surface.mesh import face_areas, vertex_normals

# Ranges of azimuth in degrees; 0 sees the front, 90 the left side.
ARCS = {"front": ((-30.0, 30.0),), "side": ((30.0, 150.0), (210.0, 330.0)), "back": ((150.0, 210.0),)}
VIEWS = (*ARCS, "top")
AZIMUTHS = np.arange(0.0, 360.0, 3.0)  # those that a photo may be taken from
TOP = 60.0  # degrees: a view from this elevation or higher is a view of the top


def view_of(azimuth: float, elevation: float) -> str:
    """The one of VIEWS that a camera at `azimuth` and `elevation`, in degrees, sees."""
    if elevation >= TOP:
        return "top"
    turn = abs((azimuth + 180) % 360 - 180)  # angle from the front, 0 to 180
    return "front" if turn < ARCS["front"][0][1] else "back" if turn > ARCS["back"][0][0] else "side"


def parse_views(text: str, elevation: tuple[float, ...]) -> tuple[str, ...]:
    """The views that `--views` names, separated by commas; an empty tuple for `any` and `auto`.

    `auto` arrives here only if the generator has no views of its own. SettingError for a word that is not a
    view, and for an `elevation` range that can't show the views.
    """
    if text in ("any", "auto"):
        return ()
    views = tuple(dict.fromkeys(text.split(",")))
    for view in views:
        if view not in VIEWS:
            raise SettingError(
                f"--views {text}: {view!r} is not a view", f"give any, or some of {','.join(VIEWS)}"
            )
    if set(views) - {"top"} and elevation[0] >= TOP:
        raise SettingError(
            f"--views {text}: every view from {elevation[0]:g} degrees up is a view of the top",
            "give --views top, or a lower --elevation",
        )
    return views


def random_viewpoint(
    views: tuple[str, ...], elevation: tuple[float, ...], rng: np.random.Generator
) -> tuple[float, float]:
    """Azimuth and elevation in degrees of a random viewpoint that shows one of `views`, or any if empty.

    Azimuths are uniform over the arcs of the named views. The top gets its share of pictures, 1 / len(views);
    it is seen from the part of the `elevation` range above TOP, or from TOP to 90 if no part is above.
    """
    if not views:
        return rng.uniform(0, 360), rng.uniform(elevation[0], elevation[1])
    if "top" in views and rng.random() * len(views) < 1:
        low, high = max(elevation[0], TOP), elevation[1] if elevation[1] > TOP else 90.0
        return rng.uniform(0, 360), rng.uniform(low, high)
    arcs = np.array([arc for view in views if view != "top" for arc in ARCS[view]])
    ends = np.cumsum(arcs[:, 1] - arcs[:, 0])
    place = rng.uniform(0, ends[-1])
    i = int(np.searchsorted(ends, place, side="right"))
    return (arcs[i, 1] - (ends[i] - place)) % 360, rng.uniform(elevation[0], min(elevation[1], TOP))


def seen_from(azimuths: np.ndarray) -> str:
    """Which sides photos from `azimuths` `(N,)` in degrees show, as `left side 70%, front 30%`."""
    names = []
    for azimuth in azimuths % 360:
        side = view_of(azimuth, 0)
        names.append(side if side != "side" else "left side" if azimuth < 180 else "right side")
    counts = Counter(names).most_common()
    return ", ".join(f"{name} {count / len(names):.0%}" for name, count in counts) or "template nowhere"


def photo_azimuths(path: Path, template: Template) -> np.ndarray:
    """The azimuths `(N,)` in degrees that the photos of a maps file are taken from, by their labels: those
    from which the template shows the same mean normal as the photo. InputError if it is of another template.
    Photos that show nothing of the template are left out.
    """
    reader, normals = ItemReader(path, "shic/maps"), vertex_normals(template.verts, template.faces)
    check_template(reader, template.fingerprint)
    shown = _shown_normals(template, normals)
    found = []
    for item in reader:
        check_indices(item.vertex, len(normals), f"{path}: {item.name}: vertex", lowest=-1)
        if (item.vertex >= 0).any():
            mean = normals[item.vertex[item.vertex >= 0]].sum(0)[[0, 2]]
            found.append(AZIMUTHS[int(np.argmax(shown @ mean))])
    return np.array(found)


def _shown_normals(template: Template, normals: np.ndarray) -> np.ndarray:
    """The direction `(A, 2)` along x and z of the mean normal that each of AZIMUTHS shows, as unit vectors.

    A long body shows much of its flank from almost everywhere, so that the mean normal lies nearer to the
    side than the camera. Parts that hide others are not taken into account.
    """
    angles = np.radians(AZIMUTHS)
    towards = np.stack([np.sin(angles), np.zeros_like(angles), np.cos(angles)], 1)
    areas = np.zeros(len(normals))
    np.add.at(areas, template.faces, face_areas(template.verts, template.faces)[:, None])
    mean = (areas * (towards @ normals.T).clip(0)) @ normals[:, [0, 2]]
    return mean / np.linalg.norm(mean, axis=1, keepdims=True).clip(1e-9)
