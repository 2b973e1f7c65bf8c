"""Views of a template: pictures, depth, masks, and where every vertex is seen (sec. 3.3, Eq. 1)."""

from __future__ import annotations

from pathlib import Path

import torch

from shic_cli.base.errors import log
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.settings import MARGIN, RenderConfig
from shic_cli.files.atomic import atomic
from shic_cli.files.layouts import Template
from shic_cli.files.photos import encode
from shic_cli.files.pictures import contact_sheet
from shic_cli.learning.views import Views, interpolate_at, vertex_positions
from shic_cli.parts import registry
from shic_cli.parts.renderers.contract import Fragments
from shic_cli.surface.cameras import Cameras, ring

# The object's longer side takes this share of the frame, so views are framed like crops of photos.
SHARE = 1 / (1 + 2 * MARGIN)
BATCH = 8  # views that are styled at a time; this bounds the memory


def render_views(
    template: Template,
    config: RenderConfig,
    device: torch.device | str = "cpu",
    cameras: Cameras | None = None,
    verts: torch.Tensor | None = None,
    track: Track = plain_track,
) -> Views:
    """The N views of the template that `config` describes, on `device`.

    `cameras` replace the ring of viewpoints and are not fitted; `verts` `(K, 3)` replace the template's
    vertices.
    """
    renderer = registry.make("renderers", config.renderer, device=str(device))
    faces = torch.as_tensor(template.faces, dtype=torch.int64, device=device)
    verts = torch.as_tensor(template.verts if verts is None else verts, dtype=torch.float32).to(device)
    if cameras is None:
        cameras = ring(config.azimuths, config.elevations, config.fov).to(device).fit(verts, SHARE)
    cameras = cameras.to(device)
    fragments = renderer(verts, faces, cameras, config.size)
    starts, parts = range(0, len(cameras), BATCH), []
    for start in track(starts, len(starts), "render"):
        part, seen = cameras[start : start + BATCH], fragments[start : start + BATCH]
        image = STYLES[config.style](seen, verts, faces, part)
        parts.append((image, *vertex_positions(seen, faces, part, verts)))
    image, yx, visible = (torch.cat(part) for part in zip(*parts, strict=True))
    if unseen := int((~visible.any(0)).sum()):
        log.warning("render: %d of %d vertices are visible in no view", unseen, len(verts))
    return Views(
        image=image,
        depth=fragments.zbuf,
        mask=fragments.mask,
        face=fragments.face,
        bary=fragments.bary,
        cameras=cameras,
        vertex_yx=yx,
        vertex_visible=visible,
        template=template.fingerprint,
    )


def _normals(verts: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit normals of the vertices `(K, 3)`, and normals of the faces times twice their area `(F, 3)`.

    A vertex's normal is the area-weighted mean of the faces around it.
    """
    corners = verts[faces]
    flat = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    smooth = torch.zeros_like(verts).index_add(0, faces.reshape(-1), flat.repeat_interleave(3, 0))
    return torch.nn.functional.normalize(smooth, dim=-1), flat


def _picture_normals(
    fragments: Fragments, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras
) -> torch.Tensor:
    """Smooth unit normals `(P, 3)` of the surface's P pixels; none points away from the viewer.

    The components point to the picture's right, to its top and to the viewer.
    """
    mask = fragments.mask
    smooth, flat = _normals(verts, faces)
    values = torch.cat([smooth, verts], 1)
    normal, position = interpolate_at(fragments, mask.view(-1), faces, values).split(3, -1)
    eye = -(cameras.rotation @ cameras.translation[..., None])[..., 0]
    sizes = mask.sum((1, 2))
    ray = torch.nn.functional.normalize(position - eye.repeat_interleave(sizes, 0), dim=-1)
    back = (flat[fragments.face[mask]] * ray).sum(-1, keepdim=True) > 0
    normal = torch.where(back, -normal, normal)
    # At the outline smooth normals point away from the viewer. They are turned until they are perpendicular
    # to the viewing ray; reversing them instead would make speckles.
    normal = torch.nn.functional.normalize(
        normal - ray * (normal * ray).sum(-1, keepdim=True).clamp(min=0), dim=-1
    )
    normal = torch.cat(
        [
            part @ rotation
            for part, rotation in zip(normal.split(sizes.tolist()), cameras.rotation, strict=True)
        ]
    )
    return normal * normal.new_tensor([-1.0, 1.0, -1.0])


def style_normals(
    fragments: Fragments, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras
) -> torch.Tensor:
    """Normals as colours, u1 `(N, H, W, 3)`, on black: red points right, green up, blue to the viewer."""
    return _painted(fragments, (_picture_normals(fragments, verts, faces, cameras) + 1) / 2)


def style_shaded(
    fragments: Fragments, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras
) -> torch.Tensor:
    """A grey surface on black in soft light from above the viewer's left shoulder, u1 `(N, H, W, 3)`."""
    normal = _picture_normals(fragments, verts, faces, cameras)
    light = torch.nn.functional.normalize(normal.new_tensor([-0.4, 0.6, 1.0]), dim=0)
    grey = 0.15 + 0.75 * ((1 + normal @ light) / 2) ** 1.5  # the light wraps around, so that no part is black
    return _painted(fragments, grey[:, None].expand(-1, 3))


def style_depth(
    fragments: Fragments, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras
) -> torch.Tensor:
    """Depth as grey on black, u1 `(N, H, W, 3)`: a view's nearest point is white, its farthest dark."""
    mask, z = fragments.mask, fragments.zbuf
    near = z.masked_fill(~mask, torch.inf).amin((1, 2), keepdim=True)
    far = z.masked_fill(~mask, -torch.inf).amax((1, 2), keepdim=True)
    grey = 1 - 0.8 * (z - near) / (far - near).clamp(min=1e-6)
    return _painted(fragments, grey[mask][:, None].expand(-1, 3))


STYLES = {"normals": style_normals, "shaded": style_shaded, "depth": style_depth}


def _painted(fragments: Fragments, colour: torch.Tensor) -> torch.Tensor:
    """Pictures u1 `(N, H, W, 3)` with `colour` `(P, 3)` in 0..1 on the surface's P pixels."""
    out = torch.zeros(*fragments.face.shape, 3, dtype=torch.uint8, device=colour.device)
    out[fragments.mask] = (colour.clamp(0, 1) * 255).round().to(torch.uint8)
    return out


def write_contact_sheet(path: Path, views: Views, config: RenderConfig, overwrite: bool = False) -> None:
    """Write a PNG of all `views`, with a row for each elevation and a column for each azimuth.

    `config` has the settings that they were rendered with.
    """
    captions = [
        f"{i * 360 / config.azimuths:g}, {elevation:g}"
        for elevation in config.elevations
        for i in range(config.azimuths)
    ]
    with atomic(path, overwrite) as partial:
        partial.write_bytes(encode(contact_sheet(list(views.image.cpu().numpy()), config.azimuths, captions)))
