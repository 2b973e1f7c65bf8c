"""Ray casting with NVIDIA Warp, on a CPU and with CUDA."""

from __future__ import annotations

import torch
import warp as wp

from shic_cli.parts.renderers.contract import Fragments
from shic_cli.surface.cameras import Cameras
from shic_cli.surface.warp_kernels import prepared

# Standard output is for data; Warp would print a banner and its compilations there. The first name is of Warp
# below 1.13.
wp.config.quiet = True
wp.config.log_level = 30


@wp.kernel
def cast(
    mesh: wp.uint64,
    rotation: wp.array(dtype=wp.mat33),
    translation: wp.array(dtype=wp.vec3),
    focal: wp.array(dtype=wp.float32),
    principal: wp.array(dtype=wp.vec2),
    face: wp.array(dtype=wp.int64, ndim=3),
    bary: wp.array(dtype=wp.vec3, ndim=3),
    zbuf: wp.array(dtype=wp.float32, ndim=3),
):
    """One ray a pixel, through the view-space point (x, y, 1)."""
    n, i, j = wp.tid()
    height, width = face.shape[1], face.shape[2]
    one, two = wp.float64(1.0), wp.float64(2.0)
    x = one - (two * wp.float64(j) + one) / wp.float64(width) - wp.float64(principal[n][0])
    y = one - (two * wp.float64(i) + one) / wp.float64(height) - wp.float64(principal[n][1])
    d = wp.vec3d(x, y, wp.float64(focal[n])) / wp.float64(focal[n])
    hit = wp.mesh_query_ray(mesh, rotation[n] * (-translation[n]), rotation[n] * wp.vec3(d), 1.0e6)
    if hit.result:
        # Warp's own u, v and t are off by up to 1e-3 where a ray grazes a face: solve z d = sum of bary_k
        # corner_k, in double.
        turn, shift = wp.transpose(wp.mat33d(rotation[n])), wp.vec3d(translation[n])
        a = turn * wp.vec3d(wp.mesh_eval_position(mesh, hit.face, 1.0, 0.0)) + shift
        b = turn * wp.vec3d(wp.mesh_eval_position(mesh, hit.face, 0.0, 1.0)) + shift
        c = turn * wp.vec3d(wp.mesh_eval_position(mesh, hit.face, 0.0, 0.0)) + shift
        weights = wp.vec3d(wp.dot(d, wp.cross(b, c)), wp.dot(d, wp.cross(c, a)), wp.dot(d, wp.cross(a, b)))
        total = weights[0] + weights[1] + weights[2]
        face[n, i, j] = wp.int64(hit.face)
        bary[n, i, j] = wp.vec3(weights / total)
        zbuf[n, i, j] = float(wp.dot(a, wp.cross(b, c)) / total)


class WarpRenderer:
    """Casts one ray a pixel; `argument` is not used."""

    def __init__(self, argument: str = "", *, device: str = "cpu") -> None:
        self.device = torch.device(device)
        self.where = prepared(cast, self.device)

    def __call__(self, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras, size: int) -> Fragments:
        """Fragments of `verts` (K, 3), `faces` (F, 3); Warp reads and writes the tensors themselves, nothing
        is copied.
        """
        verts, cameras = verts.detach().to(self.device, torch.float32).contiguous(), cameras.to(self.device)
        index = faces.to(self.device, torch.int32).contiguous().view(-1)
        shape = (len(cameras), size, size)
        face = torch.full(shape, -1, dtype=torch.int64, device=self.device)
        bary = torch.full((*shape, 3), -1.0, device=self.device)
        zbuf = torch.full(shape, -1.0, device=self.device)
        stream = (
            wp.stream_from_torch(torch.cuda.current_stream(self.device))
            if self.device.type == "cuda"
            else None
        )
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
        return Fragments(face, bary, zbuf)
