"""A model that several ranks train together: gloo between CPUs, NCCL between GPUs."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from shic_cli.base.ranks import _meeting


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the ranks, and so is its gradient's."""

    @staticmethod
    def forward(context: Any, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        with _meeting():
            dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(context: Any, gradient: torch.Tensor) -> torch.Tensor:
        return _Sum.apply(gradient.contiguous())


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the pictures of all ranks, however many each has; torch's own SyncBatchNorm is for GPUs
    alone.
    """

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(features)
        # In double precision, as torch's own has it: in deep networks the last digits of the variance grow to
        # percents of a gradient.
        count = torch.tensor(
            [features.numel() // features.shape[1]], dtype=torch.float64, device=features.device
        )
        sums = _Sum.apply(torch.cat([features.sum((0, 2, 3), dtype=torch.float64), count]))
        number, mean = sums[-1], sums[:-1] / sums[-1]
        centred = features - mean.to(features)[:, None, None]
        variance = _Sum.apply((centred * centred).sum((0, 2, 3), dtype=torch.float64)) / number
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(features), self.momentum)
            self.running_var.lerp_((variance * number / (number - 1)).to(features), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt().to(features)
        return centred * scale[:, None, None] + self.bias[:, None, None]


class _Nothing(nn.Module):
    """All parameters of `part` in a sum that is 0: its gradients add nothing to those that are there."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self) -> torch.Tensor:
        return sum((parameter * 0).sum() for parameter in self.part.parameters())


class Together:
    """A model that all ranks train, each on its share of a batch: the same weights on each, and the gradients
    of the whole batch.

    Shares may differ in size, be empty, or be done in several steps: gradients are added up on each rank
    first, and DistributedDataParallel averages them over the ranks in one more backward pass, of nothing,
    that every rank makes once a step.
    """

    def __init__(self, part: nn.Module) -> None:
        self.size, self.rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        self.parallel = None
        self.mixes = any(
            isinstance(each, nn.BatchNorm2d) for each in part.modules()
        )  # pictures of a batch depend on each other
        if self.size > 1:
            for each in part.modules():
                if type(each) is nn.BatchNorm2d:
                    each.__class__ = SharedBatchNorm  # which has the same state
            with _meeting():
                self.parallel = nn.parallel.DistributedDataParallel(
                    _Nothing(part), forward_sync_buffers=False
                )

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, numbers: list[int], owned: bool) -> list[int]:
        """Which places of the batch `numbers` are this rank's: those of its own pictures, the same in every
        epoch, if `owned`.

        Where pictures depend on each other they are dealt out evenly, for all ranks wait for each other in
        every layer.
        """
        if owned and not self.mixes:
            return [place for place, number in enumerate(numbers) if number % self.size == self.rank]
        return list(range(len(numbers)))[self.rank :: self.size]

    def add_gradients(self) -> None:
        """Replace the gradients on every rank by their mean over the ranks."""
        if self.parallel is not None:
            with _meeting():
                self.parallel().backward()
