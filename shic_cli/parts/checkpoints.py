"""Checkpoints of transformers and diffusers: loaded only when they are whole and of the right model.

Their weights are safetensors; pickles are never loaded.
"""

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

from shic_cli.base.errors import InputError, MissingError, ShicError, lacks_memory

AGAIN = "get the weights again, or check the copy"
OTHER = "check that the weights are of the model that was asked for"

VARIANTS = ("fp16", None)  # of the weights, in the order in which they are taken: fp16 has half the size
STEMS = ("model", "diffusion_pytorch_model")  # of the weights' file names in transformers and in diffusers
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


@dataclass(frozen=True)
class Checkpoint:
    """The files in a folder from which a model is loaded: weights of one `variant`, fp16 or None."""

    folder: Path
    variant: str | None
    weights: tuple[Path, ...]

    @classmethod
    def of(cls, folder: Path) -> Checkpoint:
        """The checkpoint in `folder`; InputError when there is none, it lacks files, or has only pickles."""
        try:
            is_config = isinstance(json.loads((folder / "config.json").read_text("utf-8")), dict)
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
            single = folder / f"{stem}{mark}.safetensors"
            index = folder / f"{stem}.safetensors.index{mark}.json"
            if single.exists():
                return cls(folder, variant, (single,))
            if index.exists():
                return cls(folder, variant, _shards(index))
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in PICKLES)
        if pickled:
            raise InputError(
                f"{folder}: its weights are pickled ({pickled[0]}), which is never loaded",
                "convert them to safetensors, or pull another copy",
            )
        raise InputError(f"{folder}: there are no weights in it (*.safetensors)", AGAIN)

    def check(self) -> None:
        """InputError that names the first damaged file of the weights; it reads only headers."""
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
    """The files of weights that an index names, in the order of their names; InputError if one is missing."""
    try:
        names = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{index}: can't be read ({error})", AGAIN) from error
    for name in names:
        if not (index.parent / name).exists():
            raise InputError(f"{index.parent / name}: is not there, though {index.name} names it", AGAIN)
    return tuple(index.parent / name for name in names)


def load(
    cls: Any,
    folder: Path,
    *,
    dtype: Any = None,
    device: Any = None,
    ignore_missing: tuple[str, ...] = (),
    **kwargs: Any,
) -> Any:
    """The frozen module `cls.from_pretrained(folder)` of a class of transformers or diffusers.

    It is in `dtype`, float32 by default, on `device`. Every tensor of the module must be in the checkpoint
    with its shape, but for those whose names start with one of `ignore_missing`. InputError when the folder
    is no checkpoint of `cls`, MissingError when it needs a package that is not installed.
    """
    checkpoint = Checkpoint.of(Path(folder))
    checkpoint.check()
    kwargs |= {"variant": checkpoint.variant, "local_files_only": True, "use_safetensors": True}
    return _loaded(cls, str(folder), folder, dtype, device, ignore_missing, kwargs)


def load_tensors(
    cls: Any, config: Any, tensors: dict[str, Any], where: Path | str, device: Any = None
) -> Any:
    """The frozen module of a class of transformers with the settings `config` and float32 `tensors`.

    The tensors have the names of its checkpoints. Raises the errors of `load`; `where` begins their message.
    """
    return _loaded(cls, None, where, None, device, (), {"config": config, "state_dict": dict(tensors)})


def _loaded(
    cls: Any,
    name: str | None,
    folder: Path | str,
    dtype: Any,
    device: Any,
    ignore_missing: tuple[str, ...],
    kwargs: dict[str, Any],
) -> Any:
    """`cls.from_pretrained(name)` with all that `load` promises; `folder` begins the messages of errors."""
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
                f"{folder}: needs a package that is not here ({first_line(error)})", "install it"
            ) from error
        except MemoryError:
            raise
        except Exception as error:  # the libraries may raise anything for a wrong checkpoint
            raise InputError(
                f"{folder}: can't be loaded as {cls.__name__} ({first_line(error)})", OTHER
            ) from error
    if fault := _fault_of_loading(info, cls.__name__, ignore_missing):
        raise InputError(f"{folder}: {fault}", OTHER)
    module = module.eval().requires_grad_(False)
    try:
        return module.to(device) if device is not None else module
    except RuntimeError as error:
        if not lacks_memory(error):
            raise
        raise ShicError(f"{folder}: does not fit into the memory of {device}", "give --device cpu") from error


def _fault_of_loading(info: dict[str, Any], kind: str, ignore_missing: tuple[str, ...]) -> str:
    """What the `info` of loading a module of class `kind` says is wrong; "" for nothing."""
    for name, here, wanted in sorted(info["mismatched_keys"]):
        return f"{name} is {_shape(here)}, but {kind} with its config.json wants {_shape(wanted)}"
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(ignore_missing))
    if missing:
        shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
        return f"{len(missing)} tensors of {kind} are not in it: {shown}"
    if info["error_msgs"]:
        return f"can't be loaded as {kind} ({first_line(info['error_msgs'][0])})"
    return ""


def fingerprint_of(folder: Path, *subfolders: str) -> str:
    """16 hex digits of a sha256 over the config.json and the weights in `folder`, or in its `subfolders`."""
    digest = hashlib.sha256()
    for place in [folder / name for name in subfolders] or [folder]:
        for path in (place / "config.json", *Checkpoint.of(place).weights):
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


@contextmanager
def silenced(cls: Any) -> Iterator[None]:
    """Silences logs, bars and warnings of the package of `cls`; `load` raises what matters of them."""
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


def first_line(error: object) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return str(error).strip().partition("\n")[0].rstrip(" .:") or type(error).__name__


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"
