"""ResNet-8 of MLPerf Tiny (Banbury et al. 2021), whose quality target on CIFAR-10 is 85 %."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from cnnperf.models._blocks import Residual, basic_body, classifier, convolution, he_normal
from cnnperf.models._recipes import augmentation


def build(in_channels: int, num_classes: int) -> nn.Module:
    """Build a stem, three basic residual blocks of 16, 32 and 64 channels and a classifier; He-normal weights.

    As in the benchmark's Keras model, all convolutions have biases, and the shortcut of a block that strides is a 1×1
    convolution without batch norm. A 3×3 convolution that strides pads by 1 on each side; Keras pads an even size only
    at its end. 78,186 trained parameters for 3 channels and 10 classes, with the batch norms' moving statistics the
    78,666 of Keras; 12.5 M multiply-accumulates forward at 3×32×32.
    """
    model = nn.Sequential(
        OrderedDict(
            stem=convolution(in_channels, 16, 3, batch_norm=True),
            block1=Residual(basic_body(16, 16, 1, bias=True, batch_norm=True), nn.Identity()),
            block2=_striding(16, 32),
            block3=_striding(32, 64),
            **classifier(64, num_classes),
        )
    )
    he_normal(model)
    return model


def recipe(dataset: str) -> dict[str, object]:
    """Return training settings for tens of epochs: Nesterov SGD over one cycle (Smith 2018), with flip and shifts.

    Rate, momentum and decay are those of `resnet`, shifts are by the tenth of the width that the benchmark uses; none
    was tuned. The benchmark itself trains for 500 epochs of Adam.
    """
    return augmentation(dataset, crop=3) | {
        "optimizer": "nesterov",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "schedule": "one-cycle",
        "batch_size": 128,
        "memory_format": "channels_last",
    }


def _striding(in_channels: int, out_channels: int) -> Residual:
    return Residual(
        basic_body(in_channels, out_channels, 2, bias=True, batch_norm=True),
        convolution(in_channels, out_channels, 1, stride=2, relu=False),
    )
