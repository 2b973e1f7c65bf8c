"""Ray casting with NVIDIA Warp, on a CPU and with CUDA. For Apple's GPU, which it lacks, the CPU casts."""

from __future__ import annotations

import torch
import warp as wp

from shic_cli.parts.renderers.cast import cast
from shic_cli.parts.renderers.contract import Fragments, RendererDefaults
from shic_cli.surface.cameras import Cameras
from shic_cli.surface.warp_kernels import prepared


class WarpRenderer(RendererDefaults):
    """Casts one ray for each pixel; `argument` is not used."""

    def __init__(self, argument: str = "", *, device: torch.device | str = "cpu") -> None:
        self.device, self.own = torch.device(device), torch.device(device)  # the second is Warp's own
        if self.device.type == "mps":
            self.own = torch.device("cpu")
        self.where = prepared(cast, self.own)  # pyright: ignore[reportArgumentType]

    def __call__(self, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras, size: int) -> Fragments:
        """Fragments of `verts` `(K, 3)` and `faces` `(F, 3)`; Warp writes into the tensors without a copy."""
        verts, cameras = verts.detach().to(self.own, torch.float32).contiguous(), cameras.to(self.own)
        index = faces.to(self.own, torch.int32).contiguous().view(-1)
        shape = (len(cameras), size, size)
        face = torch.full(shape, -1, dtype=torch.int64, device=self.own)
        bary = torch.full((*shape, 3), -1.0, device=self.own)
        zbuf = torch.full(shape, -1.0, device=self.own)
        is_cuda = self.own.type == "cuda"
        stream = wp.stream_from_torch(torch.cuda.current_stream(self.own)) if is_cuda else None
        with wp.ScopedStream(stream):
            mesh = wp.Mesh(wp.from_torch(verts, wp.vec3), wp.from_torch(index))
            inputs = [
                mesh.id,
                wp.from_torch(cameras.rotation.contiguous(), wp.mat33),
                wp.from_torch(cameras.translation.contiguous(), wp.vec3),
                wp.from_torch(cameras.focal.contiguous()),
                wp.from_torch(cameras.principal.contiguous(), wp.vec2),
            ]
            outputs = [wp.from_torch(face), wp.from_torch(bary, wp.vec3), wp.from_torch(zbuf)]
            wp.launch(cast, dim=shape, inputs=inputs, outputs=outputs, device=self.where)
        return Fragments(face.to(self.device), bary.to(self.device), zbuf.to(self.device))
