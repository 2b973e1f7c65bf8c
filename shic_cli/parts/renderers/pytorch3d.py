"""Rasterisation with PyTorch3D, where that is installed."""

from __future__ import annotations

from pathlib import Path

import torch

from shic_cli.base.errors import MissingError
from shic_cli.parts.renderers.contract import Fragments, RendererDefaults
from shic_cli.surface.cameras import Cameras


class Pytorch3dRenderer(RendererDefaults):
    """PyTorch3D's rasteriser, one face for each pixel; `argument` is not used.

    It tries every pixel against every face: the quicker way sorts faces into bins, which can overflow.
    """

    slow_on = ("cpu", "mps")  # 72 views take half an hour there

    def __init__(self, argument: str = "", *, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)

    @classmethod
    def check(cls, weights: Path | None = None) -> None:
        """MissingError with the reason where PyTorch3D can't be imported."""
        try:
            import pytorch3d.renderer  # pyright: ignore[reportMissingImports]  # noqa: F401
        except (ImportError, OSError) as error:
            raise MissingError(
                f"pytorch3d can't be imported ({error})", "`--renderer auto` takes a renderer that is here"
            ) from error

    def __call__(self, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras, size: int) -> Fragments:
        """Fragments of `verts` `(K, 3)` and `faces` `(F, 3)`.

        A pixel whose centre lies exactly on the edge between two faces may see neither.
        """
        from pytorch3d.renderer import MeshRasterizer, PerspectiveCameras, RasterizationSettings  # pyright: ignore[reportMissingImports]
        from pytorch3d.structures import Meshes  # pyright: ignore[reportMissingImports]

        number, cameras = len(cameras), cameras.to(self.device)
        settings = RasterizationSettings(
            image_size=size, blur_radius=0.0, faces_per_pixel=1, bin_size=0, perspective_correct=True
        )
        theirs = PerspectiveCameras(
            R=cameras.rotation,
            T=cameras.translation,
            focal_length=cameras.focal,
            principal_point=cameras.principal,
            in_ndc=True,
            device=self.device,
        )
        meshes = Meshes(
            [verts.detach().to(self.device, torch.float32)], [faces.to(self.device, torch.int64)]
        ).extend(number)
        try:
            seen = MeshRasterizer(theirs, settings)(meshes)
        except RuntimeError as error:
            if "Not compiled with GPU support" not in str(error):
                raise
            raise MissingError(
                "pytorch3d: was built without CUDA", "give --renderer warp, or build it with FORCE_CUDA=1"
            ) from error
        face = seen.pix_to_face[..., 0]  # numbered through the faces of all views
        first = torch.arange(number, device=self.device)[:, None, None] * len(faces)
        face = torch.where(face >= 0, face - first, -1)
        return Fragments(face, seen.bary_coords[..., 0, :], seen.zbuf[..., 0])
