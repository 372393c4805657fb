"""TrashNet, compared with its specification."""

from collections.abc import Callable

import torch
from torch import nn


def test_parameter_count(parameter_count: Callable[..., int]) -> None:
    """TrashNet has 133,514 parameters: stem 960, blocks 57,792 and 74,112, linear layer 650."""
    assert parameter_count("trashnet") == 133_514


def test_layers(on_meta: Callable[..., nn.Module]) -> None:
    """The network has six convolutions with biases, five batch norms, and a stem that keeps H×W."""
    model = on_meta("trashnet")
    layers = dict(model.named_modules())
    convolutions = {key: layer for key, layer in layers.items() if isinstance(layer, nn.Conv2d)}
    assert len(convolutions) == 6
    assert all(layer.bias is not None for layer in convolutions.values())
    assert sum(isinstance(layer, nn.BatchNorm2d) for layer in layers.values()) == 5
    assert convolutions["block1.shortcut.conv"].kernel_size == (1, 1)
    images = torch.empty(1, 3, 32, 32, device="meta")
    assert layers["stem_pool"](layers["stem"](images)).shape == (1, 32, 32, 32)
    assert model[:-3](images).shape == (1, 64, 16, 16)


def test_layers_in_order(layers: Callable[..., list[str]]) -> None:
    """The pool keeps H×W, the first block halves it, and the second block keeps it."""

    def block(stride: int, shortcut: str) -> list[str]:
        return [f"Conv2d 3/{stride}", "BatchNorm2d", "ReLU", "Conv2d 3/1", "BatchNorm2d", shortcut, "ReLU"]

    assert layers("trashnet") == [
        *("Conv2d 3/1", "BatchNorm2d", "ReLU", "MaxPool2d 3/1"),
        *(*block(2, "Conv2d 1/2"), *block(1, "Identity")),
        *("AdaptiveAvgPool2d", "Flatten", "Linear"),
    ]
