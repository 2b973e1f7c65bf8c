"""The settings of the commands that score, show, export and import results, and of the demo."""

from __future__ import annotations

from dataclasses import dataclass

from shic_cli.base.checked import Checked, setting
from shic_cli.base.settings import AXES, DP_SCALE


@dataclass(frozen=True)
class GeodesicConfig(Checked):
    """`shic eval geodesic`; sec. 4.3."""

    dp_scale: float = setting(
        DP_SCALE,
        "dp_x and dp_y run from 0 to this over the box: 255 in DensePose's evaluation, 256 in its training."
        " The results differ by at most 0.4 % of the box.",
        low=1,
    )
    gps: bool = setting(
        False, "Report the average precision over the geodesic point similarity too, as DensePose-CSE does."
    )
    calibration: bool = setting(
        False, "Compare the uncertainty that `shic predict` states with the errors, in ten bins."
    )


@dataclass(frozen=True)
class PckConfig(Checked):
    """`shic eval pck`; sec. 4.3."""

    alpha: tuple[float, ...] = setting(
        (0.1,),
        "A point is correct if its error is less than this times the longer side of the target image;"
        " several values: separated by commas.",
        low=0,
    )
    via: str = setting(
        "template",
        "How a model is scored. template: from pixel to vertex to pixel. embedding: from pixel to pixel."
        " both: two rows.",
        choices=("template", "embedding", "both"),
    )
    target: str = setting(
        "surface",
        "Which pixel of the target image a vertex goes to. surface: the one whose vertex is nearest along the"
        " surface; maps files can tell it too. probability: where the vertex is likeliest. embedding: where"
        " the embedding is most similar to the vertex's. The last two need a model.",
        choices=("surface", "probability", "embedding"),
    )
    average: str = setting(
        "keypoint",
        "What counts the same in `pck` and its interval: every keypoint, every pair of images (as in"
        " GeoAware-SC), or every class.",
        choices=("keypoint", "image", "class"),
    )
    protocol: str = setting(
        "image",
        "image: as in SD-DINO and the paper, errors relative to the side of the padded image. csm: as in"
        " CSM, errors relative to the side of the square around the object's box plus 5 % on each side,"
        " random pairs in both directions, and the nearest points of the template in space.",
        choices=("image", "csm"),
    )
    self_pairs: str = setting(
        "auto",
        "Whether --protocol csm counts a draw of one image twice, as CSM's code does; auto: on.",
        choices=("auto", "on", "off"),
    )


@dataclass(frozen=True)
class ViewConfig(Checked):
    """`shic view`."""

    most: int = setting(200, "Photos that a page shows, at most.", low=1)
    first: str = setting(
        "name",
        "Which photos are shown if there are more than --most. name: the first by name. unsure: those with"
        " the largest mean uncertainty, or the lowest mean score where the maps have none. spread: evenly"
        " spread over the names.",
        choices=("name", "unsure", "spread"),
    )
    side: int = setting(
        512,
        "Longer side of a photo in the page, in pixels. Of a larger photo every n-th pixel is kept, with its"
        " value from the file.",
        low=32,
        high=4096,
    )
    near: float = setting(
        10.0,
        "A point is in view if the vertex of a pixel lies within this distance of it along the surface; the"
        " largest distance on the mesh is 228.",
        low=0,
        high=228,
    )


@dataclass(frozen=True)
class AnnotateConfig(Checked):
    """`shic annotate`."""

    side: int = setting(
        1024,
        "Longer side of a photo in the page, in pixels; points are saved in pixels of the photo file.",
        low=32,
        high=4096,
    )


@dataclass(frozen=True)
class ExportConfig(Checked):
    """`shic export`."""

    size: int = setting(1024, "Side of the texture of a .glb in pixels.", low=16, high=8192)
    number: int = setting(100, "DensePose points of each object in a .json.", low=1)
    near: float = setting(
        10.0,
        "A keypoint is in a photo where a pixel's vertex lies within this distance along the surface, of"
        " 228.",
        low=0,
        high=228,
    )
    texture: str = setting(
        "", "What an .mp4 shows: a picture, or checker, colors or grid, laid over the photos."
    )
    beside: bool = setting(False, "Show the photos in an .mp4 too, on the left.")
    fps: float = setting(25.0, "Photos a second in an .mp4.", low=0.1, high=240)


@dataclass(frozen=True)
class FitConfig(Checked):
    """`shic fit`."""

    unsure: float = setting(
        25.0,
        "Pixels whose uncertainty is this large or larger, of 228, take the body's vertex; 0: all pixels do."
        " All do too where the maps state none, as those of `shic pseudo-gt`.",
        low=0,
        high=229,
    )
    least: float = setting(
        0.5,
        "A body fits if its overlap with the mask is at least this (intersection over union).",
        low=0,
        high=1,
    )
    drop: bool = setting(False, "Leave out photos that no body fits; else they keep their maps.")
    pictures: bool = setting(True, "Draw each body over its photo, and write its mesh.")
    renderer: str = setting("auto", "auto, pytorch3d, warp, or one that a plugin adds.")


@dataclass(frozen=True)
class DemoConfig(Checked):
    """`shic demo`; small enough for four minutes on two CPU cores."""

    photos: int = setting(40, "Photos to learn from.", low=1)
    tests: int = setting(30, "Photos to test on.", low=1)
    synthetic: int = setting(600, "Synthetic pictures.", low=1)
    size: int = setting(160, "Side of each picture in pixels.", low=64, high=1024)
    vertices: int = setting(
        1500, "About how many vertices the template has; the mesh file has 2000.", low=100
    )
    epochs: int = setting(12, "Epochs of training.", low=1)


@dataclass(frozen=True)
class ReleaseConfig(Checked):
    """`shic models import`; the mesh is left as it is, as by `shic template prep --vertices 0`."""

    up: str = setting("auto", "The mesh file's axis that points up.", choices=AXES)
    front: str = setting("auto", "The mesh file's axis that points to the front (head).", choices=AXES)
    batch_statistics: bool = setting(
        False,
        "Normalise each picture by its own statistics, as the authors' notebook does, which never leaves"
        " training mode. Otherwise the trained statistics are used.",
    )
