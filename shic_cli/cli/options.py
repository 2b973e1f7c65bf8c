"""Options that commands share, and options made from the dataclasses of settings.py."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shic_cli.base.settings import MasksConfig

if TYPE_CHECKING:
    import numpy as np

    from shic_cli.files.shards import Part
    from shic_cli.stages.local_server import LocalServer

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Numbers(click.ParamType):
    """Numbers separated by commas, as a tuple of floats."""

    name = "numbers"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        if isinstance(value, tuple):
            return value
        try:
            return tuple(float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not a list of numbers separated by commas", param, ctx)


class Target(click.Path):
    """The name of a file to write, as a Path; InputError where the name is empty or means a folder.

    `folder`: a folder may be named too. `stdout`: `-` means stdout; elsewhere it is refused.
    """

    def __init__(self, folder: bool = False, stdout: bool = False) -> None:
        super().__init__(path_type=Path)
        self.folder, self.stdout = folder, stdout

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from shic_cli.base.errors import InputError
        from shic_cli.files.atomic import check_file_name

        if str(value) == "-" and not self.stdout:
            raise InputError("-: this command writes no file to stdout", "give a file name with -o")
        if not self.folder or not str(value):
            check_file_name(value)
        return super().convert(value, param, ctx)


def settings(config: type, parameter: str = "config") -> Decorator:
    """One option for each field of the dataclass `config`; the command gets one object, `parameter`."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_settings(*args: Any, **kwargs: Any) -> Any:
            values = {member.name: kwargs.pop(member.name) for member in fields(config)}
            return command(*args, **{parameter: config(**values)}, **kwargs)

        wrapper: Callable[..., Any] = with_settings
        for member in reversed(fields(config)):
            wrapper = _option(member)(wrapper)
        return wrapper

    return decorate


masks = settings(MasksConfig, "masks")


def _option(each: Any) -> Decorator:
    name, help = each.metadata["flag"] or each.name.replace("_", "-"), each.metadata["help"]
    if isinstance(each.default, bool):
        return click.option(
            f"--{name}/--no-{name}", each.name, default=each.default, show_default=True, help=help
        )
    if isinstance(each.default, tuple):
        shown = ",".join(f"{value:g}" for value in each.default)
        return click.option(
            f"--{name}",
            each.name,
            type=Numbers(),
            default=each.default,
            show_default=shown or False,
            help=help,
        )
    kind = click.Choice(each.metadata["choices"]) if each.metadata["choices"] else type(each.default)
    variable = each.metadata["variable"] or None
    return click.option(
        f"--{name}",
        each.name,
        type=kind,
        default=each.default,
        show_default=each.default != "",
        envvar=variable,
        show_envvar=bool(variable),
        help=help,
    )


def output(
    default: str = "", help: str = "File to write.", folder: bool = False, stdout: bool = False
) -> Decorator:
    """`-o`, a Path to a file, or with `folder` to a folder too; None without a default if it is not given."""
    return click.option(
        "-o",
        "--output",
        type=Target(folder, stdout),
        default=default or None,
        show_default=bool(default),
        help=help,
    )


def path_option(name: str, default: str, help: str) -> Decorator:
    """`--name PATH` for an input file that is found by its default name."""
    return click.option(
        f"--{name}", type=click.Path(path_type=Path), default=default, show_default=True, help=help
    )


def _part(ctx: click.Context, param: click.Parameter, value: str | None) -> Part:
    from shic_cli.base.errors import SettingError
    from shic_cli.files.shards import Part

    rank = Part.of_rank()
    if value and rank.ranked:
        raise SettingError(
            "--shard and torchrun exclude each other", "torchrun's ranks split the images by themselves"
        )
    return Part.parse(value) if value else rank


shard = click.option(
    "--shard",
    "part",
    metavar="I/N",
    callback=_part,
    help="Process the I-th of N shares of the images and write NAME.part-I-of-N.h5, for `shic join`.",
)


def _workers(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    from shic_cli.base.errors import SettingError

    if value != "auto" and not (value.isdecimal() and int(value)):
        raise SettingError(f"--workers {value}: is no number of processes", "give auto, or 1 and up")
    return None if value == "auto" else int(value)


workers = click.option(
    "--workers",
    callback=_workers,
    default="auto",
    show_default=True,
    help="Processes to use; auto: one for each core that this command may use, if there is enough to do."
    " The file is the same with any number.",
)
device = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
seed = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of all random numbers."
)
overwrite = click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
masker = click.option(
    "--masker",
    default="auto",
    show_default=True,
    help="Masks photos that have none: auto, semantic:FOLDER, grounded-sam, grabcut, none, or a plugin's.",
)
weights = click.option(
    "--weights",
    type=click.Path(file_okay=False, path_type=Path),
    envvar="SHIC_WEIGHTS",
    show_envvar=True,
    help="Folder of models' weights, as `shic models pull --weights` fills it.  [default: the hub's cache]",
)
class_name = click.option(
    "--class",
    "class_name",
    default="",
    metavar="NAME",
    help="The name of the object, for example horse, for parts that find or paint an object by its name.",
)
template = path_option("template", "template.h5", "The template.")
inputs = click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
port = click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8377,
    show_default=True,
    help="Where a page is served; 0 takes any free one.",
)
browser = click.option("--open", "browser", is_flag=True, help="Open the page in the browser.")


def open_page(page: Path) -> None:
    """Open a written page in the browser."""
    import webbrowser

    webbrowser.open(page.resolve().as_uri())


def contact_sheet(what: str) -> Decorator:
    """`--contact-sheet PNG`, a picture of `what`."""
    return click.option(
        "--contact-sheet",
        type=click.Path(path_type=Path),
        metavar="PNG",
        help=f"Also draw {what} on one sheet.",
    )


def check_sheet(sheet: Path | None, part: Part, overwrite: bool) -> None:
    """Check --contact-sheet before the work."""
    from shic_cli.files.atomic import check_target

    if sheet and not part.is_whole:
        raise click.UsageError("--contact-sheet draws the whole file: give it to a run of one process")
    if sheet:
        check_target(sheet, overwrite)


@contextmanager
def drawing(sheet: Path | None, maps: Path, colors: np.ndarray, overwrite: bool) -> Iterator[None]:
    """Draw the `sheet` of `maps` after the block, also where some inputs failed.

    `colors` `(K, 3)` are those of the vertices.
    """
    from shic_cli.base.errors import PartialError

    failed = None
    try:
        yield
    except PartialError as error:
        failed = error
    if sheet:
        from shic_cli.cli.console import write_picture
        from shic_cli.files.sheets import maps_sheet

        write_picture(sheet, maps_sheet(maps, colors), overwrite)
    if failed:
        raise failed


def unless_default(name: str, path: Path, default: str) -> str:
    """` --name PATH` for a next command that would not find `path` by itself."""
    return "" if str(path) == default else f" --{name} {shlex.quote(str(path))}"


def written(part: Part, output: Path) -> Path:
    """The file that a run of `part` leaves: the part, or the whole where torchrun's ranks join theirs."""
    return output if part.ranked else part.path(output)


def joined(part: Part, output: Path) -> str:
    """The command that joins the parts, where a run wrote a part."""
    return "" if part.is_whole or part.ranked else f"shic join {output.stem}.part-*{output.suffix}"


def serve(server: LocalServer, browser: bool) -> None:
    """Print the address on stdout and answer until Ctrl-C."""
    import webbrowser

    click.echo(server.url)
    click.echo("shic: open this address in a browser on this machine; Ctrl-C ends it", err=True)
    if browser:
        webbrowser.open(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        click.echo("shic: stopped", err=True)
    finally:
        server.server_close()
