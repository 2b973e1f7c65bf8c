"""`shic dataset`."""

from __future__ import annotations

from pathlib import Path

import click

from shic_cli.cli import options


@click.group("dataset")
def command() -> None:
    """Published data sets as folders that the other commands take."""


@command.command("densepose-lvis")
@click.argument("annotations", type=click.Path(path_type=Path))
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    required=True,
    help="COCO's images: the folder above train2017/ and val2017/.",
)
@click.option("--class", "classes", multiple=True, help="Only this class; may be repeated.")
@click.option(
    "--split", default="", help="What the split is called.  [default: from the file's name, as ds2_val]"
)
@options.output("densepose-lvis", "The folder to write below.", folder=True)
@options.overwrite
@options.as_json
def densepose_lvis(
    annotations: Path, images: Path, classes: tuple[str, ...], split: str, output: Path, overwrite: bool, as_json: bool
) -> None:  # fmt: skip
    """Crops of the animals annotated in ANNOTATIONS (a densepose_lvis_v1_*.json), with masks and moved
    points.

    Written are OUTPUT/CLASS/SPLIT/imgs, masks and annotations.json, which `shic eval geodesic` takes. ds2_val
    holds images of ds1_train: train and test on one of ds1 and ds2. Images that are not there are left out
    and named, with exit status 4.
    """
    from shic_cli.cli.console import emit_json, table, track
    from shic_cli.stages import dataset

    splits, facts = dataset.densepose_lvis(annotations, images, output, classes, split, overwrite, track)
    found = dataset.counts(splits)
    columns = list(next(iter(found.values())))
    rows = [[name, *(str(row[key]) for key in columns)] for name, row in found.items()]
    table(f"{output}, split {split or dataset.split_name(annotations)}", ["", *columns], rows)
    if as_json:
        emit_json(found)
    dataset.complain(facts)
