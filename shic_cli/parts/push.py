"""Send a model's files to the hub."""

from __future__ import annotations

from pathlib import Path

from shic_cli.base.errors import SettingError
from shic_cli.base.packages import needed
from shic_cli.parts.hub import explained, quiet_hub
from shic_cli.parts.weights import REPOSITORY


def check_repository(name: str) -> str:
    """The name of a repository, OWNER/NAME; SettingError for any other text."""
    if not REPOSITORY.fullmatch(name):
        raise SettingError(
            f"{name!r} is no name of a repository", "give OWNER/NAME, with your name on the hub"
        )
    return name


def push(repository: str, files: dict[str, Path | bytes], *, private: bool, progress: bool = False) -> str:
    """Send `files`, by their names in the repository, as one commit; the address of the repository.

    The repository is made if there is none; what else it holds is kept. ShicError says why it can't be done:
    the hub does not answer, or the token may not write.
    """
    with needed("the hub"):
        from huggingface_hub import CommitOperationAdd, HfApi, constants

    added = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()
    ]
    with quiet_hub(progress), explained(repository, write=True):
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        api.create_commit(repository, added, commit_message="Model and card by shic models push")
    return f"{constants.ENDPOINT}/{repository}"
