"""GoogLeNet, compared with the paper's table 1 and with torchvision's."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from cnnperf.models import googlenet

PAPER = {"3a": 159, "3b": 380, "4a": 364, "4b": 437, "4c": 463, "4d": 580, "4e": 840, "5a": 1072, "5b": 1388}
"""Thousands (1024) of parameters of each block, as printed, which is up to 8 % off what the printed widths come to."""


def count(module: nn.Module) -> int:
    """Return the number of parameters of a module."""
    return sum(parameter.numel() for parameter in module.parameters())


def test_parameter_count(parameter_count: Callable[..., int]) -> None:
    """GoogLeNet has 5,983,402 parameters at 3×32×32; each of 7,280 biases becomes two parameters of batch norm."""
    assert parameter_count("googlenet") == 5_983_402
    assert parameter_count("googlenet", batch_norm=False) == 5_983_402 - 7_280


def test_inception_blocks_have_the_papers_sizes(on_meta: Callable[..., nn.Module]) -> None:
    """Each of the nine blocks has the paper's number of parameters to 8 %."""
    model = on_meta("googlenet", batch_norm=False)
    ours = {name: count(model.get_submodule(f"inception{name}")) / 1024 for name in googlenet.INCEPTIONS}
    assert ours == pytest.approx(PAPER, rel=0.08)


def test_inception_blocks_are_torchvisions(on_meta: Callable[..., nn.Module]) -> None:
    """The blocks have torchvision's sizes, except for third branches of 5×5 kernels, where torchvision has 3×3."""
    import torchvision

    with torch.device("meta"):
        reference = torchvision.models.googlenet(aux_logits=False, init_weights=False)
    model = on_meta("googlenet")
    for name, (_, _, _, reduce5, conv5, _) in googlenet.INCEPTIONS.items():
        ours, theirs = model.get_submodule(f"inception{name}"), reference.get_submodule(f"inception{name}")
        assert count(ours) - reduce5 * conv5 * (25 - 9) == count(theirs), name


def test_forward_is_small(forward_flops: Callable[..., int]) -> None:
    """The forward pass takes at most 0.4 GMAC at 3×32×32."""
    assert 0.3e9 < forward_flops("googlenet") / 2 <= 0.4e9


def test_branches_are_joined_along_the_channels() -> None:
    """A block keeps H×W, and its output has the channels of its branches in order."""
    block = googlenet.Inception(8, (1, 2, 3, 4, 5, 6), batch_norm=False)
    images = torch.randn(2, 8, 7, 5)
    out = block(images)
    assert out.shape == (2, 1 + 3 + 5 + 6, 7, 5)
    assert torch.equal(out[:, :1], block.branch1(images))
    assert torch.equal(out[:, -6:], block.branch_pool(images))


def test_dropout_is_the_papers(on_meta: Callable[..., nn.Module]) -> None:
    """The only dropout is one of 40 % before the classifier."""
    assert [layer.p for layer in on_meta("googlenet").modules() if isinstance(layer, nn.Dropout)] == [0.4]


def test_layers_in_order(layers: Callable[..., list[str]]) -> None:
    """The layers are a stem, nine blocks of four branches, max-pools between stages, and a classifier on the mean."""

    def convolutions(*kernels: int) -> list[str]:
        return [layer for kernel in kernels for layer in (f"Conv2d {kernel}/1", "BatchNorm2d", "ReLU")]

    pool = "MaxPool2d 3/2"
    block = [*convolutions(1, 1, 3, 1, 5), "MaxPool2d 3/1", *convolutions(1)]
    assert layers("googlenet") == [
        *(*convolutions(3), pool, *convolutions(1, 3)),
        *(*block * 2, pool, *block * 5, pool, *block * 2),
        *("AdaptiveAvgPool2d", "Flatten", "Dropout", "Linear"),
    ]
