"""The layers of a network.

A layer is a module whose forward calls no other module: every leaf, and containers that compute themselves (such as
nn.MultiheadAttention). A parametrisation of a leaf's weights (weight_norm, spectral_norm) is part of the leaf.
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

from cnnperf.engines import WHOLE_NETWORK
from cnnperf.units import shape_in_words


@dataclass(slots=True)
class Layer:
    """A layer, as observed in one forward pass."""

    name: str
    """Qualified name; the first name of a module that is registered twice."""
    kind: str
    """The module's class."""
    module: nn.Module
    calls: int = 0
    inputs: str = ""
    """Input shapes at the first call, such as 32×3×28×28; several are separated by commas."""
    outputs: str = ""
    dtype: str = ""
    output_bytes: int = 0
    """Bytes of the outputs of all calls."""


@dataclass(frozen=True, slots=True)
class Structure:
    """The layers of a network in the order of their first call, and the modules that were never called."""

    layers: tuple[Layer, ...]
    never_called: tuple[Layer, ...]


def discover(model: nn.Module, run: Callable[[], object]) -> Structure:
    """Find the layers by running a forward pass; `run` must call the model once."""
    within = {p for m in model.modules() if is_parametrized(m) for p in cast(nn.Module, m.parametrizations).modules()}
    named = {
        module: Layer(name or WHOLE_NETWORK, type_before_parametrizations(module).__name__, module)
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
    """Return whether autograd's backward is running, tested as in torch's own ModuleTracker."""
    return torch._C._current_graph_task_id() != -1


@contextmanager
def removed(handles: Iterable[RemovableHandle]) -> Iterator[None]:
    """Remove hooks at the end of the block, also after an error."""
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors(value: Any) -> list[Tensor]:
    """Return the tensors in a module's arguments or output."""
    if isinstance(value, Tensor):
        return [value]
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


def shapes(value: Any) -> str:
    """Write the shapes of the tensors in a value."""
    return ", ".join(shape_in_words(tensor.shape) for tensor in tensors(value))
