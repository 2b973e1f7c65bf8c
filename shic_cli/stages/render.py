"""Views of a template: pictures, depth, masks, and where every vertex is seen (sec. 3.3, Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch

from shic_cli import registry
from shic_cli.cameras import Cameras, ring
from shic_cli.config import MARGIN, RenderConfig
from shic_cli.draw import contact_sheet
from shic_cli.errors import InputError, log
from shic_cli.images import encode
from shic_cli.outputs import atomic
from shic_cli.progress import Track, plain_track
from shic_cli.renderers import Fragments
from shic_cli.schema import Template, read_arrays, write_arrays

KIND = "shic/views"
SHARE = 1 / (
    1 + 2 * MARGIN
)  # of the frame, for the object's longer side: views are framed like crops of photos
BATCH = 8  # views at a time; bounds the memory of what is computed between them
# of the surface's diagonal: how far behind the surface that its pixel shows a vertex still counts as visible
TOLERANCE = 2e-3
# pixels: a vertex farther than this from the mask was missed by every ray (a part thinner than a pixel)
NEAR = 2.0


@dataclass(frozen=True)
class Views:
    """N views: `image` u1 (N, H, W, 3), `depth` f4, `mask` bool, `face` i8 (N, H, W), `bary` f4 (N, H, W, 3),
    `cameras`, `vertex_yx` f4 (N, K, 2) = v_i(k) of Eq. 1, `vertex_visible` bool (N, K) = V_i, and the
    template's fingerprint."""

    image: torch.Tensor
    depth: torch.Tensor
    mask: torch.Tensor
    face: torch.Tensor
    bary: torch.Tensor
    cameras: Cameras
    vertex_yx: torch.Tensor
    vertex_visible: torch.Tensor
    template: str

    def __len__(self) -> int:
        return len(self.image)

    def __getitem__(self, index: slice | torch.Tensor) -> Views:
        """Some of the views."""
        return Views(*(value if isinstance(value, str) else value[index] for value in vars(self).values()))

    @property
    def fragments(self) -> Fragments:
        """What the renderer gave."""
        return Fragments(self.face, self.bary, self.depth)


def render_views(
    template: Template,
    config: RenderConfig,
    device: torch.device | str = "cpu",
    cameras: Cameras | None = None,
    verts: torch.Tensor | None = None,
    track: Track = plain_track,
) -> Views:
    """`Views` of the template as `config` says, on `device`.

    `cameras` take the place of the ring of viewpoints (and are not fitted), `verts` (K, 3) that of the
    template's vertices.
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
        some, seen = cameras[start : start + BATCH], fragments[start : start + BATCH]
        parts.append(
            (STYLES[config.style](seen, verts, faces, some), *vertex_positions(seen, faces, some, verts))
        )
    image, yx, visible = (torch.cat(part) for part in zip(*parts, strict=True))
    if unseen := int((~visible.any(0)).sum()):
        log.warning("render: %d of %d vertices are visible in no view", unseen, len(verts))
    return Views(
        image, fragments.zbuf, fragments.mask, fragments.face, fragments.bary, cameras, yx, visible, template.fingerprint
    )  # fmt: skip


def interpolate(fragments: Fragments, faces: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The vertices' `values` (K, C) at every pixel, `(N, H, W, C)`; 0 where there is no surface."""
    mask = fragments.mask
    out = values.new_zeros(*mask.shape, values.shape[1])
    out[mask] = _interpolate_surface(fragments, mask, faces, values)
    return out


def _interpolate_surface(
    fragments: Fragments, mask: torch.Tensor, faces: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """The vertices' `values` (K, C) at the pixels of `mask` alone, `(P, C)`."""
    return (values[faces[fragments.face[mask]]] * fragments.bary[mask][..., None]).sum(1)


def pixel_vertex(fragments: Fragments, faces: torch.Tensor) -> torch.Tensor:
    """The corner of its face that is nearest to every pixel, by the largest barycentric coordinate, i8 `(N,
    H, W)`; -1 for none.
    """
    mask = fragments.mask
    out = torch.full_like(fragments.face, -1)
    out[mask] = faces[fragments.face[mask]].gather(1, fragments.bary[mask].argmax(1, keepdim=True))[:, 0]
    return out


def vertex_positions(
    fragments: Fragments, faces: torch.Tensor, cameras: Cameras, verts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """v_i(k) `(N, K, 2)` and V_i `(N, K)` of Eq. 1: the mask's position that is nearest to each vertex's
    projection, and which are visible.

    A vertex is visible if it is not behind the plane of the face that the pixel at v_i(k) shows. The plane
    decides and not the pixel's depth, since a slanted surface changes its depth within one pixel by more than
    an ear is thick.
    """
    size = fragments.face.shape[-1]
    projected, _ = cameras.project(verts, size)
    yx = _nearest_on_mask(projected, fragments.mask)
    row, column = yx.round().long().clamp(0, size - 1).unbind(-1)
    face = fragments.face.flatten(1).gather(1, row * size + column)
    view = cameras.to_view(verts)
    corners = view[torch.arange(len(view), device=view.device)[:, None, None], faces[face.clamp(min=0)]]
    normal = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    normal = torch.nn.functional.normalize(normal, dim=-1)
    camera_side = -(corners[:, :, 0] * normal).sum(-1).sign()
    height = ((view - corners[:, :, 0]) * normal).sum(-1) * camera_side
    diagonal = (verts.amax(0) - verts.amin(0)).norm()
    visible = (face >= 0) & (height >= -TOLERANCE * diagonal) & ((yx - projected).norm(dim=-1) <= NEAR)
    return yx, visible


def _nearest_on_mask(yx: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The positions `yx` (N, K, 2), those beyond `mask` (N, H, W) moved to its nearest pixel's centre;
    unmoved where a mask is empty.
    """
    size = mask.shape[-1]
    row, column = (yx.round().long() + 1).clamp(0, size + 1).unbind(-1)
    padded = torch.nn.functional.pad(mask, (1, 1, 1, 1))
    off = ~padded.flatten(1).gather(1, row * (size + 2) + column)
    core = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    view, *pixel = (
        (mask & ~core).nonzero().unbind(1)
    )  # the pixel nearest to a point beyond the mask is on its outline
    outlines = torch.stack(pixel, 1).to(yx).split(view.bincount(minlength=len(mask)).tolist())
    yx = yx.clone()
    for i, outline in enumerate(outlines):
        if len(outline) and off[i].any():
            distance = torch.cdist(
                yx[i, off[i]], outline, compute_mode="donot_use_mm_for_euclid_dist"
            )  # the quick way is not exact
            yx[i, off[i]] = outline[distance.argmin(1)]
    return yx


def _normals(verts: torch.Tensor, faces: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit normals of the vertices, `(K, 3)`, and twice the area times the normals of the faces, `(F, 3)`.

    A vertex's is the area-weighted mean of the faces around it.
    """
    corners = verts[faces]
    flat = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    smooth = torch.zeros_like(verts).index_add(0, faces.reshape(-1), flat.repeat_interleave(3, 0))
    return torch.nn.functional.normalize(smooth, dim=-1), flat


def _picture_normals(
    fragments: Fragments, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras
) -> torch.Tensor:
    """Smooth unit normals `(P, 3)` of the surface's pixels along the picture's right, its top and the viewer;
    none faces away.
    """
    mask = fragments.mask
    smooth, flat = _normals(verts, faces)
    normal, position = _interpolate_surface(fragments, mask, faces, torch.cat([smooth, verts], 1)).split(
        3, -1
    )
    eye = -(cameras.rotation @ cameras.translation[..., None])[..., 0]
    sizes = mask.sum((1, 2))
    ray = torch.nn.functional.normalize(position - eye.repeat_interleave(sizes, 0), dim=-1)
    inside = (flat[fragments.face[mask]] * ray).sum(-1, keepdim=True) > 0
    normal = torch.where(inside, -normal, normal)
    # At the outline smooth normals lean over to the far side; they are brought back to the rim, since turning
    # them round makes speckles.
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
    """Normals as colours, u1 `(N, H, W, 3)`: red to the right, green to the top, blue to the viewer; black
    background.
    """
    return _painted(fragments, (_picture_normals(fragments, verts, faces, cameras) + 1) / 2)


def style_shaded(
    fragments: Fragments, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras
) -> torch.Tensor:
    """A grey surface in soft light from above the viewer's left shoulder, u1 `(N, H, W, 3)`; black
    background.
    """
    normal = _picture_normals(fragments, verts, faces, cameras)
    light = torch.nn.functional.normalize(normal.new_tensor([-0.4, 0.6, 1.0]), dim=0)
    grey = (
        0.15 + 0.75 * ((1 + normal @ light) / 2) ** 1.5
    )  # wraps around the surface, so that no part goes black
    return _painted(fragments, grey[:, None].expand(-1, 3))


def style_depth(
    fragments: Fragments, verts: torch.Tensor, faces: torch.Tensor, cameras: Cameras
) -> torch.Tensor:
    """Depth, each view's nearest point white and its farthest dark grey, u1 `(N, H, W, 3)`; black background."""
    mask, z = fragments.mask, fragments.zbuf
    near = z.masked_fill(~mask, torch.inf).amin((1, 2), keepdim=True)
    far = z.masked_fill(~mask, -torch.inf).amax((1, 2), keepdim=True)
    grey = 1 - 0.8 * (z - near) / (far - near).clamp(min=1e-6)
    return _painted(fragments, grey[mask][:, None].expand(-1, 3))


STYLES = {"normals": style_normals, "shaded": style_shaded, "depth": style_depth}


def _painted(fragments: Fragments, colour: torch.Tensor) -> torch.Tensor:
    """Pictures u1 `(N, H, W, 3)` with `colour` (P, 3) in 0..1 on the surface's pixels."""
    out = torch.zeros(*fragments.face.shape, 3, dtype=torch.uint8, device=colour.device)
    out[fragments.mask] = (colour.clamp(0, 1) * 255).round().to(torch.uint8)
    return out


def write_views(path: Path, views: Views, *, params: dict, sources: dict, overwrite: bool = False) -> None:
    """Write `views` as a file of kind shic/views."""
    arrays = {
        each.name: getattr(views, each.name)
        for each in fields(views)
        if each.name not in ("cameras", "template")
    }
    arrays |= {each.name: getattr(views.cameras, each.name) for each in fields(views.cameras)}
    arrays = {name: array.cpu().numpy() for name, array in arrays.items()}
    write_arrays(
        path,
        KIND,
        arrays,
        params=params,
        sources=sources,
        attrs={"template": views.template},
        overwrite=overwrite,
    )


def read_views(path: Path | str, device: torch.device | str = "cpu") -> Views:
    """The views in `path`, on `device`; InputError if it holds none."""
    arrays, header = read_arrays(path, KIND)
    number, height, width = arrays["mask"].shape
    if not number or height != width or height < 2:
        raise InputError(
            f"{path}: holds {number} views of {height} by {width} pixels, expected squares",
            "render them again with `shic render`",
        )
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    cameras = Cameras(**{each.name: tensors.pop(each.name) for each in fields(Cameras)})
    tensors["face"] = tensors["face"].long()
    return Views(**tensors, cameras=cameras, template=header.attrs["template"])


def write_contact_sheet(path: Path, views: Views, config: RenderConfig, overwrite: bool = False) -> None:
    """Write a PNG of all `views`, rendered as `config` says: a row an elevation, a column an azimuth."""
    captions = [
        f"{i * 360 / config.azimuths:g}, {elevation:g}"
        for elevation in config.elevations
        for i in range(config.azimuths)
    ]
    with atomic(path, overwrite) as partial:
        partial.write_bytes(encode(contact_sheet(list(views.image.cpu().numpy()), config.azimuths, captions)))
