"""Networks for duets, which fail only where the environment variable PLANTED is set."""

from __future__ import annotations

import os
import signal
import time

import torch
from torch import Tensor, nn


class Planted(nn.Module):
    """A dense classifier whose forward pass fails in its own way where PLANTED is set."""

    def __init__(self, in_channels: int, num_classes: int, image_size: tuple[int, int], kind: str) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels * image_size[0] * image_size[1], num_classes)
        self.kind = kind

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, N×num_classes."""
        logits = self.linear(images.flatten(1))
        return logits if images.device.type == "meta" or "PLANTED" not in os.environ else self.go_wrong(logits)

    def go_wrong(self, logits: Tensor) -> Tensor:
        """Fail in the way that `kind` names, or return the logits, changed or not."""
        if self.kind == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self.kind == "is_killed":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.kind == "hangs":
            time.sleep(600)
        elif self.kind == "starves":
            torch.empty(2**50)
        elif self.kind == "is_infinite":
            return logits / 0
        elif self.kind == "is_other":
            return logits * 1.001
        return logits


def build(in_channels: int, num_classes: int, image_size: tuple[int, int], kind: str = "behaves") -> nn.Module:
    """Build a network that fails in the way that `kind` names."""
    return Planted(in_channels, num_classes, image_size, kind)


def otherwise(in_channels: int, num_classes: int, image_size: tuple[int, int]) -> nn.Module:
    """Build a network whose parameters are different in number where PLANTED is set."""
    hidden = 7 if "PLANTED" in os.environ else 8
    features = in_channels * image_size[0] * image_size[1]
    return nn.Sequential(nn.Flatten(), nn.Linear(features, hidden), nn.Linear(hidden, num_classes))
