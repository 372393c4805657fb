"""Muon (Jordan 2024): momentum that is orthogonalised for each matrix, https://kellerjordan.github.io/posts/muon/."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Jordan's coefficients of the Newton–Schulz iteration, which carry singular values to about 0.7 … 1.2."""
SMALLEST_NORM = 1e-30
"""Divisor in place of 0: √rows divided by it is finite in float32."""
PRECISION = {"cpu": torch.float32}
"""Precision of the iteration by device, bfloat16 elsewhere.

On a CPU without instructions for bfloat16 a product of such matrices takes many times as long as in float32, and
`torch.optim.Muon` has no choice."""


class Muon(Optimizer):
    """Muon for matrices; a convolution counts as a matrix out_channels × all other dimensions.

    With `renormalise` each matrix is rescaled to the norm √rows before its step, as in cifar10-airbench; an all-zero
    matrix (at the end of a block that starts as identity) cannot be rescaled and stays zero.
    """

    def __init__(
        self,
        weights: Iterable[nn.Parameter],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        steps: int,
        renormalise: bool,
    ) -> None:
        """momentum: Nesterov's; weight_decay: decoupled; steps: Newton–Schulz iterations."""
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self._steps = steps
        self._renormalise = renormalise

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Update the weights that have gradients. closure: not supported."""
        assert closure is None, "the loss is computed before the step"
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, as_matrix(weight.grad), group)

    def _move(self, weight: nn.Parameter, gradient: Tensor, group: dict[str, Any]) -> None:
        matrix, state, momentum = as_matrix(weight), self.state[weight], group["momentum"]
        if not state:
            state["mean"] = torch.zeros_like(gradient)
        mean = state["mean"].lerp_(gradient, 1 - momentum)
        if self._renormalise:
            # A lower bound instead of a test for zero, which would wait for the device at each step.
            matrix.mul_(math.sqrt(len(matrix)) / matrix.norm().clamp(min=SMALLEST_NORM))
        matrix.mul_(1 - group["lr"] * group["weight_decay"])
        rate = group["lr"] * math.sqrt(max(1.0, len(matrix) / matrix.shape[1]))
        matrix.add_(orthogonalised(gradient.lerp(mean, momentum), self._steps), alpha=-rate)


def orthogonalised(matrix: Tensor, steps: int) -> Tensor:
    """Return a matrix with the same singular vectors and singular values near 1, by Newton–Schulz iterations."""
    a, b, c = COEFFICIENTS
    x = matrix.to(PRECISION.get(matrix.device.type, torch.bfloat16))
    is_tall = len(x) > x.shape[1]
    if is_tall:
        x = x.T
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if is_tall else x).to(matrix.dtype)


def as_matrix(weight: Tensor) -> Tensor:
    """View O×I×H×W as O rows in the memory order of the other dimensions; the column order does not affect Muon."""
    columns = weight.numel() // len(weight)
    return weight.as_strided((len(weight), columns), (columns, 1))
