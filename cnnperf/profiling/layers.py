"""What a network's layers are.

A layer is a module whose forward calls no other module: every leaf, and a container that works by itself (such as
nn.MultiheadAttention); what computes a leaf's weights (weight_norm, spectral_norm) is a part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

LOSS, DATA, OPTIMIZER, UNATTRIBUTED = "(loss)", "(data)", "(optimizer)", "(unattributed)"
"""The rows of a step that are no layer's."""
NETWORK = "(network)"
"""The layer's name where the network is but one."""


@dataclass(slots=True)
class Layer:
    """A layer as one forward pass showed it."""

    name: str
    """Qualified; of a module that is registered twice, the first name."""
    kind: str
    """The module's class."""
    module: nn.Module
    calls: int = 0
    inputs: str = ""
    """Shapes at the first call, such as 32×3×28×28; several are separated by a comma."""
    outputs: str = ""
    dtype: str = ""
    output_bytes: int = 0
    """Of all calls."""


@dataclass(frozen=True, slots=True)
class Structure:
    """The layers of a network in the order of their first call, and the modules that were never called."""

    layers: tuple[Layer, ...]
    never_called: tuple[Layer, ...]


def discover(model: nn.Module, run: Callable[[], object]) -> Structure:
    """Find the layers by running a forward pass; in `run` the model is to be called once."""
    within = {p for m in model.modules() if is_parametrized(m) for p in cast(nn.Module, m.parametrizations).modules()}
    named = {
        module: Layer(name or NETWORK, type_before_parametrizations(module).__name__, module)
        for name, module in model.named_modules()
        if module not in within
    }
    order: dict[nn.Module, None] = {}
    containers: set[nn.Module] = set()
    open_calls: list[nn.Module] = []

    def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
        if in_backward():
            return
        containers.update(open_calls[-1:])
        open_calls.append(module)
        order.setdefault(module)
        layer = named[module]
        layer.inputs = layer.inputs or shapes((args, kwargs))

    def end(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if in_backward():
            return
        open_calls.pop()
        layer, found = named[module], tensors(output)
        layer.calls += 1
        layer.outputs = layer.outputs or shapes(output)
        layer.dtype = layer.dtype or (str(found[0].dtype).removeprefix("torch.") if found else "")
        layer.output_bytes += sum(t.nbytes for t in found)

    handles = [
        handle
        for module in named
        for handle in (
            module.register_forward_pre_hook(begin, with_kwargs=True),
            module.register_forward_hook(end, with_kwargs=True),
        )
    ]
    with removed(handles):
        run()
    layers = [named[module] for module in order if module not in containers]
    inside = {module for layer in layers for module in layer.module.modules()}
    idle = [m for m in named if m not in order and m not in inside and named.keys().isdisjoint(m.children())]
    return Structure(tuple(layers), tuple(named[module] for module in idle))


def in_backward() -> bool:
    """Tell whether autograd is at work; asked as torch's own ModuleTracker does."""
    return torch._C._current_graph_task_id() != -1


@contextmanager
def removed(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove hooks when all is over, however it ends."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors(value: Any) -> list[Tensor]:
    """Return the tensors in whatever a module takes or returns."""
    if isinstance(value, Tensor):
        return [value]
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def shapes(value: Any) -> str:
    """Write the shapes of the tensors in a value."""
    return ", ".join("×".join(map(str, tensor.shape)) for tensor in tensors(value))
