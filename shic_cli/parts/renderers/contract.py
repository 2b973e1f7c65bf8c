"""Renderers: one file a part, imported only when its name is asked for.

A renderer is made as `Renderer(argument, device=device)` and called as `renderer(verts, faces, cameras,
size)`: it gives the fragments of the surface `verts` (K, 3), `faces` (F, 3) in pictures of `size` pixels a
side. Both sides of a face are seen. Everything that follows from fragments is shared code in learning/views.py, so
that renderers can't differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from shic_cli.surface.cameras import Cameras


@dataclass(frozen=True)
class Fragments:
    """What each pixel's centre sees: `face` i8 (N, H, W), `bary` f4 (N, H, W, 3) and view-space depth `zbuf`
    f4 (N, H, W); -1 is none.
    """

    face: torch.Tensor
    bary: torch.Tensor
    zbuf: torch.Tensor

    def __getitem__(self, index: slice | torch.Tensor) -> Fragments:
        """Some of the views."""
        return Fragments(self.face[index], self.bary[index], self.zbuf[index])

    def cpu(self) -> Fragments:
        """The same on the CPU; a GPU is waited for once."""
        if self.face.device.type == "cpu":
            return self
        face, zbuf = (each.double()[..., None] for each in (self.face, self.zbuf))
        face, bary, zbuf = torch.cat([face, self.bary.double(), zbuf], -1).cpu().split([1, 3, 1], -1)
        return Fragments(face[..., 0].long(), bary.float(), zbuf[..., 0].float())

    @property
    def mask(self) -> torch.Tensor:
        """Where there is a surface, bool `(N, H, W)`."""
        return self.face >= 0


class Renderer(Protocol):
    """The contract that every renderer keeps."""

    def __init__(self, argument: str = "", *, device: str = "cpu") -> None: ...

    def __call__(
        self, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras, size: int
    ) -> Fragments: ...
