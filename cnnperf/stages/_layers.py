"""What a network's layers are, and hooks that tell when each one's forward and backward begin and end.

A layer is a module whose forward calls no other module: every leaf, and a container that works by itself (such as
nn.MultiheadAttention); what computes a leaf's weights (weight_norm, spectral_norm) is a part of it. Its backward is
that of the autograd nodes that its forward created. Hooks sit on these nodes: full backward hooks raise on in-place
modules, and tensor hooks fire late at a branch and never for the first layer. What activation checkpointing computes
anew in the midst of backward belongs to the backward of the layer that is called again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._C._autograd import _get_sequence_nr
from torch.autograd.graph import Node
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.utils._pytree import tree_leaves
from torch.utils.hooks import RemovableHandle

LOSS, DATA, OPTIMIZER, UNATTRIBUTED = "(loss)", "(data)", "(optimizer)", "(unattributed)"
"""The rows of a step that are no layer's."""
NETWORK = "(network)"
"""The layer's name where the network is but one."""
HOOKED_BY = "cnnperf"
"""The key in a node's metadata."""


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


class Listener:
    """Told of a step. A backward comes in as many parts as it has nodes; layers computed anew nest in one of them."""

    def hook_begins(self) -> None:
        """Whatever follows until the next word is the hooks' own doing."""

    def forward_begins(self, layer: str) -> None:
        """A layer's forward begins now."""

    def forward_ends(self, layer: str) -> None:
        """A layer's forward has ended before the hook began."""

    def backward_begins(self, layer: str) -> None:
        """One autograd node of a layer's begins now."""

    def backward_ends(self, layer: str) -> None:
        """One autograd node of a layer's has ended before the hook began."""

    def turns(self) -> None:
        """The forward pass and the loss are over; backward follows."""

    def part_begins(self, part: str) -> None:
        """A part of the step that is neither forward nor backward begins now."""

    def part_ends(self, part: str) -> None:
        """Such a part has ended."""


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


class Hooks:
    """Hooks on the layers of one forward pass and on the autograd nodes that it creates."""

    def __init__(self, structure: Structure, listener: Listener) -> None:
        self.listener = listener
        self._structure = structure
        self._handles: list[RemovableHandle] = []
        self._before: list[tuple[int, set[Node]]] = []

    def __enter__(self) -> Hooks:
        for layer in self._structure.layers:
            begin, end = partial(self._begin, layer.name), partial(self._end, layer.name)
            self._handles.append(layer.module.register_forward_pre_hook(begin, with_kwargs=True))
            # Before hooks of the user's, so that their time is not the layer's; and even where a forward is broken off,
            # as checkpointing does once it has all that backward wants.
            self._handles.append(layer.module.register_forward_hook(end, prepend=True, always_call=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def call(self, name: str, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Call what is no module as if it were a layer."""
        self._begin(name, None, inputs, {})
        output = function(*inputs)
        self._end(name, None, inputs, output)
        return output

    def watch_rest(self, output: Tensor) -> None:
        """Hook the nodes that no layer created, each under its own name: backward follows."""
        for node in _graph(output, set()):
            if not self._has_hooked(node):
                self._hook(node, f"{UNATTRIBUTED} {node.name().rpartition(':')[2]}")
        self.listener.turns()

    def _begin(self, name: str, module: nn.Module | None, args: Any, kwargs: Any) -> None:
        self.listener.hook_begins()
        given = tensors((args, kwargs))
        # What is done in place to a view is entered in the history of what it is a view of.
        given += [t._base for t in given if t._base is not None]
        self._before.append((_get_sequence_nr(), {t.grad_fn for t in given if t.grad_fn is not None}))
        if in_backward():
            self.listener.backward_begins(name)
        else:
            self.listener.forward_begins(name)

    def _end(self, name: str, module: nn.Module | None, args: Any, output: Any) -> None:
        self.listener.hook_begins()
        begun, known = self._before.pop()
        # A layer may also come by a tensor that is no argument, such as one that its parent left in an attribute.
        for node in _graph(output, known, lambda node: self._has_hooked(node) or node._sequence_nr() < begun):
            self._hook(node, name)
        if in_backward():
            self.listener.backward_ends(name)
        else:
            self.listener.forward_ends(name)

    def _has_hooked(self, node: Node) -> bool:
        return _metadata(node).get(HOOKED_BY) is self

    def _hook(self, node: Node, name: str) -> None:
        # Written on the node: a set of nodes would keep alive what they hold, and checkpointing makes many of them.
        _metadata(node)[HOOKED_BY] = self
        listener = self.listener

        def begin(*_: object) -> None:
            listener.hook_begins()
            listener.backward_begins(name)

        def end(*_: object) -> None:
            listener.hook_begins()
            listener.backward_ends(name)

        self._handles += [node.register_prehook(begin), node.register_hook(end)]


def in_backward() -> bool:
    """Tell whether autograd is at work; asked as torch's own ModuleTracker does."""
    return torch._C._current_graph_task_id() != -1


def _metadata(node: Node) -> dict[str, Any]:
    return cast(dict[str, Any], node.metadata)  # A property, though torch annotates a method.


def _graph(output: Any, known: set[Node], ends: Callable[[Node], bool] = lambda _: False) -> Iterator[Node]:
    """Yield the autograd nodes from an output down to those that are known, or at which it ends."""
    nodes = [tensor.grad_fn for tensor in tensors(output)]
    while nodes:
        node = nodes.pop()
        if node is None or node in known or ends(node):
            continue
        known.add(node)
        yield node
        nodes.extend(following for following, _ in node.next_functions)


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
