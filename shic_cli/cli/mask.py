"""Define the command `shic mask`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from shic_cli.base.settings import MaskConfig
from shic_cli.cli import options

if TYPE_CHECKING:
    from shic_cli.stages.mask_report import Report

LONG = 40  # photos; if there are more, the table lists only the unsure ones


@click.command("mask")
@options.inputs
@options.output("masks", "The folder to write.", folder=True)
@options.masker
@options.class_name
@click.option(
    "--picture",
    "pictures",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Draw each mask's outline over its photo too.",
)
@click.option(
    "--contact-sheet",
    type=click.Path(path_type=Path),
    metavar="PNG",
    help="Draw many of them on one sheet, unsure ones first.",
)
@options.settings(MaskConfig)
@options.weights
@options.device
@options.workers
@options.overwrite
@options.as_json
def command(
    inputs: tuple[str, ...],
    output: Path,
    masker: str,
    class_name: str,
    pictures: Path | None,
    contact_sheet: Path | None,
    config: MaskConfig,
    weights: Path | None,
    device: str,
    workers: int | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Find the objects in photos and write one mask for each photo.

    A mask is a PNG of 0 and 255 with the photo's stem. The command also says which masks to check.

    INPUT is an image, a folder, a glob, a .txt list, a video, or `-` for a list on stdin. A photo's alpha
    channel is used before the masker. An existing mask is kept unless --overwrite is given.
    """
    from shic_cli.base.devices import resolve_device
    from shic_cli.cli.console import track, write_picture
    from shic_cli.cli.ending import Ending
    from shic_cli.files.atomic import check_target
    from shic_cli.files.photo_lists import list_images
    from shic_cli.parts.maskers.make import make_masker
    from shic_cli.stages.mask import check_places, write_masks

    found = make_masker(masker, resolve_device(device), weights, class_name)
    if found is None:
        raise click.UsageError("--masker none finds nothing")
    end, images = Ending(as_json), list_images(inputs)
    check_places(inputs, images, output, [pictures] if pictures else [])
    if contact_sheet:
        check_target(contact_sheet, overwrite)
    with end:
        report, failures = write_masks(
            images,
            found,
            output,
            config,
            pictures=pictures,
            overwrite=overwrite,
            track=track,
            workers=workers,
        )
        if contact_sheet:
            write_picture(contact_sheet, report.sheet(), overwrite)
        _show(report, output)
        is_new = any(row.source != "kept" for row in report.rows)
        end.wrote(output if is_new else None, pictures, contact_sheet)
        end.details = {"folder": str(output), **found.settings, **report.as_json()}
        end.look = str(contact_sheet or pictures or "")
        end.next = f"shic pseudo-gt {inputs[0]}" + options.unless_default("masks", output, "masks")
        failures.report(len(images))


def _show(report: Report, output: Path) -> None:
    from shic_cli.cli.console import table

    rows = report.rows if len(report.rows) <= LONG else [row for row in report.rows if row.unsure]
    lines = []
    for row in rows:
        score, kept = "" if row.score is None else f"{row.score:.2f}", ", ".join(map(str, row.kept))
        lines.append(
            [
                row.photo,
                row.source,
                f"{row.coverage:.1%}",
                score,
                str(row.objects),
                kept,
                "; ".join(row.unsure),
            ]
        )
    count = f"{len(report.rows)} photos, {len(report.unsure)} unsure" + (
        ", which are" if len(rows) < len(report.rows) else ""
    )
    table(
        f"{output}: {count}", ["photo", "from", "of the photo", "score", "objects", "kept", "unsure"], lines
    )
