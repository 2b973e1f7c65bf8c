"""What classes are called: a class's name among the names that data sets and networks give their labels."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

from shic_cli.base.errors import SettingError

# What data sets call one thing (VOC, COCO, ADE20K, Cityscapes), in singular, words run together.
SAME = (
    {"airplane", "aeroplane", "plane"},
    {"motorcycle", "motorbike"},
    {"bicycle", "bike"},
    {"couch", "sofa"},
    {"television", "tv", "tvmonitor", "televisionreceiver"},
    {"person", "human", "people", "pedestrian"},
    {"cow", "cattle"},
    {"automobile", "car"},
    {"pottedplant", "houseplant"},
)
PLURALS = (("people", "person"), ("men", "man"), ("mice", "mouse"), ("geese", "goose"), ("oxen", "ox"))


def find_label(wanted: str, labels: Mapping[int, str], where: str) -> int:
    """The number of the label that `wanted` means: a number, a label, one of its synonyms ("aeroplane,
    airplane"), or their plural.

    SettingError that lists the labels when none fits, when several do, or when nothing is `wanted`.
    """
    listed = ", ".join(f"{number} {_names(label)[0]}" for number, label in sorted(labels.items()))
    if not wanted.strip():
        raise SettingError(
            f"{where}: which of its labels is the object?", f"give --class; there are: {listed}"
        )
    if wanted.isascii() and wanted.isdigit() and len(wanted) < 10 and int(wanted) in labels:
        return int(wanted)
    fits = fitting(wanted, labels)
    if len(fits) == 1:
        return fits[0]
    if fits:
        several = ", ".join(f"{number} {labels[number]}" for number in fits)
        raise SettingError(
            f"{where}: {wanted!r} fits several of its labels", f"give its option label=NUMBER: {several}"
        )
    near = difflib.get_close_matches(
        wanted.lower(), [name for label in labels.values() for name in _names(label)], n=1
    )
    hint = f"did you mean {near[0]}? " if near else ""
    raise SettingError(
        f"{where}: none of its labels is {wanted!r}",
        f"{hint}give --class or its option label=; there are: {listed}",
    )


def fitting(wanted: str, labels: Mapping[int, str]) -> list[int]:
    """The numbers of the labels that the class's name `wanted` may mean: one where it is clear, several
    where it is not, none where none fits.
    """
    for forms in (joined, _numbers, _general):
        fits = [
            number
            for number, label in labels.items()
            if any(forms(wanted) & forms(name) for name in _names(label))
        ]
        first = [number for number in fits if forms(wanted) & forms(_names(labels[number])[0])]
        if fits:
            return first if len(first) == 1 else fits
    return []


def _names(label: Any) -> list[str]:
    """A label's synonyms; data sets separate them by commas or semicolons."""
    return [name.strip() for name in re.split(r"[,;]", str(label)) if name.strip()] or [str(label)]


def joined(name: str) -> set[str]:
    """Letters and digits in lower case: "Dining Table", "dining-table" and "diningtable" are one."""
    return {re.sub(r"[\W_]", "", name.lower())}


def _numbers(name: str) -> set[str]:
    """The word as it is and what it may be the plural of."""
    (word,) = joined(name)
    ends = [
        (end, single)
        for end, single in (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"))
        if len(word) > len(end) + 1
    ]
    return {word} | {
        word.removesuffix(end) + single for end, single in (*ends, *PLURALS) if word.endswith(end)
    }


def _general(name: str) -> set[str]:
    """The same, and what other data sets call it."""
    words = _numbers(name)
    return words.union(*(group for group in SAME if group & words))
