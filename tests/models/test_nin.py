"""Network in Network, compared with the authors' model."""

from collections.abc import Callable

import torch
from torch import nn


def test_parameter_count(parameter_count: Callable[..., int]) -> None:
    """The network has 0.97 M parameters, like the authors'; each of 1,408 biases becomes two of batch norm."""
    assert parameter_count("nin", batch_norm=False) == 966_986
    assert parameter_count("nin") == 966_986 + 1_408


def test_there_is_no_dense_layer_and_logits_may_be_negative(on_meta: Callable[..., nn.Module]) -> None:
    """The network has no dense layer, and its last convolution is averaged without a ReLU."""
    model = on_meta("nin")
    assert not any(isinstance(layer, nn.Linear) for layer in model.modules())
    assert [type(layer) for layer in model.get_submodule("mlp3_2")] == [nn.Conv2d]


def test_pools_round_up(on_meta: Callable[..., nn.Module]) -> None:
    """Pools round up, like Caffe's: 32 → 16 → 8 pixels."""
    assert on_meta("nin")[:-2](torch.empty(1, 3, 32, 32, device="meta")).shape == (1, 10, 8, 8)


def test_dropout_is_the_authors(on_meta: Callable[..., nn.Module]) -> None:
    """The network has two dropouts of 50 %, like the authors' model."""
    assert [layer.p for layer in on_meta("nin").modules() if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_layers_in_order(layers: Callable[..., list[str]]) -> None:
    """A max-pool follows the first stage and an average pool the second, like in the authors' model."""

    def stage(kernel: int) -> list[str]:
        return [layer for size in (kernel, 1, 1) for layer in (f"Conv2d {size}/1", "ReLU")]

    assert layers("nin", batch_norm=False) == [
        *(*stage(5), "MaxPool2d 3/2", "Dropout"),
        *(*stage(5), "AvgPool2d 3/2", "Dropout"),
        *(*stage(3)[:-1], "AdaptiveAvgPool2d", "Flatten"),
    ]
