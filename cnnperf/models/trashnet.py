"""TrashNet: a residual network of two blocks."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from cnnperf.models._blocks import Residual, basic_body, classifier, convolution, he_normal, start_as_identity
from cnnperf.models._recipes import augmentation


def build(in_channels: int, num_classes: int, *, batch_norm: bool = True) -> nn.Module:
    """Build a stem with a 3×3 max-pool of stride 1, two basic residual blocks and a classifier; He-normal weights.

    All convolutions have biases; the first block's shortcut is a 1×1 convolution without batch norm.
    133,514 parameters for 3 channels and 10 classes. Without batch norm, the blocks start as identities.
    """
    model = nn.Sequential(
        OrderedDict(
            stem=convolution(in_channels, 32, 3, batch_norm=batch_norm),
            stem_pool=nn.MaxPool2d(3, stride=1, padding=1),
            block1=Residual(
                basic_body(32, 64, stride=2, bias=True, batch_norm=batch_norm),
                convolution(32, 64, 1, stride=2, relu=False),
            ),
            block2=Residual(basic_body(64, 64, stride=1, bias=True, batch_norm=batch_norm), nn.Identity()),
            **classifier(64, num_classes),
        )
    )
    he_normal(model)
    if not batch_norm:
        start_as_identity(model)
    return model


def recipe(dataset: str) -> dict[str, object]:
    """Return training settings: Nesterov SGD over one cycle (Smith 2018), with mirrored photos only.

    A minute on two cores is about one epoch, too short to benefit from stronger augmentation.
    """
    return augmentation(dataset) | {
        "optimizer": "nesterov",
        "lr": 0.1,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "schedule": "one-cycle",
        "batch_size": 64,
        "memory_format": "channels_last",
    }
