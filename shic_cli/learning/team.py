"""A model that several ranks train together, with gloo between CPUs and NCCL between GPUs."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.distributed as dist
from torch import nn

from shic_cli.base.ranks import _meeting


class _Sum(torch.autograd.Function):
    """The sum of a tensor over the ranks.

    The gradient is summed over the ranks too.
    """

    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        with _meeting():
            dist.all_reduce(tensor)
        return tensor

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _all_reduced(gradients[0].contiguous())


def _all_reduced(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of `tensor` over the ranks, with a gradient."""
    return cast(torch.Tensor, _Sum.apply(tensor))


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the pictures of all ranks.

    Ranks may have different numbers of pictures. torch's own SyncBatchNorm works on GPUs only.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        # Sums are in double precision, as in torch's own batch norm, because in deep networks an error in the
        # last digits of the variance grows to some percent of a gradient. Inputs in bfloat16 are normalised
        # in float32, as autocast does.
        kind = input.dtype
        input = input.to(torch.promote_types(kind, torch.float32))
        count = torch.tensor([input.numel() // input.shape[1]], dtype=torch.float64, device=input.device)
        sums = _all_reduced(torch.cat([input.sum((0, 2, 3), dtype=torch.float64), count]))
        number, mean = sums[-1], sums[:-1] / sums[-1]
        centred = input - mean.to(input)[:, None, None]
        variance = _all_reduced((centred * centred).sum((0, 2, 3), dtype=torch.float64)) / number
        assert self.momentum is not None and self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(input), self.momentum)
            self.running_var.lerp_((variance * number / (number - 1)).to(input), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt().to(input)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(kind)


class _Nothing(nn.Module):
    """A sum over the parameters of `part` that is always 0, so its gradients are 0 too.

    The buffers of `part` are left out, because DistributedDataParallel would broadcast them in every step.
    """

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.all = nn.ParameterList(part.parameters())

    def forward(self) -> torch.Tensor:
        return sum(((parameter * 0).sum() for parameter in self.all), torch.zeros(()))


class Together:
    """A model that all ranks train with the same weights and the gradients of the whole batch.

    Each rank works on its share of a batch. Shares may differ in size, may be empty, and may be processed in
    several parts. Each rank first adds up its own gradients. Then DistributedDataParallel averages them over
    the ranks in one more backward pass. The loss of that pass is 0, and every rank makes it once
    a step.
    """

    def __init__(self, part: nn.Module) -> None:
        self.size, self.rank = (dist.get_world_size(), dist.get_rank()) if dist.is_initialized() else (1, 0)
        self.parallel = None
        # batch norm makes the pictures of a batch depend on each other
        self.mixes = any(isinstance(module, nn.BatchNorm2d) for module in part.modules())
        if self.size > 1:
            for module in part.modules():
                if type(module) is nn.BatchNorm2d:
                    module.__class__ = SharedBatchNorm  # the two classes have the same state
            with _meeting():
                self.parallel = nn.parallel.DistributedDataParallel(_Nothing(part))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, numbers: list[int], owned: bool) -> list[int]:
        """The places in the batch `numbers` of the pictures that this rank works on.

        If `owned`, each rank gets its own pictures, which are the same in every epoch. If the pictures of a
        batch depend on each other, they are always dealt out evenly, because the ranks wait for each other in
        every layer. They are dealt out evenly without `owned` too.
        """
        if owned and not self.mixes:
            return [place for place, number in enumerate(numbers) if number % self.size == self.rank]
        return list(range(len(numbers)))[self.rank :: self.size]

    def add_gradients(self) -> None:
        """Replace the gradients on every rank by their mean over the ranks."""
        if self.parallel is not None:
            with _meeting():
                self.parallel().backward()
