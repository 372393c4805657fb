"""The building blocks of the networks."""

import pytest
import torch
from torch import nn

from cnnperf.models._blocks import Residual, convolution


def test_residual_is_the_positive_part_of_the_sum() -> None:
    """ReLU follows the sum of body and shortcut, or the body alone if there is no shortcut."""
    images = torch.tensor([[[[-2.0, 3.0]]]])
    assert torch.equal(Residual(nn.Identity(), nn.Identity())(images), torch.tensor([[[[0.0, 6.0]]]]))
    assert torch.equal(Residual(nn.Identity(), None)(images), torch.tensor([[[[0.0, 3.0]]]]))


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_convolution_has_behind_it_what_is_asked_for(batch_norm: bool, relu: bool) -> None:
    """A convolution is followed by batch norm and ReLU, in this order, each only if requested."""
    behind = [nn.BatchNorm2d] * batch_norm + [nn.ReLU] * relu
    block = convolution(3, 4, 3, batch_norm=batch_norm, relu=relu)
    assert [type(layer) for layer in block] == [nn.Conv2d, *behind]
    assert bool((block(torch.randn(4, 3, 8, 8)) < 0).any()) != relu
