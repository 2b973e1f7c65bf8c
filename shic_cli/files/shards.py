"""Shares of a stage's images: each process does one of them and writes a part of the file.

A share is a run of the images in the order of their names, so that `join` can put the parts one after the
other. Under torchrun each rank does one share, and the parts are joined when all of them are written.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from shic_cli.base.errors import InputError, SettingError

T = TypeVar("T")
# The variables that torchrun sets for the processes that it starts.
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
NAME = re.compile(r"(.+)\.part-\d+-of-\d+(\.\w+)")


@dataclass(frozen=True)
class Part:
    """Share `number`, from 1, of `count` shares of a stage's images.

    `ranked`: the shares are done by torchrun's ranks, which all end together.
    """

    number: int = 1
    count: int = 1
    ranked: bool = False

    @classmethod
    def parse(cls, text: str) -> Part:
        """From `I/N`; SettingError unless 1 <= I <= N."""
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise SettingError(f"--shard {text}: is no share", "give I/N, the I-th of N shares: 1/8 to 8/8")
        return cls(int(match[1]), int(match[2]))

    @classmethod
    def of_rank(cls) -> Part:
        """The share of this process: that of its rank under torchrun, else the whole."""
        if not all(name in os.environ for name in TORCHRUN):
            return WHOLE
        return cls(int(os.environ["RANK"]) + 1, int(os.environ["WORLD_SIZE"]), ranked=True)

    @property
    def is_whole(self) -> bool:
        return self.count == 1

    @property
    def is_first(self) -> bool:
        return self.number == 1

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """This share of `items`. The shares follow one another, and differ by at most one in length."""
        start, end = (len(items) * i // self.count for i in (self.number - 1, self.number))
        return items if self.is_whole else items[start:end]

    def path(self, whole: Path) -> Path:
        """The file of this share, beside the file `whole`."""
        name = f"{whole.stem}.part-{self.number}-of-{self.count}{whole.suffix}"
        return whole if self.is_whole else whole.with_name(name)


WHOLE = Part()


def whole_path(part: Path) -> Path:
    """The file that `part` is a part of, by its name; InputError if its name is not that of a part."""
    match = NAME.fullmatch(part.name)
    if not match:
        fact = f"{part}: is not called NAME.part-I-of-N.h5, as parts are"
        raise InputError(fact, "give the file to write with -o")
    return part.with_name(match[1] + match[2])
