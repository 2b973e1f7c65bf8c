"""The command group: commands in the order of the pipeline, each imported only when it is asked for."""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import click

from shic_cli import __version__
from shic_cli.base.errors import ShicError

# Command -> (module below shic_cli.cli, one line of help), in the order of the pipeline.
COMMANDS = {
    "template": ("template", "Prepare a mesh as the template of a class."),
    "mask": ("mask", "Find the objects in photos: masks."),
    "render": ("render", "Render views of the template."),
    "features": ("features", "Compute features of photos or views."),
    "pseudo-gt": ("pseudo_gt", "Match photos to the template without training."),
    "synth": ("synth", "Make synthetic pictures with exact labels."),
    "train": ("train", "Learn the canonical map."),
    "predict": ("predict", "Map the pixels of images to the template."),
    "join": ("join", "Make one file of the parts that --shard wrote."),
    "dataset": ("dataset", "Take in published data sets."),
    "eval": ("eval", "Score maps: geodesic error, keypoint transfer."),
    "remap": ("remap", "Lay a texture over photos."),
    "match": ("match", "Match two images through the template."),
    "view": ("view", "Look at maps with the mouse: mesh beside photos."),
    "annotate": ("annotate", "Click ground truth: points of photos and of the mesh."),
    "models": ("models", "List and fetch foundation models."),
    "info": ("info", "Say what a file is."),
    "doctor": ("doctor", "Check this machine and installation."),
    "demo": ("demo", "Run the whole pipeline on a self-made example."),
}


SPLIT = ("features", "pseudo-gt", "synth", "train", "predict")  # what torchrun can start on several processes


class _ReaderGone(Exception):
    """The program that reads our output through a pipe has ended; click would exit with 1 for the OSError."""


@contextmanager
def _telling_gone_readers() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise _ReaderGone from error


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is run, so that `shic --help` is quick."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _telling_gone_readers():  # --help writes here
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _telling_gone_readers():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"shic_cli.cli.{COMMANDS[name][0]}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, help) in COMMANDS.items()])


@click.command(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="shic")
@click.option("-v", "--verbose", count=True, help="Say more.")
@click.option("-q", "--quiet", count=True, help="Say only what went wrong.")
def group(verbose: int, quiet: int) -> None:
    """Learn dense image-to-template correspondences for any class from one mesh and masked photos.

    \b
    shic template prep trex.obj            # -> template.h5
    shic pseudo-gt imgs/ -o pgt.h5         # renders the template and matches the photos to it
    shic train                             # -> model.safetensors
    shic predict img.jpg --remap tex.png   # -> img.maps.h5, img.colors.png, img.remap.png
    """
    from shic_cli.cli.console import configure
    from shic_cli.files.shards import Part

    configure(verbose - quiet)
    name = click.get_current_context().invoked_subcommand
    if name not in SPLIT and not Part.of_rank().is_whole:
        raise ShicError(
            f"{name}: can't be split", f"torchrun is for {', '.join(SPLIT)}; start this one without it"
        )


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 1 an error, 2 usage, 3 a package or weights missing, 4 some
    inputs failed.

    Without `args` it is the process's own, and the process is about to end when it is done.
    """
    # Read when torch is loaded. Threads that wait by spinning take the cores from each other as soon as
    # anything else runs beside them: training on two cores was ten times slower then.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _open_closed_streams()
    with _signals(ends=args is None) as came:
        try:
            _run(args, came)
        except (Exception, KeyboardInterrupt):
            if not came:
                raise
            _interrupted(came)  # an interrupted library may raise anything


def _open_closed_streams() -> None:
    """Connect those of stdin, stdout and stderr that the caller closed (`<&-`, `2>&-`) to the null device.

    Else the next file that is opened gets their number, and what a library prints is written into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115 - stays open


# What ends a run in good order: Ctrl-C, what `kill` and job schedulers send, and a terminal that was closed.
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def _signals(ends: bool) -> Iterator[list[int]]:
    """The signals of STOPS that came so far; each raises KeyboardInterrupt. One that is ignored (nohup) stays
    ignored.

    Afterwards they do what they did before, or nothing where the process `ends`: the work is done, and its
    status has to be told.
    """
    came: list[int] = []
    listening = True

    def handle(number: int, frame: FrameType | None) -> None:
        if listening:
            came.append(number)
            raise KeyboardInterrupt

    before = {}
    try:
        for number in STOPS:
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    except ValueError:
        pass  # not in the main thread: signals are the caller's
    try:
        yield came
    finally:
        listening = False
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ends else handler)


def _interrupted(came: list[int]) -> None:
    """Two lines on stderr, and out with the status that a shell gives to the signal."""
    number = came[-1] if came else signal.SIGINT
    name = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    _fail(name, "nothing finished is lost: the same line goes on where this stopped", 128 + number)


def _run(args: list[str] | None, came: list[int]) -> None:
    try:
        sys.exit(group.main(args, prog_name="shic", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ShicError as error:
        if came:  # what an interrupted library raised was taken for a fault of its input
            _interrupted(came)
        _fail(error.message, error.hint, error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _interrupted(came)
    except _ReaderGone:
        for stream in (sys.stdout, sys.stderr):  # what is left in them is written when the process ends
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(141)  # as a shell tells SIGPIPE
    except OSError as error:
        if came:
            raise
        fact = (
            os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
        )  # HDF5 writes a page about it
        _fail(f"{error.filename or 'the output'}: {fact}", _os_hint(error), 1)
    except MemoryError:
        _fail("out of memory", "give smaller pictures, a smaller --batch or fewer --vertices", 1)
    except RuntimeError as error:
        if (
            type(error).__name__ != "OutOfMemoryError"
        ):  # torch's, known by its name: torch is not imported here
            raise
        _fail(
            "out of GPU memory",
            "give --device cpu, a smaller --batch, or side= and batch= as options of the extractor or masker",
            1,
        )


def _fail(message: str, hint: str, status: int) -> None:
    """Two lines on stderr, and out."""
    click.echo(f"shic: error: {message}" + (f"\n  {hint}" if hint else ""), err=True)
    sys.exit(status)


def _os_hint(error: OSError) -> str:
    hints = {
        errno.ENOSPC: "the disk is full: make room and give the same line again; what was finished is kept",
        errno.EDQUOT: "the disk quota is used up: make room and give the same line again",
        errno.EFBIG: "the file grew over a limit: raise it and give the same line again",
        errno.EACCES: "check who may read and write there",
        errno.EROFS: "the file system is read-only: name another place with -o",
    }
    return hints.get(error.errno or 0, "check the path and the disk")
