"""LeNet-5, compared with its known figures."""

from collections.abc import Callable
from typing import Literal

import pytest
from torch import nn

from cnnperf.errors import UsageError
from cnnperf.models import lenet


def test_parameter_count(parameter_count: Callable[..., int]) -> None:
    """LeNet has 61,706 parameters at 1×28×28, whatever its activation and pool, and more with batch norm."""
    assert parameter_count("lenet", (1, 28, 28)) == 61_706
    assert parameter_count("lenet", (1, 28, 28), activation="relu", pool="max") == 61_706
    assert parameter_count("lenet", (1, 28, 28), batch_norm=True) == 61_706 + 2 * (6 + 16)


@pytest.mark.parametrize("activation", ["sigmoid", "relu"])
@pytest.mark.parametrize("pool", ["avg", "max"])
def test_options_choose_the_layers(activation: Literal["sigmoid", "relu"], pool: Literal["avg", "max"]) -> None:
    """`activation` sets all four activations, and `pool` sets both pools."""
    layers = [type(layer) for layer in lenet.build(1, 10, (28, 28), activation=activation, pool=pool).children()]
    assert layers.count({"sigmoid": nn.Sigmoid, "relu": nn.ReLU}[activation]) == 4
    assert layers.count({"avg": nn.AvgPool2d, "max": nn.MaxPool2d}[pool]) == 2


def test_weights_are_xavier_uniform() -> None:
    """Weights are uniform within ±√(6 / (fan-in + fan-out)), and biases are zero."""
    layer = lenet.build(1, 10, (28, 28)).get_submodule("linear1")
    bound = (6 / (400 + 120)) ** 0.5
    assert layer.weight.abs().max().item() == pytest.approx(bound, rel=1e-2)
    assert layer.weight.std().item() == pytest.approx(bound / 3**0.5, rel=2e-2)
    assert not layer.bias.any()


def test_images_too_small_are_refused() -> None:
    """Images below 12×12 are refused, since nothing would be left after the second pool."""
    assert lenet.build(1, 10, (12, 12))
    with pytest.raises(UsageError, match="lenet needs images of at least 12×12, got 12×11"):
        lenet.build(1, 10, (12, 11))


def test_layers_in_order(layers: Callable[..., list[str]]) -> None:
    """The layers are the published ones, with average pools and sigmoids after all layers with weights but the last."""
    assert layers("lenet") == [
        *(["Conv2d 5/1", "Sigmoid", "AvgPool2d 2/2"] * 2),
        *("Flatten", "Linear", "Sigmoid", "Linear", "Sigmoid", "Linear"),
    ]
