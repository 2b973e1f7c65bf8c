"""The hub: what its library's errors mean, and how to keep the library quiet."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from shic_cli.base.errors import InputError, ShicError
from shic_cli.base.packages import needed, require
from shic_cli.parts.contract import said

AGAIN = "give the same line again: the files that are finished are kept"


class Unreachable(ShicError):
    """The hub does not answer."""


@contextmanager
def explained(repository: str, file: str = "", write: bool = False) -> Iterator[None]:
    """Turns whatever the hub's library raises into a ShicError with the next step.

    `write`: the block writes to the repository, and does not read it.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        yield
    except Exception as error:
        # A LocalEntryNotFoundError only says that a file is missing; its cause says why it was not fetched.
        is_missing = isinstance(error, LocalEntryNotFoundError)
        cause = error.__cause__ if is_missing and isinstance(error.__cause__, Exception) else error
        told = _explain(repository, file, cause, write)
        if told is None:
            raise
        raise told from error


def _explain(repository: str, file: str, error: Exception, write: bool) -> ShicError | None:
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
        fact = f"{repository}: HF_HUB_OFFLINE is set, so nothing is {'sent' if write else 'fetched'}"
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
        return ShicError(fact, f"check that your token may {'write' if write else 'read'} it: {log_in}")
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
def quiet_hub(progress: bool) -> Iterator[None]:
    """Silences the logs and warnings of the hub's library, and its bars unless `progress`."""
    require("huggingface_hub", "the hub")
    with needed("the hub"):
        from huggingface_hub.utils import (
            are_progress_bars_disabled,
            disable_progress_bars,
            enable_progress_bars,
        )
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
