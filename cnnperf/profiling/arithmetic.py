"""The arithmetic of every layer: FLOPs by torch's own formulas, and bytes moved, operator by operator."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from cnnperf.profiling.hooks import Listener
from cnnperf.profiling.layers import UNATTRIBUTED, tensors

WRITES_NOTHING = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"}


def convolution_backward(gradient: Tensor, images: Tensor, weight: Tensor, *rest: Any, out_val: Any) -> int:
    """Return the FLOPs of a convolution's backward: those of its forward for each of the two gradients asked for.

    torch's formula forgets the groups in the weight's gradient: by it a depthwise convolution of 64 channels costs 32
    times as much. A forward costs, at each position, the weights that reach it, of out×in/groups×H×W (transposed:
    in×out/groups×H×W).
    """
    transposed, (of_images, of_weight, _) = rest[4], rest[7]
    positions = images if transposed else gradient
    return 2 * positions.numel() * weight[0].numel() * (bool(of_images) + bool(of_weight))


OWN_FORMULAS = {torch.ops.aten.convolution_backward: convolution_backward}
"""In the place of torch's, which are wrong."""


@dataclass(slots=True)
class Work:
    """The arithmetic of one layer's forward or backward pass."""

    flops: int | None = None
    """2 × multiply-accumulates; None if no operator among them is counted."""
    moved_bytes: int = 0
    """Operands read and results written, each operator by itself, caches not considered."""
    uncounted: set[str] = field(default_factory=set)
    """Operators that computed something and for which there is no formula."""


class Arithmetic(Listener):
    """Knows in which layer the network is, and enters there what `counting()` sees."""

    def __init__(self) -> None:
        self.forward: defaultdict[str, Work] = defaultdict(Work)
        self.backward: defaultdict[str, Work] = defaultdict(Work)
        self._inside = [(self.forward, UNATTRIBUTED)]

    def forward_begins(self, layer: str) -> None:
        """Enter what follows under this layer."""
        self._inside.append((self.forward, layer))

    def forward_ends(self, layer: str) -> None:
        """Enter what follows where this layer stood."""
        self._inside.pop()

    def backward_begins(self, layer: str) -> None:
        """Enter what follows under this layer's backward."""
        self._inside.append((self.backward, layer))

    def backward_ends(self, layer: str) -> None:
        """Enter what follows where this layer's backward stood."""
        self._inside.pop()

    def turns(self) -> None:
        """Enter what is no layer's under backward."""
        self._inside = [(self.backward, UNATTRIBUTED)]

    def counting(self) -> TorchDispatchMode:
        """Return the mode in which operators are counted."""
        return _Counting(self)

    def enter(self, operator: Any, args: Any, kwargs: Any, result: Any) -> None:
        """Count one operator."""
        packet = operator.overloadpacket
        of_direction, layer = self._inside[-1]
        work = of_direction[layer]
        if packet in flop_registry:
            formula = OWN_FORMULAS.get(packet, flop_registry[packet])
            work.flops = (work.flops or 0) + formula(*args, **kwargs, out_val=result)
            work.moved_bytes += _moved(args, kwargs, result)
        elif not _is_view(operator, args, kwargs, result) and packet.__name__ not in WRITES_NOTHING:
            work.uncounted.add(packet.__name__)
            work.moved_bytes += _moved(args, kwargs, result)


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, arithmetic: Arithmetic) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._arithmetic = arithmetic

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket not in flop_registry and func is not torch.ops.prim.device.default:
            # As torch's FlopCounterMode does: what consists of other operators is counted as these.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self._arithmetic.enter(func, args, kwargs, result)
        return result


def _is_view(operator: Any, args: Any, kwargs: Any, result: Any) -> bool:
    """Tell whether an operator only looks at its operands' memory in another way, or computes no tensor."""
    if operator._schema.is_mutable:
        return False
    operands = {_address(tensor) for tensor in tensors((args, kwargs))}
    return all(_address(tensor) in operands for tensor in tensors(result))


def _moved(args: Any, kwargs: Any, result: Any) -> int:
    operands = {(_address(t), t.storage_offset(), t.shape): t for t in tensors((args, kwargs))}
    return sum(map(_extent, operands.values())) + sum(map(_extent, tensors(result)))


def _extent(tensor: Tensor) -> int:
    """Return the bytes that a tensor's elements take: one that is broadcast takes no more than its memory."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
