"""Network in Network (Lin, Chen and Yan, 2014): 1×1 convolutions after each convolution, and no dense layer."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from cnnperf.models._blocks import convolution, he_normal
from cnnperf.models._recipes import augmentation


def build(in_channels: int, num_classes: int, *, batch_norm: bool = True) -> nn.Module:
    """Build the authors' CIFAR-10 network, three stages of one convolution and two of 1×1; He-normal weights.

    The last 1×1 convolution gives one map per class, whose mean is the logit; it has neither batch norm nor the ReLU of
    the authors' Caffe model, which would exclude negative logits. 966,986 parameters for 3 channels and 10 classes
    without batch norm; batch norm replaces the biases.
    """
    options = {"bias": not batch_norm, "batch_norm": batch_norm}
    model = nn.Sequential(
        OrderedDict(
            conv1=convolution(in_channels, 192, 5, **options),
            mlp1_1=convolution(192, 160, 1, **options),
            mlp1_2=convolution(160, 96, 1, **options),
            pool1=nn.MaxPool2d(3, stride=2, ceil_mode=True),
            dropout1=nn.Dropout(0.5),
            conv2=convolution(96, 192, 5, **options),
            mlp2_1=convolution(192, 192, 1, **options),
            mlp2_2=convolution(192, 192, 1, **options),
            pool2=nn.AvgPool2d(3, stride=2, ceil_mode=True),
            dropout2=nn.Dropout(0.5),
            conv3=convolution(192, 192, 3, **options),
            mlp3_1=convolution(192, 192, 1, **options),
            mlp3_2=convolution(192, num_classes, 1, relu=False),
            pool3=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
        )
    )
    he_normal(model)
    return model


def recipe(dataset: str) -> dict[str, object]:
    """Return training settings: AdamW over one cycle in small batches, with mirrored photos only.

    A minute on two cores is a fraction of an epoch: more steps help, more augmentation does not.
    """
    return augmentation(dataset) | {
        "optimizer": "adamw",
        "lr": 0.005 if dataset == "mnist" else 0.002,
        "weight_decay": 0.01,
        "schedule": "one-cycle",
        "batch_size": 32,
        "memory_format": "channels_last",
    }
