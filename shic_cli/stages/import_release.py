"""Converts the authors' released weights (github.com/suny-sht/shic) to one model file of ours.

A class comes as three files of tensors and a mesh: an image model (DINOv2 under the names of its hub, and the
decoder), C `(Q, D)`, and the eigenvectors `(K, Q)` without the constant one. No code in them is run.

Two things differ from the authors' notebook. The notebook leaves the image model in training mode, where
every picture is normalised by its own statistics; we use the trained statistics. The notebook squeezes the
whole picture into a square; we take the square around the mask.
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
from scipy.spatial import KDTree
from torch.nn import functional as F

from shic_cli.base.errors import InputError
from shic_cli.base.result_settings import ReleaseConfig
from shic_cli.base.settings import TemplateConfig
from shic_cli.files.arrays import source
from shic_cli.files.layouts import Surface
from shic_cli.learning.canonical_map import CanonicalMap
from shic_cli.learning.decoders import Convolutional
from shic_cli.learning.model_file import Saved
from shic_cli.parts.extractors.carried import Carried
from shic_cli.surface.mesh import Mesh
from shic_cli.surface.prepared import surface

log = logging.getLogger("shic")

# Pixels of the picture and of a patch: 16 x 16 cells, which the decoder enlarges to 224 x 224 pixels.
SIDE, PATCH = 224, 14
HEAD = 64  # channels of a head in every DINOv2; the tensors' shapes don't tell it
OFFSET = 0.1  # the hub's model scales its position embeddings to this many cells more than it has
HINT = "give the three files of a class from the authors' release: CLASS.pth CLASS_cse.pth CLASS_lbo.pth"

# The names of the decoder's layers in the release and in Convolutional.
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
# The names of DINOv2's layers in its hub and in transformers' checkpoints; attn.qkv is split in three.
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
    """The model of a released class, from its image model, C (`cse`), eigenvectors (`lbo`) and mesh.

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
    clean_mesh, fields = surface(mesh, TemplateConfig(vertices=0, up=config.up, front=config.front))
    eigenvectors = basis[_rows(clean_mesh, len(basis), f"{lbo}: has {len(basis)} rows", mesh)].contiguous()
    _warn_of_noise(eigenvectors, fields["faces"], lbo, mesh)

    canonical = CanonicalMap("released", width, dim, eigenvectors)
    decoder = {f"decoder.{name}": state[theirs] for theirs, (name, _) in layout.items()}
    canonical.load_state_dict({"C": weights["weight_matrix"], "eigenvectors": eigenvectors, **decoder})
    template_surface = Surface(**{name: fields[name] for name in Surface.__dataclass_fields__})
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
        "template": template_surface.fingerprint,
        "params": config.params(),
        "sources": {role: source(path) for role, path in files.items()},
    }
    return Saved(canonical.eval().requires_grad_(False), template_surface, meta, encoder)


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dictionary in `path`; numbers that are not whole become float32.

    InputError if it is no state dictionary, or holds anything but tensors.
    """
    state = _load(path)
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f"{path}: holds no state dictionary of tensors", HINT)
    return {str(name): _finite(value, f"{path}: {name}") for name, value in state.items()}


def read_basis(path: Path) -> torch.Tensor:
    """The eigenvectors `(K, Q)` in `path`; InputError if it holds anything else."""
    content = _load(path)
    if not isinstance(content, torch.Tensor) or content.ndim != 2:
        what = (
            f"a tensor of shape {tuple(content.shape)}"
            if isinstance(content, torch.Tensor)
            else f"a {type(content).__name__}"
        )
        raise InputError(f"{path}: expected eigenvectors (K, Q), found {what}", HINT)
    return _finite(content, str(path)).float()


def _load(path: Path) -> Any:
    """The content that torch saved in `path`, read without running any code."""
    if not Path(path).is_file():
        raise InputError(f"{path}: there is no such file", HINT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of pickles of other versions
            return torch.load(path, map_location="cpu", weights_only=True)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # torch's reader may raise anything for a damaged file
        raise InputError(
            f"{path}: is damaged, or holds more than tensors; code in a file is never run", HINT
        ) from error


def _finite(value: torch.Tensor, name: str) -> torch.Tensor:
    """`value` in float32 if it is not whole numbers; InputError if a number is not finite."""
    value = value.detach()
    if not torch.isfinite(value).all():
        raise InputError(f"{name}: has numbers that are not finite", "fetch the file again")
    return value.float() if value.is_floating_point() else value


def _size(state: dict[str, torch.Tensor], name: str, axis: int, default: int) -> int:
    """The size of a tensor along `axis`, or `default` if the tensor is missing or has no such axis.

    The default is the release's own size, so that the later check names the tensor.
    """
    return state[name].shape[axis] if name in state and state[name].ndim > axis else default


def check_tensors(tensors: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]], path: Path) -> None:
    """InputError unless `tensors` are exactly the `expected` ones, by name and shape.

    It names the first few that differ.
    """
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
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
    """The first three of `names`, for a message."""
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
    """The shapes of an image model's encoder by the release's names.

    The numbers of blocks and of positions are taken from `state`.
    """
    blocks = {name.split(".")[2] for name in state if name.startswith("dinov2.blocks.")}
    cells = math.isqrt(max(_size(state, "dinov2.pos_embed", 1, 1370) - 1, 1))
    return {
        f"dinov2.{name}": shape for name, shape in hub_shapes(width, len(blocks) or 12, 1 + cells**2).items()
    }


def hub_shapes(width: int, depth: int, positions: int) -> dict[str, tuple[int, ...]]:
    """The shapes of a hub DINOv2's tensors by name, without register tokens.

    It has `depth` blocks of `width` channels.
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
    """The tensors of a hub DINOv2 under the names of transformers' checkpoints.

    The position embeddings are those for 224 pixels, `(1, 257, C)`.
    """
    converted = {}
    for name, value in hub.items():
        if name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            prefix = f"encoder.layer.{number}."
            if rest.startswith("attn.qkv."):
                for part, piece in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    converted[f"{prefix}attention.attention.{part}.{rest.removeprefix('attn.qkv.')}"] = piece
                continue
            layers = BLOCK
        else:
            prefix, rest, layers = "", name, OUTER
        whole, kind = (
            (rest, "") if rest in layers else (rest.rpartition(".")[0], "." + rest.rpartition(".")[2])
        )
        converted[prefix + layers[whole] + kind] = value
    return converted | {OUTER["pos_embed"]: resized_positions(hub["pos_embed"], SIDE // PATCH)}


def resized_positions(table: torch.Tensor, cells: int) -> torch.Tensor:
    """Position embeddings `(1, 1 + cells^2, C)` from those of another square grid, `table`.

    They follow the hub's model, whose scale is that of `cells` + OFFSET cells. transformers takes the exact
    ratio instead.
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
    """For each of the template's vertices its row of the release's `count` eigenvectors.

    The rows belong to the file's vertices, or to those that remain after identical ones are merged; both have
    the file's order.
    """
    if count == len(mesh.verts):
        return np.arange(count)
    if count == len(mesh.source):
        return np.asarray(KDTree(mesh.source).query(mesh.verts)[1])
    numbers = " or ".join(str(number) for number in dict.fromkeys((len(mesh.source), len(mesh.verts))))
    raise InputError(
        f"{fact}, but {path} has {numbers} vertices", "give the unchanged mesh of this class from the release"
    )


def _warn_of_noise(eigenvectors: torch.Tensor, faces: np.ndarray, lbo: Path, mesh: Path) -> None:
    """Warn if the lowest eigenvectors `(K, Q)` differ along the mesh's edges like random numbers.

    Then they belong to another mesh.
    """
    low = eigenvectors[:, :8]
    a, b = torch.from_numpy(np.concatenate([faces[:, :2], faces[:, 1:]]).astype(np.int64)).T
    # for random numbers the left side would be twice the right side
    if ((low[a] - low[b]) ** 2).mean() > low.var(0).mean():
        log.warning(
            "%s: its values jump from vertex to vertex of %s; was it made on this mesh, in this order?",
            lbo,
            mesh,
        )
