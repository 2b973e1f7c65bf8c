"""Converts the authors' released weights (github.com/suny-sht/shic) to one model file of ours.

A class comes as three files of tensors and a mesh: an image model (DINOv2 under the names of its hub, and the
decoder), C `(Q, D)`, and the eigenvectors `(K, Q)` without the constant one. No code in them is run.

Two things differ from the authors' notebook. The notebook leaves the image model in training mode, where
every picture is normalised by its own statistics; we use the trained statistics, unless
`batch_statistics` is set. The notebook squeezes the whole picture into a square; we take the square around
the mask. Both resample it by Pillow's bilinear filter.
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

from shic_cli.base.errors import InputError
from shic_cli.base.result_settings import ReleaseConfig
from shic_cli.base.settings import TemplateConfig
from shic_cli.files.arrays import source
from shic_cli.files.layouts import Surface
from shic_cli.learning.canonical_map import CanonicalMap
from shic_cli.learning.decoders import Convolutional
from shic_cli.learning.model_file import Saved
from shic_cli.parts.extractors.carried import Carried
from shic_cli.parts.extractors.positions import resized_positions
from shic_cli.surface.mesh import Mesh
from shic_cli.surface.mesh_file import read_mesh
from shic_cli.surface.prepared import surface

log = logging.getLogger("shic")

# Pixels of the picture and of a patch: 16 x 16 cells, which the decoder enlarges to 224 x 224 pixels.
SIDE, PATCH = 224, 14
HEAD = 64  # channels of a head in every DINOv2; the tensors' shapes don't tell it
ROUGH = 0.3  # of the lowest eigenvectors: squared steps along edges, of the variance; 2 for random numbers
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
    eigenvectors = _in_order(basis, clean_mesh, lbo, mesh)

    kind = "released by picture" if config.batch_statistics else "released"
    canonical = CanonicalMap(kind, width, dim, eigenvectors)
    decoder = {f"decoder.{name}": state[theirs] for theirs, (name, _) in layout.items()}
    tensors = {"C": weights["weight_matrix"], "eigenvectors": eigenvectors, **decoder}
    canonical.load_state_dict({name: tensors[name] for name in canonical.state_dict()})
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
        "decoder": kind,
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


def _in_order(basis: torch.Tensor, mesh: Mesh, lbo: Path, path: Path) -> torch.Tensor:
    """The eigenvectors `(K, Q)` of the template's vertices, from those of the release's, `basis`.

    The release's rows are those of the file's vertices, or of what is left when identical ones are merged;
    which vertices come first then depends on the reader. Of the orders with as many vertices, the one is
    taken in which the lowest eigenvectors are smoothest over the surface. InputError if there is none, or if
    they are not smooth.
    """
    orders = _orders(mesh, path)
    tables = [table for table in orders if len(table) == len(basis)]
    if not tables:
        numbers = " or ".join(str(number) for number in dict.fromkeys(map(len, orders)))
        raise InputError(
            f"{lbo}: has {len(basis)} rows, but {path} has {numbers} vertices",
            "give the unchanged mesh of this class from the release",
        )
    candidates = [basis[np.asarray(KDTree(table).query(mesh.verts)[1])] for table in tables]
    best = min(candidates, key=lambda rows: _roughness(rows, mesh.faces))
    if _roughness(best, mesh.faces) > ROUGH:
        raise InputError(
            f"{lbo}: its values jump from vertex to vertex of {path}",
            "give the mesh that they were made on, with its vertices in the same order",
        )
    return best.contiguous()


def _orders(mesh: Mesh, path: Path) -> list[np.ndarray]:
    """The positions of vertices in the orders that a reader may give them.

    They are the file's order, the order of the first of equal vertices, and that of trimesh, which the
    release reads its meshes with, and which drops vertices without a face first.
    """
    import trimesh

    orders = [mesh.source, mesh.verts]
    try:
        shape: Any = trimesh.load(path, force="mesh", skip_materials=True)
        read = np.asarray(shape.vertices)
    except Exception:  # trimesh may raise anything, and our reader has read the file
        return orders
    place = np.asarray(KDTree(read_mesh(path).source).query(read)[1])
    return [*orders, mesh.source[place]]


def _roughness(eigenvectors: torch.Tensor, faces: np.ndarray) -> float:
    """How much the three lowest eigenvectors `(K, Q)` change along the mesh's edges.

    It is the mean squared difference, as a share of their variance.
    """
    low = eigenvectors[:, :3]
    a, b = torch.from_numpy(np.concatenate([faces[:, :2], faces[:, 1:]]).astype(np.int64)).T
    return float(((low[a] - low[b]) ** 2).mean() / low.var(0).mean().clamp_min(1e-12))
