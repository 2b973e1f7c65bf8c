"""Eq. 1 and Eq. 2: similarities of pixels and vertices, pooled over the views in which a vertex is visible.

Letters: P query pixels, N views, K vertices, R_i vertices visible in view i, D channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

CLOSE = 1e-4  # how far above 1 rounding may lift a cosine
HALF_ON = (
    "cuda",
)  # kinds of device where a bank keeps its rows in half precision: those of 72 views take gigabytes
TAPS_ON = ("cpu",)  # kinds of device where views that have few cells are kept as Taps
FEWER = 2  # times as many vertices as cells there must be
SAMPLE = 400  # query pixels that vote on how well a view agrees with the object


def sample(maps: torch.Tensor, yx: torch.Tensor, size: int) -> torch.Tensor:
    """Values `(B, P, D)` of `maps` `(B, D, h, w)`, bilinear, at `yx` `(B, P, 2)` in pixels of pictures of
    `size` a side.
    """
    grid = (yx.flip(-1) + 0.5) * (2 / size) - 1  # grid_sample wants x first and -1..1 from edge to edge
    found = F.grid_sample(maps, grid[:, None].to(maps), padding_mode="border", align_corners=False)
    return found[:, :, 0].transpose(1, 2)


@dataclass(frozen=True)
class Taps:
    """`(R, D)` unit rows that are not spelled out: of each the four cells it lies between, `four` `(R, 4)`,
    and their weights `(R, 4)`.

    The cosine of a query and a vector between cells is the same mean of the cells' products with it, so one
    product a cell, `cells` `(C, D)`, does for all the rows around it.
    """

    cells: torch.Tensor
    four: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def at(cls, feature: torch.Tensor, yx: torch.Tensor, size: int) -> Taps:
        """What `sample` reads of `feature` `(D, h, w)` at `yx` `(R, 2)`, as unit rows."""
        last = yx.new_tensor(feature.shape[1:]) - 1
        place = torch.minimum(((yx + 0.5) * ((last + 1) / size) - 0.5).clamp_min(0), last)
        low = place.floor()
        ends, (a, b) = (low, torch.minimum(low + 1, last)), (place - low).unbind(1)
        number = torch.stack([y[:, 0] * feature.shape[2] + x[:, 1] for y in ends for x in ends], 1)
        used, four = number.long().unique(return_inverse=True)
        cells = feature.flatten(1)[:, used].T.float().contiguous()
        weight = torch.stack([(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b], 1)
        length = F.embedding_bag(four, cells, per_sample_weights=weight, mode="sum").norm(dim=1, keepdim=True)
        return cls(cells, four, weight / length.clamp_min(1e-12))

    @property
    def dtype(self) -> torch.dtype:
        """The number format of the rows."""
        return self.cells.dtype

    def __len__(self) -> int:
        return len(self.four)

    def __matmul__(self, columns: torch.Tensor) -> torch.Tensor:
        """The rows' products `(R, P)` with `columns` `(D, P)`."""
        return F.embedding_bag(self.four, self.cells @ columns, per_sample_weights=self.weight, mode="sum")


@dataclass(frozen=True)
class Bank:
    """The views' features at their visible vertices: of each view `(R_i, D)` unit rows and `(R_i,)` vertex
    numbers; K vertices.

    Rows are f2 on the devices of HALF_ON, else f4; similarities are f4 either way. Views with few cells have
    Taps in place of rows.
    """

    views: list[tuple[torch.Tensor | Taps, torch.Tensor]]
    vertices: int

    @classmethod
    def build(
        cls, features: Iterable[torch.Tensor], vertex_yx: torch.Tensor, visible: torch.Tensor, size: int
    ) -> Bank:
        """From the features `(D, h, w)` of each of N views, v_i(k) `(N, K, 2)` in pixels of views of `size` a
        side, and V_i `(N, K)`.
        """
        views = []
        for feature, yx, seen in zip(features, vertex_yx, visible, strict=True):
            index = seen.nonzero()[:, 0].to(feature.device)
            views.append((_rows(feature, yx[seen].to(feature.device), size), index))
        return cls(views, visible.shape[1])

    def similarities(self, queries: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """S_i `(R_i, P)`, the cosine of unit `queries` `(P, D)` with view i, and its vertex numbers `(R_i,)`,
        view by view (Eq. 2).
        """
        for rows, index in self.views:
            yield (rows @ queries.T.to(rows.dtype)).float(), index


def _rows(feature: torch.Tensor, yx: torch.Tensor, size: int) -> torch.Tensor | Taps:
    """Unit rows of `feature` `(D, h, w)` at `yx` `(R, 2)`, as Taps where that is quicker."""
    kind = feature.device.type
    if kind in TAPS_ON and len(yx):
        taps = Taps.at(feature, yx, size)
        if FEWER * len(taps.cells) < len(taps):
            return taps
    rows = F.normalize(sample(feature[None].float(), yx[None], size)[0], dim=1)
    return rows.half() if kind in HALF_ON else rows


def agreements(bank: Bank, queries: torch.Tensor) -> torch.Tensor:
    """How well each view agrees with the whole object, `(N,)`: the mean best similarity, of pixels to
    vertices and back.
    """
    step = max(1, len(queries) // SAMPLE)
    both = [
        (s.amax(0).mean() + s.amax(1).mean()) / 2 if len(s) else s.new_tensor(-1.0)
        for s, _ in bank.similarities(queries[::step])
    ]
    return torch.stack(both)


def pool_similarities(
    bank: Bank, queries: torch.Tensor, *, pool: str = "max", topk: int = 3, agreement: float = 0.0
) -> torch.Tensor:
    """Sigma `(K, P)` of Eq. 2 for unit `queries` `(P, D)`; -inf for vertices that no view shows.

    `pool` is max, mean or topk (the mean of the `topk` best views). With `agreement` > 0, for max and topk,
    each view's similarities first get `agreement` times (its agreement - the best view's): a view of another
    side of the object that happens to look alike at one pixel then counts less. The views are streamed:
    memory does not grow with N.
    """
    bonus = _bonus(bank, queries, 0.0 if pool == "mean" else agreement)
    depth = topk if pool == "topk" else 1
    best = queries.new_full((depth, bank.vertices, len(queries)), -torch.inf)
    total, count = torch.zeros_like(best[0]) if pool == "mean" else None, queries.new_zeros(bank.vertices, 1)
    for (similarity, index), extra in zip(bank.similarities(queries), bonus, strict=True):
        if total is not None:
            total[index] += similarity
            count[index] += 1
        else:
            _insert(best, index, similarity + extra)
    if total is not None:
        return torch.where(count > 0, total / count.clamp_min(1), -torch.inf)
    return best[0] if depth == 1 else _mean_of_finite(best)


def _bonus(bank: Bank, queries: torch.Tensor, agreement: float) -> torch.Tensor:
    """What is added to each view's similarities, `(N,)`, none above 0."""
    if agreement <= 0:
        return torch.zeros(len(bank.views), device=queries.device)
    found = agreements(bank, queries)
    return agreement * (found - found.max())


def _insert(best: torch.Tensor, index: torch.Tensor, values: torch.Tensor) -> None:
    """Keep `values` `(R, P)` in the sorted lists `best` `(depth, K, P)` at rows `index`; no row comes twice
    in a view.
    """
    for level in best:
        kept = level[index]
        level[index] = torch.maximum(kept, values)
        values = torch.minimum(kept, values)


def _mean_of_finite(best: torch.Tensor) -> torch.Tensor:
    """The mean over views `(K, P)` of `best` `(depth, K, P)`, of as many as there are; -inf where there is
    none.
    """
    finite = best.isfinite()
    total = torch.where(finite, best, 0).sum(0)
    return torch.where(finite.any(0), total / finite.sum(0).clamp_min(1), -torch.inf)


def best_vertices(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The matches of Eq. 2: vertex numbers `(P,)`, the lowest of equals, and their scores `(P,)`, from Sigma
    `(K, P)`.
    """
    score, vertex = sigma.max(0)
    return vertex, score


def peak(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest of each row of `values` `(P, K)`, `(P,)`, and its column `(P,)`, the lowest of equals."""
    if values.device.type != "cpu":
        return values.max(1)
    column = torch.from_numpy(values.numpy().argmax(1))  # a quarter of the time of torch's on a CPU
    return values.gather(1, column[:, None])[:, 0], column


def match(
    bank: Bank, queries: torch.Tensor, *, pool: str = "max", topk: int = 3, agreement: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """`best_vertices` of `pool_similarities`, without Sigma where max pooling allows it.

    The best vertex over the best view is the best of all pairs, so each view only gives its best vertex for
    each query. Views come in the order of their agreement; once no later view could win, even with a
    similarity of 1, the rest is left out.
    """
    if pool != "max":
        return best_vertices(pool_similarities(bank, queries, pool=pool, topk=topk, agreement=agreement))
    bonus = _bonus(bank, queries, agreement)
    score = queries.new_full((len(queries),), -torch.inf)
    vertex = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    near = None
    for i in bonus.argsort(descending=True, stable=True).tolist():
        if (
            agreement > 0 and score.min() > 1 + CLOSE + bonus[i]
        ):  # without bonuses there is nothing to wait for
            break
        rows, index = bank.views[i]
        if not len(index):
            continue
        near = queries.to(rows.dtype) if near is None else near
        best, row = peak((rows @ near.T).T.contiguous() if isinstance(rows, Taps) else near @ rows.T)
        best, found = best.float() + bonus[i], index[row]
        wins = (best > score) | ((best == score) & (found < vertex))
        score, vertex = torch.where(wins, best, score), torch.where(wins, found, vertex)
    return vertex, score
