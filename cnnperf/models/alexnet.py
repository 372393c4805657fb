"""AlexNet (Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", 2012).

Its one-tower form: Krizhevsky, "One Weird Trick for Parallelizing Convolutional Neural Networks" (2014).
"""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from cnnperf.models._blocks import convolution, he_normal
from cnnperf.models._recipes import augmentation


def build(in_channels: int, num_classes: int, image_size: tuple[int, int], *, batch_norm: bool = False) -> nn.Module:
    """Build five convolutions, three overlapping max-pools and three dense layers with dropout 0.5; He-normal weights.

    The widths are those of the one-tower form (64, 192, 384, 256, 256; 4096, 4096), as torchvision has it. For small
    images the first convolution is 3×3 of stride 2 instead of 11×11 of stride 4, and the pools pad by 1; each of these
    four halves H×W. 23,468,874 parameters for 3×32×32 and 10 classes.
    """
    height, width = (-(-side // 16) for side in image_size)
    model = nn.Sequential(
        OrderedDict(
            conv1=convolution(in_channels, 64, 3, stride=2, batch_norm=batch_norm),
            pool1=nn.MaxPool2d(3, stride=2, padding=1),
            conv2=convolution(64, 192, 5, batch_norm=batch_norm),
            pool2=nn.MaxPool2d(3, stride=2, padding=1),
            conv3=convolution(192, 384, 3, batch_norm=batch_norm),
            conv4=convolution(384, 256, 3, batch_norm=batch_norm),
            conv5=convolution(256, 256, 3, batch_norm=batch_norm),
            pool5=nn.MaxPool2d(3, stride=2, padding=1),
            flatten=nn.Flatten(),
            dropout6=nn.Dropout(0.5),
            linear6=nn.Linear(256 * height * width, 4096),
            relu6=nn.ReLU(),
            dropout7=nn.Dropout(0.5),
            linear7=nn.Linear(4096, 4096),
            relu7=nn.ReLU(),
            linear8=nn.Linear(4096, num_classes),
        )
    )
    he_normal(model)
    return model


def recipe(dataset: str) -> dict[str, object]:
    """Return training settings: AdamW over one cycle, with mirrored photos only.

    With He-normal weights and no batch norm, SGD at the paper's rate of 0.01 diverges.
    """
    return augmentation(dataset) | {
        "optimizer": "adamw",
        "lr": 0.0005,
        "weight_decay": 0.01,
        "schedule": "one-cycle",
        "batch_size": 64,
        "memory_format": "contiguous",
    }
