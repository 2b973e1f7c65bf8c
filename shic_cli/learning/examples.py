"""Training batches made of labelled pictures.

Each picture is cropped and augmented, labelled points are drawn, and the frozen encoder encodes the picture.
Examples that repeat are kept in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from shic_cli.base.devices import Fitting, chance
from shic_cli.base.errors import InputError
from shic_cli.files.checks import check_indices
from shic_cli.files.items import ItemReader
from shic_cli.files.photos import Crop, decode
from shic_cli.learning import augment
from shic_cli.learning.decoders import coarsen
from shic_cli.learning.encode import decoder_input
from shic_cli.learning.similarity import sample
from shic_cli.parts.extractors.contract import Extractor

CANDIDATES = 4  # an example keeps this many times `points` labelled points; a step draws `points` of them

# picture, mask, points, vertices, void
Cut = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]


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


def middles(pixels: np.ndarray, vertex: np.ndarray) -> np.ndarray:
    """One pixel `(V, 2)` for each of the V vertices in a picture: the one nearest to the mean of its pixels.

    `pixels` `(n, 2)` are those with a label, and `vertex` `(H, W)` holds the labels. It stands for v_i(k) of
    Eq. 4, the vertex's projection, which a maps file does not keep.
    """
    _, number, count = np.unique(vertex[tuple(pixels.T)], return_inverse=True, return_counts=True)
    number = number.reshape(-1)
    mean = np.stack([np.bincount(number, axis) for axis in pixels.T], 1) / count[:, None]
    order = np.lexsort((np.linalg.norm(pixels - mean[number], axis=1), number))
    return pixels[order[np.cumsum(count) - count]]


class Examples:
    """The labelled pictures of maps files, by number.

    Of each picture `variants` augmented copies are made once, and kept while they fit into `memory` bytes. If
    `variants` is 0, every request draws a new copy.

    `mirror` `(K,)` gives the mirror image of each vertex of the template. With it, every other epoch shows a
    picture as its mirror image and mirrors its labels on the template.

    With `at_points`, only the features at the labelled points are kept; a pointwise decoder needs no others.
    Otherwise dense features are kept. If `cells` is given, they are averaged to at most `cells` a side.

    The encoder gets `together` pictures at a time, with their mirror images. A larger number is faster on a
    GPU, but the last digits of the features then depend on which pictures are encoded together.

    With `raw`, features stay at their own length. With `by_vertex`, the points of synthetic pictures are
    drawn by vertex (`middles`).
    """

    def __init__(
        self,
        readers: Sequence[ItemReader],
        encoder: Extractor,
        *,
        points: int,
        vertices: int,
        augment: bool,
        variants: int,
        flip: bool,
        at_points: bool,
        seed: int,
        cells: int | None = None,
        mirror: torch.Tensor | None = None,
        together: int = 1,
        memory: int = 4 << 30,
        raw: bool = False,
        by_vertex: bool = False,
    ) -> None:
        self.entries = [(reader, name) for reader in readers for name in reader.names]
        self.encoder, self.points, self.vertices = encoder, points, vertices
        self.augment, self.variants, self.flip, self.at_points = (
            augment,
            variants if augment else 1,
            flip,
            at_points,
        )
        self.mirror, self.seed, self.raw, self.by_vertex = mirror, seed, raw, by_vertex
        self.memory = self.room = memory
        self.kept: dict[tuple[int, int, bool], Example] = {}
        self.cells, self.fitting = cells, Fitting("the encoder", together, self.make_room)

    def __len__(self) -> int:
        return len(self.entries)

    def get(self, index: int, epoch: int) -> Example:
        """Example number `index` in the form that it has in `epoch`."""
        return self.get_all([index], epoch)[0]

    def get_all(self, indices: Sequence[int], epoch: int) -> list[Example]:
        """The examples of the numbers `indices`, in the form that they have in `epoch`."""
        keys = [self._key(index, epoch) for index in indices]
        kept = self.kept  # another thread may replace self.kept by an empty dict
        held = {key: kept[key] for key in keys if key in kept}
        missing = [key for key in keys if key not in held]
        fresh = dict(
            zip(
                missing,
                (example for some in self.fitting.each(self._make, missing) for example in some),
                strict=True,
            )
        )
        found = [held[key] if key in held else fresh[key] for key in keys]
        for key, example in fresh.items() if self.variants else ():
            size = sum(value.nbytes for value in vars(example).values() if isinstance(value, torch.Tensor))
            if size <= self.room:
                self.room -= size
                self.kept[key] = example
        return found

    def make_room(self) -> bool:
        """Whether memory was given back: False if no example was kept.

        All kept examples are dropped. From then on at most half as many bytes are kept.
        """
        if not self.kept:
            return False
        self.kept = {}
        self.memory //= 2
        self.room = self.memory
        return True

    def is_natural(self, index: int) -> bool:
        """Whether example number `index` is a photo."""
        return self.entries[index][0].header.attrs["labels"] != "synthetic"

    def draw(self, number: int, generator: torch.Generator) -> list[torch.Tensor]:
        """The indices `(P,)` of the labelled points that a step takes, for each of `number` examples."""
        return [
            torch.randperm(CANDIDATES * self.points, generator=generator)[: self.points]
            for _ in range(number)
        ]

    def _key(self, index: int, epoch: int) -> tuple[int, int, bool]:
        """The form of example `index` in `epoch`: its number, its variant, and whether it is mirrored."""
        turn, mirrored = (epoch // 2, (index + epoch) % 2 == 1) if self.mirror is not None else (epoch, False)
        return index, turn % self.variants if self.variants else turn, mirrored

    def _make(self, keys: Sequence[tuple[int, int, bool]]) -> list[Example]:
        """The examples of `keys`, encoded in one call."""
        natural = [self.is_natural(index) for index, _, _ in keys]
        cut = [
            self._mirrored(self._crop(index, chance(self.seed, "augment", index, variant)), mirrored)
            for index, variant, mirrored in keys
        ]
        mirrored = [
            (image.flip(-1), mask.flip(-1), flip_points(yx, self.encoder.side))
            for (image, mask, yx, *_), is_natural in zip(cut, natural, strict=True)
            if self.flip and is_natural
        ]
        features = self._encode([(image, mask, yx) for image, mask, yx, *_ in cut] + mirrored)
        rest = iter(features[len(cut) :])
        return [
            Example(
                feature,
                next(rest) if self.flip and is_natural else None,
                yx,
                vertex,
                mask[0].half(),
                is_natural,
                None if void is None else void[0].half(),
            )
            for feature, (_, mask, yx, vertex, void), is_natural in zip(features, cut, natural, strict=False)
        ]

    def _mirrored(self, cut: Cut, mirrored: bool) -> Cut:
        """Picture, mask, points, vertices and void, mirrored left to right if `mirrored`.

        They are unchanged if there is no `self.mirror`.
        """
        image, mask, yx, vertex, void = cut
        if not mirrored or self.mirror is None:
            return cut
        void = None if void is None else void.flip(-1)
        return image.flip(-1), mask.flip(-1), flip_points(yx, self.encoder.side), self.mirror[vertex], void

    def _crop(self, index: int, rng: np.random.Generator) -> Cut:
        """Picture `(3, S, S)`, mask `(1, S, S)`, points `(M, 2)`, their vertices `(M,)`, void like the mask.

        The points are inside the frame, except if no drawn point is; then the first one is taken.
        Raises InputError if the labels do not fit the picture or the template, or if no pixel has a label.
        """
        reader, name = self.entries[index]
        item = reader[name]
        where, side = f"{item.name}: vertex", self.encoder.side
        check_indices(item.vertex, self.vertices, where, lowest=-1)
        pixels = np.argwhere(item.vertex >= 0)
        if not len(pixels):
            raise InputError(f"{where} labels no pixel", "leave this image out, or make its labels again")
        if self.by_vertex and not self.is_natural(index):
            pixels = middles(pixels, item.vertex)
        crop = Crop.around(item.mask if item.mask.any() else item.vertex >= 0)
        rgb, _ = decode(item.encoded.tobytes(), item.name)
        if rgb.shape[:2] != item.vertex.shape:
            raise InputError(f"{where} and the image differ in size", "make the maps file again")
        rgb, mask = crop.cut(rgb, side), crop.cut(item.mask, side)
        void = crop.cut(item.void, side) if "void" in item.arrays else None
        pixels = pixels[rng.integers(len(pixels), size=2 * CANDIDATES * self.points)]
        yx = crop.to_crop(pixels.astype(np.float64), side)
        if self.augment:
            matrix = augment.draw_affine(mask, rng)
            rgb, mask, yx = (
                augment.jitter(augment.warp(rgb, matrix), rng),
                augment.warp(mask, matrix),
                augment.move(yx, matrix),
            )
            void = None if void is None else augment.warp(void, matrix)
        inside = np.flatnonzero(((yx >= 0) & (yx <= side - 1)).all(1))
        chosen = inside[: CANDIDATES * self.points] if len(inside) else np.arange(1)
        chosen = np.resize(chosen, CANDIDATES * self.points)
        vertex = torch.from_numpy(item.vertex[tuple(pixels[chosen].T)].astype(np.int64))
        image = torch.from_numpy(rgb).permute(2, 0, 1).float() / 255
        unknown = None if void is None else torch.from_numpy(void)[None]
        return image, torch.from_numpy(mask)[None], torch.from_numpy(yx[chosen]).float(), vertex, unknown

    def _encode(
        self, pictures: Sequence[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
    ) -> tuple[torch.Tensor, ...]:
        """The features f2 of each picture: dense `(C, h, w)`, or `(M, C)` at its points.

        `pictures` are triples of picture, mask and points.
        """
        images, masks, yx = (torch.stack(each) for each in zip(*pictures, strict=True))
        features = decoder_input(self.encoder, images, masks, self.raw)
        if self.at_points:
            features = sample(features, yx.to(features.device), self.encoder.side)
        elif self.cells:
            features = coarsen(features, self.cells)
        return features.half().unbind()


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
