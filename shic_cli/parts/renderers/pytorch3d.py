"""Rasterisation with PyTorch3D, where that is installed."""

from __future__ import annotations

from pathlib import Path

import torch

from shic_cli.base.errors import MissingError
from shic_cli.parts.renderers.contract import Fragments
from shic_cli.surface.cameras import Cameras


class Pytorch3dRenderer:
    """PyTorch3D's rasteriser, naive (exact: its bins can overflow) and with one face a pixel; `argument` is
    not used.
    """

    slow_on = (
        "cpu",
    )  # there every pixel is tried against every face: half an hour for 72 views, not seconds

    def __init__(self, argument: str = "", *, device: str = "cpu") -> None:
        self.device = torch.device(device)

    @classmethod
    def check(cls, weights: Path | None = None) -> None:
        """MissingError with what keeps PyTorch3D from being imported."""
        try:
            import pytorch3d.renderer  # noqa: F401
        except (ImportError, OSError) as error:
            raise MissingError(
                f"pytorch3d can't be imported ({error})", "`--renderer auto` takes one that is here"
            ) from error

    def __call__(self, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras, size: int) -> Fragments:
        """Fragments of `verts` (K, 3), `faces` (F, 3); pixels that see exactly an edge between two faces can
        be left out.
        """
        from pytorch3d.renderer import MeshRasterizer, PerspectiveCameras, RasterizationSettings
        from pytorch3d.structures import Meshes

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
            found = MeshRasterizer(theirs, settings)(meshes)
        except RuntimeError as error:
            if "Not compiled with GPU support" not in str(error):
                raise
            raise MissingError(
                "pytorch3d: was built without CUDA", "give --renderer warp, or build it with FORCE_CUDA=1"
            ) from error
        face = found.pix_to_face[..., 0]
        first = torch.arange(number, device=self.device)[:, None, None] * len(
            faces
        )  # faces are numbered through all the meshes
        return Fragments(
            torch.where(face >= 0, face - first, -1), found.bary_coords[..., 0, :], found.zbuf[..., 0]
        )
