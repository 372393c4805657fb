"""VGG (Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", 2015)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from cnnperf.models._blocks import classifier, convolution, he_normal
from cnnperf.models._recipes import augmentation

CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""3×3 convolutions in each stage, by depth: columns A, B, D and E of the paper's table 1."""


def build(
    in_channels: int, num_classes: int, *, depth: Literal[11, 13, 16, 19] = 11, batch_norm: bool = True
) -> nn.Module:
    """Build five stages of 3×3 convolutions, each followed by a max-pool, and a classifier; He-normal weights.

    The convolutions are torchvision's, biases included (9.2 to 20.0 M parameters); for small images, global average
    pooling and one linear layer replace the three dense layers. The pools round up, so that 28×28 and 32×32 reach 1×1.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    channels = in_channels
    for stage, (width, count) in enumerate(zip((64, 128, 256, 512, 512), CONVOLUTIONS[depth], strict=True), start=1):
        for index in range(1, count + 1):
            layers[f"conv{stage}_{index}"] = convolution(channels, width, 3, batch_norm=batch_norm)
            channels = width
        layers[f"pool{stage}"] = nn.MaxPool2d(2, ceil_mode=True)
    model = nn.Sequential(OrderedDict(**layers, **classifier(channels, num_classes)))
    he_normal(model)
    return model


def recipe(dataset: str, *, device: str = "cpu", batch_norm: bool = True) -> dict[str, object]:
    """Return training settings: AdamW over one cycle in small batches, with mirrored photos only.

    A minute on two cores is a fraction of an epoch: more steps help, more augmentation does not. Without batch norm a
    lower rate was better on validation images. On the CPU contiguous images were faster.
    """
    return augmentation(dataset) | {
        "optimizer": "adamw",
        "lr": 0.001 if batch_norm else 0.0003,
        "weight_decay": 0.01,
        "schedule": "one-cycle",
        "batch_size": 32,
        "memory_format": "contiguous" if device == "cpu" else "channels_last",
    }
