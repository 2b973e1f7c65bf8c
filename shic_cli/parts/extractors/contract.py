"""The contract of an extractor: pictures and masks go in, one feature for each cell of a grid comes out.

The same part gives the features of `shic features` and `shic pseudo-gt`, and serves as the frozen encoder
below a trained map. It is made once for a run, as

    Part(argument, device=device, weights=weights, OPTION=VALUE, ...)

`argument` is the text after the colon of `--extractor name:argument`, "" where there is none. `device` is a
torch.device. `weights` is the folder that the user keeps weights in, or None; only a constructor that has
this parameter gets it. Every other keyword parameter is an option of the command line, as in
`--extractor name,side=256`, and its value gets the type of the parameter's default.

After that it is called once for each batch. A part with settings that can't be used raises SettingError, one
that lacks weights MissingError, both of shic_cli.base.errors.
"""

from __future__ import annotations

import re
from typing import Any, Protocol

import torch

from shic_cli.parts.contract import Contract, PartDefaults


class ExtractorDefaults(PartDefaults, Protocol):
    """What an extractor may have, with the value that counts where it does not have it."""

    needs_mask: bool = False  # True: without the object's mask its features mean nothing
    of_mask: bool = False  # True: its features are those of the mask alone; files keep the mask, not them
    sees_whole_object: bool = (
        False  # True: each feature knows the whole object, so a pointwise decoder suffices
    )
    small: bool = False  # True: quick and small, so that each of several processes may have a copy of it
    unit: bool = True  # False: a decoder gets the features at their own length, not as unit vectors
    pillow: bool = False  # True: a photo's crop is resampled by Pillow's bilinear filter, not by area
    agreement: float = 0.0  # what `--agreement -1` of `shic pseudo-gt` takes
    matching: str = "transport"  # what `--matching auto` of `shic pseudo-gt` takes
    decoder: str = ""  # what `--decoder auto` takes; "": pointwise if sees_whole_object, else convolutional


class Extractor(ExtractorDefaults, Protocol):
    """What every extractor has once it is made."""

    name: (
        str  # how it is asked for, options included: files record it, and later commands make it again by it
    )
    side: int  # S, pixels: pictures and masks arrive as squares of this side, cropped around the object
    dim: int  # D, the length of a feature
    device: torch.device  # where the features are

    @property
    def settings(self) -> dict[str, Any]:
        """What the features depend on, as JSON values; recorded in the files that are made with them."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal fingerprints mean that features can be compared: it changes with weights and settings."""
        ...

    def __call__(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Finite features `(B, D, h, w)`, h = w, of `images` `(B, 3, S, S)` and `masks` `(B, 1, S, S)`.

        `images` are RGB in 0..1 and `masks` are the share of the object in 0..1, both f4 on any device. The
        features are floats on `device`; they need no unit length. Feature (i, j) belongs to cell (i, j) of
        h by w equal cells over the picture.
        """
        ...


def _fault_of_extractor(part: Extractor, name: str) -> str:
    if part.side < 1 or part.dim < 1:
        return f"its side is {part.side} and its dim {part.dim}; both must be at least 1"
    head = re.split("[:,]", part.name)[0]
    return "" if head == name else f"its name is {part.name!r}, but it is asked for as {name!r}"


def _fault_of_features(part: Extractor, features: object, images: torch.Tensor, *_: object) -> str:
    if not isinstance(features, torch.Tensor) or not features.is_floating_point():
        kind = features.dtype if isinstance(features, torch.Tensor) else type(features).__name__
        return f"gave features of type {kind}, not a tensor of floats"
    shape, wanted = tuple(features.shape), (len(images), part.dim)
    if len(shape) != 4 or shape[:2] != wanted or shape[2] != shape[3]:
        return (
            f"gave features {shape}, not ({wanted[0]}, {wanted[1]}, h, w) with h = w; its dim is {part.dim}"
        )
    if features.device.type != part.device.type:
        return f"gave features on {features.device}, but its device is {part.device}"
    return ""


CONTRACT = Contract("extractors", Extractor, ExtractorDefaults, _fault_of_extractor, _fault_of_features)
