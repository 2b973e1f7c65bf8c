"""Training of the canonical map: the five losses of sec. 3.6 on photos with pseudo-labels and on synthetic pictures."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from shic_cli import losses
from shic_cli.batches import Batch, Examples, collate, flip_points
from shic_cli.config import TrainConfig
from shic_cli.errors import InputError, SettingError, ShicError
from shic_cli.features import make_extractor
from shic_cli.matching import sample
from shic_cli.model import CanonicalMap, Saved, Surface, save_model
from shic_cli.outputs import Journal, atomic, check_target
from shic_cli.progress import Track, plain_track
from shic_cli.schema import ItemReader, Template

log = logging.getLogger("shic")

ENCODED = 16  # pictures that the encoder gets at a time on a GPU


def open_maps(paths: list[Path], template: Template, config: TrainConfig) -> list[ItemReader]:
    """The maps files that `config` uses; InputError if one is of another template, or none is left."""
    readers = []
    for path in paths:
        reader = ItemReader(path, "shic/maps")
        if reader.header.attrs["template"] not in ("", template.fingerprint):
            raise InputError(f"{path}: its labels are for another template", "make it again with this template")
        synthetic = reader.header.attrs["labels"] == "synthetic"
        if config.synthetic_images if synthetic else config.natural_images:
            readers.append(reader)
    if not any(map(len, readers)):
        raise InputError("there are no pictures to train on", "give maps files made by `shic pseudo-gt` or `shic synth`")
    return readers


def settle(config: TrainConfig, encoder: Any) -> TrainConfig:
    """`config` with every `auto` and 0 replaced by what it stands for with this encoder.

    A pointwise decoder is small and learns more from many short steps. Crops cut the outline that an encoder of the whole object
    lives on: they pay only where there are few pictures and many epochs.
    """
    decoder = ("pointwise" if encoder.sees_whole_object else "convolutional") if config.decoder == "auto" else config.decoder
    pointwise = decoder == "pointwise"
    return replace(
        config,
        encoder=encoder.name if config.encoder == "auto" else config.encoder,
        decoder=decoder,
        batch=config.batch or (4 if pointwise else 16),
        rate=config.rate or (3e-3 if pointwise else 1e-3),
        augment=("off" if encoder.sees_whole_object else "on") if config.augment == "auto" else config.augment,
    )


@dataclass
class Trainer:
    """The map being trained, with its optimizer, schedule and examples. One object a run."""

    config: TrainConfig
    template: Template
    examples: Examples
    device: torch.device
    seed: int
    map: CanonicalMap
    optimizer: torch.optim.Adam
    geodesic: torch.Tensor
    mirror: torch.Tensor
    epoch: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def make(
        cls,
        template: Template,
        readers: list[ItemReader],
        config: TrainConfig,
        device: torch.device,
        seed: int,
        weights: Path | None = None,
    ) -> Trainer:
        """A map that knows nothing yet: E = 0."""
        encoder = make_extractor(config.encoder, device, weights, auto="encoders")
        config = settle(config, encoder)
        pointwise = config.decoder == "pointwise"
        examples = Examples(
            readers,
            encoder,
            points=config.points,
            vertices=len(template.verts),
            augment=config.augment == "on",
            variants=config.variants,
            flip=config.equivariance > 0,
            at_points=pointwise,
            seed=seed,
            together=ENCODED if device.type == "cuda" else 1,
        )
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            found = CanonicalMap(config.decoder, encoder.dim, config.dim, torch.from_numpy(template.eigenvectors)).to(device)
        geodesic, mirror = (torch.from_numpy(array).to(device) for array in (template.geodesic, template.mirror.astype("int64")))
        optimizer = torch.optim.Adam(found.parameters(), lr=config.rate)
        return cls(config, template, examples, device, seed, found, optimizer, geodesic, mirror)

    def run_epoch(self, track: Track = plain_track) -> dict[str, float]:
        """Train one epoch; the means of the losses, by name. ShicError, with the map as it was before, if one is not finite."""
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.examples), generator=generator).split(self.config.batch)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate * (0.1 if self.epoch >= self.config.epochs / 2 else 1)
        self.map.train()
        sums: dict[str, float] = {}
        counts: dict[str, int] = {}
        for indices in track(order, len(order), f"epoch {self.epoch + 1}/{self.config.epochs}"):
            for name, value in self._step(indices.tolist(), generator).items():
                sums[name], counts[name] = sums.get(name, 0) + value, counts.get(name, 0) + 1
        means = {name: sums[name] / counts[name] for name in sums}
        self.epoch += 1
        self.history.append(means)
        return means

    def _step(self, indices: list[int], generator: torch.Generator) -> dict[str, float]:
        found = self.examples.get_all(indices, self.epoch)
        terms: dict[str, torch.Tensor] = {}
        for natural in (True, False):
            if chosen := [example for example in found if example.natural is natural]:
                examples = self.examples
                batch = collate(chosen, self.config.points, examples.at_points, examples.encoder.side, self.device, generator)
                terms |= self._natural(batch) if natural else self._synthetic(batch)
        weights = {name: getattr(self.config, name) for name in terms}
        total = sum((weights[name] * term for name, term in terms.items()), torch.zeros((), device=self.device))
        if not torch.isfinite(total):
            bad = next((name for name, term in terms.items() if not torch.isfinite(term)), "total")
            raise ShicError(f"epoch {self.epoch + 1}: the {bad} loss is not finite", "the last checkpoint is kept; try a smaller --rate")
        self.optimizer.zero_grad()
        total.backward()
        self.optimizer.step()
        return {"total": total.item(), **{name: term.item() for name, term in terms.items()}}

    def _embed(self, features: torch.Tensor, batch: Batch, yx: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeddings `(B, P, D)` at `yx`, and the foreground logits where the decoder has them."""
        if batch.at_points:
            return self.map.decoder(features), None
        dense, foreground = self.map.embed(features)
        return sample(dense, yx, batch.side), foreground

    def _natural(self, batch: Batch) -> dict[str, torch.Tensor]:
        config, vertices = self.config, self.map.vertex_embeddings()
        pixels, foreground = self._embed(batch.features, batch, batch.yx)
        logp = losses.log_probability(pixels, vertices)
        terms = {}
        if config.pseudo:
            terms["pseudo"] = losses.pseudo(logp, batch.vertex)
        if config.distance:
            terms["distance"] = losses.distance(logp, self.geodesic[batch.vertex])
        if config.cycle:
            terms["cycle"] = losses.cycle(logp, batch.yx * (224 / batch.side))  # in pixels of the 224 frame
        if config.equivariance and batch.flipped is not None:
            mirrored, _ = self._embed(batch.flipped, batch, flip_points(batch.yx, batch.side))
            terms["equivariance"] = losses.equivariance(logp, losses.log_probability(mirrored, vertices), self.mirror)
        return terms | self._foreground(foreground, batch)

    def _synthetic(self, batch: Batch) -> dict[str, torch.Tensor]:
        pixels, foreground = self._embed(batch.features, batch, batch.yx)
        logp = losses.log_probability(pixels, self.map.vertex_embeddings())
        terms = {"synthetic": losses.synthetic(logp, batch.vertex)} if self.config.synthetic else {}
        return terms | self._foreground(foreground, batch)

    def _foreground(self, logits: torch.Tensor | None, batch: Batch) -> dict[str, torch.Tensor]:
        if logits is None or not self.config.foreground:
            return {}
        mask = torch.nn.functional.interpolate(batch.mask[:, None], logits.shape[-2:], mode="area")[:, 0]
        return {"foreground": losses.foreground(logits, mask)}

    def save_checkpoint(self, path: Path) -> None:
        """Everything that going on needs, in one safetensors file."""
        tensors = {f"map.{name}": value for name, value in self.map.state_dict().items()}
        names = [name for name, _ in self.map.named_parameters()]
        for i, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{names[i]}.{key}": value for key, value in state.items()}
        meta = {"epoch": str(self.epoch), "history": json.dumps(self.history)}
        with atomic(path) as partial:
            save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, partial, metadata=meta)

    def load_checkpoint(self, path: Path) -> None:
        """Go on from a checkpoint of the same settings."""
        with safe_open(path, "pt") as file:
            tensors, meta = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
        self.map.load_state_dict({name.removeprefix("map."): value for name, value in tensors.items() if name.startswith("map.")})
        state: dict[int, dict[str, torch.Tensor]] = {}
        for i, (name, _) in enumerate(self.map.named_parameters()):
            prefix = f"adam.{name}."
            state[i] = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})
        self.epoch, self.history = int(meta["epoch"]), json.loads(meta["history"])

    def saved(self, sources: dict[str, Any]) -> Saved:
        """The finished model."""
        encoder = self.examples.encoder
        meta = {
            "encoder": {**encoder.settings, "name": self.config.encoder},
            "encoder_fingerprint": encoder.fingerprint,
            "decoder": self.config.decoder,
            "channels": encoder.dim,
            "dim": self.config.dim,
            "template": self.template.fingerprint,
            "params": {**self.config.params(), "seed": self.seed},
            "sources": sources,
            "losses": self.history[-1],
        }
        return Saved(self.map.cpu(), Surface.of(self.template), meta)


def train(
    template: Template,
    maps: list[Path],
    path: Path,
    config: TrainConfig,
    device: torch.device,
    *,
    seed: int = 0,
    sources: dict[str, Any],
    weights: Path | None = None,
    overwrite: bool = False,
    track: Track = plain_track,
) -> list[dict[str, float]]:
    """Train on maps files and write the model; the losses of every epoch, by name.

    A checkpoint beside the target is kept after every epoch; given the same settings and sources, training goes on from it.
    """
    check_target(path, overwrite)
    readers = open_maps(maps, template, config)
    if not any(getattr(config, name) for name in ("pseudo", "distance", "cycle", "equivariance", "synthetic")):
        raise SettingError("every loss has weight 0", "give one of them a weight")
    trainer = Trainer.make(template, readers, config, device, seed, weights)
    made_by = {"params": trainer.config.params(), "encoder": trainer.examples.encoder.fingerprint, "seed": seed, "sources": sources}
    journal = Journal(path, made_by, replace=overwrite)
    checkpoint, done = path.with_name(path.name + ".checkpoint"), False
    try:
        if journal.fresh:
            checkpoint.unlink(missing_ok=True)
        elif checkpoint.exists():
            trainer.load_checkpoint(checkpoint)
            log.info("going on after epoch %d of %d", trainer.epoch, trainer.config.epochs)
        for means in _epochs(trainer, track):
            log.debug("epoch %d: %s", trainer.epoch, " ".join(f"{name} {value:.4f}" for name, value in means.items()))
            trainer.save_checkpoint(checkpoint)
        save_model(path, trainer.saved(sources), True)
        done = True
    finally:
        if done:
            checkpoint.unlink(missing_ok=True)
        journal.close(remove=done)
    return trainer.history


def _epochs(trainer: Trainer, track: Track) -> Iterator[dict[str, float]]:
    """Train epoch by epoch until the last one."""
    start, total = trainer.epoch, trainer.config.epochs
    steps = math.ceil(len(trainer.examples) / trainer.config.batch)
    log.info("training on %d pictures, %d steps an epoch, %d epochs", len(trainer.examples), steps, total)
    for _ in track(range(start, total), total - start, "train"):
        yield trainer.run_epoch()
