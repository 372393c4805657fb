"""ResNet (He et al., "Deep Residual Learning for Image Recognition", 2016) for small images."""

from __future__ import annotations

from collections import OrderedDict
from functools import partial
from typing import Literal

from torch import Tensor, nn

from cnnperf.models._blocks import Residual, basic_body, classifier, convolution, he_normal, start_as_identity
from cnnperf.models._recipes import augmentation

IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
"""Blocks in each stage of the ImageNet networks, by depth (table 1)."""


def build(
    in_channels: int,
    num_classes: int,
    *,
    depth: Literal[20, 32, 44, 56, 110, 18, 34, 50] = 20,
    shortcut: bool = True,
    batch_norm: bool = True,
) -> nn.Module:
    """Build a residual network, or with `shortcut=False` the plain one of the same body; He-normal weights.

    Depths 20 to 110 are the paper's CIFAR networks (section 4.2): widths 16, 32, 64, parameter-free shortcuts (option
    A); 0.27 to 1.7 M parameters. Depths 18, 34 and 50 are its ImageNet networks with a 3×3 stem in place of 7×7 and
    pool, and projections where the shape changes (option B); 50 has bottlenecks that stride in their 3×3 convolution,
    as torchvision's do. Without batch norm, convolutions have biases and blocks start as identities.
    """
    width, expansion = (64 if depth in IMAGENET_BLOCKS else 16), (4 if depth == 50 else 1)
    block = partial(_block, depth=depth, shortcut=shortcut, batch_norm=batch_norm)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    layers["stem"] = convolution(in_channels, width, 3, bias=not batch_norm, batch_norm=batch_norm)
    channels = width
    for stage, count in enumerate(IMAGENET_BLOCKS.get(depth, ((depth - 2) // 6,) * 3)):
        out_channels = width * 2**stage * expansion
        first = block(channels, out_channels, 1 if stage == 0 else 2)
        rest = (block(out_channels, out_channels, 1) for _ in range(count - 1))
        layers[f"stage{stage + 1}"] = nn.Sequential(first, *rest)
        channels = out_channels
    model = nn.Sequential(OrderedDict(**layers, **classifier(channels, num_classes)))
    he_normal(model)
    if not batch_norm:
        start_as_identity(model)
    return model


def recipe(dataset: str) -> dict[str, object]:
    """Return training settings: Nesterov SGD over one cycle (Smith 2018), with mirrored photos only.

    The paper's rate, momentum and decay, but small batches: a minute on two cores is one epoch at most.
    """
    return augmentation(dataset) | {
        "optimizer": "nesterov",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "one-cycle",
        "batch_size": 64,
        "memory_format": "channels_last",
    }


def _block(
    in_channels: int, out_channels: int, stride: int, *, depth: int, shortcut: bool, batch_norm: bool
) -> Residual:
    make_body = _bottleneck_body if depth == 50 else basic_body
    body = make_body(in_channels, out_channels, stride, bias=not batch_norm, batch_norm=batch_norm)
    if not shortcut:
        return Residual(body, None)
    if in_channels == out_channels:
        return Residual(body, nn.Identity())
    if depth not in IMAGENET_BLOCKS:
        return Residual(body, PaddedSubsample(stride, out_channels - in_channels))
    projection = convolution(
        in_channels, out_channels, 1, stride=stride, bias=not batch_norm, batch_norm=batch_norm, relu=False
    )
    return Residual(body, projection)


def _bottleneck_body(
    in_channels: int, out_channels: int, stride: int, *, bias: bool, batch_norm: bool
) -> nn.Sequential:
    width = out_channels // 4
    return nn.Sequential(
        convolution(in_channels, width, 1, bias=bias, batch_norm=batch_norm),
        convolution(width, width, 3, stride=stride, bias=bias, batch_norm=batch_norm),
        convolution(width, out_channels, 1, bias=bias, batch_norm=batch_norm, relu=False),
    )


class PaddedSubsample(nn.Module):
    """Keep every `stride`-th row and column and append `extra` channels of zeros: the shortcut of option A."""

    def __init__(self, stride: int, extra: int) -> None:
        super().__init__()
        self.stride = stride
        self.extra = extra

    def forward(self, features: Tensor) -> Tensor:
        """N×C×H×W → N×(C + extra)×⌈H/stride⌉×⌈W/stride⌉."""
        kept = features[:, :, :: self.stride, :: self.stride]
        return nn.functional.pad(kept, (0, 0, 0, 0, 0, self.extra))
