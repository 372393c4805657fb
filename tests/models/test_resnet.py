"""ResNet, compared with the paper and with torchvision's."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cnnperf.models import resnet


@pytest.mark.parametrize(
    ("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_parameter_count_of_the_cifar_networks(depth: int, count: int, parameter_count: Callable[..., int]) -> None:
    """The parameter counts are those of the paper's table 6, with or without the parameter-free shortcuts."""
    assert parameter_count("resnet", depth=depth) == count
    assert parameter_count("resnet", depth=depth, shortcut=False) == count


@pytest.mark.parametrize(("depth", "count"), [(18, 11_173_962), (34, 21_282_122), (50, 23_520_842)])
def test_parameter_count_of_the_imagenet_networks(depth: int, count: int, parameter_count: Callable[..., int]) -> None:
    """The parameter counts are torchvision's, less the difference between a 7×7 and a 3×3 stem."""
    import torchvision

    with torch.device("meta"):
        reference = torchvision.models.get_model(f"resnet{depth}", num_classes=10)
    stem = 64 * 3 * (7 * 7 - 3 * 3)
    assert parameter_count("resnet", depth=depth) == count == sum(p.numel() for p in reference.parameters()) - stem


@pytest.mark.parametrize("depth", [20, 32, 18, 50])
def test_depth_counts_the_layers_with_weights(depth: int, on_meta: Callable[..., nn.Module]) -> None:
    """A plain network of depth n has n − 1 convolutions and one linear layer."""
    layers = [type(layer) for layer in on_meta("resnet", depth=depth, shortcut=False).modules()]
    assert layers.count(nn.Conv2d) == depth - 1
    assert layers.count(nn.Linear) == 1


def test_shortcut_keeps_every_second_pixel_and_adds_zero_channels() -> None:
    """The shortcut is the paper's option A: every second pixel, and zeros for the new channels."""
    images = torch.arange(2 * 3 * 5 * 4.0).reshape(2, 3, 5, 4)
    out = resnet.PaddedSubsample(stride=2, extra=2)(images)
    assert out.shape == (2, 5, 3, 2)
    assert torch.equal(out[:, :3], images[:, :, ::2, ::2])
    assert not out[:, 3:].any()


def test_weights_are_he_normal() -> None:
    """Weights have the deviation √(2 / fan-in)."""
    weight = resnet.build(3, 10).get_parameter("stage3.1.body.0.conv.weight")
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=2e-2)


def test_without_batch_norm_activations_do_not_grow_with_depth() -> None:
    """Without batch norm, the logits of an untrained network of 56 layers stay below 100."""
    torch.manual_seed(0)
    model = resnet.build(3, 10, depth=56, batch_norm=False).eval()
    assert model(torch.randn(2, 3, 32, 32)).abs().max() < 100


def test_without_shortcut_a_block_is_its_body() -> None:
    """A block with all-zero weights returns its input, and with `shortcut=False` it returns zeros."""
    images = torch.rand(1, 16, 8, 8)
    for shortcut in (True, False):
        block = resnet.build(3, 10, depth=20, shortcut=shortcut).get_submodule("stage1.0").eval()
        for parameter in block.parameters():
            nn.init.zeros_(parameter)
        assert torch.equal(block(images), images if shortcut else torch.zeros_like(images))


def test_layers_in_order(layers: Callable[..., list[str]]) -> None:
    """The first convolution of a stage strides, and the last ReLU of a block follows the shortcut."""

    def block(stride: int, shortcut: str) -> list[str]:
        return [f"Conv2d 3/{stride}", "BatchNorm2d", "ReLU", "Conv2d 3/1", "BatchNorm2d", shortcut, "ReLU"]

    same, fewer = block(1, "Identity"), block(2, "PaddedSubsample")[:-2]
    assert layers("resnet") == [
        *("Conv2d 3/1", "BatchNorm2d", "ReLU", *same * 3),
        *(*fewer, "PaddedSubsample", "ReLU", *same * 2) * 2,
        *("AdaptiveAvgPool2d", "Flatten", "Linear"),
    ]


def test_bottlenecks_stride_in_their_3x3_convolution(layers: Callable[..., list[str]]) -> None:
    """The 3×3 convolution strides, together with the projection of the shortcut, like torchvision's."""
    strided = [layer for layer in layers("resnet", depth=50) if layer.endswith("/2")]
    assert strided == ["Conv2d 3/2", "Conv2d 1/2"] * 3
