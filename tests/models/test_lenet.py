"""LeNet-5 against its known figures."""

from collections.abc import Callable
from typing import Literal

import pytest
from torch import nn

from cnnperf.errors import UsageError
from cnnperf.models import lenet


def test_parameter_count(parameter_count: Callable[..., int]) -> None:
    """156 + 2,416 + 48,120 + 10,164 + 850 parameters at 1×28×28, whatever the activation and the pool."""
    assert parameter_count("lenet", (1, 28, 28)) == 61_706
    assert parameter_count("lenet", (1, 28, 28), activation="relu", pool="max") == 61_706
    assert parameter_count("lenet", (1, 28, 28), batch_norm=True) == 61_706 + 2 * (6 + 16)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize("pool", ["avg", "max"])
def test_options_choose_the_layers(activation: Literal["sigmoid", "relu"], pool: Literal["avg", "max"]) -> None:
    """`activation` decides on all four of its layers, `pool` on both of its own."""
    layers = [type(layer) for layer in lenet.build(1, 10, (28, 28), activation=activation, pool=pool).children()]
    assert layers.count({"sigmoid": nn.Sigmoid, "relu": nn.ReLU}[activation]) == 4
    assert layers.count({"avg": nn.AvgPool2d, "max": nn.MaxPool2d}[pool]) == 2


def test_weights_are_xavier_uniform() -> None:
    """Weights fill ±√(6 / (fan-in + fan-out)) evenly; biases are zero."""
    layer = lenet.build(1, 10, (28, 28)).get_submodule("linear1")
    bound = (6 / (400 + 120)) ** 0.5
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=1e-2)
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=2e-2)
    assert not layer.bias.any()


def test_images_too_small_are_refused() -> None:
    """Below 12×12 nothing is left behind the second pool."""
    assert lenet.build(1, 10, (12, 12))
    with pytest.raises(UsageError, match="lenet needs images of at least 12×12, got 12×11"):
        lenet.build(1, 10, (12, 11))


def test_layers_in_order(layers: Callable[..., list[str]]) -> None:
    """As published, with means for the trainable subsampling: sigmoids behind all but the last layer with weights."""
    assert layers("lenet") == [
        *(["Conv2d 5/1", "Sigmoid", "AvgPool2d 2/2"] * 2),
        *("Flatten", "Linear", "Sigmoid", "Linear", "Sigmoid", "Linear"),
    ]
