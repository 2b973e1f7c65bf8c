"""The long commands, killed and stopped and short of space at random moments: tests/crash.py with few runs,
and a folder without rights.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from crash import LONG

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {
    **os.environ,
    "OMP_NUM_THREADS": "1",
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
}


@pytest.mark.parametrize(("hows", "commands"), [(("kill",), LONG), (("term", "int", "limit"), ("features",))])
def test_stopped_runs_end_as_if_they_had_not_been(hows: tuple[str, ...], commands: tuple[str, ...]) -> None:
    options = [word for how in hows for word in ("--how", how)]
    line = [sys.executable, str(ROOT / "tests" / "crash.py"), "--runs", "1", *options, *commands]
    done = subprocess.run(line, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert done.returncode == 0 and set(found) == {f"{command} {how}" for command in commands for how in hows}
    assert all(each["stopped"] >= 1 and each["faults"] == [] for each in found.values()), found


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (signal.SIGINT, "interrupted"),
        (signal.SIGTERM, "stopped by SIGTERM"),
        (signal.SIGHUP, "stopped by SIGHUP"),
    ],
)
def test_a_signal_while_the_libraries_are_loaded_is_two_lines_too(
    tmp_path: Path, number: signal.Signals, word: str
) -> None:
    program = f"""
import builtins, os, signal, sys
# what the process that runs the tests ignores (nohup, a job in the background) would be ignored here too
signal.signal({int(number)}, signal.default_int_handler if {int(number)} == signal.SIGINT else signal.SIG_DFL)
real = builtins.__import__
def load(name, *rest):
    if name.startswith("numpy"):
        os.kill(os.getpid(), {int(number)})
    return real(name, *rest)
builtins.__import__ = load
from shic_cli.cli import main
main(["train"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 128 + number and f"shic: error: {word}\n  finished work is kept" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_signal_when_the_work_is_done_does_not_change_the_status(tmp_path: Path) -> None:
    program = (
        "import atexit, os, signal, sys\nfrom shic_cli.cli import main\n"
        "atexit.register(os.kill, os.getpid(), signal.SIGTERM)\n"
    )
    program += "sys.argv = ['shic', '--version']\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "") and "version" in done.stdout


def test_a_signal_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    program = (
        "import os, signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\nfrom shic_cli "
        "import cli\nfrom shic_cli.cli import info\n"
    )
    program += (
        "import click\n@click.command('info')\ndef command():\n    os.kill(os.getpid(), "
        "signal.SIGHUP)\n    click.echo('went on')\n"
    )
    program += "info.command = command\ncli.main(['info'])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "went on\n")  # as under nohup


def like_anybody() -> None:
    """In a child: the rights of folders count for root too."""
    if os.getuid() == 0:
        PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
        for right in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
            ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, right, 0, 0, 0)


@pytest.mark.parametrize("words", [("synth", "-o", "out/s.h5"), ("render", "-o", "out/v.h5")])
def test_a_folder_that_may_not_be_written_to_is_said_at_once(
    small_template_file: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    (tmp_path / "out").mkdir(mode=0o555)
    line = [sys.executable, "-m", "shic_cli", *words]
    done = subprocess.run(
        line, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, preexec_fn=like_anybody
    )
    lines = [line for line in done.stderr.splitlines() if "auto took" not in line]
    assert done.returncode == 1 and lines == [
        "shic: error: out: can't be written to",
        "  name a file in another folder with -o",
    ]
    assert os.listdir(tmp_path / "out") == []


PGT = "pseudo-gt {} -o {}.h5 --extractor silhouette --azimuths 2 --elevations 0"
FACTS = {
    PGT.format("closed", "a"): ["closed: can't be read (Permission denied)", "check who may read it"],
    PGT.format("imgs", "b") + " --masks closed": [
        "closed: can't be read (Permission denied)",
        "check who may read it",
    ],
    PGT.format("imgs", "c"): [
        "c.h5: another user's run is writing it, or was killed",
        "wait for it to end; if none runs, remove .c.h5.lock beside it",
    ],
    PGT.format("imgs", "d"): [
        "d.h5.journal: Permission denied",
        "check who may read and write there, and whether another program has it open",
    ],
    "predict imgs -o kept.maps.h5": ["kept: can't be written to", "name a file in another folder with -o"],
}
SEVERAL = """
import sys
from shic_cli.cli import main
for line in sys.argv[1:]:
    try:
        main(line.split())
    except SystemExit as ended:
        print("status", ended.code, file=sys.stderr)
"""


def test_what_belongs_to_another_user_is_named_and_costs_what_needs_it(
    folder: Path, small_model_file: Path
) -> None:
    """A folder, a lock and a journal end the command before it computes anything, and a folder of pictures
    at the first picture. A photo and a mask cost that photo, and a folder below theirs is left out.
    """
    for name in ("closed", "imgs/below", "kept"):
        (folder / name).mkdir()
    (folder / "kept").chmod(0o555)
    closed = [
        folder / name
        for name in (
            "closed",
            "imgs/below",
            ".c.h5.lock",
            "d.h5.journal",
            "imgs/photo1.png",
            "masks/photo2.png",
        )
    ]
    for path in closed:
        path.touch()
        path.chmod(0)
    lines = [*FACTS, PGT.format("imgs", "e")]
    done = subprocess.run(
        [sys.executable, "-c", SEVERAL, *lines],
        **{"cwd": folder, "env": ENVIRONMENT, "capture_output": True, "text": True},
        preexec_fn=like_anybody,
    )
    for path in closed:
        path.chmod(0o755)
    *refused, last = done.stderr.split("status ")[:-1]
    for said, (fact, step) in zip(refused, FACTS.values(), strict=True):
        assert said.endswith(f"shic: error: {fact}\n  {step}\n") and said.count("left out imgs") <= 1
    assert done.stderr.endswith("status 4\n") and sorted(folder.glob("*.h5")) == [
        folder / "e.h5",
        folder / "template.h5",
    ]
    for name in ("imgs/photo1.png", "masks/photo2.png"):
        assert f"shic: warning: left out {name}: can't be read (Permission denied)\n" in last
    assert "shic: warning: imgs/below: can't be read (Permission denied): is left out\n" in last
    assert last.endswith("error: 2 of 6 inputs failed: photo1.png, photo2.png\n  the rest is written\n")
