"""Foundation models by name: what there is, and where it lies on this machine. Nothing is downloaded but by `pull`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shic_cli.errors import MissingError


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
