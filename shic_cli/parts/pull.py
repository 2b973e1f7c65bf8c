"""Foundation models from the hub: safetensors and settings only, and only the files that are needed."""

from __future__ import annotations

import logging
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shic_cli.base.errors import InputError, ShicError
from shic_cli.parts.weights import (
    DIFFUSION,
    MODELS,
    PICKLES,
    SETTINGS_ONLY,
    STEMS,
    VARIANTS,
    fault_in,
    locate,
    repository_of,
)

log = logging.getLogger("shic")

WEIGHTS = re.compile(
    rf"({'|'.join(STEMS)})(\.fp16)?(-\d+-of-\d+)?(\.fp16)?\.safetensors(\.index(\.fp16)?\.json)?"
)
SETTINGS = (".json", ".txt")
AGAIN = "give the same line again: the files that are finished are kept"


@dataclass(frozen=True)
class Plan:
    """What to fetch of a `repository`: each file's size in bytes, the `parts` they make up, and how many
    `bytes` are not here yet.
    """

    repository: str
    files: dict[str, int]
    parts: tuple[str, ...]
    bytes: int


def pull(name: str, weights: Path | None = None, *, progress: bool = False) -> Path:
    """Fetch a model into the folder `weights`/`name`, or into the hub's cache, and return its folder.

    Files that are finished are kept, so a pull that was stopped goes on. ShicError says why it can't be done:
    the hub does not answer, the licence has to be accepted, there is no such repository, the disk is too
    small, there are no safetensors.
    """
    repository = repository_of(name)
    target = None if weights is None else Path(weights) / name
    with _quiet_hub(progress):
        try:
            plan = _plan(name, repository, target)
            _check_disk(name, plan, target)
            for file in plan.files:
                folder = _fetch(repository, file, target)
        except Unreachable as error:
            return _kept(name, weights, error)
    fault = fault_in(folder, plan.parts)
    if fault:
        raise InputError(
            f"{name}: what the hub sent is not whole ({fault})",
            "delete that file and give the same line again",
        )
    return folder


class Unreachable(ShicError):
    """The hub does not answer."""


def _kept(name: str, weights: Path | None, error: Unreachable) -> Path:
    """The folder of a model that is here already, whether or not the hub can be asked for a newer one."""
    try:
        folder = locate(name, weights)
    except ShicError:
        raise error from error.__cause__
    log.warning("%s: kept the copy that is here, for %s", name, error.message)
    return folder


def _plan(name: str, repository: str, target: Path | None) -> Plan:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT

    with _explained(repository):
        info = HfApi().model_info(repository, files_metadata=True, timeout=HF_HUB_ETAG_TIMEOUT)
    sizes = {each.rfilename: each.size or 0 for each in info.siblings or []}
    parts = MODELS[name].parts if name in MODELS else ()
    if not parts and "model_index.json" in sizes:
        parts = tuple(part for part in DIFFUSION if any(file.startswith(part + "/") for file in sizes))
    files = choose(repository, list(sizes), parts or ("",))

    def here(file: str) -> bool:
        if target is not None:
            return (target / file).is_file() and (target / file).stat().st_size == sizes[file]
        return isinstance(try_to_load_from_cache(repository, file, revision=info.sha), str)

    needed = sum(sizes[file] for file in files if not here(file))
    return Plan(repository, {file: sizes[file] for file in files}, parts or ("",), needed)


def choose(repository: str, files: list[str], parts: tuple[str, ...]) -> list[str]:
    """The files to fetch of a repository's `files`: settings, then one variant of the weights in safetensors,
    of each of `parts`.
    """
    settings, weights = [file for file in ("model_index.json",) if file in files], []
    for part in parts:
        inside = {file.rpartition("/")[2]: file for file in files if file.rpartition("/")[0] == part}
        settings += [
            file
            for base, file in inside.items()
            if base.endswith(SETTINGS) and not WEIGHTS.fullmatch(base) and file not in settings
        ]
        if part in SETTINGS_ONLY:
            continue
        found = {base: WEIGHTS.fullmatch(base) for base in inside}
        by_variant = {
            variant: [inside[base] for base, match in found.items() if match and _variant(match) == variant]
            for variant in VARIANTS
        }
        chosen = next((by_variant[variant] for variant in VARIANTS if by_variant[variant]), None)
        where = f"{repository}/{part}".rstrip("/")
        if chosen is None:
            pickled = next((base for base in inside if base.endswith(PICKLES)), None)
            has = (
                f"only pickles ({pickled}), which are never fetched"
                if pickled
                else "no weights that can be used"
            )
            raise InputError(
                f"{where}: holds {has}; safetensors are wanted",
                "look for a converted copy on the hub, and pull that",
            )
        if "config.json" not in inside:
            raise InputError(
                f"{where}: holds no config.json", "it is no repository of a transformers or diffusers model"
            )
        weights += chosen
    return settings + weights


def _variant(match: re.Match[str]) -> str | None:
    return "fp16" if match[2] or match[4] or match[6] else None


def _check_disk(name: str, plan: Plan, target: Path | None) -> None:
    """ShicError when what is not here yet does not fit on the disk."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = (target or Path(HF_HUB_CACHE)).expanduser().absolute()
    existing = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(existing).free
    if plan.bytes > free:
        raise ShicError(
            f"{name}: {size(plan.bytes)} are needed, and {size(free)} are free at {existing}",
            "make room, or name another disk with --weights",
        )
    if plan.bytes:
        log.info(
            "%s: fetching %s from %s to %s (%s free)",
            name,
            size(plan.bytes),
            plan.repository,
            folder,
            size(free),
        )
    else:
        log.info("%s: is here already", name)


def size(number: float) -> str:
    """Bytes as people say them, for example `346 MB`."""
    for unit in ("bytes", "kB", "MB"):
        if number < 999.5:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def _fetch(repository: str, file: str, target: Path | None) -> Path:
    """Fetch one file; the folder of the model that it lies in."""
    from huggingface_hub import hf_hub_download

    with _explained(repository, file):
        found = Path(hf_hub_download(repository, file, local_dir=target))
    return target or found.parents[file.count("/")]


@contextmanager
def _explained(repository: str, file: str = "") -> Iterator[None]:
    """Everything that the hub's library raises, as a ShicError with what to do about it."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        yield
    except Exception as error:
        # It says that a file is neither there nor here; why it could not be fetched is the cause.
        cause = (
            error.__cause__
            if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, Exception)
            else error
        )
        found = _explain(repository, file, cause)
        if found is None:
            raise
        raise found from error


def _explain(repository: str, file: str, error: Exception) -> ShicError | None:
    """What an error of the hub's library means, None for one that is not of the hub: a full disk, a fault in
    the program.
    """
    from huggingface_hub import constants
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    hub, log_in = constants.ENDPOINT, "`hf auth login` or HF_TOKEN"
    if isinstance(error, OfflineModeIsEnabled):
        return Unreachable(
            f"{repository}: HF_HUB_OFFLINE is set, so nothing is fetched",
            "unset it and give the same line again",
        )
    if isinstance(error, GatedRepoError):
        return ShicError(
            f"{repository}: its licence has to be accepted first",
            f"accept it at {hub}/{repository}, then log in: {log_in}",
        )
    if isinstance(error, RepositoryNotFoundError):
        return InputError(
            f"{repository}: there is no such repository on {hub}",
            f"check the name; a private one needs {log_in}",
        )
    status = (
        error.response.status_code if isinstance(error, HfHubHTTPError) and error.response is not None else 0
    )
    if status in (401, 403):
        return ShicError(
            f"{repository}: {hub} refuses (status {status})", f"check that your token may read it: {log_in}"
        )
    if 0 < status < 500 and status not in (408, 429):
        return InputError(
            f"{repository}: {hub} answers with status {status}",
            "check the name, and HF_ENDPOINT if it is set",
        )
    if status or _is_of_network(error):
        said = (
            f"status {status}"
            if status
            else f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".rstrip(": ")
        )
        if file:
            return Unreachable(f"{repository}: fetching {file} broke off ({said})", AGAIN)
        return Unreachable(
            f"{repository}: {hub} does not answer ({said})",
            "check the network (HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror), or pull elsewhere with --weights FOLDER and copy that",
        )
    if isinstance(error, ValueError | TypeError | KeyError) and not file:
        return InputError(
            f"{repository}: {hub} does not answer like a hub",
            "check HF_ENDPOINT, the proxy, or whether the network wants a login",
        )
    return None


def _is_of_network(error: BaseException) -> bool:
    """Whether an error is one of the HTTP libraries that huggingface_hub has used, of its own checks, or of
    the system's network.
    """
    if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "urllib3"):
        return True
    own = type(error).__name__ == "XetDownloadError" or (isinstance(error, OSError) and error.errno is None)
    return own or isinstance(error, ConnectionError | TimeoutError | RuntimeError)


@contextmanager
def _quiet_hub(progress: bool) -> Iterator[None]:
    """No words of the hub's library on stderr; its bars where `progress`."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from huggingface_hub.utils import logging as logs

    verbosity, bars = logs.get_verbosity(), not are_progress_bars_disabled()
    logs.set_verbosity_error()
    if bars and not progress:
        disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logs.set_verbosity(verbosity)
        if bars and not progress:
            enable_progress_bars()


def summary(names: list[str], weights: Path | None = None) -> list[dict[str, Any]]:
    """What `shic models list` says of each model: its entry, and the folder where it is, None where it is
    not.
    """
    found = []
    for name in names:
        model = MODELS[name]
        try:
            folder: str | None = str(locate(name, weights))
        except ShicError:
            folder = None
        found.append(
            {
                "name": name, "repository": model.repository, "licence": model.licence, "megabytes": model.megabytes,
                "gated": model.gated, "purpose": model.purpose, "folder": folder,
            }
        )  # fmt: skip
    return found
