"""LeNet-5 (LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998), in its modern form."""

from __future__ import annotations

from collections import OrderedDict
from typing import Literal

from torch import nn

from cnnperf.models._blocks import draw_weights, require_size
from cnnperf.models._recipes import augmentation


def build(
    in_channels: int,
    num_classes: int,
    image_size: tuple[int, int],
    *,
    activation: Literal["sigmoid", "relu"] = "sigmoid",
    pool: Literal["avg", "max"] = "avg",
    batch_norm: bool = False,
) -> nn.Module:
    """Build two 5×5 convolutions, each pooled, and three dense layers; Xavier-uniform weights, zero biases.

    The first convolution pads by 2, so that 28×28 images give the same 5×5 feature maps as the paper's 32×32 images.
    Batch norm, if used, follows the convolutions. 61,706 parameters for 1×28×28 and 10 classes without batch norm.
    Raises UsageError below 12×12.
    """
    require_size("lenet", image_size, 12)
    act = nn.Sigmoid if activation == "sigmoid" else nn.ReLU
    pooling = nn.AvgPool2d if pool == "avg" else nn.MaxPool2d
    height, width = ((side // 2 - 4) // 2 for side in image_size)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for index, convolution in enumerate((nn.Conv2d(in_channels, 6, 5, padding=2), nn.Conv2d(6, 16, 5)), start=1):
        layers[f"conv{index}"] = convolution
        if batch_norm:
            layers[f"norm{index}"] = nn.BatchNorm2d(convolution.out_channels)
        layers |= {f"act{index}": act(), f"pool{index}": pooling(2)}
    layers |= {
        "flatten": nn.Flatten(),
        "linear1": nn.Linear(16 * height * width, 120),
        "act3": act(),
        "linear2": nn.Linear(120, 84),
        "act4": act(),
        "linear3": nn.Linear(84, num_classes),
    }
    model = nn.Sequential(layers)
    draw_weights(model, nn.init.xavier_uniform_)
    return model


def recipe(dataset: str) -> dict[str, object]:
    """Return training settings: AdamW at a high rate, which leaves the sigmoid's plateau within the first epoch."""
    return augmentation(dataset) | {
        "optimizer": "adamw",
        "lr": 0.01,
        "weight_decay": 1e-4,
        "schedule": "one-cycle",
        "batch_size": 128,
        "memory_format": "channels_last",
    }
