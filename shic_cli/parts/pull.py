"""Foundation models from the hub: only safetensors and settings, and of these only what is needed.

The files are fetched one by one and not by huggingface_hub.snapshot_download: that does not say which file
broke off, and where the hub fails it returns the folder that is there, whole or not.
"""

from __future__ import annotations

import logging
import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shic_cli.base.errors import InputError, ShicError
from shic_cli.parts.checkpoints import PICKLES, STEMS, VARIANTS
from shic_cli.parts.contract import said
from shic_cli.parts.weights import DIFFUSION, MODELS, SETTINGS_ONLY, fault_in, locate, repository_of

log = logging.getLogger("shic")

WEIGHTS = re.compile(
    rf"({'|'.join(STEMS)})(\.fp16)?(-\d+-of-\d+)?(\.fp16)?\.safetensors(\.index(\.fp16)?\.json)?"
)
SETTINGS = (".json", ".txt")
AGAIN = "give the same line again: the files that are finished are kept"


@dataclass(frozen=True)
class Plan:
    """What to fetch of a `repository`: the size of each of its `files` in bytes, and the `parts` in them.

    `bytes` is how much of it is not on this machine yet.
    """

    repository: str
    files: dict[str, int]
    parts: tuple[str, ...]
    bytes: int


def pull(name: str, weights: Path | None = None, *, progress: bool = False) -> Path:
    """The folder of a model, after fetching it into `weights`/`name`, or into the hub's cache.

    Files that are complete are not fetched again, so that a pull that was stopped goes on. ShicError says why
    a model can't be fetched: the hub does not answer, the licence has to be accepted, there is no such
    repository, the disk is too small, or there are no safetensors.
    """
    repository = repository_of(name)
    if name in MODELS and MODELS[name].address:
        from shic_cli.parts import outside

        return outside.fetch(name, weights)
    target = None if weights is None else Path(weights) / name
    with _quiet_hub(progress):
        try:
            plan = _plan(name, repository, target)
            _check_disk(name, plan, target)
            folders = [_fetch(repository, file, target) for file in plan.files]
        except Unreachable as error:
            return _kept(name, weights, error)
    if fault := fault_in(folders[0], plan.parts):
        fact = f"{name}: what the hub sent is not whole ({fault})"
        raise InputError(fact, "delete that file and give the same line again")
    return folders[0]


class Unreachable(ShicError):
    """The hub does not answer."""


def _kept(name: str, weights: Path | None, error: Unreachable) -> Path:
    """The folder of a model that is on this machine already; `error` again where it is not."""
    try:
        folder = locate(name, weights)
    except ShicError:
        raise error from error.__cause__
    log.warning("%s: kept the copy that is here (%s)", name, error.message)
    return folder


def _plan(name: str, repository: str, target: Path | None) -> Plan:
    """What to fetch of a model; the hub is asked which files there are."""
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT

    with _explained(repository):
        info = HfApi().model_info(repository, files_metadata=True, timeout=HF_HUB_ETAG_TIMEOUT)
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    parts = MODELS[name].parts if name in MODELS else ()
    if not parts and "model_index.json" in sizes:
        parts = tuple(part for part in DIFFUSION if any(file.startswith(part + "/") for file in sizes))
    files = choose(repository, list(sizes), parts or ("",))

    def is_here(file: str) -> bool:
        if target is not None:
            return (target / file).is_file() and (target / file).stat().st_size == sizes[file]
        return isinstance(try_to_load_from_cache(repository, file, revision=info.sha), str)

    needed = sum(sizes[file] for file in files if not is_here(file))
    return Plan(repository, {file: sizes[file] for file in files}, parts or ("",), needed)


def choose(repository: str, files: list[str], parts: tuple[str, ...]) -> list[str]:
    """The files to fetch of a repository's `files`, for each of `parts`: settings first, then weights.

    The weights are safetensors of one variant. InputError where there are none, or no config.json.
    """
    settings, weights = [file for file in ("model_index.json",) if file in files], []
    for part in parts:
        inside = {file.rpartition("/")[2]: file for file in files if file.rpartition("/")[0] == part}
        settings += [
            file
            for base, file in inside.items()
            if base.endswith(SETTINGS) and not WEIGHTS.fullmatch(base) and file not in settings
        ]
        if part not in SETTINGS_ONLY:
            weights += _weights(inside, f"{repository}/{part}".rstrip("/"))
    return settings + weights


def _weights(inside: dict[str, str], where: str) -> list[str]:
    """The files of the weights of one folder: `inside` has the path of each file by its name."""
    matches = {base: WEIGHTS.fullmatch(base) for base in inside}
    by_variant = {
        variant: [inside[base] for base, match in matches.items() if match and _variant(match) == variant]
        for variant in VARIANTS
    }
    chosen = next((by_variant[variant] for variant in VARIANTS if by_variant[variant]), None)
    if chosen is None:
        pickled = next((base for base in inside if base.endswith(PICKLES)), None)
        only_pickles = f"only pickles ({pickled}), which are never fetched"
        holds = only_pickles if pickled else "no weights that can be used"
        raise InputError(
            f"{where}: holds {holds}; safetensors are wanted",
            "look for a converted copy on the hub, and pull that",
        )
    if "config.json" not in inside:
        raise InputError(
            f"{where}: holds no config.json", "it is no repository of a transformers or diffusers model"
        )
    return chosen


def _variant(match: re.Match[str]) -> str | None:
    """The variant that the name of a file of weights gives: fp16, or None for the plain one."""
    return "fp16" if match[2] or match[4] or match[6] else None


def _check_disk(name: str, plan: Plan, target: Path | None) -> None:
    """Log what is fetched, and to where; ShicError when it does not fit on the disk."""
    from huggingface_hub.constants import HF_HUB_CACHE

    folder = (target or Path(HF_HUB_CACHE)).expanduser().absolute()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if plan.bytes > free:
        raise ShicError(
            f"{name}: {size(plan.bytes)} are needed, and {size(free)} are free at {existing}",
            "make room, or name another disk with --weights",
        )
    if not plan.bytes:
        log.info("%s: is here already", name)
        return
    fetching = "%s: fetching %s from %s to %s (%s free)"
    log.info(fetching, name, size(plan.bytes), plan.repository, folder, size(free))


def size(number: float) -> str:
    """A number of bytes as people say it, for example `346 MB`."""
    for unit in ("bytes", "kB", "MB"):
        if number < 999.5:
            return f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.1f} GB"


def _fetch(repository: str, file: str, target: Path | None) -> Path:
    """The folder of the model, after fetching one of its files."""
    from huggingface_hub import hf_hub_download

    with _explained(repository, file):
        path = Path(hf_hub_download(repository, file, local_dir=target))
    return target or path.parents[file.count("/")]


@contextmanager
def _explained(repository: str, file: str = "") -> Iterator[None]:
    """Turns whatever the hub's library raises into a ShicError with the next step."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        yield
    except Exception as error:
        # A LocalEntryNotFoundError only says that a file is missing; its cause says why it was not fetched.
        is_missing = isinstance(error, LocalEntryNotFoundError)
        cause = error.__cause__ if is_missing and isinstance(error.__cause__, Exception) else error
        explained = _explain(repository, file, cause)
        if explained is None:
            raise
        raise explained from error


def _explain(repository: str, file: str, error: Exception) -> ShicError | None:
    """What an error of the hub's library means; None for an error that has nothing to do with the hub.

    `file` is what was fetched, "" where the hub was asked about the repository.
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
        fact = f"{repository}: HF_HUB_OFFLINE is set, so nothing is fetched"
        return Unreachable(fact, "unset it and give the same line again")
    if isinstance(error, GatedRepoError):
        fact = f"{repository}: its licence has to be accepted first"
        return ShicError(fact, f"accept it at {hub}/{repository}, then log in: {log_in}")
    if isinstance(error, RepositoryNotFoundError):
        fact = f"{repository}: there is no such repository on {hub}"
        return InputError(fact, f"check the name; a private one needs {log_in}")
    status = 0
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
    if status in (401, 403):
        fact = f"{repository}: {hub} refuses (status {status})"
        return ShicError(fact, f"check that your token may read it: {log_in}")
    if 0 < status < 500 and status not in (408, 429):
        fact = f"{repository}: {hub} answers with status {status}"
        return InputError(fact, "check the name, and HF_ENDPOINT if it is set")
    if status or _is_of_network(error):
        return _unreachable(repository, file, f"status {status}" if status else said(error))
    if isinstance(error, ValueError | TypeError | KeyError) and not file:
        fact = f"{repository}: {hub} does not answer like a hub"
        return InputError(fact, "check HF_ENDPOINT, the proxy, or whether the network wants a login")
    return None


def _unreachable(repository: str, file: str, reason: str) -> Unreachable:
    """The error that the hub did not answer, or broke off while it sent `file`."""
    from huggingface_hub.constants import ENDPOINT

    if file:
        return Unreachable(f"{repository}: fetching {file} broke off ({reason})", AGAIN)
    hint = (
        "check the network (HTTPS_PROXY names a proxy, HF_ENDPOINT a mirror), "
        "or pull elsewhere with --weights FOLDER and copy that"
    )
    return Unreachable(f"{repository}: {ENDPOINT} does not answer ({reason})", hint)


def _is_of_network(error: BaseException) -> bool:
    """Whether an error comes from the network.

    It may be of the HTTP libraries that huggingface_hub has used, of its own checks, or of the system.
    """
    if type(error).__module__.partition(".")[0] in ("httpx", "httpx2", "httpcore", "requests", "urllib3"):
        return True
    own = type(error).__name__ == "XetDownloadError" or (isinstance(error, OSError) and error.errno is None)
    return own or isinstance(error, ConnectionError | TimeoutError | RuntimeError)


@contextmanager
def _quiet_hub(progress: bool) -> Iterator[None]:
    """Silences the logs and warnings of the hub's library, and its bars unless `progress`."""
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
    """What `shic models list` says of each model: its entry in MODELS, and its `folder` or None."""
    return [{"name": name, **_entry(name), "folder": _folder(name, weights)} for name in names]


def _entry(name: str) -> dict[str, Any]:
    return {
        key: value for key, value in asdict(MODELS[name]).items() if key not in ("parts", "address", "digest")
    }


def _folder(name: str, weights: Path | None) -> str | None:
    try:
        return str(locate(name, weights))
    except ShicError:
        return None
