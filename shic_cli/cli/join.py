"""`shic join`."""

from __future__ import annotations

from pathlib import Path

import click

from shic_cli.cli import options


@click.command("join")
@click.argument("parts", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="PART...")
@options.output("", "The file to write.  [default: the parts' name without .part-I-of-N]")
@options.overwrite
@options.as_json
def command(parts: tuple[Path, ...], output: Path | None, overwrite: bool, as_json: bool) -> None:
    """Join the parts that --shard wrote to the file that one process would have written.

    Nothing is computed or unpacked, and no weights or photos are needed. The parts are kept.
    """
    from shic_cli.cli.console import track
    from shic_cli.cli.ending import Ending
    from shic_cli.files.join import join
    from shic_cli.files.shards import whole_path

    with Ending(as_json) as end:
        output = output or whole_path(parts[0])
        end.wrote(output)
        join(parts, output, overwrite, track)
