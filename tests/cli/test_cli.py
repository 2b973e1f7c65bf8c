"""The command group: help, exit statuses, errors in two lines, and info on every kind."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import numpy as np
import pytest

from shic_cli import __version__, cli
from shic_cli.base.errors import Failures, InputError, MissingError, PartialError, SettingError, ShicError
from shic_cli.cli import COMMANDS, group
from shic_cli.files.arrays import write_arrays
from shic_cli.files.items import ItemWriter
from shic_cli.files.layouts import LAYOUTS

Shic = Callable[..., tuple[int, str, str]]
ORDER = ["template", "mask", "render", "features", "pseudo-gt", "synth", "train", "predict"]
ORDER += ["fit", "join", "dataset", "eval", "remap", "match", "view", "annotate", "export"]
ORDER += ["models", "info", "doctor", "demo"]


def test_help_lists_every_command_in_pipeline_order(shic: Shic) -> None:
    status, out, _ = shic("--help")
    listed = [
        line.split()[0]
        for line in out.partition("Commands:")[2].splitlines()
        if line.startswith("  ") and line[2] != " "
    ]
    assert status == 0 and listed == ORDER
    assert all(help in " ".join(out.split()) for _, help in COMMANDS.values())


@pytest.mark.parametrize("name", ORDER)
def test_every_command_has_help(shic: Shic, name: str) -> None:
    status, out, _ = shic(name, "--help")
    assert status == 0 and f"shic {name}" in out


def commands(
    parent: click.Command, words: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below `parent` with the words that call it."""
    if not isinstance(parent, click.Group):
        yield words, parent
        return
    for name in parent.list_commands(None):
        yield from commands(parent.get_command(None, name), (*words, name))


def test_every_option_says_what_it_is() -> None:
    for words, command in commands(group):
        assert command.help, words
        for option in command.params:
            assert isinstance(option, click.Argument) or option.help, (words, option.name)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom shic_cli.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        "print('|', *[name for name in ('torch', 'numpy', 'h5py', 'cv2', 'rich', 'scipy', 'PIL') if"
        " name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.rpartition("|")[2].split() == []


def test_the_package_imports_nothing_heavy() -> None:
    program = (
        "import sys, shic_cli\nprint(*[name for name in ('torch', 'numpy', 'h5py', 'click') "
        "if name in sys.modules])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout.split()
        == []
    )


def test_version(shic: Shic) -> None:
    assert shic("--version")[:2] == (0, f"shic, version {__version__}\n")
    done = subprocess.run(
        [sys.executable, "-m", "shic_cli", "--version"], capture_output=True, text=True, check=True
    )
    assert __version__ in done.stdout


def raising(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Let `shic info` raise `error`."""

    @click.command("info")
    def command() -> None:
        raise error

    monkeypatch.setattr("shic_cli.cli.info.command", command)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (ShicError("a.h5: a fact", "a step"), 1, "shic: error: a.h5: a fact\n  a step\n"),
        (InputError("a.h5: a fact"), 1, "shic: error: a.h5: a fact\n"),
        (SettingError("--x 3: a fact", "a step"), 2, "shic: error: --x 3: a fact\n  a step\n"),
        (MissingError("no weights", "pull them"), 3, "shic: error: no weights\n  pull them\n"),
        (
            PartialError("1 of 2 failed", "the rest is written"),
            4,
            "shic: error: 1 of 2 failed\n  the rest is written\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device", "big.h5"),
            1,
            "big.h5: No space left on device\n  the disk is full",
        ),
        (PermissionError(errno.EACCES, "Permission denied", "x"), 1, "x: Permission denied\n  check who may"),
        (MemoryError(), 1, "out of memory\n"),
        (
            type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory.\nTried"),
            1,
            "out of GPU memory\n  give --device cpu",
        ),
    ],
)
def test_exit_statuses_and_two_lines(
    shic: Shic, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, said: str
) -> None:
    raising(monkeypatch, error)
    found, out, err = shic("info")
    assert (
        (found, out) == (status, "") and said in err and len(err.strip().splitlines()) <= 2
    )  # click ends the line of ^C


@pytest.mark.parametrize("kind", [ZeroDivisionError, RuntimeError])
def test_a_defect_is_not_hidden(monkeypatch: pytest.MonkeyPatch, kind: type[Exception]) -> None:
    raising(monkeypatch, kind())
    with pytest.raises(kind):
        cli.main(["info"])


@pytest.mark.parametrize(
    "words",
    [("nothing",), ("info",), ("info", "--what"), ("train", "--epochs", "many"), ("render", "--style", "x")],
)
def test_wrong_usage_is_status_2(shic: Shic, words: tuple[str, ...]) -> None:
    status, out, err = shic(*words)
    assert status == 2 and out == "" and len(err.splitlines()) == 2
    assert err.startswith("shic: error: ") and "--help` shows what it takes" in err


def test_the_name_of_a_file_keeps_its_capital() -> None:
    assert cli._faulty_line(click.UsageError("Horse.h5 holds 2 images"))[0] == "Horse.h5 holds 2 images"


def test_settings_out_of_range_are_status_2(shic: Shic) -> None:
    status, _, err = shic("train", "--points", "-1")
    assert status == 2 and "--points -1: is out of range\n  give 0 or more" in err


def test_a_broken_pipe_is_quiet() -> None:
    program = "import click\nfrom shic_cli import cli\nfrom shic_cli.cli import info\n"
    program += (
        "@click.command('info')\ndef command():\n    raise BrokenPipeError\ninfo.command = "
        "command\ncli.main(['info'])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 141 and done.stderr == ""


def test_failures_are_counted() -> None:
    failures = Failures()
    for name in ("a", "b"):
        with failures.catch(name):
            raise InputError(f"{name}: bad", "mend it")
    failures.check(3)
    with pytest.raises(PartialError, match="2 of 3 inputs failed: a, b"):
        failures.report(3)
    with pytest.raises(InputError, match="all 2 inputs failed; the first: a: bad"):
        failures.check(2)


def test_the_only_input_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures(1)
    with failures.catch("a"):
        raise InputError("a: bad", "mend it")
    with pytest.raises(InputError, match=r"^a: bad\n  mend it$"):
        failures.check(1)
    assert caplog.messages == []
    Failures().report(3)
    with pytest.raises(ZeroDivisionError), failures.catch("c"):
        raise ZeroDivisionError


def write_kind(path: Path, kind: str) -> None:
    """A small file of `kind`."""
    layout = LAYOUTS[kind]
    attrs = {name: "pseudo" if name == "labels" else name.upper() for name in layout.attrs}
    sizes = {axis: 2 + i for i, axis in enumerate("KFTQMNHWDhwB")}

    def array(field: object) -> np.ndarray:
        return np.zeros([sizes.get(axis, axis) for axis in field.axes], field.dtype)

    common = {"params": {"size": 7}, "sources": {"mesh": {"path": "a.obj"}}, "attrs": attrs}
    if not layout.items:
        write_arrays(
            path,
            kind,
            {name: array(field) for name, field in layout.fields.items()},
            overwrite=True,
            **common,
        )
        return
    with ItemWriter(path, kind, **common) as writer:
        writer.add("a.jpg", **{name: array(field) for name, field in layout.items.items()})


@pytest.mark.parametrize("kind", LAYOUTS)
def test_info_on_every_kind(shic: Shic, tmp_path: Path, kind: str) -> None:
    write_kind(tmp_path / "x.h5", kind)
    status, out, _ = shic("info", "x.h5", "--json")
    found = json.loads(out)
    assert (
        status == 0
        and found["kind"] == kind
        and found["version"] == 1
        and found["shic_version"] == __version__
    )
    assert found["params"] == {"size": 7} and found["sources"] == {"mesh": {"path": "a.obj"}}
    assert set(found["attributes"]) == set(LAYOUTS[kind].attrs)
    assert {name for name, field in LAYOUTS[kind].fields.items() if not field.optional} <= set(
        found["fields"]
    )
    status, out, _ = shic("info", "x.h5")
    assert status == 0 and f"kind: {kind}" in out and "size: 7" in out


def test_info_on_a_model(shic: Shic, small_model_file: Path) -> None:
    status, out, _ = shic("info", small_model_file, "--json")
    found = json.loads(out)
    assert status == 0 and found["kind"] == "shic/model" and found["encoder"] == {"name": "silhouette"}
    assert found["fields"]["surface.verts"] == [642, 3]


@pytest.mark.parametrize("name", ["none.h5", "none.safetensors", "text.h5", "text.safetensors", "."])
def test_info_on_what_is_none(shic: Shic, tmp_path: Path, name: str) -> None:
    for suffix in (".h5", ".safetensors"):
        (tmp_path / f"text{suffix}").write_text("hello")
    status, out, err = shic("info", name)
    assert status == 1 and out == "" and name in err and len(err.splitlines()) == 2


@pytest.mark.parametrize(("flag", "lines"), [((), 1), (("-q",), 0), (("-v",), 2)])
def test_verbosity(shic: Shic, monkeypatch: pytest.MonkeyPatch, flag: tuple[str, ...], lines: int) -> None:
    @click.command("info")
    def command() -> None:
        from shic_cli.base.errors import log

        log.info("a note")
        log.debug("a detail")

    monkeypatch.setattr("shic_cli.cli.info.command", command)
    status, out, err = shic(*flag, "info")
    assert (status, out) == (0, "") and len(err.splitlines()) == lines


def test_a_full_disk_is_two_lines_with_the_next_step(shic, monkeypatch):
    import errno

    from shic_cli.stages import info

    def full(path):
        raise OSError(errno.ENOSPC, "Can't close file (file write failed: time = today\n, errno = 28)")

    monkeypatch.setattr(info, "describe", full)
    status, out, err = shic("info", "x.h5")
    assert (status, out) == (1, "") and len(err.splitlines()) == 2
    assert "No space left" in err and "same line again" in err


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("predct",), 2, "no such command 'predct'\n  did you mean predict? `shic --help` shows"),
        (("synth", "--coats", "1"), 2, "--coats'\n  did you mean one of: '--class', '--photo-coats', "),
        (
            ("train", "--epochs", "a"),
            2,
            "'a' is not a valid integer\n  `shic train --help` shows what it takes",
        ),
        (("predict", "a.png", "--model", "template.h5"), 1, "template.h5: is an HDF5 file, not a model"),
        (("synth", "trex.obj"), 1, "`shic template prep trex.obj` makes template.h5 of it"),
        (("train", "imgs"), 1, "imgs: is a folder"),
    ],
)
def test_what_is_named_by_mistake_is_told_with_the_next_step(
    shic: Shic, small_template_file: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    (small_template_file.parent / "trex.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    (small_template_file.parent / "imgs").mkdir()
    (small_template_file.parent / "a.png").write_bytes(b"")
    found, _, err = shic(*words)
    assert found == status and said in err and "Traceback" not in err
