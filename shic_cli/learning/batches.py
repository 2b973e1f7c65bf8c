"""Encoded examples, and batches of them on the device where the map learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from shic_cli.files.items import ItemReader


@dataclass(frozen=True)
class Example:
    """One encoded picture with its M labelled points.

    `features` are dense `(C, h, w)`, or `(M, C)` at the points. `flipped` are the same of the mirrored
    picture, or None. `yx` `(M, 2)` is in pixels of the encoder's side. `vertex` `(M,)` are the labels. `mask`
    `(S, S)` is in 0..1. `natural` is True for a photo. `void` `(S, S)` in 0..1 is neither object nor
    background, None if nothing is.
    """

    features: torch.Tensor
    flipped: torch.Tensor | None
    yx: torch.Tensor
    vertex: torch.Tensor
    mask: torch.Tensor
    natural: bool
    void: torch.Tensor | None = None


def flip_points(yx: torch.Tensor, size: int) -> torch.Tensor:
    """The places `(..., 2)` of the points `yx` in the picture mirrored left to right.

    `size` is the width of the picture in pixels.
    """
    return torch.stack([yx[..., 0], size - 1 - yx[..., 1]], -1)


@dataclass(frozen=True)
class Batch:
    """B examples on the device, with P points drawn of each.

    `features` are dense `(B, C, h, w)`, or `(B, P, C)` at the points. `flipped` are the same for the mirror
    images of the N photos, or None. `yx` `(B, P, 2)` is in pixels of `side`. `vertex` is `(B, P)` and `mask`
    `(B, side, side)`, and so is `void` unless no example has one. `natural` `(B,)` is True for photos; it
    is on the CPU because the host reads it.
    """

    features: torch.Tensor
    flipped: torch.Tensor | None
    yx: torch.Tensor
    vertex: torch.Tensor
    mask: torch.Tensor
    natural: torch.Tensor
    at_points: bool
    side: int
    void: torch.Tensor | None = None


def collate(
    examples: Sequence[Example],
    chosen: Sequence[torch.Tensor],
    at_points: bool,
    side: int,
    device: torch.device,
) -> Batch:
    """A batch of `examples` on `device`.

    `chosen` are the indices `(P,)` of the labelled points taken from each example.
    """

    def stack(values: Sequence[torch.Tensor], indices: Sequence[torch.Tensor] | None) -> torch.Tensor:
        if indices is not None:
            values = [value[index.to(value.device)] for value, index in zip(values, indices, strict=True)]
        return torch.stack(list(values)).to(device)

    drawn = chosen if at_points else None
    pairs = list(zip(examples, chosen, strict=True))
    flipped = [(example.flipped, index) for example, index in pairs if example.flipped is not None]
    has_void = any(example.void is not None for example in examples)
    voids = [torch.zeros_like(example.mask) if example.void is None else example.void for example in examples]
    return Batch(
        stack([example.features for example in examples], drawn).float(),
        stack([value for value, _ in flipped], [index for _, index in flipped] if at_points else None).float()
        if flipped
        else None,
        stack([example.yx for example in examples], chosen),
        stack([example.vertex for example in examples], chosen),
        stack([example.mask for example in examples], None).float(),
        torch.tensor([example.natural for example in examples]),
        at_points,
        side,
        stack(voids, None).float() if has_void else None,
    )


def masking_of(readers: list[ItemReader]) -> dict[str, str]:
    """The `masker` of the photos and the `class` of the object, by these names.

    A name is left out if no maps file gives its value. The first file that gives one counts.
    """
    found: dict[str, str] = {}
    for header in (reader.header for reader in readers):
        made_of_photos = header.attrs["labels"] == "pseudo"
        for key, name in (
            (("masker", "masker"), ("class", "class")) if made_of_photos else (("class", "class_name"),)
        ):
            value = header.params.get(name)
            if isinstance(value, str) and value:
                found.setdefault(key, value)
    return found
