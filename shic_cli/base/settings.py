"""Every setting of every stage: name, default, meaning, and its place in the paper.

There is one frozen dataclass for each stage. The command line makes its options from the fields, and files
record them as `params`. training_settings.py has those of `shic train`, result_settings.py those of scores,
pages, exports and the demo. Nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from shic_cli.base.checked import Checked, setting

GEODESIC_MAXIMUM = 228.0  # sec. 4.3: the largest geodesic distance on every mesh
GPS_KAPPA = 25.5  # of the geodesic point similarity, on that scale: 0.255 where the largest distance is 2.28
DP_SCALE = 255.0  # dp_x and dp_y run from 0 to this over the box, as in DensePose's evaluation
MARGIN = 0.1  # a crop is the box of the mask, extended on each side by this share of its length
EXTRACTORS = (
    "auto, silhouette, picture (an encoder only), vit:FOLDER, dinov2 (also -small, -large), dinov3 (-small),"
    " sd, sd-dino, dift, diy-sc, several joined by +, or one that a plugin adds. Options follow a comma:"
    " vit:FOLDER,layer=9,facet=key."
)
CONTROLNET_VIEWS = "side,front"  # sec. 7.3
CONTROLNET_ERODE = 2  # pixels of the finished picture
BUILTIN_TEXTURES = ("checker", "colors", "grid")
AXES = ("auto", "+x", "-x", "+y", "-y", "+z", "-z")


@dataclass(frozen=True)
class TemplateConfig(Checked):
    """`shic template prep`."""

    vertices: int = setting(
        5000, "Simplify or subdivide to about this many vertices; 0 leaves the mesh as it is.", low=0
    )
    remesh: str = setting(
        "auto",
        "Make one new surface around all parts that touch. auto: if the largest part lacks a tenth of the"
        " surface.",
        choices=("auto", "on", "off"),
    )
    eigenvectors: int = setting(
        64, "Q, Laplace-Beltrami eigenvectors without the constant one (sec. 4.1).", low=1
    )
    keep: bool = setting(False, "Keep a ground under the object, or a backdrop around it.")
    up: str = setting("auto", "The mesh file's axis that points up.", choices=AXES)
    front: str = setting("auto", "The mesh file's axis that points to the front (head).", choices=AXES)


@dataclass(frozen=True)
class RenderConfig(Checked):
    """`shic render`; the views of sec. 4.1 (N = 72).

    No view is from below. Few photos are, and an outline from below is the mirror image of the outline from
    above on the other side.
    """

    azimuths: int = setting(24, "Viewpoints around the object.", low=1)
    elevations: tuple[float, ...] = setting(
        (0.0, 15.0, 30.0), "Degrees above the horizon, separated by commas.", low=-90, high=90
    )
    fov: float = setting(
        30.0, "Field of view in degrees; the object is fitted to the frame.", low=1, high=120
    )
    size: int = setting(512, "Side of each view in pixels.", low=16, high=4096)
    style: str = setting(
        "normals", "How the surface is coloured (Table 5).", choices=("normals", "shaded", "depth")
    )
    renderer: str = setting("auto", "auto, pytorch3d, warp, or one that a plugin adds.")


@dataclass(frozen=True)
class MasksConfig(Checked):
    """How the masks of photos are found and read, by every command that takes photos."""

    masks: str = setting(
        "", "Folder of masks with the photos' names.  [default: a folder masks/ beside the photos]"
    )
    label: str = setting(
        "", "The object's label in masks that are label maps: its number, its colour (#ff0000), or its name."
    )
    exif: str = setting(
        "auto",
        "Masks of photos with an EXIF orientation were drawn on the turned photo (apply) or on its stored"
        " pixels (ignore).",
        choices=("auto", "apply", "ignore"),
    )

    def params(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        return {
            each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default
        }


@dataclass(frozen=True)
class MaskConfig(Checked):
    """`shic mask`; a mask that breaks one of the limits is listed as unsure."""

    all: bool = setting(
        False,
        "Write a crop of each object to OUTPUT/imgs and OUTPUT/masks, instead of the mask of the largest"
        " object.",
    )
    low_score: float = setting(
        0.6, "Unsure: the masker's score, if it gives one, is below this.", low=0, high=1
    )
    border: float = setting(
        0.5, "Unsure: the mask covers more than this share of the photo's border.", low=0, high=1
    )
    smallest: float = setting(
        0.01, "Unsure: the mask covers less than this share of the photo.", low=0, high=1
    )
    largest: float = setting(0.8, "Unsure: the mask covers more than this share of the photo.", low=0, high=1)
    rival: float = setting(
        0.5,
        "Unsure: another object has more than this share of the main object's pixels. Not used with --all.",
        low=0,
        high=1,
    )


@dataclass(frozen=True)
class FeatureConfig(Checked):
    """`shic features`."""

    extractor: str = setting("auto", EXTRACTORS)
    batch: int = setting(8, "Pictures at a time.", low=1)
    pca: int = setting(
        0,
        "Project features to this many principal components, fitted to the views; 0 keeps the features as"
        " they are.",
        low=0,
    )


def recipe() -> Any:
    """The setting `--recipe`."""
    return setting(
        "auto",
        "What auto, 0 and -1 stand for in other settings. paper: the paper's values. auto: those that were"
        " measured to be best.",
        choices=("auto", "paper"),
        variable="SHIC_RECIPE",
    )


@dataclass(frozen=True)
class PseudoGtConfig(Checked):
    """`shic pseudo-gt`; Eq. 2."""

    recipe: str = recipe()
    pool: str = setting("max", "How the views are pooled (Table 3).", choices=("max", "mean", "topk"))
    topk: int = setting(3, "Views averaged by --pool topk.", low=1)
    agreement: float = setting(
        -1.0,
        "Weight of each view's agreement with the whole object: this many times the difference to the"
        " agreement of the best view is added to its similarities. 0 is the paper's Eq. 2. -1: what was"
        " measured to be best for the extractor. Not used with --pool mean.",
        low=-1,
    )
    matching: str = setting(
        "auto",
        "maximum: every pixel takes the vertex that it is most similar to (Eq. 2). transport: all pixels"
        " together, so that near pixels get near vertices. auto: the better one for the extractor.",
        choices=("auto", "maximum", "transport"),
    )
    return_within: float = setting(
        0.0,
        "Keep only matches that return: pixel to vertex to pixel ends within this share of the crop's side"
        " (0.034 is 2 of 60 cells). Other pixels get no label. 0 keeps all.",
        low=0,
        high=1,
    )
    surface_within: float = setting(
        0.0,
        "Keep only matches within this distance along the surface (of 228) of the median of their"
        " neighbours' matches. Other pixels get no label. 0 keeps all.",
        low=0,
        high=228,
    )
    extractor: str = setting("auto", EXTRACTORS)
    pca: int = setting(
        0,
        "Project features to this many principal components of the views' features; 0 keeps them as they"
        " are, or as the features file has them.",
        low=0,
    )
    azimuths: int = setting(24, "Viewpoints around the object.", low=1)
    elevations: tuple[float, ...] = setting(
        (0.0, 15.0, 30.0), "Degrees above the horizon, separated by commas.", low=-90, high=90
    )
    style: str = setting(
        "normals", "How the views are coloured (Table 5).", choices=("normals", "shaded", "depth")
    )
    renderer: str = setting("auto", "auto, pytorch3d, warp, or one that a plugin adds.")


@dataclass(frozen=True)
class SynthConfig(Checked):
    """`shic synth`; sec. 3.5."""

    recipe: str = recipe()
    generator: str = setting(
        "auto",
        "auto, plain, controlnet-depth, or one that a plugin adds."
        " controlnet-depth:FOLDER,control=FOLDER,depth=FOLDER uses other weights of Stable Diffusion 1.5, of"
        " a ControlNet for depth (near is white) and of Depth Anything.",
    )
    class_name: str = setting(
        "", "The class in a word or two, for example horse; controlnet-depth needs it.", flag="class"
    )
    number: int = setting(6000, "Pictures to make.", low=1)
    size: int = setting(224, "Side of each picture in pixels.", low=32, high=2048)
    elevation: tuple[float, ...] = setting(
        (-10.0, 40.0), "Lowest and highest viewpoint in degrees.", low=-90, high=90
    )
    level: float = setting(
        -1.0,
        "Share of pictures taken as people take photos: from eye height, with a level camera; -1: 0.7.",
        low=-1,
        high=1,
    )
    roll: float = setting(8.0, "Largest tilt of the camera in degrees.", low=0, high=180)
    fov: tuple[float, ...] = setting(
        (6.0, 40.0), "Narrowest and widest field of view in degrees.", low=1, high=120
    )
    fill: tuple[float, ...] = setting(
        (0.4, 0.9),
        "Least and largest share of the frame that the object's longer side takes.",
        low=0.05,
        high=1,
    )
    poses: float = setting(
        -1.0,
        "How far limbs and trunk bend at random; 0 keeps the template at rest, as in the paper. -1: 1, as"
        " animals do.",
        low=-1,
        high=3,
    )
    bodies: float = setting(
        -1.0, "How far bodies differ from the template's. -1: 1, as animals of a class do.", low=-1, high=3
    )
    like_photos: float = setting(
        -1.0,
        "Share of pictures seen from where the photos of --photos are taken from; -1: 0.5.",
        low=-1,
        high=1,
    )
    photo_coats: float = setting(
        -1.0,
        "Share of pictures whose coat has the colours of one of the photos of --photos; -1: 0.5.",
        low=-1,
        high=1,
    )
    photo_poses: float = setting(
        -1.0,
        "Share of pictures posed like one of the bodies that `shic fit` found in --photos; -1: 0.5.",
        low=-1,
        high=1,
    )
    backgrounds: str = setting("", "Folder of photos for the backgrounds; without it they are made up.")
    renderer: str = setting("auto", "auto, pytorch3d, warp, or one that a plugin adds.")
    only: tuple[float, ...] = setting(
        (),
        "Make only the pictures with these numbers; they are the same as in a whole run.",
        low=0,
        high=10**9,
    )
    views: str = setting(
        "auto",
        "any, or some of front,side,back,top. auto: side,front for controlnet-depth, which paints faces on"
        " views from behind, else any.",
    )
    erode: int = setting(
        -1,
        "Pixels along the outline that get no label, because a painted outline is not exact; -1:"
        f" {CONTROLNET_ERODE} for controlnet-depth, else 0.",
        low=-1,
        high=64,
    )
    check: float = setting(
        0.0,
        "Drop a picture if the object that --masker finds overlaps the rendered object with a smaller IoU"
        " than this; 0 keeps all.",
        low=0,
        high=1,
    )
    prompt: str = setting(
        "a photo of a {class}, {view} view, natural light, sharp, high quality",
        "The prompt of controlnet-depth; {class} and {view} (front, side, back, top) are replaced.",
    )
    negative: str = setting(
        "lowres, low quality, monochrome, watermark", "The negative prompt of controlnet-depth."
    )
    side: int = setting(
        512,
        "Side in pixels of the picture that controlnet-depth paints, a multiple of 64.",
        low=64,
        high=2048,
    )
    steps: int = setting(25, "Steps of controlnet-depth.", low=1, high=1000)
    guidance: float = setting(
        7.5, "Guidance scale of controlnet-depth: how closely it follows the prompt.", low=0
    )
    strength: float = setting(
        1.0, "Conditioning scale of controlnet-depth: how closely it follows the depth.", low=0, high=2
    )
    scheduler: str = setting(
        "unipc", "Sampler of controlnet-depth.", choices=("unipc", "dpm", "ddim", "euler")
    )
    precision: str = setting(
        "auto",
        "Number format of controlnet-depth; auto: float16 on CUDA, else float32.",
        choices=("auto", "float32", "float16", "bfloat16"),
    )
    offload: str = setting(
        "none",
        "Keep the weights of controlnet-depth in main memory, and move each model, or each layer in turn"
        " (sequential), to the GPU when it is needed. Needs the package accelerate.",
        choices=("none", "model", "sequential"),
    )
    slicing: bool = setting(
        False, "Compute controlnet-depth's attention in slices: slower, with less memory."
    )

    def params(self) -> dict[str, Any]:
        """The settings as JSON values, without those that only save memory and may change between runs."""
        return {name: value for name, value in super().params().items() if name not in ("offload", "slicing")}


@dataclass(frozen=True)
class PredictConfig(Checked):
    """`shic predict`."""

    side: int = setting(
        512,
        "Longest side in pixels of the grid on which embeddings are compared; larger photos take the nearest"
        " value.",
        low=32,
    )
    flip: str = setting(
        "auto",
        "Average the probabilities with those of the mirrored picture; auto: on for a model trained with"
        " --mirror on, and for one with an encoder picture+NAME.",
        choices=("auto", "on", "off"),
    )
    estimate: str = setting(
        "auto",
        "mode: the most likely vertex. median: the vertex with the smallest expected distance, which is more"
        " exact where legs are hard to tell apart. auto: median for a unet.",
        choices=("auto", "mode", "median"),
    )
    compare: str = setting(
        "auto",
        "Which pixels are compared with all vertices for the median. all: every one. grid: one of each block,"
        " of 128 blocks across the object, and those near edges; the others are interpolated, and the mean"
        " error changes by less than 1 %. auto: grid on a CPU, all on a GPU.",
        choices=("auto", "all", "grid"),
    )
    pictures: bool = setting(True, "Write the colour picture of each image too.")
    unsure: bool = setting(
        False, "Write a picture of how sure each pixel is too: dark is sure, light unsure, as in `shic view`."
    )
