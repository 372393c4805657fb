"""Network in Network against the authors' model."""

from collections.abc import Callable

import torch
from torch import nn


def test_parameter_count(parameter_count: Callable[..., int]) -> None:
    """0.97 M as the authors' Caffe model has; batch norm puts two in place of each of 1,408 biases."""
    assert parameter_count("nin", batch_norm=False) == 966_986
    assert parameter_count("nin") == 966_986 + 1_408


def test_there_is_no_dense_layer_and_logits_may_be_negative(on_meta: Callable[..., nn.Module]) -> None:
    """The last convolution's maps are averaged as they come."""
    model = on_meta("nin")
    assert not any(isinstance(layer, nn.Linear) for layer in model.modules())
    assert [type(layer) for layer in model.get_submodule("mlp3_2")] == [nn.Conv2d]


def test_pools_round_up(on_meta: Callable[..., nn.Module]) -> None:
    """As Caffe's do: 32 → 16 → 8 pixels."""
    assert on_meta("nin")[:-2](torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 10, 8, 8)


def test_dropout_is_the_authors(on_meta: Callable[..., nn.Module]) -> None:
    """Half of the values, after each of the first two pools."""
    assert [layer.p for layer in on_meta("nin").modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_layers_in_order(layers: Callable[..., list[str]]) -> None:
    """A max-pool behind the first stage and a mean behind the second, as the authors have it."""

    def stage(kernel: int) -> list[str]:
        return [layer for size in (kernel, 1, 1) for layer in (f"Conv2d {size}/1", "ReLU")]

    assert layers("nin", batch_norm=False) == [
        *(*stage(5), "MaxPool2d 3/2", "Dropout"),
        *(*stage(5), "AvgPool2d 3/2", "Dropout"),
        *(*stage(3)[:-1], "AdaptiveAvgPool2d", "Flatten"),
    ]
