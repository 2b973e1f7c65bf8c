"""What a mask file says: the object of a binary mask, or the one label of a label map that is meant.

A mask is *binary* when it has two values, or grey levels that lie on the edge between two (a soft edge, a
lossy file, probabilities). It is a *label map* when it has several separate values or colours that cover
areas. Which of the two is told from where the values lie in the picture, never from the largest value. Of a
label map the object is the label that was asked for, the class's label where the palette or a known table
names it, or the only label that is neither background nor void; otherwise the file is refused, and its
labels are listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from shic_cli.base.errors import InputError
from shic_cli.files.alpha import cut_out
from shic_cli.files.label_tables import VOC_COLORS, LabelTable, find_by_name, tables_for
from shic_cli.files.photos import decode_levels, is_lossy, pack, read_bytes

RULE = "binary or label map"  # what files record of how their masks were read
VOID = (255, 65535)  # the number of pixels that belong to no label, in 8 and in 16 bits
HIGHEST_ID = (
    33  # data sets that mark void with 255 number their few classes from 0; Cityscapes goes up to this
)
WHITE = 240  # levels from here up are white: no data set numbers its classes so high
CONTRAST = 64  # grey levels, of 255, that two values of a binary mask differ by when neither of them is 0
FLAT = 0.3  # share of a value's pixels inside its area; of values on an edge next to none are
EDGE = 0.02  # of the longer side: how far the grey levels of a soft edge may be from both sides of it
SPECKS = 0.002  # of the picture: stray pixels, where none of them lies inside an area
MANY = 48  # levels; more than a label map has, as a rule
LISTED = 8  # labels that a message names


@dataclass(frozen=True)
class ReadMask:
    """The object's `mask` `(H, W)` bool; `void` `(H, W)` bool, the pixels that the file gives to neither
    the object nor the background, None where there are none; `kind` is `binary`, `alpha` or `label map`,
    and `label` the label that was taken, with its name where it is known.
    """

    mask: np.ndarray
    void: np.ndarray | None = None
    kind: str = "binary"
    label: str = ""


@dataclass(frozen=True)
class Labels:
    """A label map: `ids` `(H, W)` int and what is known of them. `void` are ids of no label, `background`
    is the background's id where it is known, `tables` are the tables
    that may name the ids, and one alone does where that is `certain`.
    """

    ids: np.ndarray
    void: frozenset[int] = frozenset()
    background: int | None = None
    tables: Sequence[LabelTable] = ()
    certain: bool = False
    as_colors: bool = False
    shares: dict[int, float] = field(init=False)

    def __post_init__(self) -> None:
        ids, counts = np.unique(self.ids, return_counts=True)
        shares = dict(zip(ids.tolist(), (counts / self.ids.size).tolist(), strict=True))
        object.__setattr__(self, "shares", shares)

    def name(self, number: int) -> str:
        """A label as messages show it: its number or colour, and its name where that is certain."""
        shown = self.number(number)
        if number in self.void:
            return f"{shown} void"
        named = self.tables[0].labels.get(number) if self.certain else None
        return f"{shown} {named}" if named else shown

    def number(self, number: int) -> str:
        """A label as --label takes it."""
        return f"#{number:06x}" if self.as_colors else str(number)

    def listed(self) -> str:
        """The labels and their shares of the picture, the largest first."""
        order = sorted(self.shares, key=lambda number: -self.shares[number])
        some = ", ".join(f"{self.name(number)} ({self.shares[number]:.1%})" for number in order[:LISTED])
        return some + (f" and {len(order) - LISTED} more" if len(order) > LISTED else "")


def read_mask(path: Path, label: str = "", class_name: str = "") -> ReadMask:
    """The object in the mask file `path`; `label` is a label's number, colour (`#ff0000`) or name, or several
    separated by commas, `class_name` what the object is called.

    InputError when it can't be read, when it is a label map and neither tells the object's label, or when it
    lacks the label.
    """
    data, where = read_bytes(path), str(path)
    levels, colors, alpha = decode_levels(data, where)
    if not label and (cut := cut_out(alpha).mask) is not None and _is_one_thing(levels[cut]):
        return ReadMask(cut, kind="alpha")
    if colors is not None:
        found = _from_colors(levels, colors, where)
    else:
        found = _from_grey(levels, where, is_lossy(data))
    if isinstance(found, Labels):
        return _choose(found, label, class_name, where)
    return ReadMask(_sided(found, levels, label, where))


def _is_one_thing(levels: np.ndarray) -> bool:
    """Whether what an alpha channel leaves is one object: of one colour, or of as many as a photo has."""
    counts = np.unique(levels, return_counts=True)[1]
    return len(counts) > MANY or counts.max() > 0.98 * counts.sum()


def _sided(mask: np.ndarray, levels: np.ndarray, label: str, where: str) -> np.ndarray:
    """The side of a binary mask that `label` names by its value; the brighter one where it names none."""
    if not label:
        return mask
    low, high = (levels[side].min() if side.any() else None for side in (~mask, mask))
    sides = {str(high): mask, str(low): ~mask}
    if high is not None and levels[mask].max() != high:
        sides[str(levels[mask].max())] = mask
    if label in sides:
        return sides[label]
    raise InputError(
        f"{where}: has no label {label}",
        f"it is a binary mask of {low} and {levels.max()}: leave out --label",
    )


def _from_grey(levels: np.ndarray, where: str, lossy: bool = False) -> np.ndarray | Labels:
    """The bright side of a binary mask `(H, W)` bool, or the labels of a label map."""
    values, counts = _values(levels)
    if len(values) == 1:
        return np.full(levels.shape, bool(values[0] > 0))
    low, high = float(values[0]), float(values[-1])
    bright = levels > (low + high) / 2
    if (values != np.rint(values)).any():
        return bright
    if len(values) == 2 and _is_two_sided(low, high):
        return bright
    if low == 0 and values[1] >= WHITE and high <= 255:
        return levels > 0
    index = np.searchsorted(values, levels)
    if len(values) > 2 and _is_binary(levels, values, index, counts, lossy, where):
        return bright
    if lossy:
        raise InputError(
            f"{where}: has several grey levels in a lossy file, which blurs labels",
            "save the label map as PNG",
        )
    return _grey_labels(levels, values, index)


def _values(levels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of a picture in order, and how many pixels have each."""
    if levels.dtype not in (np.uint8, np.uint16):
        return np.unique(levels, return_counts=True)
    counts = np.bincount(levels.ravel())  # ten times as quick as sorting
    values = np.flatnonzero(counts)
    return values, counts[values]


def _is_two_sided(low: float, high: float) -> bool:
    """Whether a picture of two values is a binary mask: black and another value, or two that differ like
    black and white do. A small number and 255 are a label and void.
    """
    if low == 0:
        return True
    return high - low >= CONTRAST and not (high in VOID and low <= HIGHEST_ID)


def _is_binary(
    levels: np.ndarray, values: np.ndarray, index: np.ndarray, counts: np.ndarray, lossy: bool, where: str
) -> bool:
    """Whether three or more grey levels are two sides and what lies on the edge between them."""
    flat = _flat(index)
    inside = np.bincount(index[flat], minlength=len(values)) / counts
    low, high = float(values[0]), float(values[-1])
    margin = (high - low) / 8
    at_low, at_high = levels <= low + margin, levels >= high - margin
    middle = ~(at_low | at_high)
    between = int(((values > low + margin) & (values < high - margin)).sum())
    specks = middle.mean() < SPECKS and not flat[middle].any()
    if specks or _is_edge(middle, at_low, at_high, EDGE):
        areas = inside > FLAT
        crowded = any((areas & side).sum() > 1 for side in (values <= low + margin, values >= high - margin))
        is_matte = len(values) == 3 and low == 0 and between == 1 and bool(areas[1])
        return (lossy or not crowded or between >= LISTED) and not is_matte
    if len(values) <= MANY or flat[middle].mean() > 0.5 or (lossy and _is_level(levels, middle, margin)):
        return False
    if middle.mean() > 0.5:
        raise InputError(
            f"{where}: is no mask: half of it is neither bright nor dark, as in a photo",
            "a mask marks the object's pixels and leaves the rest black",
        )
    return True  # a gradual change from one side to the other


def _is_level(levels: np.ndarray, middle: np.ndarray, margin: float) -> bool:
    """Whether most of the calm pixels of `middle` have about one grey level, as another label in a lossy
    file.
    """
    square = np.ones((3, 3), np.uint8)
    spread = cv2.dilate(levels, square).astype(float) - cv2.erode(levels, square)
    calm = levels[middle & (spread < margin / 2)]
    counts, _ = np.histogram(calm, bins=16, range=(levels.min(), levels.max()))
    near = counts[:-1] + counts[1:]
    return bool(len(calm) > 0.15 * middle.sum() and near.max() > 0.6 * len(calm))


def _flat(index: np.ndarray) -> np.ndarray:
    """Which pixels `(H, W)` have one value with all that touch them."""
    index = index.astype(np.float32)  # exact up to 2^24 values, more than a picture may have
    square = np.ones((3, 3), np.uint8)
    return cv2.erode(index, square) == cv2.dilate(index, square)


def _is_edge(middle: np.ndarray, one: np.ndarray, other: np.ndarray, reach: float) -> bool:
    """Whether the pixels `middle` `(H, W)` lie between the regions `one` and `other`, near both of them."""
    if not (one.any() and other.any()):
        return False
    limit = max(2.5, reach * max(middle.shape))
    near = [cv2.distanceTransform((~side).astype(np.uint8), cv2.DIST_L2, 5) <= limit for side in (one, other)]
    return bool((near[0] & near[1])[middle].mean() >= 0.95)


def _grey_labels(levels: np.ndarray, values: np.ndarray, index: np.ndarray) -> Labels:
    """A grey label map, with what its numbers tell: a trimap, void, background, the tables that may apply."""
    ids = levels.astype(np.int64)
    numbers = [int(value) for value in values]
    where = {number: index == i for i, number in enumerate(numbers)}
    if numbers == [1, 2, 3] and _is_edge(where[3], where[1], where[2], 0.1):  # Oxford-IIIT Pet
        trimap = LabelTable("trimap", {1: "object", 2: "background"})
        return Labels(ids, frozenset({3}), 2, (trimap,), certain=True)
    if numbers in ([0, 127, 255], [0, 128, 255]) and _is_edge(where[numbers[1]], where[0], where[255], 0.1):
        matte = LabelTable("matting trimap", {0: "background", 255: "object"})
        return Labels(ids, frozenset({numbers[1]}), 0, (matte,), certain=True)
    void = numbers[-1] if numbers[-1] in VOID and _is_void(numbers, where) else None
    known = frozenset({void} if void is not None else ())
    others = [number for number in numbers if number not in known]
    return Labels(ids, known, 0 if 0 in numbers else None, tables_for(others))


def _is_void(numbers: list[int], where: dict[int, np.ndarray]) -> bool:
    """Whether the largest number, 255, is void: beside small class numbers, or a thin rim of a lone label."""
    others = [number for number in numbers[:-1] if number]
    steps = [255 * (i + 1) / (len(others) + 1) for i in range(len(others))]
    evenly = all(abs(number - step) <= 1 for number, step in zip(others, steps, strict=True))
    if max(others, default=0) <= HIGHEST_ID or (len(others) > 1 and not evenly):
        return True  # evenly spaced levels are objects that somebody numbered by grey levels
    rim = where[numbers[-1]]
    return bool(_flat(rim.astype(np.uint8))[rim].mean() < FLAT)


def _from_colors(levels: np.ndarray, colors: np.ndarray, where: str) -> np.ndarray | Labels:
    """The bright side of a binary mask in colours `(H, W, 3)`, or the labels of a label map; `levels` `(H,
    W)` are the indices of a palette, or the colours as numbers.
    """
    packed = pack(colors)
    used, index = np.unique(packed, return_inverse=True)
    index = index.reshape(packed.shape)
    rgb = np.stack([used >> 16, used >> 8 & 255, used & 255], 1).astype(int)
    voc = _voc_ids(used)
    if voc is not None and (len(used) > 2 or 255 in voc):
        ids = voc[index]
        return Labels(ids, frozenset({255}), 0, tables_for(set(voc.tolist()) - {255}, "voc"), certain=True)
    bright = rgb.max(1)
    light = rgb @ (0.299, 0.587, 0.114)
    if len(used) == 1:
        return np.full(index.shape, bool(bright[0] > 0))
    if len(used) == 2 and (bright.min() == 0 or abs(light[1] - light[0]) >= CONTRAST):
        return index == int(light.argmax())
    by_palette = levels.max() < 256 and len(np.unique(levels)) == len(used)
    ids = levels if by_palette else packed
    areas = np.bincount(index[_flat(index)], minlength=len(used)) / np.bincount(index.ravel()) > FLAT
    if len(used) > 256:
        return _nearer_side(colors, where)
    if len(used) > 2 and areas.sum() <= 2:  # an edge from one colour to another
        found = _from_grey(colors.max(-1), where)
        if not isinstance(found, Labels):
            return found
    black = ids[index == int(bright.argmin())][0] if bright.min() == 0 else None
    background = int(black) if black is not None else None
    return Labels(ids, frozenset(), background, (), as_colors=not by_palette)


def _voc_ids(used: np.ndarray) -> np.ndarray | None:
    """The number in PASCAL VOC's colour map of each colour; None where one is not in it, or only black and
    white are.
    """
    table = {int(color): number for number, color in enumerate(VOC_COLORS)}
    if not all(int(color) in table for color in used):
        return None
    return np.array([table[int(color)] for color in used])


def _nearer_side(colors: np.ndarray, where: str) -> np.ndarray:
    """The bright side of a lossy picture `(H, W, 3)` of two colours; InputError for one of more, as a
    photo.
    """
    square = np.ones((3, 3), np.uint8)
    calm = (cv2.dilate(colors, square).astype(int) - cv2.erode(colors, square)).max(-1) <= 24
    left = colors[calm].astype(int)
    left = left[:: max(1, len(left) // 20000)]
    total, sides = len(left), []
    while (
        len(left) > 0.01 * total and len(sides) < 3
    ):  # the colours at least 64 levels apart that cover areas
        coarse, counts = np.unique(left // 16, axis=0, return_counts=True)
        sides.append(coarse[counts.argmax()] * 16 + 8)
        left = left[np.abs(left - sides[-1]).max(1) > 64]
    if len(sides) != 2:
        raise InputError(
            f"{where}: is no mask: it has many colours, as a photo has, or a label map in a lossy file",
            "save a label map as PNG; a mask marks the object's pixels and leaves the rest black",
        )
    dark, light = sorted(sides, key=lambda side: side @ (0.299, 0.587, 0.114))
    return ((colors - (dark + light) / 2) @ (light - dark).astype(np.float32)) > 0


def _choose(labels: Labels, label: str, class_name: str, where: str) -> ReadMask:
    """The label of a label map that is the object; InputError that lists its labels when none is named."""
    if label:
        numbers = [_named(labels, part.strip(), where) for part in label.split(",") if part.strip()]
    else:
        numbers = [_meant(labels, class_name, where)]
    void = np.isin(labels.ids, list(labels.void - set(numbers)))
    names = ", ".join(labels.name(number) for number in numbers)
    mask = np.isin(labels.ids, numbers)
    return ReadMask(mask, void if void.any() else None, "label map", names)


def _named(labels: Labels, label: str, where: str) -> int:
    """The number that `label` says: a number, a colour, or a name, perhaps of a table, as in voc:horse."""
    if label.isascii() and label.isdigit() and len(label) < 12:
        number = int(label)
    elif label.startswith("#") and len(label) == 7 and all(c in "0123456789abcdefABCDEF" for c in label[1:]):
        number = int(label[1:], 16)
    else:
        found = find_by_name(label, labels.tables, labels.shares)
        if found is None:
            raise InputError(
                f"{where}: none of its labels is called {label!r}",
                f"it has {labels.listed()}; give --label NUMBER",
            )
        number = found
    if number not in labels.shares:
        raise InputError(f"{where}: has no label {label}", f"it has {labels.listed()}")
    return number


def _meant(labels: Labels, class_name: str, where: str) -> int:
    """The object's label where none was named: the class's, or the only one beside background and void."""
    objects = [number for number in labels.shares if number not in labels.void | {labels.background}]
    objects.sort(key=lambda number: -labels.shares[number])
    if labels.tables and labels.tables[0].name.endswith("trimap"):
        return objects[0]
    by_class = find_by_name(class_name, labels.tables, labels.shares) if class_name else None
    if by_class is not None:
        return by_class
    lone = len(objects) == 1 and labels.background is not None
    # In VOC's colours a lone 1 is the first object of a frame (DAVIS) as well as an aeroplane.
    other = class_name and labels.certain and objects and objects[0] != 1
    if lone and not (other and labels.tables[0].labels.get(objects[0])):
        return objects[0]
    if not objects:
        raise InputError(f"{where}: marks no object", f"it has {labels.listed()}")
    called = f", none of which is called {class_name}" if class_name else ""
    raise InputError(
        f"{where}: is a label map{called}: {labels.listed()}",
        f"say which is the object, as in --label {labels.number(objects[0])}",
    )
