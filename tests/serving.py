"""A `shic` that serves a page until Ctrl-C: starting it, and ending it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What the process that runs the tests ignores (nohup, a job in the background) would be ignored here too.
PROGRAM = (
    "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    " runpy.run_module('shic_cli', run_name='__main__')"
)


@contextmanager
def serving(folder: Path, *words: str) -> Iterator[str]:
    """The address that `shic WORDS --port 0` prints in `folder`; Ctrl-C has to end it in good order."""
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words, "--port", "0"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=20)
        finally:
            process.kill()  # no server outlives its test; one that has ended is left alone
    assert process.returncode == 0 and "Traceback" not in err, err
