"""Batch norm over the parts of all processes of a training; torch's own works on GPUs alone."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class WholeBatchNorm(_BatchNorm):
    """Batch norm whose statistics in training are those of the whole batch, as one process has them."""

    def forward(self, images: Tensor) -> Tensor:
        """Normalise this process's part, N×C×…; in evaluation by the running statistics, without the others."""
        mean, variance = self.running_mean, self.running_var
        if not self.training:
            is_untracked = mean is None
            return F.batch_norm(images, mean, variance, self.weight, self.bias, is_untracked, 0.0, self.eps)
        values = images if images.dtype == torch.float64 else images.float()
        others = [dimension for dimension in range(images.ndim) if dimension != 1]
        shape = [-1 if dimension == 1 else 1 for dimension in range(images.ndim)]
        count = values.numel() // values.shape[1] * dist.get_world_size()
        mean = _total(values.sum(others)) / count
        centred = values - mean.view(shape)
        variance = _total(centred.square().sum(others)) / count
        self._track(mean.detach(), variance.detach() * count / (count - 1))
        normal = centred * (variance + self.eps).rsqrt().view(shape)
        if self.weight is not None:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(images.dtype)

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """Update the running statistics as torch's batch norm does."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)


class _Sum(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(_: Any, values: Tensor) -> Tensor:
        """Sum a tensor."""
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        """Sum the gradients."""
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _total(values: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(values)
    return total


def synchronise(model: nn.Module, *, is_on_gpu: bool) -> None:
    """Turn every batch norm of a model, in place, into one over all processes of torch's default group."""
    for module in batch_norms(model):
        if is_on_gpu:
            module.process_group = None
        module.__class__ = nn.SyncBatchNorm if is_on_gpu else WholeBatchNorm


def batch_norms(model: nn.Module) -> list[Any]:
    """Return the modules that normalise by the statistics of a batch of their process alone."""
    whole = (nn.SyncBatchNorm, WholeBatchNorm)
    return [each for each in model.modules() if isinstance(each, _BatchNorm) and not isinstance(each, whole)]
