"""The map's own labels of photos: what it says of a photo and of its mirror image alike, and is sure of.

They say where on the body a pixel is, but not on which of its sides: a map that can't yet tell near legs from
far ones calls them all near, and would learn just that from itself.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from shic_cli.learning.encode import decoder_input
from shic_cli.learning.examples import Examples, flip_points
from shic_cli.learning.similarity import sample
from shic_cli.surface.geodesic_median import Median

if TYPE_CHECKING:
    from shic_cli.learning.canonical_map import CanonicalMap

log = logging.getLogger("shic")

SHARE = 0.25  # of the pictures of an epoch are photos with own labels
START = 0.5  # of the epochs are over when photos come in
SPREAD = 15.0  # a label is sure if its expected error is at most this
REPEATS = 4  # times a photo is shown in an epoch, at most
ASKED = 250  # pixels of a photo whose labels are asked for
FEWEST = 40  # sure pixels that a photo needs to be learned from


@dataclass(frozen=True)
class Teacher:
    """Labels photos of `examples` by `map`; a label is kept where its expected distance from the truth, on
    the 228 scale and by the map's own probabilities, is at most SPREAD.
    """

    examples: Examples
    map: CanonicalMap
    mirror: torch.Tensor
    side: torch.Tensor
    median: Median
    scale: float
    device: torch.device

    def choose(
        self, photos: list[int], number: int, generator: torch.Generator, rng: np.random.Generator
    ) -> list[int]:
        """The examples of an epoch, about `number`, among the `photos` that get labels now; a photo is in it at
        most REPEATS times.
        """
        number = max(1, min(number, REPEATS * len(photos)))
        drawn = [photos[place] for place in torch.randperm(len(photos), generator=generator).tolist()][
            :number
        ]
        counts = {index: self.label(index, rng) for index in drawn}
        kept = [index for index, count in counts.items() if count]
        share = sum(counts.values()) / (ASKED * len(drawn))
        log.info("own labels: %d of %d photos, %.0f %% of their pixels", len(kept), len(drawn), 100 * share)
        return (kept * REPEATS)[:number]

    def _one_sided(self, share: torch.Tensor) -> torch.Tensor:
        """The distributions `share` `(P, K)` with what is on one side of the body added to its mirror image."""
        target = torch.arange(len(self.mirror), device=share.device)
        target = torch.where(self.side < 0, self.mirror, target)
        return torch.zeros_like(share).index_add_(1, target, share)

    @torch.no_grad()
    def label(self, index: int, rng: np.random.Generator) -> int:
        """Give example number `index` the map's labels, and how many it got; 0 leaves those that it had."""
        image, mask, yx = self.examples.ask(index, ASKED, rng)
        images, masks = torch.stack([image, image.flip(-1)]), torch.stack([mask, mask.flip(-1)])
        grids, _ = self.map.embed(decoder_input(self.examples.encoder, images, masks).to(self.device).float())
        side, table = self.examples.encoder.side, self.map.vertex_embeddings()
        points = torch.stack([yx, flip_points(yx, side)]).to(self.device).float()
        found = sample(grids.float(), points, side)
        share = ((found[0] @ table.T).softmax(-1) + (found[1] @ table[self.mirror].T).softmax(-1)) / 2
        vertex, expected = self.median.with_expected(self._one_sided(share))
        sure = (expected * self.scale <= SPREAD).cpu()
        if int(sure.sum()) < FEWEST:
            return 0
        self.examples.relabel(index, yx[sure].numpy(), vertex.cpu()[sure].numpy())
        return int(sure.sum())
