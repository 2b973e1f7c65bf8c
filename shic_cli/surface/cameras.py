"""Viewpoints and projection. The axes, stated here once, are those of pytorch3d.

World: +y up, +z to the object's front, +x to its left. View: +X left, +Y up, +Z into the scene, right-handed;
positions are row vectors, X_view = X_world R + T. Normalised device coordinates: x = f X / Z + p_x and y = f
Y / Z + p_y, with +1 at the left and top edges of the square picture. Pixels: (y, x) with centres at integers,
so that x = 1 - (2 column + 1) / size.

Azimuth 0 looks at the object's front, azimuth 90 at its left side; a positive elevation looks from above; a
positive roll turns the picture counter-clockwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from shic_cli.base.errors import InputError

RADIUS = 3**0.5 / 2  # radius of the sphere around a cube with sides of length 1


@dataclass(frozen=True)
class Cameras:
    """N perspective cameras, f4; `principal` is x, y in normalised device coordinates.

    `rotation` is `(N, 3, 3)`, `translation` `(N, 3)`, `focal` `(N,)` and `principal` `(N, 2)`.
    """

    rotation: torch.Tensor
    translation: torch.Tensor
    focal: torch.Tensor
    principal: torch.Tensor

    def __len__(self) -> int:
        return len(self.rotation)

    def __getitem__(self, index: slice | torch.Tensor) -> Cameras:
        return Cameras(*(getattr(self, field.name)[index] for field in fields(self)))

    def to(self, device: torch.device | str) -> Cameras:
        """The same cameras on `device`."""
        return Cameras(*(getattr(self, field.name).to(device) for field in fields(self)))

    def to_view(self, verts: torch.Tensor) -> torch.Tensor:
        """View coordinates `(N, K, 3)` of world positions `(K, 3)` or `(N, K, 3)`."""
        return verts @ self.rotation + self.translation[:, None]

    def project(self, verts: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixel positions (y, x) `(N, K, 2)` and view depths `(N, K)` of `verts`.

        `verts` are world positions `(K, 3)` or `(N, K, 3)`; the pictures have `size` pixels a side.
        """
        view = self.to_view(verts)
        ndc = self.focal[:, None, None] * view[..., :2] / view[..., 2:] + self.principal[:, None]
        return ((1 - ndc) * (size / 2) - 0.5).flip(-1), view[..., 2]

    def fit(self, verts: torch.Tensor, share: float) -> Cameras:
        """Cameras at the same places whose frames centre `verts`; the longer side takes `share` of the frame.

        `verts` are `(K, 3)` or `(N, K, 3)`. Only the focal length and the principal point change, like the
        crop of a photo. InputError if a vertex is not in front of a camera.
        """
        view = self.to_view(verts)
        if view[..., 2].min() <= 0:
            raise InputError("the surface reaches behind a camera", "give a smaller field of view")
        slope = view[..., :2] / view[..., 2:]
        low, high = slope.amin(1), slope.amax(1)
        focal = 2 * share / (high - low).amax(1)
        return Cameras(self.rotation, self.translation, focal, -focal[:, None] * (low + high) / 2)


def look_at(azimuth: torch.Tensor, elevation: torch.Tensor, roll: torch.Tensor, fov: torch.Tensor) -> Cameras:
    """N cameras that look at the origin, at angles `azimuth`, `elevation` and `roll` `(N,)` in degrees.

    `fov` `(N,)` is the field of view in degrees. The cameras stand where a centred object whose longest side
    is 1 fills it.
    """
    a, e, r, half = (torch.deg2rad(angle.float()) for angle in (azimuth, elevation, roll, fov / 2))
    zero = torch.zeros_like(a)
    left = torch.stack([-a.cos(), zero, a.sin()], -1)
    up = torch.stack([-e.sin() * a.sin(), e.cos(), -e.sin() * a.cos()], -1)
    into = torch.stack([-e.cos() * a.sin(), -e.sin(), -e.cos() * a.cos()], -1)
    c, s = r.cos()[:, None], r.sin()[:, None]
    rotation = torch.stack([c * left + s * up, c * up - s * left, into], -1)
    translation = torch.stack([zero, zero, RADIUS / half.sin()], -1)
    return Cameras(rotation, translation, 1 / half.tan(), torch.zeros_like(translation[:, :2]))


def ring(azimuths: int, elevations: Sequence[float], fov: float) -> Cameras:
    """The N viewpoints of sec. 4.1: `azimuths` around the object at each of `elevations` (degrees).

    They come elevation by elevation.
    """
    azimuth = torch.arange(azimuths).repeat(len(elevations)) * (360 / azimuths)
    elevation = torch.tensor(tuple(elevations), dtype=torch.float32).repeat_interleave(azimuths)
    return look_at(azimuth, elevation, torch.zeros_like(azimuth), torch.full_like(azimuth, fov))
