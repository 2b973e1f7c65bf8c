"""The geodesic median: the vertex with the smallest expected distance under a distribution over vertices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import dijkstra

from shic_cli.base.settings import GEODESIC_MAXIMUM

# A cell has about ten of 5,000 vertices. With 128 cells the error was 1.4 % larger, with one cell for each
# vertex 1.1 % smaller.
CELLS = 512


@dataclass(frozen=True)
class Median:
    """The cell of every vertex, `cell` `(K,)`, and the distances `between` `(M, M)` of the cells' centres.

    Distances are on the 228 scale.

    Where the object may be one of two legs, the likeliest vertex is a guess among many vertices that are
    about as likely; the median (Fletcher et al., NeuroImage 2009) has the least expected error. The best cell
    is found from the distances between centres alone. The answer is the likeliest vertex in that cell, so a
    sure prediction keeps its place.
    """

    cell: torch.Tensor
    between: torch.Tensor

    @classmethod
    def of(
        cls, verts: np.ndarray, faces: np.ndarray, device: torch.device | str = "cpu", number: int = CELLS
    ) -> Median:
        """The median on a mesh with vertices `(K, 3)` and faces `(F, 3)`, with `number` cells.

        The centres are farthest points, and distances run along edges. Two parts that no edges join are taken
        to be as far apart as the largest finite distance.
        """
        edges = np.unique(
            np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0
        )
        lengths = np.linalg.norm(verts[edges[:, 0]] - verts[edges[:, 1]], axis=1)
        graph = coo_matrix((lengths, edges.T), shape=(len(verts),) * 2).tocsr()
        centres, rows = [0], [dijkstra(graph, directed=False, indices=0)]
        nearest = rows[0]
        while len(centres) < min(number, len(verts)):
            centres.append(int(nearest.argmax()))
            rows.append(dijkstra(graph, directed=False, indices=centres[-1]))
            nearest = np.minimum(nearest, rows[-1])
        distance = np.stack(rows)
        between = distance[:, centres]
        between[np.isinf(between)] = between[np.isfinite(between)].max()
        between *= GEODESIC_MAXIMUM / max(distance[np.isfinite(distance)].max(), np.finfo(np.float32).tiny)
        return cls(
            torch.from_numpy(distance.argmin(0)).to(device), torch.from_numpy(between).float().to(device)
        )

    @cached_property
    def members(self) -> tuple[torch.Tensor, ...]:
        """The vertices of each cell."""
        counts = self.cell.bincount(minlength=len(self.between)).tolist()
        return self.cell.argsort(stable=True).split(counts)

    @cached_property
    def spacing(self) -> torch.Tensor:
        """The usual distance between the centres of neighbouring cells, a tensor without axes."""
        return self.between.masked_fill(self.between == 0, torch.inf).amin(1).median()

    def cells(self, share: torch.Tensor) -> torch.Tensor:
        """The probability `(P, M)` of each cell, of distributions `share` `(P, K)`."""
        return share.new_zeros(len(share), len(self.between)).index_add_(1, self.cell, share)

    def __call__(self, share: torch.Tensor, cells: torch.Tensor | None = None) -> torch.Tensor:
        """The median `(P,)` of each distribution in `share` `(P, K)`; `cells` are those of `share`."""
        best = ((self.cells(share) if cells is None else cells) @ self.between).argmin(1)
        return torch.where(self.cell == best[:, None], share, -1).argmax(1)

    def expected(self, cells: torch.Tensor, vertex: torch.Tensor) -> torch.Tensor:
        """The expected distance `(P,)` from each `vertex` `(P,)`, by the probabilities of `cells` `(P, M)`.

        Distances are those of the cells' centres, so it is 0 where all is in the vertex's own cell.
        """
        return (cells * self.between[self.cell[vertex]]).sum(1)
