"""Networks whose training fails, each in a different way; on the meta device they all work."""

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
    """A linear classifier whose forward pass calls a trap, a function that fails, except on the meta device."""

    def __init__(
        self, in_channels: int, num_classes: int, image_size: tuple[int, int], trap: Callable[[], None]
    ) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)
        self.trap = trap

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, N×num_classes, after the trap."""
        if images.device.type != "meta":
            self.trap()
        return self.linear(images.flatten(1))


def killed(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Return a classifier that kills its process by SIGKILL, as the system does when memory runs out."""
    return Trap(in_channels, num_classes, image_size, lambda: os.kill(os.getpid(), signal.SIGKILL))


def crashed(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Return a classifier that crashes with a segmentation fault."""
    return Trap(in_channels, num_classes, image_size, lambda: os.kill(os.getpid(), signal.SIGSEGV))


def exited(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Return a classifier that prints last words and exits with status 7."""

    def trap() -> None:
        print("last words", flush=True)
        os._exit(7)

    return Trap(in_channels, num_classes, image_size, trap)


def hung(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Return a classifier that hangs, with a child process that hangs too."""

    def trap() -> None:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(f"child {child.pid}", flush=True)
        time.sleep(600)

    return Trap(in_channels, num_classes, image_size, trap)


def starved(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Return a classifier that requests more memory than there is."""
    return Trap(in_channels, num_classes, image_size, lambda: torch.empty(2**50))  # type: ignore[arg-type, return-value]


def raised(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Return a classifier that raises a KeyError."""

    def trap() -> None:
        raise KeyError("surprise")

    return Trap(in_channels, num_classes, image_size, trap)


def not_a_network() -> str:
    """Return a string in place of an nn.Module."""
    return "no network"


def too_many_logits(in_channels: int, image_size: tuple[int, int]) -> nn.Module:
    """Return a classifier with logits for a thousand classes."""
    return Trap(in_channels, 1000, image_size, lambda: None)


class Greedy(nn.Module):
    """A linear classifier whose process is killed when the batch has eight images, as when memory runs out."""

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
