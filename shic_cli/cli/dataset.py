"""`shic dataset`."""

from __future__ import annotations

from pathlib import Path

import click

from shic_cli.cli import options


@click.group("dataset")
def command() -> None:
    """Convert published data sets to folders for the other commands."""


@command.command("densepose-lvis")
@click.argument("annotations", type=click.Path(path_type=Path))
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    required=True,
    help="The folder of COCO's images, which holds train2017/ and val2017/.",
)
@click.option("--class", "classes", multiple=True, help="Take only this class; may be repeated.")
@click.option(
    "--split", default="", help="The name of the split.  [default: from the file's name, such as ds2_val]"
)
@options.output("densepose-lvis", "The folder in which to write.", folder=True)
@options.overwrite
@options.as_json
def densepose_lvis(
    annotations: Path,
    images: Path,
    classes: tuple[str, ...],
    split: str,
    output: Path,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Crop the animals that are annotated in ANNOTATIONS (densepose_lvis_v1_*.json).

    It writes OUTPUT/CLASS/SPLIT/imgs, masks and annotations.json, with the points moved to the crops, for
    `shic eval geodesic`. ds2_val holds images of ds1_train, so train and test on one of ds1 and ds2. Missing
    images are left out and named, and the exit status is 4.
    """
    from shic_cli.cli.console import table, track
    from shic_cli.cli.ending import Ending
    from shic_cli.stages import dataset

    end = Ending(as_json)
    splits, facts = dataset.densepose_lvis(annotations, images, output, classes, split, overwrite, track)
    counts = dataset.counts(splits)
    columns = list(next(iter(counts.values())))
    rows = [[name, *(str(row[key]) for key in columns)] for name, row in counts.items()]
    table(f"{output}, split {split or dataset.split_name(annotations)}", ["", *columns], rows)
    with end:
        end.wrote(output)
        end.details = {"classes": counts}
        dataset.complain(facts)
