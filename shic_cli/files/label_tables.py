"""The labels of well-known data sets, by number and by name, for mask files that are label maps."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from shic_cli.files.class_names import fitting


@dataclass(frozen=True)
class LabelTable:
    """A data set's `name` and its `labels` by number; files may hold the numbers up to `last`."""

    name: str
    labels: dict[int, str]
    last: int = 255


VOC_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike"
    " person pottedplant sheep sofa train tvmonitor"
)
# COCO's things by their category numbers from 1; the numbers that COCO leaves out are `-`.
COCO_NAMES = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,-,"
    "stop sign,parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,-,"
    "backpack,umbrella,-,-,handbag,tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,"
    "baseball glove,skateboard,surfboard,tennis racket,bottle,-,wine glass,cup,fork,knife,spoon,bowl,"
    "banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,"
    "bed,-,dining table,-,-,toilet,-,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,"
    "toaster,sink,refrigerator,-,book,clock,vase,scissors,teddy bear,hair drier,toothbrush"
)
THINGS = {number: name for number, name in enumerate(COCO_NAMES.split(","), 1) if name != "-"}
TABLES = (
    LabelTable("voc", dict(enumerate(VOC_NAMES.split())), 20),
    # the label maps of COCO-stuff hold the category less 1, things up to 90, stuff up to 181
    LabelTable("coco-stuff", {number - 1: name for number, name in THINGS.items()}, 181),
    LabelTable("coco", THINGS, 90),
)


def _voc_color(number: int) -> int:
    """The colour of a number in PASCAL VOC's colour map, as 0xRRGGBB: its bits go to the colours' high
    bits.
    """
    red = green = blue = 0
    for bit in range(8):
        red |= (number >> (3 * bit) & 1) << (7 - bit)
        green |= (number >> (3 * bit + 1) & 1) << (7 - bit)
        blue |= (number >> (3 * bit + 2) & 1) << (7 - bit)
    return red << 16 | green << 8 | blue


VOC_COLORS = tuple(_voc_color(number) for number in range(256))


def tables_for(numbers: Collection[int], name: str = "") -> tuple[LabelTable, ...]:
    """The tables, or the one called `name`, that have room for all these label numbers."""
    return tuple(
        table
        for table in TABLES
        if name in ("", table.name) and all(0 <= number <= table.last for number in numbers)
    )


def find_by_name(wanted: str, tables: Sequence[LabelTable], present: Collection[int]) -> int | None:
    """The number among those `present` that is called `wanted` in one of the tables; None where none is, or
    two are. `TABLE:NAME` means that table, whatever `tables` are.
    """
    prefix, separator, rest = wanted.partition(":")
    if separator and (named := [table for table in TABLES if table.name == prefix.strip().lower()]):
        tables, wanted = named, rest.strip()
    found = {number for table in tables for number in fitting(wanted, table.labels)} & set(present)
    return found.pop() if len(found) == 1 else None
