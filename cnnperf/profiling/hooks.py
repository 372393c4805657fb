"""Hooks that report the beginning and end of each layer's forward and backward.

A layer's backward consists of the autograd nodes created by its forward, without those of layers inside it. Hooks are
attached to these nodes: full backward hooks raise on in-place modules, and tensor hooks fire late at a branch and never
for the first layer. Recomputation by activation checkpointing counts as backward of the recomputed layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

from torch import Tensor, nn
from torch._C._autograd import _get_sequence_nr
from torch.autograd.graph import Node
from torch.utils.hooks import RemovableHandle

from cnnperf.profiling.layers import Structure, in_backward
from cnnperf.profiling.operators import tensors
from cnnperf.profiling.rows import UNATTRIBUTED

HOOKED_BY = "cnnperf"
"""The key in a node's metadata."""


class Listener:
    """Listener to a step.

    A layer may be nested in another. Its backward has one part per node; recomputed layers are nested in a part.
    """

    def hook_begins(self) -> None:
        """Everything until the next event is overhead of the hooks."""

    def forward_begins(self, layer: str) -> None:
        """A layer's forward begins."""

    def forward_ends(self, layer: str) -> None:
        """A layer's forward has ended, before this hook."""

    def backward_begins(self, layer: str) -> None:
        """One autograd node of a layer begins."""

    def backward_ends(self, layer: str) -> None:
        """One autograd node of a layer has ended, before this hook."""

    def turns(self) -> None:
        """The forward pass and the loss are over; backward follows."""

    def part_begins(self, part: str) -> None:
        """A part of the step other than forward and backward begins."""

    def part_ends(self, part: str) -> None:
        """A part of the step other than forward and backward has ended."""


class Hooks:
    """Hooks on the layers of one forward pass and on the autograd nodes that it creates."""

    def __init__(self, structure: Structure, listener: Listener) -> None:
        self.listener = listener
        self._structure = structure
        self._handles: list[RemovableHandle] = []
        self._before: list[tuple[int, set[Node]]] = []

    def __enter__(self) -> Hooks:
        for layer in self._structure.layers:
            begin = partial(self._begin, layer.name)
            end = partial(self._end, layer.name, calls_others=layer.calls_others)
            self._handles.append(layer.module.register_forward_pre_hook(begin, with_kwargs=True))
            # Before the user's hooks, so that their time is not the layer's; also if a forward is aborted, as by
            # checkpointing once it has recomputed everything that backward needs.
            self._handles.append(layer.module.register_forward_hook(end, prepend=True, always_call=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def call(self, name: str, function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """Call a function that is not a module as a layer."""
        self._begin(name, None, inputs, {})
        output = function(*inputs)
        self._end(name, None, inputs, output)
        return output

    def watch_rest(self, output: Tensor) -> None:
        """Hook the nodes that no layer created, each under its own name; backward follows."""
        for node in _graph(output, set()):
            if not self._has_hooked(node):
                self._hook(node, f"{UNATTRIBUTED} {node.name().rpartition(':')[2]}")
        self.listener.turns()

    def _begin(self, name: str, module: nn.Module | None, args: Any, kwargs: Any) -> None:
        self.listener.hook_begins()
        given = tensors((args, kwargs))
        # An in-place operation on a view is recorded in the history of the view's base.
        given += [t._base for t in given if t._base is not None]
        self._before.append((_get_sequence_nr(), {t.grad_fn for t in given if t.grad_fn is not None}))
        if in_backward():
            self.listener.backward_begins(name)
        else:
            self.listener.forward_begins(name)

    def _end(self, name: str, module: nn.Module | None, args: Any, output: Any, *, calls_others: bool = False) -> None:
        self.listener.hook_begins()
        begun, known = self._before.pop()

        def ends(node: Node) -> bool:
            # A layer may also use a tensor that is not an argument, such as an attribute set by its parent. Nodes of a
            # layer inside are hooked already; before these, the module around it may have nodes of its own.
            return node._sequence_nr() < begun or (not calls_others and self._has_hooked(node))

        for node in _graph(output, known, ends):
            if not self._has_hooked(node):
                self._hook(node, name)
        if in_backward():
            self.listener.backward_ends(name)
        else:
            self.listener.forward_ends(name)

    def _has_hooked(self, node: Node) -> bool:
        return _metadata(node).get(HOOKED_BY) is self

    def _hook(self, node: Node, name: str) -> None:
        # Stored on the node: a set of nodes would keep their tensors alive, and checkpointing creates many nodes.
        _metadata(node)[HOOKED_BY] = self
        listener = self.listener

        def begin(*_: object) -> None:
            listener.hook_begins()
            listener.backward_begins(name)

        def end(*_: object) -> None:
            listener.hook_begins()
            listener.backward_ends(name)

        self._handles += [node.register_prehook(begin), node.register_hook(end)]


def _metadata(node: Node) -> dict[str, Any]:
    return cast(dict[str, Any], node.metadata)  # A property, though torch annotates a method.


def _graph(output: Any, known: set[Node], ends: Callable[[Node], bool] = lambda _: False) -> Iterator[Node]:
    """Yield the autograd nodes from an output down to known nodes or leaves."""
    nodes = [tensor.grad_fn for tensor in tensors(output)]
    while nodes:
        node = nodes.pop()
        if node is None or node in known or ends(node):
            continue
        known.add(node)
        yield node
        nodes.extend(following for following, _ in node.next_functions)
