"""Modules with a known cost or an unusual behaviour, for the profile's tests."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

FORWARD_S, BACKWARD_S = 0.005, 0.008


class _Waiting(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor) -> Tensor:
        wait(FORWARD_S)
        return values + weight

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        wait(BACKWARD_S)
        return gradient, gradient.sum()


class Waiting(nn.Module):
    """A module that waits 5 ms forward and 8 ms backward; its parameter gives it a backward even as the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        """Return values of the same shape."""
        return _Waiting.apply(values, self.weight)


class Branches(nn.Module):
    """Two branches whose outputs the container adds; the first branch is the slow one."""

    def __init__(self, slow: nn.Module, fast: nn.Module) -> None:
        super().__init__()
        self.slow = slow
        self.fast = fast

    def forward(self, values: Tensor) -> Tensor:
        """Return values of the same shape."""
        return self.slow(values) + self.fast(values)


class Twice(nn.Module):
    """A container that calls one module twice and another never."""

    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.shared = shared
        self.idle = nn.Linear(2, 2)

    def forward(self, values: Tensor) -> Tensor:
        """Return values of the same shape."""
        return self.shared(self.shared(values))


class Checkpointed(nn.Module):
    """A checkpointed container, whose inner layers are computed again in backward."""

    def __init__(self, *inside: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.inside = nn.Sequential(*inside)
        self.reentrant = reentrant

    def forward(self, values: Tensor) -> Tensor:
        """Return the output of the inner layers."""
        return checkpoint(self.inside, values, use_reentrant=self.reentrant)


class Doubled(nn.Module):
    """A module that returns a tuple: the doubled input, and a dict with the input's sum."""

    def forward(self, values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return values of the same shape, and their sum before doubling."""
        return values * 2, {"sum": values.sum()}


class OfDoubled(nn.Module):
    """A container of a module that returns a tuple, which returns a tuple itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.pair = Doubled()

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Map N×4 to N×4 and a sum."""
        doubled, rest = self.pair(self.linear(values))
        return doubled, rest["sum"]


def wait(seconds: float) -> None:
    """Spin for this many seconds of the thread's CPU time, which other processes do not affect."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
