"""The canonical map: a decoder for pixels, and E = U C for vertices (sec. 3.4)."""

from __future__ import annotations

import torch
from torch import nn

from shic_cli.learning.decoders import DECODERS


class CanonicalMap(nn.Module):
    """Pixel embeddings by `decoder`, and vertex embeddings E = U C.

    U `(K, Q)` are the eigenvectors and C `(Q, D)` is learned. C starts at zero, so at first every vertex is
    equally likely and L_pseudo is ln K exactly.
    """

    eigenvectors: torch.Tensor

    def __init__(self, decoder: str, channels: int, dim: int, eigenvectors: torch.Tensor) -> None:
        super().__init__()
        self.decoder = DECODERS[decoder](channels, dim)
        self.C = nn.Parameter(torch.zeros(eigenvectors.shape[1], dim))
        self.register_buffer("eigenvectors", eigenvectors)

    def vertex_embeddings(self) -> torch.Tensor:
        """E `(K, D)`."""
        return self.eigenvectors @ self.C

    def embed(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeddings `(B, D, h', w')` of features `(B, C, h, w)`, and foreground logits `(B, h', w')`.

        The logits are None if the decoder has no foreground output.
        """
        if self.decoder.pointwise:
            return self.decoder(features.movedim(1, -1)).movedim(-1, 1), None
        grid, foreground = self.decoder(features)
        return grid[:, : self.C.shape[1]], foreground
