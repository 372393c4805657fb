"""The layers of a network.

A layer is a module that computes: every module whose forward calls no other (a leaf, or nn.MultiheadAttention), and
each module that calls others and computes beside them, such as a block that adds its shortcut, with its own operations
alone. A parametrisation of a leaf's weights (weight_norm, spectral_norm) is part of the leaf.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.utils.hooks import RemovableHandle

from cnnperf.engines import WHOLE_NETWORK
from cnnperf.profiling.operators import Operators, computes, tensors
from cnnperf.units import shape_in_words

OWN = " (own)"
"""Mark of a module that calls others: its row has its own operations alone."""


@dataclass(slots=True)
class Layer:
    """A layer, as observed in one forward pass."""

    name: str
    """Qualified name; the first name of a module that is registered twice."""
    kind: str
    """The module's class; of a module that calls others, with the mark `(own)`."""
    module: nn.Module
    calls_others: bool = False
    calls: int = 0
    inputs: str = ""
    """Input shapes at the first call, such as 32×3×28×28; several are separated by commas."""
    outputs: str = ""
    dtype: str = ""
    output_bytes: int = 0
    """Bytes of the outputs of all calls, except an output that the last module called inside has returned."""


@dataclass(frozen=True, slots=True)
class Structure:
    """The layers of a network in the order of their first call, and the modules that were never called."""

    layers: tuple[Layer, ...]
    never_called: tuple[Layer, ...]


@dataclass(slots=True)
class _OpenCall:
    """A call of a module that has not ended."""

    module: nn.Module
    returned: list[Tensor] = field(default_factory=list)
    """Outputs of the module that it called last."""


def discover(model: nn.Module, run: Callable[[], object]) -> Structure:
    """Find the layers by running a forward pass; `run` must call the model once."""
    within = {p for m in model.modules() if is_parametrized(m) for p in cast(nn.Module, m.parametrizations).modules()}
    named = {
        module: Layer(name or WHOLE_NETWORK, type_before_parametrizations(module).__name__, module)
        for name, module in model.named_modules()
        if module not in within
    }
    order: dict[nn.Module, None] = {}
    computing: set[nn.Module] = set()
    open_calls: list[_OpenCall] = []
    stack = ExitStack()

    def begin(module: nn.Module, args: Any, kwargs: Any) -> None:
        if in_backward():
            return
        if open_calls:
            named[open_calls[-1].module].calls_others = True
        else:
            stack.enter_context(Operators(operate))
        open_calls.append(_OpenCall(module))
        order.setdefault(module)
        layer = named[module]
        layer.inputs = layer.inputs or shapes((args, kwargs))

    def end(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if in_backward():
            return
        returned = open_calls.pop().returned
        layer, found = named[module], tensors(output)
        if open_calls:
            open_calls[-1].returned = found
        else:
            stack.close()
        layer.calls += 1
        layer.outputs = layer.outputs or shapes(output)
        layer.dtype = layer.dtype or (str(found[0].dtype).removeprefix("torch.") if found else "")
        layer.output_bytes += sum(t.nbytes for t in found if not any(t is other for other in returned))

    def operate(operator: Any, args: Any, kwargs: Any, result: Any) -> None:
        if not in_backward() and computes(operator, args, kwargs, result):
            computing.add(open_calls[-1].module)

    handles = [
        handle
        for module in named
        for handle in (
            module.register_forward_pre_hook(begin, with_kwargs=True),
            module.register_forward_hook(end, with_kwargs=True),
        )
    ]
    with removed(handles), stack:
        run()
    layers = [named[module] for module in order if module in computing or not named[module].calls_others]
    for layer in layers:
        layer.kind += OWN * layer.calls_others
    inside = {module for layer in layers if not layer.calls_others for module in layer.module.modules()}
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


def shapes(value: Any) -> str:
    """Write the shapes of the tensors in a value."""
    return ", ".join(shape_in_words(tensor.shape) for tensor in tensors(value))
