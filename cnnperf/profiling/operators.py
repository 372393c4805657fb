"""Operators as torch runs them: observed one by one, and told apart by whether they compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

WRITES_NOTHING = {"empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided"}


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls a function with each operator, its arguments and its result; a composite operator as its parts."""

    def __init__(self, enter: Callable[[Any, Any, Any, Any], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._enter = enter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.overloadpacket not in flop_registry and func is not torch.ops.prim.device.default:
            # As in torch's FlopCounterMode: a composite operator is counted as its parts.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        self._enter(func, args, kwargs, result)
        return result


def computes(operator: Any, args: Any, kwargs: Any, result: Any) -> bool:
    """Return whether an operator writes values; a view of its operands and new memory without values do not."""
    packet = operator.overloadpacket
    return packet in flop_registry or not (
        packet.__name__ in WRITES_NOTHING or _is_view(operator, args, kwargs, result)
    )


def _is_view(operator: Any, args: Any, kwargs: Any, result: Any) -> bool:
    """Return whether an operator is only a view of its operands or returns no tensor."""
    if operator._schema.is_mutable:
        return False
    operands = {address(tensor) for tensor in tensors((args, kwargs))}
    return all(address(tensor) in operands for tensor in tensors(result))


def address(tensor: Tensor) -> int:
    """Return the address of a tensor's memory, which its views share."""
    return tensor.untyped_storage().data_ptr()


def tensors(value: Any) -> list[Tensor]:
    """Return the tensors in an operator's or a module's arguments or output."""
    if isinstance(value, Tensor):
        return [value]
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
