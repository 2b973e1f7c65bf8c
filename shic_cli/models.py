"""Foundation models by name: what there is, and where it lies on this machine. Nothing is downloaded but by `pull`."""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shic_cli.errors import InputError, MissingError, ShicError

AGAIN = "get the weights again, or check the copy"
OTHER = "check that the weights are of the model that was asked for"


@dataclass(frozen=True)
class Model:
    """A model of the hub: its repository, licence, about how many megabytes `pull` fetches, and what it is for."""

    repository: str
    licence: str
    megabytes: int
    purpose: str
    parts: tuple[str, ...] = ()  # the folders of the repository that are needed; none: its root


MODELS: dict[str, Model] = {
    "dinov2-small": Model("facebook/dinov2-small", "Apache-2.0", 88, "the paper's encoder; extractor dinov2-small"),
    "dinov2-base": Model("facebook/dinov2-base", "Apache-2.0", 346, "extractors dinov2 and sd-dino"),
    "dinov2-large": Model("facebook/dinov2-large", "Apache-2.0", 1218, "extractor dinov2-large"),
}


def locate(name: str, weights: Path | None = None) -> Path:
    """The folder of a model: `name` is one of MODELS, a hub repository `owner/name`, or a folder.

    Looked for as it is, in the folder `weights` (by either name, or its last part), and in the hub's cache on this machine, without
    a network. MissingError (status 3) says the one command that gets it.
    """
    repository = MODELS[name].repository if name in MODELS else name
    folders = [Path(name)] if name not in MODELS else []
    if weights is not None:
        folders += [weights / each for each in (name, repository, repository.rpartition("/")[2])]
    for folder in folders:
        if folder.is_dir():
            return folder
    found = _cached(repository)
    if found is None:
        raise MissingError(f"{name}: its weights are not on this machine", f"get them with `shic models pull {name}`, or give --weights")
    return found


def _cached(repository: str) -> Path | None:
    """The repository's folder in the hub's cache, None if it is not there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


STEMS = ("model", "diffusion_pytorch_model")  # of a transformers and of a diffusers checkpoint's weights files
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Checkpoint:
    """The files of a folder that a model is loaded from: weights of one `variant` (None, or fp16), all safetensors."""

    folder: Path
    variant: str | None
    weights: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path) -> Checkpoint:
        """The checkpoint in `folder`; InputError when it is none, is incomplete, or holds only pickles."""
        try:
            is_config = isinstance(json.loads((folder / "config.json").read_text()), dict)
        except FileNotFoundError as error:
            raise InputError(f"{folder}: is no checkpoint, there is no config.json in it", "name the folder that has one") from error
        except (OSError, ValueError) as error:
            raise InputError(f"{folder / 'config.json'}: can't be read ({error})", AGAIN) from error
        if not is_config:
            raise InputError(f"{folder / 'config.json'}: holds no settings", AGAIN)
        for variant, stem in itertools.product((None, "fp16"), STEMS):
            mark = f".{variant}" if variant else ""
            single, index = folder / f"{stem}{mark}.safetensors", folder / f"{stem}.safetensors.index{mark}.json"
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
                        raise InputError(f"{path}: is a Git LFS pointer in place of the weights", "run `git lfs pull` there")
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
    """The frozen module `cls.from_pretrained(folder)` of a transformers or diffusers class, in `dtype` (float32), on `device`.

    Every tensor of the module must be in the checkpoint with its shape, but for those whose names start with one of
    `ignore_missing`. InputError when the folder is no checkpoint of `cls`, MissingError when it needs a package that is not here.
    """
    import torch

    found, dtype = Checkpoint.of(Path(folder)), dtype or torch.float32
    found.check()
    own = {"torch_dtype": dtype} if cls.__module__.startswith("diffusers.") else {"dtype": dtype, "trust_remote_code": False}
    kwargs |= {**own, "variant": found.variant}
    kwargs |= {"local_files_only": True, "use_safetensors": True, "output_loading_info": True, "ignore_mismatched_sizes": True}
    with _silenced(cls):
        try:
            module, info = cls.from_pretrained(str(folder), **kwargs)
        except ImportError as error:
            raise MissingError(f"{folder}: needs a package that is not here ({_first_line(error)})", "install it") from error
        except MemoryError:
            raise
        except Exception as error:  # the libraries raise anything at all for a checkpoint that is wrong
            raise InputError(f"{folder}: can't be loaded as {cls.__name__} ({_first_line(error)})", OTHER) from error
    for name, here, wanted in sorted(info["mismatched_keys"]):
        raise InputError(f"{folder}: {name} is {_shape(here)}, but {cls.__name__} with its config.json wants {_shape(wanted)}", OTHER)
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(ignore_missing))
    if missing:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        raise InputError(f"{folder}: {len(missing)} tensors of {cls.__name__} are not in it: {shown}", OTHER)
    if info["error_msgs"]:
        raise InputError(f"{folder}: can't be loaded as {cls.__name__} ({_first_line(info['error_msgs'][0])})", OTHER)
    module = module.eval().requires_grad_(False)
    try:
        return module.to(device) if device is not None else module
    except torch.OutOfMemoryError as error:
        raise ShicError(f"{folder}: does not fit into the memory of {device}", "give --device cpu") from error


def fingerprint_of(folder: Path, *subfolders: str) -> str:
    """16 hex digits of a sha256 over what is loaded from `folder`, or from its `subfolders`: config.json and the weights."""
    digest = hashlib.sha256()
    for each in [folder / name for name in subfolders] or [folder]:
        for path in (each / "config.json", *Checkpoint.of(each).weights):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


@contextmanager
def _silenced(cls: Any) -> Iterator[None]:
    """No logs, progress bars or warnings of the package that `cls` is of: what matters of them is raised by `load`."""
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
