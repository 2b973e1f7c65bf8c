"""The contract of a renderer: a mesh and cameras go in, what each pixel sees of the mesh comes out.

A renderer is made once for a run, as `Part(argument, device=device)`; `argument` is the text after the colon
of `--renderer name:argument`, and further keyword parameters are options, as for every part. It is called
for all the views at once. Pictures, depth and visibility are made from its fragments by code that all
renderers share (learning/views.py), so that renderers can't differ in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch

from shic_cli.parts.contract import Contract, PartDefaults
from shic_cli.surface.cameras import Cameras


@dataclass(frozen=True)
class Fragments:
    """What the centre of each pixel sees, of N views of H by W pixels; -1 where it sees no surface.

    `face` i8 `(N, H, W)` is the number of the nearest face, `bary` f4 `(N, H, W, 3)` the barycentric
    coordinates on it, `zbuf` f4 `(N, H, W)` its depth in view space, in units of the mesh.
    """

    face: torch.Tensor
    bary: torch.Tensor
    zbuf: torch.Tensor

    def __getitem__(self, index: slice | torch.Tensor) -> Fragments:
        """The fragments of some of the views."""
        return Fragments(self.face[index], self.bary[index], self.zbuf[index])

    def cpu(self) -> Fragments:
        """The same fragments on the CPU. The three tensors are copied as one, with one wait for a GPU."""
        if self.face.device.type != "cuda":
            return Fragments(self.face.cpu(), self.bary.cpu(), self.zbuf.cpu())
        face, zbuf = (tensor.double()[..., None] for tensor in (self.face, self.zbuf))
        face, bary, zbuf = torch.cat([face, self.bary.double(), zbuf], -1).cpu().split([1, 3, 1], -1)
        return Fragments(face[..., 0].long(), bary.float(), zbuf[..., 0].float())

    @property
    def mask(self) -> torch.Tensor:
        """Where there is a surface, bool `(N, H, W)`."""
        return self.face >= 0


class RendererDefaults(PartDefaults, Protocol):
    """What a renderer may have: no more than a part of any kind may."""


class Renderer(RendererDefaults, Protocol):
    """What every renderer has once it is made."""

    def __call__(self, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras, size: int) -> Fragments:
        """Fragments of `verts` f4 `(K, 3)` and `faces` i8 `(F, 3)` in N views of `size` by `size` pixels.

        They are on the device that the renderer was made for. Both sides of a face are seen. The perspective
        is exact: `bary` and `zbuf` are those of the point on the surface, not of its projection.
        """
        ...


def _fault_of_renderer(part: Renderer, name: str) -> str:
    return ""


def _fault_of_fragments(
    part: Renderer, found: object, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras, size: int
) -> str:
    if not isinstance(found, Fragments):
        return f"gave {type(found).__name__}, not Fragments"
    shape = (len(cameras), size, size)
    for name, dtype, wanted in (
        ("face", torch.int64, shape),
        ("bary", torch.float32, (*shape, 3)),
        ("zbuf", torch.float32, shape),
    ):
        tensor = getattr(found, name)
        if not isinstance(tensor, torch.Tensor) or (tensor.dtype, tuple(tensor.shape)) != (dtype, wanted):
            kind = (
                f"{tensor.dtype} {tuple(tensor.shape)}" if hasattr(tensor, "shape") else type(tensor).__name__
            )
            return f"gave fragments whose {name} is {kind}, not {dtype} {wanted}"
    return ""


CONTRACT = Contract("renderers", Renderer, RendererDefaults, _fault_of_renderer, _fault_of_fragments)
