"""What `shic mask` found in photos: a row for each, which masks to check, and a contact sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from shic_cli.base.settings import MaskConfig
from shic_cli.files.mask_checks import on_border
from shic_cli.files.pictures import contact_sheet
from shic_cli.parts.maskers.contract import Found

SHOWN = 60  # the largest number of photos on a contact sheet; the unsure ones come first


@dataclass(frozen=True)
class Row:
    """A row holds what was found in one photo.

    It names the files of the masks, their source (a masker, alpha, kept) and the reasons why one may be
    wrong.
    """

    photo: str
    masks: list[str]
    source: str
    objects: int  # how many were found
    kept: list[int]  # the numbers of the objects that were written; 1 is the largest object
    coverage: float  # the share of the photo that the mask covers
    score: float | None  # the score of the main object
    unsure: list[str]


@dataclass
class Report:
    """A report holds one row for each photo.

    It also holds the overlays `(H, W, 3)` uint8 of some photos for a contact sheet.
    """

    rows: list[Row] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    pictures: dict[bool, list[tuple[str, np.ndarray]]] = field(default_factory=lambda: {True: [], False: []})

    @property
    def unsure(self) -> list[str]:
        """Return the names of the photos whose masks the user should check."""
        return [row.photo for row in self.rows if row.unsure]

    def as_json(self) -> dict[str, Any]:
        """Return the rows and the names of the unsure and the failed photos as JSON values."""
        return {"photos": [asdict(row) for row in self.rows], "unsure": self.unsure, "failed": self.failed}

    def sheet(self) -> np.ndarray:
        """Return the contact sheet `(H, W, 3)` uint8.

        The outlines of unsure masks are red, and the photos with unsure masks come first.
        """
        shown = [*self.pictures[True], *self.pictures[False]][:SHOWN]
        return contact_sheet(
            [picture for _, picture in shown], min(6, len(shown)), [name[-28:] for name, _ in shown], 200
        )


def doubts(found: Sequence[Found], main: int, config: MaskConfig) -> list[str]:
    """Return the reasons why the mask of object number `main` may be wrong.

    `config` holds the limits. The list is empty if the mask looks right.
    """
    mask, score = found[main].mask, found[main].score
    edge = on_border(mask)
    rivals = [each.area / found[main].area for i, each in enumerate(found) if i != main]
    rules = {
        f"score {score or 0:.2f}": score is not None and score < config.low_score,
        f"on {edge:.0%} of the border": edge > config.border,
        f"only {mask.mean():.2%} of the photo": mask.mean() < config.smallest,
        f"{mask.mean():.0%} of the photo": mask.mean() > config.largest,
        "another object is about as large": not config.all and max(rivals, default=0) > config.rival,
    }
    return [reason for reason, holds in rules.items() if holds]
