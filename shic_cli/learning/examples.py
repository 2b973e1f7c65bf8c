"""Training batches made of labelled pictures.

Each picture is cropped and augmented, labelled points are drawn, and the frozen encoder encodes the picture.
Examples that repeat are kept in memory.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from shic_cli.base.devices import TOGETHER, Fitting, chance, free_memory
from shic_cli.base.errors import InputError
from shic_cli.base.ranks import share_of_machine
from shic_cli.base.settings import MARGIN
from shic_cli.base.training_settings import TrainConfig
from shic_cli.files.checks import check_indices
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import EXACT
from shic_cli.files.photos import Crop, decode
from shic_cli.learning import augment
from shic_cli.learning.batches import Example, flip_points
from shic_cli.learning.decoders import DECODERS, coarsen
from shic_cli.learning.encode import decoder_input
from shic_cli.learning.recipes import copies
from shic_cli.learning.similarity import sample
from shic_cli.parts.extractors.contract import Extractor

MEMORY = 0.25  # share of the memory free at the start of training that kept encoded pictures may fill
CANDIDATES = 4  # an example keeps this many times `points` labelled points; a step draws `points` of them
ROOM = 1.1  # a picture that is moved at random is first cut this many times as wide as the crop
CLEAN = 0.25  # share of the pictures that get no errors
MOST = 4000  # labelled pixels that are kept of a cut picture
THIN = 0.5  # a pixel is drawn with a weight of n ** -THIN if n pixels of the picture have its vertex

# picture, mask, points, vertices, void
Cut = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]


def _inside(yx: np.ndarray, side: int) -> np.ndarray:
    """Which of the points `(P, 2)` are inside a picture `side` across: `(P,)` bool."""
    return np.all((yx >= 0) & (yx <= side - 1), axis=1)


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
        rough: bool = False,
        raw: bool = False,
        by_vertex: bool = False,
    ) -> None:
        self.entries = [(reader, name) for reader in readers for name in reader.names]
        self.encoder, self.points, self.vertices = encoder, points, vertices
        self.augment, self.variants, self.flip, self.at_points = (
            augment,
            variants if augment or rough else 1,
            flip,
            at_points,
        )
        self.mirror, self.seed, self.raw, self.by_vertex = mirror, seed, raw, by_vertex
        self.memory = self.room = memory
        self.kept: dict[tuple[int, int, bool], Example] = {}
        self.rough = rough
        self.cuts: dict[int, tuple[np.ndarray, ...]] = {}
        self.cells, self.fitting = cells, Fitting("the encoder", together, self.make_room)

    @classmethod
    def of(
        cls,
        readers: Sequence[ItemReader],
        encoder: Extractor,
        config: TrainConfig,
        mirror: torch.Tensor,
        device: torch.device,
        seed: int,
    ) -> Examples:
        """The examples that settled settings describe, for training on `device`.

        `mirror` `(K,)` is the template's.
        """
        decoder = DECODERS[config.decoder]
        return cls(
            readers,
            encoder,
            points=config.points,
            vertices=len(mirror),
            augment=config.augment == "on",
            variants=copies(config, encoder),
            flip=config.equivariance > 0,
            mirror=mirror if config.mirror == "on" else None,
            at_points=decoder.pointwise,
            cells=decoder.cells,
            seed=seed,
            together=TOGETHER[device.type],
            raw=config.tokens == "raw",
            by_vertex=config.draw == "vertices",
            memory=int(MEMORY * free_memory(device)) // (1 if device.type == "cuda" else share_of_machine()),
            rough=config.rough == "on",
        )

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
        """Whether memory was given back: False if nothing was kept.

        All that is kept is dropped. From then on at most half as many bytes are kept.
        """
        if not self.kept and not self.cuts:
            return False
        self.kept, self.cuts = {}, {}
        self.memory //= 2
        self.room = self.memory
        return True

    def is_natural(self, index: int) -> bool:
        """Whether example number `index` is a photo, except one that a body was fitted to."""
        return self.entries[index][0].header.attrs["labels"] not in EXACT

    def add(self, reader: ItemReader, copies: int) -> None:
        """Add the pictures of a maps file, each of them `copies` times."""
        self.entries += [(reader, name) for name in reader.names] * copies

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
            self._mirrored(
                self._rough(index, chance(self.seed, "rough", index, variant, int(mirrored)))
                if self.rough
                else self._crop(index, chance(self.seed, "augment", index, variant)),
                mirrored,
            )
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
        rgb, mask, yx, vertex, void = self._cut(index, 1.0)
        chosen = rng.integers(len(yx), size=2 * CANDIDATES * self.points)
        yx, vertex = yx[chosen], vertex[chosen]
        if self.augment:
            matrix = augment.draw_affine(mask, rng)
            rgb, mask, yx = (
                augment.jitter(augment.warp(rgb, matrix), rng),
                augment.warp(mask, matrix),
                augment.move(yx, matrix),
            )
            void = None if void is None else augment.warp(void, matrix)
        return self._tensors(rgb, mask, yx, vertex, _inside(yx, self.encoder.side), void)

    def _rough(self, index: int, rng: np.random.Generator) -> Cut:
        """As `_crop`, with the errors that masks and cameras make, and without void.

        Points on thin parts are drawn more often than by their share of the pixels: the more pixels have the
        same vertex, the less often each of them is drawn.
        """
        rgb, mask, yx, vertex = self._kept_cut(index)
        side, clean = self.encoder.side, rng.random() < CLEAN
        matrix = augment.inner(side, ROOM) if clean else augment.draw_mild(side, ROOM, rng)
        rgb, mask = augment.warp(rgb, matrix), augment.warp(mask, matrix)
        if not clean:
            rgb, mask = augment.roughen_picture(rgb, rng), augment.roughen_mask(mask, rng)
        weight = np.bincount(vertex)[vertex] ** -THIN
        chosen = rng.choice(len(yx), 2 * CANDIDATES * self.points, p=weight / weight.sum())
        yx, vertex = augment.move(yx[chosen], matrix), vertex[chosen]
        inside = _inside(yx, side)
        near = yx.round().astype(int).clip(0, side - 1)
        seen = inside & (mask[near[:, 0], near[:, 1]] > 0.5)
        return self._tensors(rgb, mask, yx, vertex, seen if seen.any() else inside)

    def _kept_cut(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """As `_cut` with room around the crop and without void. It is kept while there is memory."""
        if index not in self.cuts:
            rgb, mask, yx, vertex, _ = self._cut(index, ROOM)
            kept = chance(self.seed, "points", index).permutation(len(yx))[:MOST]
            made = (
                rgb,
                (mask * 255).astype(np.uint8),
                yx[kept].astype(np.float32),
                vertex[kept].astype(np.int32),
            )
            size = sum(each.nbytes for each in made)
            if self.variants or size > self.room:  # what is made of it is kept, or there is no room
                return made[0], made[1].astype(np.float32) / 255, *made[2:]
            self.room -= size
            self.cuts[index] = made
        rgb, mask, yx, vertex = self.cuts[index]
        return rgb, mask.astype(np.float32) / 255, yx, vertex

    def _tensors(
        self,
        rgb: np.ndarray,
        mask: np.ndarray,
        yx: np.ndarray,
        vertex: np.ndarray,
        usable: np.ndarray,
        void: np.ndarray | None = None,
    ) -> Cut:
        """A cut picture as tensors, with as many `usable` points as an example keeps."""
        chosen = np.flatnonzero(usable)[: CANDIDATES * self.points] if usable.any() else np.arange(1)
        chosen = np.resize(chosen, CANDIDATES * self.points)
        image = torch.from_numpy(rgb).permute(2, 0, 1).float() / 255
        points, labels = torch.from_numpy(yx[chosen]).float(), torch.from_numpy(vertex[chosen]).long()
        unknown = None if void is None else torch.from_numpy(void)[None]
        return image, torch.from_numpy(mask)[None], points, labels, unknown

    def _cut(
        self, index: int, room: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """Picture `(S, S, 3)` uint8, mask `(S, S)`, labelled pixels `(N, 2)`, their vertices `(N,)`, void.

        The picture is a square `room` times as wide as the crop around the object. Void is like the mask, or
        None.
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
        margin = MARGIN if room == 1 else ((1 + 2 * MARGIN) * room - 1) / 2
        crop = Crop.around(item.mask if item.mask.any() else item.vertex >= 0, margin)
        rgb, _ = decode(item.encoded.tobytes(), item.name)
        if rgb.shape[:2] != item.vertex.shape:
            raise InputError(f"{where} and the image differ in size", "make the maps file again")
        void = crop.cut(item.void, side) if "void" in item.arrays else None
        yx = crop.to_crop(pixels.astype(np.float64), side)
        return crop.cut(rgb, side), crop.cut(item.mask, side), yx, item.vertex[tuple(pixels.T)], void

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
