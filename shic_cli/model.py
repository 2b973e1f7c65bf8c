"""The canonical map: a frozen encoder, a decoder for pixels, and E = U C for vertices (sec. 3.4). Saved as
one safetensors file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from shic_cli import __version__, schema
from shic_cli.errors import InputError
from shic_cli.outputs import atomic
from shic_cli.untrusted import check_axes, check_finite, check_surface, check_values, parse_json

FORMAT, VERSION = "shic/model", 1
SURFACE = ("verts", "faces", "mirror", "colors", "uv", "face_uv")
GROUPS = 8  # of channels that a U-Net normalises together
ENCODER = "encoder."  # what the names of a frozen encoder's tensors begin with


@dataclass(frozen=True)
class Surface:
    """The part of a template that pictures need, as numpy arrays; the axes are those of shic/template in
    schema.py.
    """

    verts: np.ndarray
    faces: np.ndarray
    mirror: np.ndarray
    colors: np.ndarray
    uv: np.ndarray
    face_uv: np.ndarray

    @cached_property
    def fingerprint(self) -> str:
        """The template's fingerprint."""
        return schema.template_fingerprint(self.verts, self.faces)

    @classmethod
    def of(cls, template: schema.Template) -> Surface:
        """The surface of a template."""
        return cls(**{name: getattr(template, name) for name in SURFACE})


def coarsen(features: torch.Tensor, cells: int) -> torch.Tensor:
    """Features `(B, C, h, w)` averaged by area to at most `cells` a side."""
    return (
        nn.functional.interpolate(features, (cells, cells), mode="area")
        if features.shape[-1] > cells
        else features
    )


class Convolutional(nn.Module):
    """Features `(B, C, h, w)` to embeddings `(B, D, 14h, 14w)` for h = w = 16, and foreground logits; the
    layout of the authors' release.

    A 1x1 stem, a 5x5 convolution that takes 16 cells to 14, then four doublings, each with a 3x3 convolution.
    Its memory grows with the number of cells: finer grids are averaged down to 16 a side, as `coarsen`; the
    pointwise decoder keeps them. The release has no foreground output: without `foreground` there is none,
    and None comes back for its logits.
    """

    pointwise = False
    cells = 16

    def __init__(self, channels: int, dim: int, foreground: bool = True) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 512, 1), nn.SELU())
        self.first = nn.Conv2d(512, 512, 5, padding=1, bias=False)
        widths = (512, 256, 128, 64)
        steps = [nn.Sequential(nn.Upsample(scale_factor=2), *_block(a, b)) for a, b in pairwise(widths)]
        last = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2d(64, 32, 3, padding=1, bias=False), nn.ReLU()
        )
        self.up = nn.Sequential(*steps, last)
        self.out = nn.Conv2d(32, dim, 3, padding=1)
        self.foreground = nn.Conv2d(32, 1, 3, padding=1) if foreground else None

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        hidden = self.up(self.first(self.stem(coarsen(features, self.cells))))
        return self.out(hidden), None if self.foreground is None else self.foreground(hidden)[:, 0]


class Pointwise(nn.Module):
    """Features `(..., C)` to embeddings `(..., D)`, each on its own: for encoders that already see the whole
    object.
    """

    pointwise = True
    cells = None
    foreground = None

    def __init__(self, channels: int, dim: int, width: int = 256) -> None:
        super().__init__()
        layers = [
            nn.Linear(channels, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
        ]
        self.layers = nn.Sequential(nn.LayerNorm(channels), *layers, nn.Linear(width, dim))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layers(features)


class UNet(nn.Module):
    """Pixels `(B, C, h, w)`, h and w multiples of 32, to embeddings `(B, D, h/2, w/2)`: a small U-Net,
    trained from scratch.

    Four halvings, so that every pixel sees the whole object, and as many doublings with skips, so that it
    keeps its place. Ronneberger et al., MICCAI 2015. Every picture is normalised on its own (Wu and He, ECCV
    2018), for photos differ from the renders that a batch is made of.
    """

    pointwise = False
    cells = None
    foreground = None

    def __init__(self, channels: int, dim: int, widths: tuple[int, ...] = (24, 48, 80, 128, 160)) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), *_grouped(4 * channels, widths[0]))
        self.down = nn.ModuleList(
            nn.Sequential(*_grouped(a, b, 2), *_grouped(b, b)) for a, b in pairwise(widths)
        )
        self.bottom = nn.Sequential(
            *_grouped(widths[-1], widths[-1])
        )  # without it a corner does not see the opposite one
        self.up = nn.ModuleList(
            nn.Sequential(*_grouped(a + b, a, size=1), *_grouped(a, a)) for a, b in pairwise(widths)
        )
        self.out = nn.Conv2d(widths[0], dim, 1)
        self.to(memory_format=torch.channels_last)  # a third less time on a CPU

    def forward(self, features: torch.Tensor) -> tuple[torch.Tensor, None]:
        levels = [self.stem(features.contiguous(memory_format=torch.channels_last))]
        for down in self.down:
            levels.append(down(levels[-1]))
        hidden = self.bottom(levels.pop())
        for up in reversed(self.up):
            hidden = up(torch.cat([nn.functional.interpolate(hidden, scale_factor=2), levels.pop()], 1))
        return self.out(hidden), None


def _block(a: int, b: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()


def _grouped(a: int, b: int, stride: int = 1, size: int = 3) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(a, b, size, stride, padding=size // 2, bias=False)
    return convolution, nn.GroupNorm(GROUPS, b), nn.ReLU()


# `released` is what `shic models import` makes: the convolutional one as the authors have it.
DECODERS = {
    "convolutional": Convolutional,
    "released": partial(Convolutional, foreground=False),
    "pointwise": Pointwise,
    "unet": UNet,
}


class CanonicalMap(nn.Module):
    """Pixel embeddings by `decoder`, vertex embeddings E = U C with the eigenvectors U `(K, Q)` and the
    learned C `(Q, D)`.

    C starts at zero, so that at first every vertex is equally likely and L_pseudo is ln K exactly.
    """

    def __init__(self, decoder: str, channels: int, dim: int, eigenvectors: torch.Tensor) -> None:
        super().__init__()
        self.decoder = DECODERS[decoder](channels, dim)
        self.C = nn.Parameter(torch.zeros(eigenvectors.shape[1], dim))
        self.register_buffer("eigenvectors", eigenvectors)

    def vertex_embeddings(self) -> torch.Tensor:
        """E `(K, D)`."""
        return self.eigenvectors @ self.C

    def embed(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeddings `(B, D, h', w')` of features `(B, C, h, w)`, and foreground logits `(B, h', w')` or
        None.
        """
        if self.decoder.pointwise:
            return self.decoder(features.movedim(1, -1)).movedim(-1, 1), None
        return self.decoder(features)


@dataclass(frozen=True)
class Saved:
    """A model file in memory: the map, its surface, and `meta` (encoder, decoder, params, template, sources,
    losses, class).

    `encoder` has the frozen encoder's own tensors where the file carries them, else None: it is made by its
    name then.
    """

    map: CanonicalMap
    surface: Surface
    meta: dict[str, Any]
    encoder: dict[str, torch.Tensor] | None = None


def save_model(path: Path, saved: Saved, overwrite: bool) -> None:
    """Write the model file, whole or not at all."""
    with atomic(path, overwrite) as partial:
        write_model(partial, saved)


def write_model(path: Path, saved: Saved) -> None:
    """Write the model file to `path`, as it is; OSError when the disk is full."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in saved.map.state_dict().items()}
    tensors |= {f"surface.{name}": torch.tensor(getattr(saved.surface, name)) for name in SURFACE}
    tensors |= {
        ENCODER + name: value.detach().cpu().contiguous() for name, value in (saved.encoder or {}).items()
    }
    meta = {
        "format": FORMAT,
        "format_version": str(VERSION),
        "shic_version": __version__,
        "meta": json.dumps(saved.meta),
    }
    write_tensors(path, tensors, meta)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor], meta: dict[str, str]) -> None:
    """Write a safetensors file: the same bytes for the same tensors and metadata, which the library itself
    writes in random order.

    Nor is the library's own writing to a file used: a run that is killed meanwhile leaves a file of another
    name behind.
    """
    data = memoryview(save(tensors, metadata=meta))
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8:start]))
    header["__metadata__"] = dict(sorted(meta.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.writelines([len(text).to_bytes(8, "little"), text, data[start:]])


BUILT = {"decoder": str, "channels": int, "dim": int}  # what of the metadata the map is built by


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The safetensors file; InputError in place of what its reader raises."""
    try:
        with safe_open(path, "pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
        fact = (
            "there is no such file" if not Path(path).exists() else f"can't be read as safetensors ({error})"
        )
        raise InputError(f"{path}: {fact}", "make a model with `shic train`") from error


def read_meta(path: Path) -> dict[str, Any]:
    """The metadata of a model file; InputError if it is none."""
    with _opened(path) as file:
        meta = file.metadata() or {}
    if meta.get("format") != FORMAT or meta.get("format_version") != str(VERSION):
        found = f"{meta.get('format')} {meta.get('format_version')}"
        raise InputError(
            f"{path}: expected {FORMAT} {VERSION}, found {found}", "make a model with `shic train`"
        )
    found = parse_json(meta.get("meta", ""), f"{path}: its metadata")
    if not isinstance(found, dict):
        raise InputError(f"{path}: its metadata is damaged", "train again")
    return {**found, "shic_version": meta.get("shic_version")}


def require(meta: dict[str, Any], kinds: dict[str, type], path: Path) -> None:
    """InputError naming the first of `kinds` that the metadata lacks, or holds as something else."""
    for name, kind in kinds.items():
        if type(meta.get(name)) is not kind:
            raise InputError(
                f"{path}: its metadata is damaged ({name} is missing, or no {kind.__name__})", "train again"
            )


def load_model(path: Path, device: torch.device | str = "cpu") -> Saved:
    """The model in `path`; InputError if it is none, or a tensor is missing, of another size or type, or not
    finite.
    """
    meta = read_meta(path)
    require(meta, BUILT, path)
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - safe_open is no dict
    try:
        surface = _surface({name: tensors.pop(f"surface.{name}") for name in SURFACE}, path)
        encoder = {
            name.removeprefix(ENCODER): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(ENCODER)
        }
        found = _build(meta, tensors)
    except (KeyError, RuntimeError, TypeError, OverflowError) as error:
        raise InputError(
            f"{path}: a tensor is missing or has another size ({str(error).splitlines()[0]})", "train again"
        ) from error
    for name, value in {**tensors, **encoder}.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise InputError(f"{path}: {name} is not finite", "train again, with a smaller --rate")
    if len(surface.verts) != len(tensors["eigenvectors"]):
        raise InputError(f"{path}: surface.verts and eigenvectors differ in length", "train again")
    return Saved(found.to(device).eval().requires_grad_(False), surface, meta, encoder or None)


def _build(meta: dict[str, Any], tensors: dict[str, torch.Tensor]) -> CanonicalMap:
    """The map of these tensors. It is laid out without memory first, for its sizes are what the file says and
    may be anything.
    """
    with torch.device("meta"):
        found = CanonicalMap(
            meta["decoder"],
            meta["channels"],
            meta["dim"],
            torch.empty_like(tensors["eigenvectors"], device="meta"),
        )
    for name, expected in found.state_dict().items():
        if tensors[name].dtype != expected.dtype:
            raise TypeError(f"{name} is {tensors[name].dtype}, expected {expected.dtype}")
    found.load_state_dict(tensors, assign=True)
    return found


def _surface(tensors: dict[str, torch.Tensor], path: Path) -> Surface:
    """The surface of a model file's tensors; InputError if it is none, by the layout of a template's."""
    sizes: dict[str, int] = {}
    arrays = {name: value.numpy() for name, value in tensors.items()}
    for name, array in arrays.items():
        field, where = schema.LAYOUTS["shic/template"].fields[name], f"{path}: surface.{name}"
        if array.dtype != np.dtype(field.dtype):
            raise InputError(f"{where} is {array.dtype}, expected {np.dtype(field.dtype)}", "train again")
        check_axes(array.shape, field, where, sizes)
        check_finite(array, where, "train again")
        check_values(array, field, where)
    surface = Surface(**arrays)
    check_surface(surface, f"{path}: surface")
    return surface


def read_surface(path: Path) -> Surface:
    """The surface in a template file or a model file."""
    return (
        load_model(path).surface
        if Path(path).suffix == ".safetensors"
        else Surface.of(schema.read_template(path))
    )


def describe(path: Path) -> dict[str, Any]:
    """What a model file is: its tensors with their shapes, of an encoder in it only their number, and its
    metadata, as JSON values.
    """
    meta = read_meta(path)
    with _opened(path) as file:
        names = list(file.keys())
        fields = {
            name: list(file.get_slice(name).get_shape()) for name in names if not name.startswith(ENCODER)
        }
    if carried := len(names) - len(fields):
        meta["encoder_tensors"] = carried
    return {"path": str(path), "kind": FORMAT, "version": VERSION, "fields": fields, **meta}
