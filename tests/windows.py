"""A pretended Windows for shic_cli's own modules: `python tests/windows.py LINES...` runs lines of `shic`.

What Windows lacks is missing where one of shic_cli's modules looks for it; other packages see the real
system, whose parts of theirs they need. Texts that are read without naming an encoding end the run, because
Windows would read them as cp1252.
"""

from __future__ import annotations

import builtins
import os
import shlex
import signal
import sys
import types
import warnings
from typing import Any

NO_MODULES = {"fcntl", "grp", "posix", "pwd", "resource", "termios"}
LACKS: dict[str, set[str]] = {
    "os": {
        *(
            "fork",
            "getegid",
            "geteuid",
            "getgid",
            "getpgid",
            "getuid",
            "killpg",
            "mkfifo",
            "nice",
            "pread",
            "pwrite",
        ),
        *(
            "sched_getaffinity",
            "setsid",
            "statvfs",
            "sysconf",
            "uname",
            "O_DIRECTORY",
            "O_NOFOLLOW",
            "O_NONBLOCK",
        ),
    },
    "signal": {"SIGHUP", "SIGPIPE", "SIGKILL", "SIGUSR1", "SIGALRM", "SIGXFSZ", "alarm", "pthread_sigmask"},
    "errno": {"EDQUOT"},
    "sys": set(),
}
INSTEAD: dict[str, dict[str, Any]] = {"sys": {"platform": "win32"}, "os": {"name": "nt"}}


def no_signals(pid: int, number: int) -> None:
    """os.kill, which ends the other process on Windows, whatever the signal's number."""
    raise AssertionError(f"os.kill({pid}, {number}) would end process {pid} on Windows")


INSTEAD["os"]["kill"] = no_signals


class Seen(types.ModuleType):
    """A module as shic_cli sees it: without what Windows lacks."""

    def __init__(self, real: types.ModuleType) -> None:
        super().__init__(real.__name__)
        object.__getattribute__(self, "__dict__")["real"] = real

    def __getattribute__(self, name: str) -> Any:
        real = object.__getattribute__(self, "__dict__")["real"]
        module = real.__name__
        if name in LACKS[module]:
            raise AttributeError(f"Windows has no {module}.{name}")
        return INSTEAD.get(module, {}).get(name, getattr(real, name))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(object.__getattribute__(self, "__dict__")["real"], name, value)


def pretend() -> None:
    """Make this process Windows for every module of shic_cli that is imported from now on."""
    real_import = builtins.__import__
    seen = {name: Seen(sys.modules.get(name) or real_import(name)) for name in LACKS}

    def imported(name: str, space: Any = None, *rest: Any, **named: Any) -> Any:
        own = str((space or {}).get("__name__", "")).partition(".")[0] == "shic_cli"
        if own and name in NO_MODULES:
            raise ModuleNotFoundError(f"Windows has no module {name}", name=name)
        return seen[name] if own and name in seen else real_import(name, space, *rest, **named)

    builtins.__import__ = imported
    warnings.filterwarnings("error", category=EncodingWarning, module=r"shic_cli\b")


def main() -> None:
    """Run each argument as a line of `shic`; the first that fails ends this process with its status."""
    assert not hasattr(os, "startfile") and hasattr(signal, "SIGHUP"), "this is Windows, or looks like it"
    pretend()
    from shic_cli.cli import main as shic

    for line in sys.argv[1:]:
        sys.stdout.write(f"$ shic {line}\n")
        try:
            shic(shlex.split(line))
        except SystemExit as ended:
            if ended.code:
                raise


if __name__ == "__main__":
    main()
