"""Modules with a known cost or an awkward habit, for the profile's tests."""

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
    """Waits 5 ms forward and 8 ms backward; its parameter lets it have a backward even where it comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, values: Tensor) -> Tensor:
        """Any shape; the same shape comes out."""
        return _Waiting.apply(values, self.weight)


class Branches(nn.Module):
    """Two branches, summed by the container itself; the first is the slow one."""

    def __init__(self, slow: nn.Module, fast: nn.Module) -> None:
        super().__init__()
        self.slow = slow
        self.fast = fast

    def forward(self, values: Tensor) -> Tensor:
        """Any shape; the same shape comes out."""
        return self.slow(values) + self.fast(values)


class Twice(nn.Module):
    """One module called twice, another never."""

    def __init__(self, shared: nn.Module) -> None:
        super().__init__()
        self.shared = shared
        self.idle = nn.Linear(2, 2)

    def forward(self, values: Tensor) -> Tensor:
        """Any shape; the same shape comes out."""
        return self.shared(self.shared(values))


class Checkpointed(nn.Module):
    """Keeps nothing of what is inside, and computes it anew in backward."""

    def __init__(self, *inside: nn.Module, reentrant: bool) -> None:
        super().__init__()
        self.inside = nn.Sequential(*inside)
        self.reentrant = reentrant

    def forward(self, values: Tensor) -> Tensor:
        """Any shape that suits what is inside."""
        return checkpoint(self.inside, values, use_reentrant=self.reentrant)


class Doubled(nn.Module):
    """Returns a tuple: what it was given, doubled, and a dict with its sum."""

    def forward(self, values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Any shape; the same shape comes out."""
        return values * 2, {"sum": values.sum()}


class OfDoubled(nn.Module):
    """Calls a module that returns a tuple, and returns one itself."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.pair = Doubled()

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """N×4 → N×4 and a sum."""
        doubled, rest = self.pair(self.linear(values))
        return doubled, rest["sum"]


def wait(seconds: float) -> None:
    """Busy for so long of the thread's own time, in which nothing else that the machine does counts."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
