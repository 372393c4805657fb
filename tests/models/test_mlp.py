"""The multilayer perceptron."""

from collections.abc import Callable


def test_parameter_count(parameter_count: Callable[..., int]) -> None:
    """At 1×28×28 the parameters are 784 × 256 + 256 and 256 × 10 + 10."""
    assert parameter_count("mlp", (1, 28, 28)) == 203_530
    assert parameter_count("mlp") == 789_258


def test_layers_in_order(layers: Callable[..., list[str]]) -> None:
    """The perceptron has one hidden layer with a ReLU."""
    assert layers("mlp") == ["Flatten", "Linear", "ReLU", "Linear"]
