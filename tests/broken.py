"""Networks that go wrong when they are trained, each in its own way; on the meta device they are all well-behaved."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn


class Trap(nn.Module):
    """A linear classifier that springs a trap in its first real forward pass."""

    def __init__(
        self, in_channels: int, num_classes: int, image_size: tuple[int, int], trap: Callable[[], None]
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)
        self.trap = trap

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, N×num_classes, unless the trap springs."""
        if images.device.type != "meta":
            self.trap()
        return self.linear(images.flatten(1))


def killed(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """End as the system ends a process when memory runs out."""
    return Trap(in_channels, num_classes, image_size, lambda: os.kill(os.getpid(), signal.SIGKILL))


def crashed(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """End as a bug in a kernel does."""
    return Trap(in_channels, num_classes, image_size, lambda: os.kill(os.getpid(), signal.SIGSEGV))


def exited(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """End with an exit status and last words."""

    def trap() -> None:
        print("last words", flush=True)
        os._exit(7)

    return Trap(in_channels, num_classes, image_size, trap)


def hung(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Never come back, with a child that never does either."""

    def trap() -> None:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(f"child {child.pid}", flush=True)
        time.sleep(600)

    return Trap(in_channels, num_classes, image_size, trap)


def starved(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Ask for more memory than there is."""
    return Trap(in_channels, num_classes, image_size, lambda: torch.empty(2**50))  # type: ignore[arg-type, return-value]


def raised(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Raise what no one expected."""

    def trap() -> None:
        raise KeyError("surprise")

    return Trap(in_channels, num_classes, image_size, trap)


def not_a_network() -> str:
    """Return no nn.Module."""
    return "no network"


def too_many_logits(in_channels: int, image_size: tuple[int, int]) -> nn.Module:
    """Return logits for a thousand classes."""
    return Trap(in_channels, 1000, image_size, lambda: None)


class Greedy(nn.Module):
    """A linear classifier whose process the system ends when it is given eight images, as when memory runs out."""

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int]) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, N×num_classes, in the same time for any N."""
        if images.device.type != "meta":
            time.sleep(0.05)
            if len(images) == 8:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.linear(images.flatten(1))


greedy = Greedy
