"""Eq. 1 and Eq. 2: similarities of pixels and vertices, pooled over the views in which a vertex is visible.

Letters: P query pixels, N views, K vertices, R_i vertices that are visible in view i, D channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

CLOSE = 1e-4  # rounding may lift a cosine this far above 1
# On these devices a bank keeps its rows in half precision, because the rows of 72 views take gigabytes.
HALF_ON = ("cuda",)
TAPS_ON = ("cpu",)  # on these devices views with few cells are kept as Taps
FEWER = 2  # Taps are used if a view has more than this many vertices for each cell
SAMPLE = 400  # at least so many query pixels measure how well a view agrees with the object


def sample(maps: torch.Tensor, yx: torch.Tensor, size: int) -> torch.Tensor:
    """Values `(B, P, D)` of `maps` `(B, D, h, w)`, interpolated bilinearly at `yx` `(B, P, 2)`.

    `yx` are pixels of pictures of `size` a side.
    """
    grid = (yx.flip(-1) + 0.5) * (2 / size) - 1  # grid_sample takes x first, from -1 to 1 edge to edge
    values = F.grid_sample(maps, grid[:, None].to(maps), padding_mode="border", align_corners=False)
    return values[:, :, 0].transpose(1, 2)


@dataclass(frozen=True)
class Taps:
    """`(R, D)` unit rows in a short form: each row is a weighted mean of four cells.

    `four` `(R, 4)` has the cells' numbers and `weight` `(R, 4)` their weights. The cosine of a query and such
    a row is the same weighted mean of the cells' products with the query. So one product for each of the
    `cells` `(C, D)` serves all the rows around it.
    """

    cells: torch.Tensor
    four: torch.Tensor
    weight: torch.Tensor

    @classmethod
    def at(cls, feature: torch.Tensor, yx: torch.Tensor, size: int) -> Taps:
        """The unit rows that `sample` reads of `feature` `(D, h, w)` at `yx` `(R, 2)`."""
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
    """The views' features at visible vertices: for each view unit rows `(R_i, D)` and vertices `(R_i,)`.

    `vertices` is K. Rows are f2 on the devices in HALF_ON, else f4; similarities are always f4. Views with
    few cells have Taps in place of rows.
    """

    views: list[tuple[torch.Tensor | Taps, torch.Tensor]]
    vertices: int

    @classmethod
    def build(
        cls, features: Iterable[torch.Tensor], vertex_yx: torch.Tensor, visible: torch.Tensor, size: int
    ) -> Bank:
        """The bank of the N views' `features` `(D, h, w)`.

        `vertex_yx` `(N, K, 2)` is v_i(k) in pixels of views of `size` a side, and `visible` `(N, K)` is V_i.
        """
        views = []
        for feature, yx, seen in zip(features, vertex_yx, visible, strict=True):
            index = seen.nonzero()[:, 0].to(feature.device)
            views.append((_rows(feature, yx.to(feature.device)[index], size), index))
        return cls(views, visible.shape[1])

    def similarities(self, queries: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """View by view S_i `(R_i, P)` of Eq. 2 and the view's vertex numbers `(R_i,)`.

        S_i holds the cosines of unit `queries` `(P, D)` and view i.
        """
        for rows, index in self.views:
            yield (rows @ queries.T.to(rows.dtype)).float(), index


def _rows(feature: torch.Tensor, yx: torch.Tensor, size: int) -> torch.Tensor | Taps:
    """Unit rows of `feature` `(D, h, w)` at `yx` `(R, 2)`, as Taps if these are faster."""
    kind = feature.device.type
    if kind in TAPS_ON and len(yx):
        taps = Taps.at(feature, yx, size)
        if FEWER * len(taps.cells) < len(taps):
            return taps
    rows = F.normalize(sample(feature[None].float(), yx[None], size)[0], dim=1)
    return rows.half() if kind in HALF_ON else rows


def agreements(bank: Bank, queries: torch.Tensor) -> torch.Tensor:
    """`(N,)`: how well each view agrees with the whole object.

    It is the mean best similarity, from pixels to vertices and from vertices to pixels.
    """
    step = max(1, len(queries) // SAMPLE)
    both = [
        (rows.amax(0).mean() + rows.amax(1).mean()) / 2 if len(rows) else rows.new_tensor(-1.0)
        for rows, _ in bank.similarities(queries[::step])
    ]
    return torch.stack(both)


def pool_similarities(
    bank: Bank, queries: torch.Tensor, *, pool: str = "max", topk: int = 3, agreement: float = 0.0
) -> torch.Tensor:
    """Sigma `(K, P)` of Eq. 2 for unit `queries` `(P, D)`; -inf for vertices that no view shows.

    `pool` is max, mean or topk (the mean of the `topk` best views). For max and topk with `agreement` > 0,
    each view's similarities first get a bonus: `agreement` times (the view's agreement - the best view's). So
    a view of another side of the object that happens to look alike at one pixel counts less. The views are
    streamed, so memory does not grow with N.
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
        return torch.where(count > 0, total / count, -torch.inf)
    return best[0] if depth == 1 else _mean_of_finite(best)


def _bonus(bank: Bank, queries: torch.Tensor, agreement: float) -> torch.Tensor:
    """The bonus `(N,)` that is added to each view's similarities; none is above 0."""
    if agreement <= 0:
        return torch.zeros(len(bank.views), device=queries.device)
    agreement_of_view = agreements(bank, queries)
    return agreement * (agreement_of_view - agreement_of_view.max())


def _insert(best: torch.Tensor, index: torch.Tensor, values: torch.Tensor) -> None:
    """Insert `values` `(R, P)` into the sorted lists `best` `(depth, K, P)` at rows `index`, in place.

    A row must not come twice in `index`.
    """
    for level in best:
        kept = level[index]
        level[index] = torch.maximum(kept, values)
        values = torch.minimum(kept, values)


def _mean_of_finite(best: torch.Tensor) -> torch.Tensor:
    """The mean `(K, P)` over the finite entries of `best` `(depth, K, P)`; -inf if there is none."""
    finite = best.isfinite()
    total = torch.where(finite, best, 0).sum(0)
    return torch.where(finite.any(0), total / finite.sum(0), -torch.inf)


def best_vertices(sigma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The matches of Eq. 2: vertex numbers `(P,)` and their scores `(P,)`, from Sigma `(K, P)`.

    Of equal vertices the lowest number is taken.
    """
    score, vertex = sigma.max(0)
    return vertex, score


def peak(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The largest value `(P,)` of each row of `values` `(P, K)` and its column `(P,)`.

    Of equal values the lowest column is taken.
    """
    if values.device.type != "cpu":
        return values.max(1)
    column = torch.from_numpy(values.numpy().argmax(1))  # on a CPU numpy takes a quarter of torch's time
    return values.gather(1, column[:, None])[:, 0], column


def match(
    bank: Bank, queries: torch.Tensor, *, pool: str = "max", topk: int = 3, agreement: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """`best_vertices` of `pool_similarities`; max pooling computes it without Sigma.

    With max pooling the best vertex over all views is the best of the views' best vertices, so each view
    gives only one vertex for each query. On a CPU views come in the order of their agreement, and the loop
    ends when no later view could win, even with a similarity of 1.
    """
    if pool != "max":
        return best_vertices(pool_similarities(bank, queries, pool=pool, topk=topk, agreement=agreement))
    bonus = _bonus(bank, queries, agreement)
    score = queries.new_full((len(queries),), -torch.inf)
    vertex = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    converted = None
    # a GPU compares with all views sooner than the host learns which of them are needed
    ordered = agreement > 0 and queries.device.type == "cpu"
    for i in bonus.argsort(descending=True, stable=True).tolist() if ordered else range(len(bonus)):
        if ordered and score.min() > 1 + CLOSE + bonus[i]:
            break
        rows, index = bank.views[i]
        if not len(index):
            continue
        converted = queries.to(rows.dtype) if converted is None else converted
        best, row = peak(
            (rows @ converted.T).T.contiguous() if isinstance(rows, Taps) else converted @ rows.T
        )
        best, candidate = best.float() + bonus[i], index[row]
        wins = (best > score) | ((best == score) & (candidate < vertex))
        score, vertex = torch.where(wins, best, score), torch.where(wins, candidate, vertex)
    return vertex, score
