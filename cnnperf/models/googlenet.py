"""GoogLeNet (Szegedy et al., "Going Deeper with Convolutions", 2015) for small images."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from cnnperf.models._blocks import classifier, convolution, he_normal
from cnnperf.models._recipes import augmentation

INCEPTIONS = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
"""Widths of each block: 1×1; reduction and 3×3; reduction and 5×5; projection of the pool (the paper's table 1)."""


class Inception(nn.Module):
    """Four branches on the same input, concatenated along the channels (the paper's figure 2b)."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int, int, int], *, batch_norm: bool) -> None:
        super().__init__()
        point, reduce3, conv3, reduce5, conv5, projection = widths
        options = {"bias": not batch_norm, "batch_norm": batch_norm}
        self.branch1 = convolution(in_channels, point, 1, **options)
        self.branch3 = nn.Sequential(
            convolution(in_channels, reduce3, 1, **options), convolution(reduce3, conv3, 3, **options)
        )
        self.branch5 = nn.Sequential(
            convolution(in_channels, reduce5, 1, **options), convolution(reduce5, conv5, 5, **options)
        )
        self.branch_pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), convolution(in_channels, projection, 1, **options)
        )
        self.out_channels = point + conv3 + conv5 + projection

    def forward(self, features: Tensor) -> Tensor:
        """N×C×H×W → N×out_channels×H×W."""
        branches = (self.branch1, self.branch3, self.branch5, self.branch_pool)
        return torch.cat([branch(features) for branch in branches], dim=1)


def build(in_channels: int, num_classes: int, *, batch_norm: bool = True) -> nn.Module:
    """Build a stem, nine inception blocks and a classifier with dropout 0.4; He-normal weights.

    The stem's first convolution is 3×3 of stride 1 in place of 7×7 of stride 2, with one max-pool instead of two: the
    blocks see 16×16, 8×8 and 4×4 of a 32×32 image. Pools round up; the auxiliary classifiers, which help in deep
    training only, are omitted. 0.39 GMAC forward at 3×32×32. Batch norm, if used, replaces the biases.
    """
    options = {"bias": not batch_norm, "batch_norm": batch_norm}
    layers: OrderedDict[str, nn.Module] = OrderedDict(
        conv1=convolution(in_channels, 64, 3, **options),
        pool1=nn.MaxPool2d(3, stride=2, ceil_mode=True),
        reduce2=convolution(64, 64, 1, **options),
        conv2=convolution(64, 192, 3, **options),
    )
    channels = 192
    for name, widths in INCEPTIONS.items():
        if name in ("4a", "5a"):
            layers[f"pool{name[0]}"] = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        block = Inception(channels, widths, batch_norm=batch_norm)
        layers[f"inception{name}"] = block
        channels = block.out_channels
    model = nn.Sequential(OrderedDict(**layers, **classifier(channels, num_classes, dropout=0.4)))
    he_normal(model)
    return model


def recipe(dataset: str, *, batch_norm: bool = True) -> dict[str, object]:
    """Return training settings: AdamW over one cycle in small batches, with mirrored photos only.

    A minute on two cores is a fraction of an epoch: more steps help, more augmentation does not. Without batch norm a
    lower rate was better on validation images; for digits a higher rate was better.
    """
    rate = 0.001 if batch_norm else 0.0003
    return augmentation(dataset) | {
        "optimizer": "adamw",
        "lr": 2.5 * rate if dataset == "mnist" else rate,
        "weight_decay": 0.01,
        "schedule": "one-cycle",
        "batch_size": 32,
        "memory_format": "channels_last",
    }
