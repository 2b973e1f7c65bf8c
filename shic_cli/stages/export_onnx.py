"""A model's network as ONNX, for programs without PyTorch."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from shic_cli.base.errors import ShicError
from shic_cli.base.packages import needed
from shic_cli.learning.encode import decoder_input
from shic_cli.parts.extractors.picture import Picture

if TYPE_CHECKING:
    from shic_cli.stages.predict import Predictor

OPSET = 17
LARGEST = 1e-4  # difference from PyTorch's answer, as a share of its largest value
log = logging.getLogger("shic")


class Network(nn.Module):
    """The decoder, after the encoder where that is `picture`, and the vertex embeddings."""

    vertices: torch.Tensor

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.decoder, self.encoder = predictor.map.decoder, predictor.encoder
        self.register_buffer("vertices", predictor.vertex_embeddings)

    def forward(
        self, given: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings `(B, D, h, w)` and the vertices' `(K, D)`, of pictures and masks, or of features."""
        features = given if mask is None else self.encoder(given, mask)
        if self.decoder.pointwise:
            return self.decoder(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), self.vertices
        return self.decoder(features)[0][:, : self.vertices.shape[1]], self.vertices


def write_onnx(path: Path, predictor: Predictor) -> None:
    """Write the network as an ONNX file, checked against PyTorch.

    With the encoder `picture` its inputs are `image` f4 (B, 3, S, S), RGB in 0..1 of the square crop around
    the mask, and `mask` f4 (B, 1, S, S); with another one `features` f4 (B, C, h, w), as `shic features`
    writes them, or at their own length for a model of raw tokens. Its outputs are `embedding` (B, D, h, w)
    and `vertex_embedding` (K, D): a pixel's vertex is the one with the largest product. MissingError without
    the packages; ShicError if the answers differ.
    """
    with needed("ONNX"):
        import onnx  # noqa: F401 - the exporter needs it
        import onnxruntime
    network, inputs = Network(predictor).eval(), _example(predictor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the exporter by tracing is not the newest one
        torch.onnx.export(
            network,
            tuple(inputs.values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=["embedding", "vertex_embedding"],
            dynamic_axes={name: {0: "batch"} for name in (*inputs, "embedding")},
        )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    with torch.no_grad():
        wanted = network(*inputs.values())
    for mine, theirs in zip(wanted, found, strict=True):
        off = np.abs(mine.numpy() - np.asarray(theirs)).max() / max(float(mine.abs().max()), 1e-12)
        if not off <= LARGEST:
            raise ShicError(
                f"ONNX Runtime's answer differs from PyTorch's by {off:.2g}", "please report this"
            )
    log.info("onnx: inputs %s; ONNX Runtime agrees with PyTorch", ", ".join(inputs))
    if "features" in inputs and (predictor.raw or not predictor.encoder.unit):
        log.info("onnx: its features are at their own length, not the unit vectors of `shic features`")


def _example(predictor: Predictor) -> dict[str, torch.Tensor]:
    """Inputs to trace the network with, by name: two, so that the batch is no constant."""
    random = torch.Generator().manual_seed(0)
    side = predictor.encoder.side
    image = torch.rand(2, 3, side, side, generator=random)
    mask = torch.zeros(2, 1, side, side)
    mask[..., side // 4 : -side // 4, side // 4 : -side // 4] = 1
    if isinstance(predictor.encoder, Picture):
        return {"image": image, "mask": mask}
    with torch.no_grad():
        return {"features": decoder_input(predictor.encoder, image, mask, predictor.raw)}
