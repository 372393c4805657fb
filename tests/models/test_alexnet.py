"""AlexNet, compared with torchvision's."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn


def sizes(model: nn.Module) -> list[int]:
    """Return the number of parameters of each layer with weights, in order."""
    return [
        sum(p.numel() for p in layer.parameters())
        for layer in model.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]


def test_parameter_count(parameter_count: Callable[..., int]) -> None:
    """AlexNet has 23,468,874 parameters at 3×32×32, and batch norm adds two per channel."""
    assert parameter_count("alexnet") == 23_468_874
    assert parameter_count("alexnet", batch_norm=True) == 23_468_874 + 2 * (64 + 192 + 384 + 256 + 256)


def test_layers_behind_the_stem_are_torchvisions(on_meta: Callable[..., nn.Module]) -> None:
    """The layers have torchvision's sizes, except for the first convolution and the first dense layer."""
    import torchvision

    with torch.device("meta"):
        reference = sizes(torchvision.models.alexnet(num_classes=10))
    ours = sizes(on_meta("alexnet"))
    assert len(ours) == len(reference) == 8
    assert [index for index in range(8) if ours[index] != reference[index]] == [0, 5]


def test_large_images_come_down_to_the_papers_maps(on_meta: Callable[..., nn.Module]) -> None:
    """At 96×96 the first dense layer has 256 × 6 × 6 inputs, as in the paper."""
    assert on_meta("alexnet", (3, 96, 96)).get_submodule("linear6").in_features == 256 * 6 * 6


def test_dense_layers_drop_half_of_their_inputs(on_meta: Callable[..., nn.Module]) -> None:
    """A dropout of 0.5 precedes each of the first two dense layers."""
    layers = list(on_meta("alexnet").children())
    dropped = [type(after) for before, after in pairwise(layers) if isinstance(before, nn.Dropout) and before.p == 0.5]
    assert dropped == [nn.Linear, nn.Linear]


def test_layers_in_order(layers: Callable[..., list[str]]) -> None:
    """A ReLU follows each layer with weights but the last; max-pools follow convolutions 1, 2 and 5."""
    pool = "MaxPool2d 3/2"
    assert layers("alexnet") == [
        *("Conv2d 3/2", "ReLU", pool, "Conv2d 5/1", "ReLU", pool),
        *(["Conv2d 3/1", "ReLU"] * 3),
        *(pool, "Flatten", "Dropout", "Linear", "ReLU", "Dropout", "Linear", "ReLU", "Linear"),
    ]
