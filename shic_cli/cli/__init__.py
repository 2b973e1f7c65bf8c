"""The command group: commands in the order of the pipeline, each imported only when it is needed."""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import click

from shic_cli import __version__
from shic_cli.base.errors import ShicError, lacks_memory, lacks_operator
from shic_cli.cli.bars import DISPLAY

# Command -> (module below shic_cli.cli, one line of help), in the order of the pipeline.
COMMANDS = {
    "template": ("template", "Prepare a mesh as the template of a class."),
    "mask": ("mask", "Make masks of the objects in photos."),
    "render": ("render", "Render views of the template."),
    "features": ("features", "Compute features of photos or views."),
    "pseudo-gt": ("pseudo_gt", "Match photos to the template without training."),
    "synth": ("synth", "Make synthetic pictures with exact labels."),
    "train": ("train", "Learn the canonical map."),
    "predict": ("predict", "Map the pixels of images to the template."),
    "fit": ("fit", "Fit the template's body to maps: a posed mesh for each photo."),
    "join": ("join", "Join the parts that --shard wrote to one file."),
    "dataset": ("dataset", "Convert published data sets."),
    "eval": ("eval", "Score maps by geodesic error or keypoint transfer."),
    "remap": ("remap", "Lay a texture over photos."),
    "match": ("match", "Match two images through the template."),
    "view": ("view", "Look at maps with the mouse: mesh beside photos."),
    "annotate": ("annotate", "Click ground truth: points of photos and of the mesh."),
    "export": ("export", "Take results to other programs: glb, ply, csv, COCO, mp4, ONNX."),
    "models": ("models", "List and fetch foundation models."),
    "info": ("info", "Describe a file."),
    "doctor": ("doctor", "Check this machine and installation."),
    "demo": ("demo", "Run the whole pipeline on a self-made example."),
}


SPLIT = (
    "features",
    "pseudo-gt",
    "synth",
    "train",
    "predict",
)  # torchrun can start these on several processes


class _ReaderGone(Exception):
    """The program that reads our output through a pipe has ended; for the OSError click would exit with 1."""


@contextmanager
def _telling_gone_readers() -> Iterator[None]:
    """Raise _ReaderGone if the reader of stdout has ended."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as error:
        raise _ReaderGone from error


class LazyGroup(click.Group):
    """A group that imports a command's module only when the command is run, so `shic --help` is quick."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _telling_gone_readers():  # --help writes its text here
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _telling_gone_readers():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            near = difflib.get_close_matches(cmd_name, COMMANDS, n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"No such command {cmd_name!r}.{hint}")
        return importlib.import_module(f"shic_cli.cli.{COMMANDS[cmd_name][0]}").command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, help) in COMMANDS.items()])


@click.command(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="shic")
@click.option("-v", "--verbose", count=True, help="Print more messages.")
@click.option("-q", "--quiet", count=True, help="Print only errors.")
def group(verbose: int, quiet: int) -> None:
    """Learn dense image-to-template correspondences for any class from one mesh and masked photos.

    \b
    shic template prep trex.obj                   # -> template.h5
    shic pseudo-gt imgs/ -o pgt.h5                # renders the template and matches the photos to it
    shic synth                                    # -> synth.h5: posed pictures with exact labels
    shic train                                    # -> model.safetensors
    shic predict imgs/trex01.jpg --remap checker  # -> maps, colours, a texture that follows the surface
    shic fit trex01.maps.h5                       # the mesh in the photo's pose
    """
    from shic_cli.cli.console import configure
    from shic_cli.files.shards import Part

    configure(verbose - quiet)
    name = click.get_current_context().invoked_subcommand
    if name not in SPLIT and not Part.of_rank().is_whole:
        raise ShicError(
            f"{name}: can't be split", f"torchrun runs {', '.join(SPLIT)}; start {name} without it"
        )


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its status.

    0: done. 1: an error. 2: wrong usage. 3: a package or weights are missing. 4: done, but some inputs
    failed. Without `args` it runs the process's own command line, and the process ends afterwards.
    """
    # OpenMP reads this when torch is loaded. Threads that wait in a busy loop take the cores from each other
    # as soon as anything else runs: training on two cores was then ten times slower.
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
    """Connect stdin, stdout and stderr to the null device where the caller closed them (`<&-`, `2>&-`), and
    let them read and write UTF-8.

    Otherwise the next file that is opened would get their number, and the output of a library would be
    written into it.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(number, True)
    os.close(number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115 - stays open
        elif sys.platform == "win32" and isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8")  # a pipe or a file has an older encoding there


# These end a run in good order: Ctrl-C, the signal of `kill` and job schedulers, and a terminal that closes,
# which on Windows gives no signal.
STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def _signals(ends: bool) -> Iterator[list[int]]:
    """The signals of STOPS that came so far; each raises KeyboardInterrupt.

    A signal that is ignored (nohup) stays ignored. At the end the handlers are restored, or, if the process
    `ends`, the signals are ignored: the work is done, and the exit status has to be reported.
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
        pass  # this is not the main thread, so signals belong to the caller
    try:
        yield came
    finally:
        listening = False
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if ends else handler)


def _interrupted(came: list[int]) -> None:
    """Print two lines to stderr and exit with the status that a shell gives to the signal."""
    number = came[-1] if came else signal.SIGINT
    name = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
    _fail(name, "finished work is kept: give the same line again to continue", 128 + number)


def _run(args: list[str] | None, came: list[int]) -> None:
    """Run the group, and turn every expected error into two lines and a status."""
    try:
        sys.exit(group.main(args, prog_name="shic", standalone_mode=False))
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(error.exit_code)
    except click.ClickException as error:
        _fail(*_faulty_line(error), error.exit_code)
    except ShicError as error:
        if came:  # the error comes from the interruption and not from an input
            _interrupted(came)
        _fail(error.message, error.hint, error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _interrupted(came)
    except _ReaderGone:
        for stream in (sys.stdout, sys.stderr):  # their buffers are written when the process ends
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        sys.exit(141)  # the status that a shell gives to SIGPIPE
    except OSError as error:
        if came:
            raise
        # HDF5 writes a page about the error; its first line is enough
        fact = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
        _fail(f"{error.filename or 'the output'}: {fact}", _os_hint(error), 1)
    except MemoryError:
        _fail("out of memory", "give smaller pictures, a smaller --batch or fewer --vertices", 1)
    except (RuntimeError, TypeError) as error:
        if lacking := lacks_operator(error):
            other = ", or set PYTORCH_ENABLE_MPS_FALLBACK=1: the CPU does what is missing then"
            hint = f"give --device cpu{other if 'operator' in lacking else ''}"
            _fail(f"--device mps: torch does not have {lacking} there", hint, 1)
        if not lacks_memory(error):
            raise
        _fail(
            "out of GPU memory",
            "give --device cpu, a smaller --batch, or side= and batch= as options of the extractor or masker",
            1,
        )


def _fail(message: str, hint: str, status: int) -> None:
    """Print two lines to stderr, after the bars are removed, and exit."""
    DISPLAY.close()
    click.echo(f"shic: error: {message}" + (f"\n  {hint}" if hint else ""), err=True)
    sys.exit(status)


def _faulty_line(error: click.ClickException) -> tuple[str, str]:
    """What is wrong with the given line, and the next step."""
    message = " ".join(error.format_message().split())
    fact, _, near = message.replace("(Did", "Did").replace("?)", "?").partition(" Did you mean ")
    context = getattr(error, "ctx", None)
    hint = f"`{context.command_path if context else 'shic'} --help` shows what it takes"
    if fact.partition(" ")[0].isalpha():  # a word of click's, not the name of a file
        fact = fact[:1].lower() + fact[1:]
    return fact.removesuffix("."), f"did you mean {near} {hint}" if near else hint


def _os_hint(error: OSError) -> str:
    """The next step after an error of the operating system."""
    hints = {
        errno.ENOSPC: "the disk is full: make room and give the same line again; finished work is kept",
        getattr(errno, "EDQUOT", -1): "the disk quota is used up: make room and give the same line again",
        errno.EFBIG: "the file exceeds a size limit: raise the limit and give the same line again",
        errno.EPERM: "check who owns the file and the folder",
        errno.EACCES: "check who may read and write there, and whether another program has it open",
        errno.EROFS: "the file system is read-only: name another place with -o",
    }
    return hints.get(error.errno or 0, "check the path and the disk")
