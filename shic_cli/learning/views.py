"""Views of a template, and where each vertex is seen in them (sec. 3.3, Eq. 1)."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch

from shic_cli.base.errors import InputError
from shic_cli.files.arrays import read_arrays, write_arrays
from shic_cli.parts.renderers.contract import Fragments
from shic_cli.surface.cameras import Cameras

KIND = "shic/views"
# A vertex is visible up to this far behind the surface that its pixel shows, as a share of the diagonal.
TOLERANCE = 2e-3
# Pixels: every ray missed a vertex that is farther from the mask, since its part is thinner than a pixel.
NEAR = 2.0


@dataclass(frozen=True)
class Views:
    """N views, as tensors; `template` is the template's fingerprint.

    `image` u1 `(N, H, W, 3)`, `depth` f4 `(N, H, W)`, `mask` bool `(N, H, W)`, `face` i8 `(N, H, W)`, `bary`
    f4 `(N, H, W, 3)`, `cameras`, `vertex_yx` f4 `(N, K, 2)` = v_i(k) of Eq. 1 and `vertex_visible` bool
    `(N, K)` = V_i.
    """

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
        """The views that `index` selects."""
        chosen = {name: value[index] for name, value in vars(self).items() if name != "template"}
        return replace(self, **chosen)

    @property
    def fragments(self) -> Fragments:
        """The renderer's output: face, barycentric coordinates and depth of each pixel."""
        return Fragments(self.face, self.bary, self.depth)


def interpolate(fragments: Fragments, faces: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`(N, H, W, C)`: the vertices' `values` `(K, C)` at every pixel; 0 where there is no surface."""
    place = _on_surface(fragments)
    out = values.new_zeros(fragments.face.numel(), values.shape[1])
    out[place] = interpolate_at(fragments, place, faces, values)
    return out.view(*fragments.face.shape, -1)


def interpolate_at(
    fragments: Fragments, place: torch.Tensor, faces: torch.Tensor, values: torch.Tensor
) -> torch.Tensor:
    """`(P, C)`: the vertices' `values` `(K, C)` at the pixels `place`, which all see the surface.

    `place` is `(P,)`, or a mask of the flattened views.
    """
    corners = faces[fragments.face.reshape(-1)[place]].unbind(1)
    shares = fragments.bary.reshape(-1, 3)[place].unbind(1)
    (a, b, c), (x, y, z) = (values[corner] for corner in corners), (share[:, None] for share in shares)
    return a * x + b * y + c * z


def _on_surface(fragments: Fragments) -> torch.Tensor:
    """`(P,)`: the places of the pixels that see the surface, in the flattened views."""
    return fragments.mask.reshape(-1).nonzero()[:, 0]


def pixel_vertex(fragments: Fragments, faces: torch.Tensor) -> torch.Tensor:
    """`(N, H, W)` i8: at every pixel the nearest corner of its face, -1 where there is no surface.

    The nearest corner is the one with the largest barycentric coordinate.
    """
    place = _on_surface(fragments)
    nearest = fragments.bary.reshape(-1, 3)[place].argmax(1, keepdim=True)
    out = torch.full_like(fragments.face, -1)
    out.view(-1)[place] = faces[fragments.face.reshape(-1)[place]].gather(1, nearest)[:, 0]
    return out


def vertex_positions(
    fragments: Fragments, faces: torch.Tensor, cameras: Cameras, verts: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """v_i(k) `(N, K, 2)` and V_i `(N, K)` of Eq. 1: where each vertex is seen, and whether it is visible.

    v_i(k) is the position on the mask nearest to the vertex's projection. A vertex is visible if it is not
    behind the plane of the face that the pixel at v_i(k) shows. The plane decides and not the pixel's depth:
    on a slanted surface the depth changes within one pixel by more than the thickness of an ear.
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
    """`yx` `(N, K, 2)`, with positions off `mask` `(N, H, W)` moved to the mask's nearest pixel centre.

    Positions stay where they are if a mask is empty.
    """
    size = mask.shape[-1]
    row, column = (yx.round().long() + 1).clamp(0, size + 1).unbind(-1)
    padded = torch.nn.functional.pad(mask, (1, 1, 1, 1))
    off = ~padded.flatten(1).gather(1, row * (size + 2) + column)
    core = padded[:, :-2, 1:-1] & padded[:, 2:, 1:-1] & padded[:, 1:-1, :-2] & padded[:, 1:-1, 2:]
    # the mask's pixel nearest to a point off the mask is on the outline
    outlines, moved = _by_view(mask & ~core), _by_view(off)
    yx = yx.clone()
    for i, (outline, vertex) in enumerate(zip(outlines, moved, strict=True)):
        if len(outline) and len(vertex):
            outline, vertex = outline.to(yx), vertex[:, 0]
            # the default mode is faster and not exact
            distance = torch.cdist(yx[i, vertex], outline, compute_mode="donot_use_mm_for_euclid_dist")
            yx[i, vertex] = outline[distance.argmin(1)]
    return yx


def _by_view(chosen: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """For each view the places `(P_i, ...)` where `chosen` `(N, ...)` is true, with one wait for a GPU."""
    view, *place = chosen.nonzero().unbind(1)
    return torch.stack(place, 1).split(view.bincount(minlength=len(chosen)).tolist())


def write_views(path: Path, views: Views, *, params: dict, sources: dict, overwrite: bool = False) -> None:
    """Write `views` as a file of kind shic/views."""
    arrays = {
        field.name: getattr(views, field.name)
        for field in fields(views)
        if field.name not in ("cameras", "template")
    }
    arrays |= {field.name: getattr(views.cameras, field.name) for field in fields(views.cameras)}
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
    """The views in the file `path`, on `device`; InputError if it holds none."""
    arrays, header = read_arrays(path, KIND)
    number, height, width = arrays["mask"].shape
    if not number or height != width or height < 2:
        raise InputError(
            f"{path}: holds {number} views of {height} by {width} pixels, expected squares",
            "render them again with `shic render`",
        )
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    cameras = Cameras(**{field.name: tensors.pop(field.name) for field in fields(Cameras)})
    tensors["face"] = tensors["face"].long()
    return Views(**tensors, cameras=cameras, template=header.attrs["template"])
