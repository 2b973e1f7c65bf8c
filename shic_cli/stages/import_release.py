"""The authors' released weights (github.com/suny-sht/shic) as one of our model files, which needs nothing
else.

A class comes as three files of tensors and a mesh: an image model (DINOv2 under the names of its hub, and the
decoder), C `(Q, D)`, and the eigenvectors `(K, Q)`, from which the constant one is left out already. Nothing
in them is run.

Two things differ from the authors' notebook. It leaves the image model in training mode, where every picture
is normalised by its own statistics; here the trained ones are used. It squeezes the whole picture into a
square; here the square around the mask is taken.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch.nn import functional as F

from shic_cli.base.errors import InputError
from shic_cli.base.settings import ReleaseConfig, TemplateConfig
from shic_cli.files.arrays import source
from shic_cli.files.layouts import Surface
from shic_cli.learning.canonical_map import CanonicalMap
from shic_cli.learning.decoders import Convolutional
from shic_cli.learning.model_file import Saved
from shic_cli.parts.extractors.carried import Carried
from shic_cli.surface.mesh import Mesh
from shic_cli.surface.prepared import surface

log = logging.getLogger("shic")

SIDE, PATCH = (
    224,
    14,
)  # pixels of the picture and of a patch: 16 x 16 cells, which the decoder takes to 224 x 224 pixels
HEAD = 64  # channels of a head in every DINOv2; the tensors' shapes don't tell
OFFSET = 0.1  # the hub's model stretches its position embeddings to this many cells more than it keeps
HINT = "give the three files of a class from the authors' release: CLASS.pth CLASS_cse.pth CLASS_lbo.pth"

# The decoder's layers there and in Convolutional.
DECODER = {
    "classlayer_224.conv": "stem.0",
    "to_224.0": "first",
    "to_224.2": "up.0.1",
    "to_224.3": "up.0.2",
    "to_224.6": "up.1.1",
    "to_224.7": "up.1.2",
    "to_224.10": "up.2.1",
    "to_224.11": "up.2.2",
    "to_224.14": "up.3.1",
    "conv2class": "out",
}
# DINOv2's layers in its hub and in transformers' checkpoints; attn.qkv is split in three.
OUTER = {
    "cls_token": "embeddings.cls_token",
    "mask_token": "embeddings.mask_token",
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
}
BLOCK = {
    "norm1": "norm1",
    "attn.proj": "attention.output.dense",
    "ls1.gamma": "layer_scale1.lambda1",
    "norm2": "norm2",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
    "ls2.gamma": "layer_scale2.lambda1",
}


def import_release(
    model: Path, cse: Path, lbo: Path, mesh: Path, config: ReleaseConfig | None = None
) -> Saved:
    """The model of a released class: `model` its image model, `cse` C, `lbo` the eigenvectors, `mesh` the
    mesh that they belong to.

    The mesh's vertices keep their order. InputError names the tensors that are missing, unknown or of another
    size.
    """
    config = config or ReleaseConfig()
    state = read_state(model)
    width, dim = _size(state, "dinov2.cls_token", 2, 384), _size(state, "conv2class.weight", 0, 16)
    if width % HEAD:
        raise InputError(f"{model}: dinov2.cls_token has {width} channels, not a multiple of {HEAD}", HINT)
    layout = decoder_layout(width, dim)
    check_tensors(
        state, _hub_layout(state, width) | {name: shape for name, (_, shape) in layout.items()}, model
    )
    basis = read_basis(lbo)
    weights = read_state(cse)
    check_tensors(weights, {"weight_matrix": (basis.shape[1], dim)}, cse)
    shape, fields = surface(mesh, TemplateConfig(vertices=0, up=config.up, front=config.front))
    eigenvectors = basis[_rows(shape, len(basis), f"{lbo}: has {len(basis)} rows", mesh)].contiguous()
    _warn_of_noise(eigenvectors, fields["faces"], lbo, mesh)

    found = CanonicalMap("released", width, dim, eigenvectors)
    decoder = {f"decoder.{name}": state[theirs] for theirs, (name, _) in layout.items()}
    found.load_state_dict({"C": weights["weight_matrix"], "eigenvectors": eigenvectors, **decoder})
    made = Surface(**{name: fields[name] for name in Surface.__dataclass_fields__})
    encoder = convert_dinov2(
        {name.removeprefix("dinov2."): value for name, value in state.items() if name not in layout}
    )
    carried = Carried(encoder_config(encoder), encoder)
    files = {"model": model, "cse": cse, "lbo": lbo, "mesh": mesh}
    meta = {
        "class": model.stem,
        "encoder": carried.settings,
        "encoder_fingerprint": carried.fingerprint,
        "decoder": "released",
        "channels": width,
        "dim": dim,
        "template": made.fingerprint,
        "params": config.params(),
        "sources": {role: source(path) for role, path in files.items()},
    }
    return Saved(found.eval().requires_grad_(False), made, meta, encoder)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dictionary in `path`, as float32 where it is not whole numbers; InputError if it is none, or
    holds more than tensors.
    """
    found = _load(path)
    if not isinstance(found, Mapping) or not all(isinstance(value, torch.Tensor) for value in found.values()):
        raise InputError(f"{path}: holds no state dictionary of tensors", HINT)
    return {str(name): _finite(value, f"{path}: {name}") for name, value in found.items()}


def read_basis(path: Path) -> torch.Tensor:
    """The eigenvectors `(K, Q)` in `path`; InputError if it holds anything else."""
    found = _load(path)
    if not isinstance(found, torch.Tensor) or found.ndim != 2:
        what = (
            f"a tensor of shape {tuple(found.shape)}"
            if isinstance(found, torch.Tensor)
            else f"a {type(found).__name__}"
        )
        raise InputError(f"{path}: expected eigenvectors (K, Q), found {what}", HINT)
    return _finite(found, str(path)).float()


def _load(path: Path) -> Any:
    """What torch saved in `path`, read without running anything."""
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file", HINT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of other versions
            return torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # torch's reader raises whatever a damaged file makes it stumble over
        raise InputError(
            f"{path}: is damaged, or holds more than tensors; code in a file is never run", HINT
        ) from error


def _finite(value: torch.Tensor, name: str) -> torch.Tensor:
    value = value.detach()
    if not torch.isfinite(value).all():
        raise InputError(f"{name}: has numbers that are not finite", "fetch the file again")
    return value.float() if value.is_floating_point() else value


def _size(state: dict[str, torch.Tensor], name: str, axis: int, default: int) -> int:
    """A size that a tensor tells; the release's own when it can't, so that the check names that tensor."""
    return state[name].shape[axis] if name in state and state[name].ndim > axis else default


def check_tensors(found: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]], path: Path) -> None:
    """InputError unless `found` has exactly the tensors `expected`, by name and shape; it names the first few
    that differ.
    """
    shapes = {name: tuple(value.shape) for name, value in found.items()}
    wrong = [
        f"{name} is {shapes[name]}, not {shape}"
        for name, shape in expected.items()
        if shapes.get(name, shape) != shape
    ]
    groups = {
        "lacks": [*(expected.keys() - shapes)],
        "does not know": [*(shapes.keys() - expected)],
        "sizes:": wrong,
    }
    facts = [f"{verb} {_some(sorted(names))}" for verb, names in groups.items() if names]
    if facts:
        raise InputError(f"{path}: is not the release's layout: {'; '.join(facts)}", HINT)


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def decoder_layout(width: int, dim: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """For each tensor of the release's decoder its name in Convolutional and its shape."""
    with torch.device("meta"):
        ours = Convolutional(width, dim, foreground=False).state_dict()
    theirs = {name: layer for layer, name in DECODER.items()}
    parts = {name: name.rpartition(".") for name in ours}
    return {
        f"{theirs[layer]}.{kind}": (name, tuple(ours[name].shape)) for name, (layer, _, kind) in parts.items()
    }


def _hub_layout(state: dict[str, torch.Tensor], width: int) -> dict[str, tuple[int, ...]]:
    """The shapes of an image model's encoder by their name in the release; of `state` the numbers of blocks
    and of positions are taken.
    """
    blocks = {name.split(".")[2] for name in state if name.startswith("dinov2.blocks.")}
    cells = math.isqrt(max(_size(state, "dinov2.pos_embed", 1, 1370) - 1, 1))
    return {
        f"dinov2.{name}": shape for name, shape in hub_shapes(width, len(blocks) or 12, 1 + cells**2).items()
    }


def hub_shapes(width: int, depth: int, positions: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a hub DINOv2's tensors by name: `depth` blocks of `width` channels, without register
    tokens.
    """
    linear = {
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
        "mlp.fc1": (4 * width, width),
        "mlp.fc2": (width, 4 * width),
    }
    block: dict[str, tuple[int, ...]] = {"ls1.gamma": (width,), "ls2.gamma": (width,)}
    for name, shape in {"norm1": (width,), "norm2": (width,), **linear}.items():
        block |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "mask_token": (1, width),
        "pos_embed": (1, positions, width),
        "patch_embed.proj.weight": (width, 3, PATCH, PATCH),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    return shapes | {f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}


def convert_dinov2(hub: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of a hub DINOv2 under the names of transformers' checkpoints, its position embeddings for
    224 pixels `(1, 257, C)`.
    """
    found = {}
    for name, value in hub.items():
        if name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            prefix = f"encoder.layer.{number}."
            if rest.startswith("attn.qkv."):
                for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    found[f"{prefix}attention.attention.{part}.{rest.removeprefix('attn.qkv.')}"] = piece
                continue
            layers = BLOCK
        else:
            prefix, rest, layers = "", name, OUTER
        whole, kind = (
            (rest, "") if rest in layers else (rest.rpartition(".")[0], "." + rest.rpartition(".")[2])
        )
        found[prefix + layers[whole] + kind] = value
    return found | {OUTER["pos_embed"]: resized_positions(hub["pos_embed"], SIDE // PATCH)}


def resized_positions(table: torch.Tensor, cells: int) -> torch.Tensor:
    """Position embeddings `(1, 1 + cells^2, C)` from those of another square grid, `table`, by the rule of
    the hub's model.

    It samples at a scale that is OFFSET of a cell more than `cells`, and not at the exact ratio as
    transformers does.
    """
    before = math.isqrt(table.shape[1] - 1)
    if before == cells:
        return table
    grid = table[:, 1:].unflatten(1, (before, before)).permute(0, 3, 1, 2)
    scale = (cells + OFFSET) / before
    grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], 1)


def encoder_config(encoder: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The settings of transformers' Dinov2Config for a DINOv2 of these tensors at 224 pixels."""
    width = encoder[OUTER["cls_token"]].shape[-1]
    depth = sum(name.endswith(".norm1.weight") for name in encoder)
    return {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": width // HEAD,
        "image_size": SIDE,
        "patch_size": PATCH,
    }


def _rows(mesh: Mesh, count: int, fact: str, path: Path) -> np.ndarray:
    """For each of the template's vertices its row of the release's eigenvectors, of which there are `count`.

    They are of the file's vertices, or of those that are left when identical ones are merged, in the file's
    order either way.
    """
    if count == len(mesh.verts):
        return np.arange(count)
    if count == len(mesh.source):
        return cKDTree(mesh.source).query(mesh.verts)[1]
    numbers = " or ".join(str(number) for number in dict.fromkeys((len(mesh.source), len(mesh.verts))))
    raise InputError(
        f"{fact}, but {path} has {numbers} vertices",
        "give the mesh of this class from the release, as it is there",
    )


def _warn_of_noise(eigenvectors: torch.Tensor, faces: np.ndarray, lbo: Path, mesh: Path) -> None:
    """Warn if the lowest eigenvectors `(K, Q)` differ along the mesh's edges like random numbers: they are of
    another mesh then.
    """
    low = eigenvectors[:, :8]
    a, b = torch.from_numpy(np.concatenate([faces[:, :2], faces[:, 1:]]).astype(np.int64)).T
    if ((low[a] - low[b]) ** 2).mean() > low.var(
        0
    ).mean():  # of random numbers the first would be twice the second
        log.warning(
            "%s: jumps from vertex to vertex of %s; is this the mesh, in its order, that it was made on?",
            lbo,
            mesh,
        )
