"""The training loop: the five losses of sec. 3.6 on photos with pseudo-labels and on synthetic pictures."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch

from shic_cli.base.devices import Fitting, ahead
from shic_cli.base.errors import InputError, SettingError, ShicError
from shic_cli.base.progress import Track, plain_track
from shic_cli.base.ranks import gather
from shic_cli.base.recipes import by_recipe
from shic_cli.base.training_settings import TrainConfig
from shic_cli.files.items import ItemReader
from shic_cli.files.layouts import EXACT, Surface, Template
from shic_cli.learning import losses
from shic_cli.learning.batches import Batch, Example, collate, flip_points, masking_of
from shic_cli.learning.canonical_map import CanonicalMap
from shic_cli.learning.checkpoint import read_checkpoint, write_checkpoint
from shic_cli.learning.examples import Examples
from shic_cli.learning.model_file import Saved
from shic_cli.learning.recipes import layout, settle
from shic_cli.learning.similarity import sample
from shic_cli.learning.start import begin
from shic_cli.learning.team import Together
from shic_cli.parts.extractors.make import make_extractor

log = logging.getLogger("shic")

SECOND = 0.25  # epochs that learn from fitted bodies too, as a share of the others
AGAIN = 0.5  # the step size that they begin with, as a share of the first
NATURAL = ("pseudo", "distance", "cycle", "equivariance")  # the losses that only photos have
MIDDLE = 0.01  # a vertex nearer to the mirror plane is on neither side; the template's largest side is 1
RIVALS = 512  # random vertices that stand for all vertices in a step of a U-Net
DIVERGED = 10.0  # times the loss of an untrained map; training does not recover from a larger loss
KEPT = "the last checkpoint is kept; try a smaller --rate, with --overwrite"


def _kind(name: str) -> str:
    """The kind of pictures that the loss `name` is a mean over: "natural", "synthetic" or "all"."""
    return "natural" if name in NATURAL else "synthetic" if name in ("synthetic", "near") else "all"


@dataclass
class Trainer:
    """The map in training, with its optimizer, schedule and examples.

    Each run makes one such object.
    """

    config: TrainConfig
    template: Template
    examples: Examples
    device: torch.device
    seed: int
    map: CanonicalMap
    optimizer: torch.optim.Adam
    geodesic: torch.Tensor
    mirror: torch.Tensor
    team: Together
    fitting: Fitting
    rivals: torch.Tensor
    masking: dict[str, str] = field(default_factory=dict)
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
        """A trainer with an untrained map, whose vertex embeddings E are 0."""
        masking, config = masking_of(readers), by_recipe(config)
        labels = {reader.header.attrs["labels"] for reader in readers}
        encoder = make_extractor(
            config.encoder, device, weights, auto="encoders" if "synthetic" in labels else "photo encoders"
        )
        if "synthetic" not in labels and encoder.name == "silhouette":
            log.warning(
                "there are no synthetic pictures: without them this map can be worse than its labels;"
                " make some with `shic synth`"
            )
        config = settle(config, encoder, device, labels)
        if config.natural == 0 and labels - set(EXACT):
            log.info(
                "the photos' own labels are left out: they have larger errors than this map has without them"
                " (--natural 1 takes them)"
            )
            readers = [reader for reader in readers if reader.header.attrs["labels"] in EXACT]
            if not readers:
                raise InputError(
                    "--natural 0 leaves no pictures to train on", "make synthetic ones with `shic synth`"
                )
        mirror = torch.from_numpy(template.mirror.astype("int64"))
        examples = Examples.of(readers, encoder, config, mirror, device, seed)
        with torch.random.fork_rng(devices=[]):  # drawn on the CPU, weights are the same on every device
            torch.manual_seed(seed)
            found = CanonicalMap(
                layout(config), encoder.dim, config.dim, torch.from_numpy(template.eigenvectors)
            ).to(device)
        begin(found.decoder, config.start)
        geodesic, mirror = torch.from_numpy(template.geodesic).to(device), mirror.to(device)
        optimizer = torch.optim.Adam(found.parameters(), lr=config.rate)
        return cls(
            config, template, examples, device, seed, found, optimizer, geodesic, mirror,
            Together(found), Fitting("training", config.batch, examples.make_room),
            torch.arange(len(geodesic), device=device), masking,
        )  # fmt: skip

    def run_epoch(self, track: Track = plain_track) -> dict[str, float]:
        """The means of the losses by name, after one epoch of training.

        Raises ShicError if a loss is not finite. The step with that loss is not made, so the map stays as it
        was before that step. Raises ShicError too if `_check` refuses the map after the last step.
        """
        generator = torch.Generator().manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.examples), generator=generator).split(self.config.batch)
        self.map.train()
        sums: dict[str, float] = {}
        steps = {"natural": 0, "synthetic": 0, "all": len(order)}
        batches = [indices.tolist() for indices in order]
        made = ahead(
            partial(self.examples.get_all, [batch[place] for place in self._places(batch)], self.epoch)
            for batch in batches
        )
        title = f"epoch {self.epoch + 1}/{self.total}"

        def status() -> str:
            return f"loss {sums.get('total', 0) * self.team.size / (i + 1):.3f}"

        for i, found in enumerate(track(made, len(batches), title, status)):
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(self.epoch + i / len(batches))
            natural = sum(map(self.examples.is_natural, batches[i]))
            steps["natural"] += natural > 0
            steps["synthetic"] += natural < len(batches[i])
            for name, value in self._step(batches[i], found, generator).items():
                sums[name] = sums.get(name, 0) + value
        means: dict[str, float] = {}
        for shares in gather(sums):
            for name, value in shares.items():
                means[name] = means.get(name, 0) + value / steps[_kind(name)]
        self._check(means)
        self.epoch += 1
        self.history.append(means)
        return means

    @cached_property
    def side(self) -> torch.Tensor:
        """Which side of the body every vertex `(K,)` is on: 1, -1, or 0 in its middle."""
        x = torch.from_numpy(self.template.verts[:, 0]).to(self.device)
        return x.sign() * (x.abs() > MIDDLE)

    def _check(self, means: dict[str, float]) -> None:
        """Raise ShicError if the map has a number that is not finite, or if its loss has diverged.

        The last step of an epoch can be too large and leave such numbers. A loss has diverged if it is more
        than `DIVERGED` times the loss of an untrained map.
        """
        where = f"epoch {self.epoch + 1}"
        values = {name: each for name, each in self.map.state_dict().items() if each.is_floating_point()}
        finite = torch.stack([torch.isfinite(each).all() for each in values.values()]).tolist()
        if not all(finite):
            raise ShicError(f"{where}: {list(values)[finite.index(False)]} of the map is not finite", KEPT)
        start = math.log(len(self.template.verts))  # L_pseudo of an untrained map
        if worst := next(
            (name for name in ("pseudo", "synthetic") if means.get(name, 0) > DIVERGED * start), None
        ):
            raise ShicError(
                f"{where}: the {worst} loss is {means[worst]:.3g}, a map that knows nothing has {start:.3g}",
                KEPT,
            )

    def check_team(self) -> None:
        """Raise SettingError if some rank could be left without a loss while the other ranks wait for it.

        In layers such as batch norm the ranks wait for each other in the backward pass too. A rank without a
        loss makes no backward pass.
        """
        kinds = {_kind(name) for name in (*NATURAL, "synthetic") if self.weight(name)}
        present = {
            "natural" if self.examples.is_natural(index) else "synthetic"
            for index in range(len(self.examples))
        }
        if self.team.size > 1 and self.team.mixes and present - kinds:
            hint = f"leave them out with --no-{min(present - kinds)}-images"
            raise SettingError(
                f"the losses of all {min(present - kinds)} pictures have weight 0, which several ranks"
                " can't train with",
                hint,
            )

    def weight(self, name: str) -> float:
        """The weight of the loss `name`.

        For the losses of photos it includes the setting `natural`.
        """
        return getattr(self.config, name) * (self.config.natural if name in NATURAL else 1)

    def rate(self, epoch: float) -> float:
        """The step size that the schedule gives after `epoch` epochs; a second round begins it anew."""
        first, rate = self.config.epochs, self.config.rate
        done = epoch / first
        if epoch >= first and self.total > first:
            done, rate = (epoch - first) / (self.total - first), AGAIN * rate
        if self.config.schedule == "cosine":
            return rate * (1 + math.cos(math.pi * done)) / 2
        return rate * (0.1 if done >= 0.5 else 1)

    @property
    def total(self) -> int:
        """All epochs: those of the settings, and if there are `fits` those of a second round."""
        epochs = self.config.epochs
        return epochs + (max(1, round(SECOND * epochs)) if self.config.fits else 0)

    def _places(self, batch: list[int]) -> list[int]:
        """The places in `batch` of the pictures that this rank works on.

        If the share is empty and the model has batch norm, the first place stands in, with weight 0. Without
        it the other ranks would wait for this one in every layer.
        """
        return self.team.share(batch, owned=self.examples.variants > 0) or [0] * self.team.mixes

    def _step(self, batch: list[int], found: list[Example], generator: torch.Generator) -> dict[str, float]:
        """This rank's share of the mean losses by name, after one step on the examples `batch`.

        `found` are the examples of `batch` that this rank works on.
        """
        self.rivals = self._rivals(generator)
        chosen, team, natural = (
            self.examples.draw(len(batch), generator),
            self.team,
            sum(map(self.examples.is_natural, batch)),
        )
        counts: dict[str, float] = {"natural": natural, "synthetic": len(batch) - natural, "all": len(batch)}
        if team.mixes and team.rank >= len(batch):
            counts = dict.fromkeys(counts, math.inf)
        pairs = [(example, chosen[place]) for example, place in zip(found, self._places(batch), strict=True)]
        if team.mixes and team.size > 1:
            values = self._gradients(pairs, counts, len(pairs))
        else:
            values = self.fitting.run(lambda size: self._gradients(pairs, counts, size), max(len(pairs), 1))
        team.add_gradients()
        self.optimizer.step()
        return values

    def _rivals(self, generator: torch.Generator) -> torch.Tensor:
        """The vertices `(R,)` that the loss of synthetic pictures compares with in a step.

        A U-Net compares with random ones, all other decoders with all vertices.
        """
        count = len(self.template.verts)
        if self.config.decoder != "unet" or count <= 2 * RIVALS:
            return torch.arange(count, device=self.device)
        return torch.randperm(count, generator=generator)[:RIVALS].to(self.device)

    def _gradients(
        self, pairs: list[tuple[Example, torch.Tensor]], counts: dict[str, float], size: int
    ) -> dict[str, float]:
        """The losses by name, after their gradients are set.

        `pairs` are examples and their chosen points. They are processed `size` at a time. Each loss is a mean
        over the photos of the step, over its synthetic pictures or over all of its pictures; `counts` holds
        these three numbers. The loss of each part is weighted by the part's share of its number, so the sum
        does not depend on how the pictures are split.

        Raises ShicError if a loss is not finite.
        """
        self.optimizer.zero_grad()
        values: dict[str, float] = {}
        for start in range(0, len(pairs), size):
            examples, chosen = zip(*pairs[start : start + size], strict=True)
            batch = collate(
                examples, chosen, self.examples.at_points, self.examples.encoder.side, self.device
            )
            natural = sum(example.natural for example in examples)
            here = {"natural": natural, "synthetic": len(examples) - natural, "all": len(examples)}
            terms = {
                name: term * (here[_kind(name)] / counts[_kind(name)])
                for name, term in self._losses(batch).items()
            }
            total = sum(
                (self.weight(name) * term for name, term in terms.items()),
                torch.zeros((), device=self.device),
            )
            # One transfer brings all values, before the gradients, so the host waits for the GPU once.
            found = dict(zip(("total", *terms), torch.stack([total, *terms.values()]).tolist(), strict=True))
            if not math.isfinite(found["total"]):
                bad = next((name for name in terms if not math.isfinite(found[name])), "total")
                raise ShicError(f"epoch {self.epoch + 1}: the {bad} loss is not finite", KEPT)
            if terms:
                (total * self.team.size).backward()  # the team takes the mean over its ranks
            for name, value in found.items():
                values[name] = values.get(name, 0) + value
        return values

    def _losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The losses of a batch by name.

        Photos, their mirror images and synthetic pictures go through the decoder together.
        """
        natural, flipped = batch.natural, batch.flipped
        features, yx = batch.features, batch.yx
        if flipped is not None:
            features, yx = (
                torch.cat([features, flipped]),
                torch.cat([yx, flip_points(yx[natural], batch.side)]),
            )
        pixels, foreground = self._embed(features, yx, batch)
        pixels, near = pixels[..., : self.config.dim], pixels[..., self.config.dim :]
        labelled, mirrored, vertices = (
            pixels[: len(natural)],
            pixels[len(natural) :],
            self.map.vertex_embeddings(),
        )
        terms = {}
        if natural.any():  # K probabilities a point are computed only for pictures that need them
            logp, other = (losses.log_probability(each, vertices) for each in (labelled[natural], mirrored))
            yx = batch.yx[natural] * (224 / batch.side)
            terms |= losses.natural(
                self.config, logp, other, batch.vertex[natural], yx, self.geodesic, self.mirror
            )
        if self.config.synthetic and not natural.all():
            vertex = batch.vertex[~natural]
            terms["synthetic"] = losses.synthetic(labelled[~natural], vertices, vertex, self.rivals)
            if self.config.near and near.shape[-1]:
                terms["near"] = losses.near(near[: len(natural)][~natural][..., 0], self.side[vertex])
        return terms | self._foreground(None if foreground is None else foreground[: len(natural)], batch)

    def _embed(
        self, features: torch.Tensor, yx: torch.Tensor, batch: Batch
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Embeddings `(B, P, D)` at the points `yx`, and foreground logits.

        The logits are None if the decoder has no foreground output. Both are float32, even if the layers of
        the decoder compute in bfloat16.
        """
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
            made = self.map.decoder(features)
        found, foreground = (made, None) if batch.at_points else made
        found = found.float() if batch.at_points else sample(found.float(), yx, batch.side)
        return found, None if foreground is None else foreground.float()

    def _foreground(self, logits: torch.Tensor | None, batch: Batch) -> dict[str, torch.Tensor]:
        if logits is None or not self.config.foreground:
            return {}
        shrink = partial(torch.nn.functional.interpolate, size=logits.shape[-2:], mode="area")
        mask = shrink(batch.mask[:, None])[:, 0]
        void = None if batch.void is None else shrink(batch.void[:, None])[:, 0]
        return {"foreground": losses.foreground(logits, mask, void)}

    def save_checkpoint(self, path: Path) -> None:
        """Write all that is needed to resume training to one safetensors file."""
        write_checkpoint(path, self.map, self.optimizer, self.epoch, self.history)

    def load_checkpoint(self, path: Path) -> None:
        """Restore map, optimizer, epoch and history from a checkpoint of the same settings."""
        self.epoch, self.history = read_checkpoint(path, self.map, self.optimizer)

    def saved(self, sources: dict[str, Any]) -> Saved:
        """The finished model, as it is written to a model file."""
        encoder = self.examples.encoder
        meta = {
            "encoder": {**encoder.settings, "name": self.config.encoder},
            "encoder_fingerprint": encoder.fingerprint,
            "decoder": layout(self.config),
            "channels": encoder.dim,
            "dim": self.config.dim,
            "template": self.template.fingerprint,
            "masking": self.masking,
            "params": {**self.config.params(), "seed": self.seed},
            "sources": sources,
            "losses": self.history[-1],
        }
        return Saved(self.map.cpu(), Surface.of(self.template), meta)
