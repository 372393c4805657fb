"""Muon: its matrices, the Newton–Schulz iteration, and its precision; its steps in a training are in test_optimise."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cnnperf.training.muon import Muon, as_matrix, orthogonalised


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_matrix_of_a_convolution_shares_its_memory(memory_format: torch.memory_format) -> None:
    """A row of the matrix has the weights of one filter and shares their memory."""
    weight = torch.randn(5, 4, 3, 3).contiguous(memory_format=memory_format)
    matrix = as_matrix(weight)
    assert matrix.shape == (5, 36)
    assert torch.equal(matrix.sort(dim=1).values, weight.flatten(1).sort(dim=1).values)
    matrix[2] = 7
    assert (weight[2] == 7).all()
    assert not (weight[1] == 7).any()


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (8, 8)])
def test_the_iteration_keeps_singular_vectors(shape: tuple[int, int]) -> None:
    """Wide and tall matrices keep their singular vectors, and each singular value follows Jordan's polynomial."""
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    left, values, right = torch.linalg.svd(matrix / matrix.norm(), full_matrices=False)
    for _ in range(3):
        values = 3.4445 * values - 4.775 * values**3 + 2.0315 * values**5
    assert torch.allclose(orthogonalised(matrix.float(), 3).double(), left @ values.diag() @ right, atol=1e-5)


def test_it_is_torch_s_muon_in_another_precision() -> None:
    """Five steps equal those of `torch.optim.Muon` up to the rounding of its bfloat16."""
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (nn.Parameter(torch.ones(6, 9)) for _ in range(2))
    one = Muon([ours], lr=0.1, momentum=0.6, weight_decay=0.1, steps=3, renormalise=False)
    other = torch.optim.Muon([theirs], lr=0.1, momentum=0.6, weight_decay=0.1, ns_steps=3)
    for _ in range(5):
        gradient = torch.randn(6, 9, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        one.step()
        other.step()
    assert torch.allclose(ours, theirs, atol=0.01)
    assert not torch.equal(ours, theirs)


def test_a_weight_without_a_gradient_stays() -> None:
    """Only weights with a gradient move and have a state."""
    weights = [nn.Parameter(torch.ones(2, 3)) for _ in range(2)]
    weights[0].grad = torch.ones(2, 3)
    muon = Muon(weights, lr=0.1, momentum=0.6, weight_decay=0.0, steps=3, renormalise=True)
    muon.step()
    assert torch.equal(weights[1], torch.ones(2, 3))
    assert not torch.equal(weights[0], torch.ones(2, 3))
    assert list(muon.state) == [weights[0]]
