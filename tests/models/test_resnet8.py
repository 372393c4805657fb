"""ResNet-8, compared with MLPerf Tiny's Keras model."""

from collections.abc import Callable

from torch import nn


def test_size(
    parameter_count: Callable[..., int], forward_flops: Callable[..., int], on_meta: Callable[..., nn.Module]
) -> None:
    """The network has the 78,666 parameters that Keras counts, moving statistics included, and 12.5 M MACs."""
    buffers = [each for each in on_meta("resnet8").buffers() if each.dim()]
    assert parameter_count("resnet8") == 78_186
    assert parameter_count("resnet8") + sum(each.numel() for each in buffers) == 78_666
    assert forward_flops("resnet8") == 2 * 12_501_632


def test_layers_in_order(layers: Callable[..., list[str]]) -> None:
    """The first block keeps H×W and its input; the two others halve H×W, with a 1×1 convolution as shortcut."""

    def block(stride: int, shortcut: str) -> list[str]:
        return [f"Conv2d 3/{stride}", "BatchNorm2d", "ReLU", "Conv2d 3/1", "BatchNorm2d", shortcut, "ReLU"]

    assert layers("resnet8") == [
        *("Conv2d 3/1", "BatchNorm2d", "ReLU", *block(1, "Identity"), *block(2, "Conv2d 1/2") * 2),
        *("AdaptiveAvgPool2d", "Flatten", "Linear"),
    ]


def test_every_convolution_has_a_bias(on_meta: Callable[..., nn.Module]) -> None:
    """All nine convolutions have biases, and seven are followed by batch norm."""
    modules = list(on_meta("resnet8").modules())
    convolutions = [each for each in modules if isinstance(each, nn.Conv2d)]
    assert (len(convolutions), sum(isinstance(each, nn.BatchNorm2d) for each in modules)) == (9, 7)
    assert all(each.bias is not None for each in convolutions)
