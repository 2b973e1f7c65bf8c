"""Every setting of every stage once: name, default, meaning, and where the paper has it.

One frozen dataclass a stage. The command line makes its options from these fields, the files record them as
`params`. Nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from shic_cli.base.errors import SettingError

GEODESIC_MAXIMUM = 228.0  # sec. 4.3: the largest geodesic distance on every mesh
GPS_KAPPA = 25.5  # of the geodesic point similarity, on that scale: 0.255 where the largest distance is 2.28
DP_SCALE = 255.0  # dp_x and dp_y run from 0 to this over the box, as in DensePose's evaluation
MARGIN = 0.1  # a crop is the mask's box and this share more on each side
EXTRACTORS = (
    "auto, silhouette, picture (an encoder only), vit:FOLDER, dinov2 (also -small, -large), dinov3 (-small), sd, sd-dino, dift, several"
    " joined by +, or one that a plugin adds; options follow a comma: vit:FOLDER,layer=9,facet=key."
)
CONTROLNET_VIEWS = "side,front"  # sec. 7.3
CONTROLNET_ERODE = 2  # pixels of the finished picture
BUILTIN_TEXTURES = ("checker", "colors", "grid")


def setting(
    default: Any, help: str, *, choices: tuple[str, ...] = (), low: float | None = None, high: float | None = None, flag: str = ""
) -> Any:  # fmt: skip
    """A dataclass field with what the help text and the checks need; `flag` is its option's name where it is
    not the field's.
    """
    return field(
        default=default, metadata={"help": help, "choices": choices, "low": low, "high": high, "flag": flag}
    )


class Checked:
    """Mixin: checks every field's range and choices when made, and gives them as JSON values."""

    def __post_init__(self) -> None:
        for each in fields(self):  # type: ignore[arg-type]
            value, meta = getattr(self, each.name), each.metadata
            name = "--" + each.name.replace("_", "-")
            if meta["choices"] and value not in meta["choices"]:
                raise SettingError(f"{name} {value}: is not one of {', '.join(meta['choices'])}", "")
            for item in value if isinstance(value, tuple) else (value,):
                if isinstance(item, (int, float)) and not (
                    _at_least(item, meta["low"]) and _at_most(item, meta["high"])
                ):
                    raise SettingError(
                        f"{name} {item}: is out of range", f"give {_range(meta['low'], meta['high'])}"
                    )

    def params(self) -> dict[str, Any]:
        """The settings as a dictionary that JSON can hold."""
        return asdict(self)  # type: ignore[call-overload]


def _at_least(value: float, low: float | None) -> bool:
    return low is None or value >= low


def _at_most(value: float, high: float | None) -> bool:
    return high is None or value <= high


def _range(low: float | None, high: float | None) -> str:
    return (
        f"{low} to {high}"
        if low is not None and high is not None
        else f"{low} or more"
        if high is None
        else f"{high} or less"
    )


AXES = ("auto", "+x", "-x", "+y", "-y", "+z", "-z")


@dataclass(frozen=True)
class TemplateConfig(Checked):
    """`shic template prep`."""

    vertices: int = setting(
        5000, "Simplify or subdivide to about this many vertices; 0 leaves the mesh as it is.", low=0
    )
    remesh: str = setting(
        "auto",
        "One new surface around all parts that touch; auto: where the largest lacks a tenth.",
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

    None is from below: the outline from there is the mirror image of the one from above on the other side,
    and few photos are.
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
        "Masks of photos with an EXIF flag were drawn on the turned photo (apply) or on its stored pixels (ignore).",
        choices=("auto", "apply", "ignore"),
    )

    def params(self) -> dict[str, Any]:
        """The settings that differ from their defaults."""
        return {
            each.name: value for each in fields(self) if (value := getattr(self, each.name)) != each.default
        }


@dataclass(frozen=True)
class MaskConfig(Checked):
    """`shic mask`; a mask is unsure, and listed, when it breaks one of the limits."""

    all: bool = setting(
        False,
        "Write a crop for each object, into OUTPUT/imgs and OUTPUT/masks; else the mask of the largest one.",
    )
    low_score: float = setting(0.6, "Unsure: a score below this, where the masker gives one.", low=0, high=1)
    border: float = setting(0.5, "Unsure: on more than this share of the photo's border.", low=0, high=1)
    smallest: float = setting(0.01, "Unsure: less than this share of the photo.", low=0, high=1)
    largest: float = setting(0.8, "Unsure: more than this share of the photo.", low=0, high=1)
    rival: float = setting(
        0.5,
        "Unsure: another object has more than this share of the main one's pixels; not with --all.",
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
        "Fit this many principal components to the views and project to them; 0 keeps the features as they are.",
        low=0,
    )


@dataclass(frozen=True)
class PseudoGtConfig(Checked):
    """`shic pseudo-gt`; Eq. 2."""

    pool: str = setting("max", "How the views are pooled (Table 3).", choices=("max", "mean", "topk"))
    topk: int = setting(3, "Views averaged by --pool topk.", low=1)
    agreement: float = setting(
        2.0,
        "Views that agree with the whole object count more: to a view's similarities this many times its agreement's distance"
        " from the best view's is added; 0 is the paper's Eq. 2. Not used with --pool mean.",
        low=0,
    )
    extractor: str = setting("auto", EXTRACTORS)
    pca: int = setting(
        0,
        "Project features to this many principal components of the views' features; 0: as they are, or as the features file has them.",
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

    generator: str = setting(
        "auto",
        "auto, plain, controlnet-depth, or one that a plugin adds; controlnet-depth:FOLDER,control=FOLDER,depth=FOLDER takes another"
        " Stable Diffusion 1.5, another ControlNet for depth with white near, another Depth Anything.",
    )
    class_name: str = setting(
        "", "The class in a word or two, for example horse; controlnet-depth needs it.", flag="class"
    )
    number: int = setting(8000, "Pictures to make.", low=1)
    size: int = setting(224, "Side of each picture in pixels.", low=32, high=2048)
    elevation: tuple[float, ...] = setting(
        (-10.0, 40.0), "Lowest and highest viewpoint in degrees.", low=-90, high=90
    )
    roll: float = setting(8.0, "Largest tilt of the camera in degrees.", low=0, high=180)
    fov: tuple[float, ...] = setting(
        (20.0, 45.0), "Narrowest and widest field of view in degrees.", low=1, high=120
    )
    fill: tuple[float, ...] = setting(
        (0.4, 0.9),
        "Least and largest share of the frame that the object's longer side takes.",
        low=0.05,
        high=1,
    )
    poses: float = setting(
        1.0,
        "How far limbs and trunk are bent at random (1: as animals do); 0 keeps the template at rest, as in the paper.",
        low=0,
        high=3,
    )
    bodies: float = setting(
        1.0,
        "How far bodies differ from the template's at random: limbs, belly, head, hair (1: as animals of a class do).",
        low=0,
        high=3,
    )
    like_photos: float = setting(
        0.5,
        "Share of the pictures that are seen from where the photos are, as the maps of --photos tell.",
        low=0,
        high=1,
    )
    backgrounds: str = setting("", "Folder of photos to take backgrounds from; none: made-up ones.")
    renderer: str = setting("auto", "auto, pytorch3d, warp, or one that a plugin adds.")
    only: tuple[float, ...] = setting(
        (),
        "Make these pictures alone, by their numbers; each is the one that a whole run makes.",
        low=0,
        high=10**9,
    )
    views: str = setting(
        "auto",
        "any, or some of front,side,back,top; auto: side,front for controlnet-depth, which paints faces on backs, else any.",
    )
    erode: int = setting(
        -1,
        f"Pixels along the outline that get no label, for a painted outline moves; -1: {CONTROLNET_ERODE} for controlnet-depth, else 0.",
        low=-1,
        high=64,
    )
    check: float = setting(
        0.0,
        "Drop pictures whose object, as --masker finds it, overlaps the rendered one by less than this IoU; 0 keeps all.",
        low=0,
        high=1,
    )
    prompt: str = setting(
        "a photo of a {class}, {view} view, natural light, sharp, high quality",
        "What controlnet-depth is told; {class} and {view} (front, side, back, top) are filled in.",
    )
    negative: str = setting(
        "lowres, low quality, monochrome, watermark", "What controlnet-depth is told to avoid."
    )
    side: int = setting(
        512, "Side in pixels that controlnet-depth paints at, a multiple of 64.", low=64, high=2048
    )
    steps: int = setting(25, "Steps of controlnet-depth.", low=1, high=1000)
    guidance: float = setting(7.5, "How strictly controlnet-depth keeps to the prompt.", low=0)
    strength: float = setting(1.0, "How strictly controlnet-depth keeps to the depth.", low=0, high=2)
    scheduler: str = setting(
        "unipc", "How controlnet-depth samples.", choices=("unipc", "dpm", "ddim", "euler")
    )
    precision: str = setting(
        "auto",
        "Number format of controlnet-depth; auto: float16 on CUDA, else float32.",
        choices=("auto", "float32", "float16", "bfloat16"),
    )
    offload: str = setting(
        "none",
        "Keep controlnet-depth's weights in main memory, and bring each model, or each layer in sequence, to the GPU when it is needed;"
        " wants the package accelerate.",
        choices=("none", "model", "sequential"),
    )
    slicing: bool = setting(
        False, "Compute controlnet-depth's attention in slices: slower, with less memory."
    )

    def params(self) -> dict[str, Any]:
        """The settings as a dictionary that JSON can hold; not those that save memory, for they may change
        from run to run.
        """
        return {name: value for name, value in super().params().items() if name not in ("offload", "slicing")}


@dataclass(frozen=True)
class TrainConfig(Checked):
    """`shic train`; sec. 3.6 and 4.1. A loss with weight 0 is not computed."""

    encoder: str = setting("auto", "The frozen image encoder, an extractor: " + EXTRACTORS)
    decoder: str = setting(
        "auto",
        "auto, convolutional (the release's layout, on at most 16 by 16 cells: features of finer encoders are averaged), pointwise (for"
        " encoders that see the whole object) or unet (for pixels as they are, the encoder picture).",
        choices=("auto", "convolutional", "pointwise", "unet"),
    )
    recipe: str = setting(
        "auto",
        "What the settings below that are auto or 0 stand for: paper, sec. 4.1; auto, that too but for pointwise and unet, which have"
        " their own.",
        choices=("auto", "paper"),
    )
    dim: int = setting(16, "D, length of an embedding (sec. 4.1).", low=1)
    epochs: int = setting(0, "Passes over the pictures; 0: 40, or 18 for a unet.", low=0)
    batch: int = setting(
        0,
        "Pictures a step, natural and synthetic alike; 0: 16, 4 for a pointwise decoder, 8 for a unet.",
        low=0,
    )
    points: int = setting(100, "Foreground points drawn from a picture in a step (sec. 4.1).", low=2)
    rate: float = setting(
        0.0, "Adam's step size; 0: 0.001, 0.003 for a pointwise decoder, 0.002 for a unet.", low=0
    )
    schedule: str = setting(
        "auto",
        "How the step size falls: step, to a tenth after half of the epochs (sec. 4.1), or cosine, to nothing; auto: cosine for a unet.",
        choices=("auto", "step", "cosine"),
    )
    mirror: str = setting(
        "auto",
        "Show each picture mirrored in every other epoch, with the labels mirrored on the template; auto: for a unet.",
        choices=("auto", "on", "off"),
    )
    pseudo: float = setting(0.1, "alpha, weight of L_pseudo (Eq. 3).", low=0)
    cycle: float = setting(0.002, "beta, weight of L_cyc.", low=0)
    distance: float = setting(0.002, "gamma, weight of L_dist.", low=0)
    equivariance: float = setting(0.001, "delta, weight of L_eq.", low=0)
    synthetic: float = setting(0.1, "zeta, weight of L_syn (Eq. 4).", low=0)
    natural: float = setting(
        -1.0,
        "Weight of the photos' losses together; 0 leaves photos out; -1: 1, or 0 for a unet with synthetic pictures and no annotated ones.",
        low=-1,
    )
    far: float = setting(
        -1.0,
        "Weight of the expected distance from the label on synthetic pictures, which tells legs apart early; -1: 0.003 for a unet, else 0.",
        low=-1,
    )
    near: float = setting(
        -1.0,
        "Weight of telling the near side of the body from the far one on synthetic pictures; -1: 0.1 for a unet, else 0.",
        low=-1,
    )
    own: float = setting(
        -1.0,
        "Weight of the loss of photos by the map's own labels, where it is sure and agrees with itself on the mirrored photo; 0 leaves"
        " them out; -1: 0.05 for a unet with synthetic pictures, else 0.",
        low=-1,
    )
    own_share: float = setting(
        0.25, "Share of a step's pictures that are photos with own labels.", low=0.01, high=0.9
    )
    own_from: float = setting(
        0.4, "Share of the epochs after which photos with own labels are taken.", low=0, high=1
    )
    own_spread: float = setting(
        15.0, "Own labels are taken where their expected error is at most this.", low=0
    )
    foreground: float = setting(
        0.1, "Weight of the foreground output's cross-entropy; encoders that need a mask have none.", low=0
    )
    augment: str = setting(
        "auto",
        "Crop, rotate and jitter the pictures, points and masks together; auto: unless the encoder sees the whole object, or for a unet.",
        choices=("auto", "on", "off"),
    )
    rough: str = setting(
        "auto",
        "Give masks and pictures errors, new at every step: wobbling edges, feet cut off, blur, noise, other light; auto: for a unet.",
        choices=("auto", "on", "off"),
    )
    precision: str = setting(
        "auto",
        "Number format of the decoder's layers; auto: bfloat16 for a unet on a GPU or processor that computes in it, else float32.",
        choices=("auto", "float32", "bfloat16"),
    )
    variants: int = setting(
        2, "Augmented copies of a picture, made once; 0 makes a new one every epoch.", low=0
    )
    natural_images: bool = setting(True, "Use the maps files of photos (Table 3).")
    synthetic_images: bool = setting(True, "Use the maps files of synthetic pictures (Table 3).")


@dataclass(frozen=True)
class PredictConfig(Checked):
    """`shic predict`."""

    side: int = setting(
        512,
        "Embeddings are compared on a grid of at most this many pixels a side; larger photos take the nearest.",
        low=32,
    )
    flip: str = setting(
        "auto",
        "Average the probabilities with those of the picture mirrored left to right; auto: for a model trained with --mirror on.",
        choices=("auto", "on", "off"),
    )
    estimate: str = setting(
        "auto",
        "mode: the likeliest vertex; median: the one with the smallest expected distance, which errs less where legs are hard to tell"
        " apart; auto: median for a unet.",
        choices=("auto", "mode", "median"),
    )
    pictures: bool = setting(True, "Write the colour picture of each image too.")


@dataclass(frozen=True)
class ReleaseConfig(Checked):
    """`shic models import`; the mesh is left as it is, as by `shic template prep --vertices 0`."""

    up: str = setting("auto", "The mesh file's axis that points up.", choices=AXES)
    front: str = setting("auto", "The mesh file's axis that points to the front (head).", choices=AXES)


@dataclass(frozen=True)
class GeodesicConfig(Checked):
    """`shic eval geodesic`; sec. 4.3."""

    dp_scale: float = setting(
        DP_SCALE,
        "dp_x and dp_y run from 0 to this over the box: 255 in DensePose's evaluator, 256 where it trains; they differ by at most 0.4 % of"
        " the box.",
        low=1,
    )
    gps: bool = setting(
        False, "Average precision over the geodesic point similarity too, as DensePose-CSE reports it."
    )


@dataclass(frozen=True)
class PckConfig(Checked):
    """`shic eval pck`; sec. 4.3."""

    alpha: tuple[float, ...] = setting(
        (0.1,),
        "A point is right when it is nearer than this times the longer side of the target image; several: separated by commas.",
        low=0,
    )
    via: str = setting(
        "template",
        "How a model is scored. template: pixel to vertex to pixel; embedding: pixel to pixel; both: a row each.",
        choices=("template", "embedding", "both"),
    )
    protocol: str = setting(
        "image",
        "image: as SD-DINO and the paper, errors against the padded image's side; csm: as CSM, errors against the side of the square around"
        " the object's box and 5 % on each side, pairs drawn at random in both directions, nearest points of the template through space.",
        choices=("image", "csm"),
    )


@dataclass(frozen=True)
class ViewConfig(Checked):
    """`shic view`."""

    most: int = setting(200, "Photos that a page shows, at most.", low=1)
    first: str = setting(
        "name",
        "Which photos are shown where there are more than --most: the first by name, the unsure ones (lowest mean score), or spread evenly"
        " over the names.",
        choices=("name", "unsure", "spread"),
    )
    side: int = setting(
        512,
        "Longer side of a photo in the page, in pixels; of a larger one every n-th pixel is kept, with the file's own value.",
        low=32,
        high=4096,
    )
    near: float = setting(
        10.0,
        "A point is in view where a pixel's vertex lies within this distance of it along the surface; the largest on the mesh is 228.",
        low=0,
        high=228,
    )


@dataclass(frozen=True)
class AnnotateConfig(Checked):
    """`shic annotate`."""

    side: int = setting(
        1024,
        "Longer side of a photo in the page, in pixels; points are saved in the photo's own.",
        low=32,
        high=4096,
    )


@dataclass(frozen=True)
class DemoConfig(Checked):
    """`shic demo`; small enough for two CPU cores and four minutes."""

    photos: int = setting(120, "Photos to learn from.", low=1)
    tests: int = setting(30, "Photos to test on.", low=1)
    synthetic: int = setting(400, "Synthetic pictures.", low=1)
    size: int = setting(192, "Side of each picture in pixels.", low=64, high=1024)
    vertices: int = setting(1500, "Vertices of the template, about; the mesh file has 2000.", low=100)
    epochs: int = setting(40, "Epochs of training.", low=1)
