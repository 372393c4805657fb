"""The perceptron."""

from collections.abc import Callable


def test_parameter_count(parameter_count: Callable[..., int]) -> None:
    """784 × 256 + 256 and 256 × 10 + 10."""
    assert parameter_count("mlp", (1, 28, 28)) == 203_530
    assert parameter_count("mlp") == 789_258
