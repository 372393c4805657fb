"""The effect of float32's rounding on logits, against which exports are compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cnnperf.inference.golden import rounding


def test_rounding_one_weight_moves_the_logit_by_half_a_digit() -> None:
    """The logit 3·5 of one weight and one pixel moves by 2⁻²⁴ of it, and the network itself stays as it was."""
    model = nn.Linear(1, 1, bias=False).eval()
    nn.init.constant_(model.weight, 3.0)
    assert rounding(model, np.full((1, 1), 5, np.float32)) == pytest.approx(15 * 2**-24)
    assert (model.weight.dtype, model.weight.item()) == (torch.float32, 3.0)


def test_roundings_of_many_weights_partly_cancel() -> None:
    """Weights are rounded up and down at random: 1,000 equal ones move their sum by under a fifth of the most."""
    model = nn.Linear(1000, 1, bias=False).eval()
    nn.init.ones_(model.weight)
    found = rounding(model, np.ones((1, 1000), np.float32))
    assert 0 < found < 0.2 * 1000 * 2**-24
