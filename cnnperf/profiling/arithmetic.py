"""Arithmetic per layer: FLOPs by torch's formulas, and bytes moved, operator by operator."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from cnnperf.profiling.hooks import Listener
from cnnperf.profiling.operators import Operators, address, computes, tensors
from cnnperf.profiling.rows import UNATTRIBUTED


def convolution_backward(gradient: Tensor, images: Tensor, weight: Tensor, *rest: Any, out_val: Any) -> int:
    """Return the FLOPs of a convolution's backward: the FLOPs of its forward for each of the requested gradients.

    torch's formula ignores groups in the weight gradient, which overstates a depthwise convolution of 64 channels 32
    times. The forward uses at each position the connected weights, of shape out×in/groups×H×W (transposed:
    in×out/groups×H×W).
    """
    transposed, (of_images, of_weight, _) = rest[4], rest[7]
    positions = images if transposed else gradient
    return 2 * positions.numel() * weight[0].numel() * (bool(of_images) + bool(of_weight))


OWN_FORMULAS = {torch.ops.aten.convolution_backward: convolution_backward}
"""Replacements for incorrect formulas of torch."""


@dataclass(slots=True)
class Work:
    """The arithmetic of one layer's forward or backward pass."""

    flops: int | None = None
    """2 × multiply-accumulates; None if no operator has a formula."""
    moved_bytes: int = 0
    """Bytes of operands and results, summed over operators, without regard to caches."""
    uncounted: set[str] = field(default_factory=set)
    """Operators with computation but without a formula."""


class Arithmetic(Listener):
    """Tracks the current layer, and assigns the operators counted by `counting()` to it."""

    def __init__(self) -> None:
        self.forward: defaultdict[str, Work] = defaultdict(Work)
        self.backward: defaultdict[str, Work] = defaultdict(Work)
        self._inside = [(self.forward, UNATTRIBUTED)]

    def forward_begins(self, layer: str) -> None:
        """Assign the following operators to this layer."""
        self._inside.append((self.forward, layer))

    def forward_ends(self, layer: str) -> None:
        """Assign the following operators to the enclosing layer again."""
        self._inside.pop()

    def backward_begins(self, layer: str) -> None:
        """Assign the following operators to this layer's backward."""
        self._inside.append((self.backward, layer))

    def backward_ends(self, layer: str) -> None:
        """Assign the following operators to the enclosing backward again."""
        self._inside.pop()

    def turns(self) -> None:
        """Assign operators outside of layers to backward."""
        self._inside = [(self.backward, UNATTRIBUTED)]

    def counting(self) -> TorchDispatchMode:
        """Return the mode in which operators are counted."""
        return Operators(self.enter)

    def enter(self, operator: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Count one operator."""
        packet = operator.overloadpacket
        of_direction, layer = self._inside[-1]
        work = of_direction[layer]
        if packet in flop_registry:
            formula = OWN_FORMULAS.get(packet, flop_registry[packet])
            work.flops = (work.flops or 0) + formula(*args, **kwargs, out_val=result)
            work.moved_bytes += _moved(args, kwargs, result)
        elif computes(operator, args, kwargs, result):
            work.uncounted.add(packet.__name__)
            work.moved_bytes += _moved(args, kwargs, result)


def _moved(args: Any, kwargs: Any, result: Any) -> int:
    operands = {(address(t), t.storage_offset(), t.shape): t for t in tensors((args, kwargs))}
    return sum(map(_extent, operands.values())) + sum(map(_extent, tensors(result)))


def _extent(tensor: Tensor) -> int:
    """Return the bytes of a tensor's elements, at most its memory if it is broadcast."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())
