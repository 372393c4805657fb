"""Nodes of ONNX Runtime's optimised graph: the torch layers that each covers, and its kernel times."""

from __future__ import annotations

import ast
import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cnnperf.engines import WHOLE_NETWORK
from cnnperf.errors import StageError
from cnnperf.onnx_file import HOST_PROVIDER

SCOPES = "pkg.torch.onnx.name_scopes"
KERNEL = "_kernel_time"
ADDED = re.compile(
    r"^fused |(_nchwc|_bn|_quantized|_(De)?QuantizeLinear(_Output)?|_token_\d+|/duplicated)+$"  # In blocks; in 8 bits.
)
"""Suffixes that the runtime adds to the names of values and nodes that it rewrites."""
REORDERS = ("ReorderInput", "ReorderOutput", "Transpose")
"""Operators that convert values to another layout and back."""
CONVERSIONS = (*REORDERS, "QuantizeLinear", "DequantizeLinear")
"""Operators that only change the layout or type of a value."""


Events = Iterable[Mapping[str, Any]]
"""Events of the profiler; keys as it writes them."""


class GraphNode(NamedTuple):
    """One node of the optimised graph."""

    layers: tuple[str, ...]
    """Qualified names of the torch modules whose work the node does; empty if unknown."""
    operator: str
    is_reorder: bool
    times: list[float]
    """Seconds, one value per run."""


class Times(NamedTuple):
    """The result of a profiled pass."""

    groups: tuple[GraphNode, ...]

    @property
    def mapped(self) -> float:
        """Return the share of kernel time that is assigned to modules."""
        total = sum(sum(group.times) for group in self.groups)
        return sum(sum(group.times) for group in self.groups if group.layers) / total


class Origin:
    """The graph exported by torch, with the origin of each value and weight."""

    def __init__(self, graph: Any) -> None:
        self._by_name = {node.name: node for node in graph.node}
        self._by_output = {output: node for node in graph.node for output in node.output}
        self._weights = {weight.name for weight in graph.initializer}
        self._readers = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)

    def layers(self, nodes: Sequence[Any]) -> dict[str, tuple[str, ...]]:
        """Return the layers whose work each node of an optimised graph does, by node name."""
        writers = {output: node for node in nodes for output in node.output}

        def origin(value: str) -> str:
            """Return a value's name in the exported graph: its own, its node's, or that of the converted value."""
            node = writers.get(value)
            for name in (value, *((node.name,) if node else ())):
                for known in (name, plain(name)):
                    if known in self._by_output:
                        return self._summed(known, node)
                    if node and known in self._by_name:
                        return str(self._by_name[known].output[0])
            if node is None:
                return plain(value)
            return origin(node.input[0]) if node.op_type in CONVERSIONS else value

        found: dict[str, tuple[str, ...]] = {}
        for node in nodes:
            inputs, outputs = ([origin(value) for value in values] for values in (node.input, node.output))
            converts = node.op_type in CONVERSIONS and outputs[0] in inputs
            found[node.name] = self._of_value(outputs[0]) if converts else self._covered(inputs, outputs)
        return found

    def _summed(self, value: str, node: Any) -> str:
        """Return the value that a node writes; a convolution fused with a shortcut sum keeps its name from before."""
        if node is None or node.op_type != "Conv" or len(node.input) < 4:
            return value
        activated = any(attribute.name == "activation" for attribute in node.attribute)
        for operator in ("Add", "Relu") if activated else ("Add",):
            value = next((str(r.output[0]) for r in self._readers[value] if r.op_type == operator), value)
        return value

    def _covered(self, inputs: list[str], outputs: list[str]) -> tuple[str, ...]:
        """Return the layers of a node, found by the value that it writes or the weights that it reads.

        All exported nodes between the node's output and its inputs were fused into it.
        """
        ends = [self._by_output[value] for value in outputs if value in self._by_output]
        if not ends:
            ends = [node for value in inputs if value in self._weights for node in self._readers[value]]
        layers = [layer for node in self._back(ends, set(inputs)) for layer in self._layers(node)]
        return tuple(dict.fromkeys(layers))

    def _of_value(self, value: str) -> tuple[str, ...]:
        """Return the layer that wrote a value, or the first layer that reads it."""
        if value in self._by_output:
            return tuple(self._layers(self._by_output[value])[-1:])
        return tuple(self._layers(self._readers[value][0])[:1]) if self._readers[value] else ()

    def _back(self, ends: Iterable[Any], inputs: set[str]) -> list[Any]:
        found: list[Any] = []
        queue = list(ends)
        while queue:
            node = queue.pop(0)
            if any(node is other for other in found):
                continue
            found.append(node)
            queue += [
                self._by_output[value] for value in node.input if value not in inputs and value in self._by_output
            ]
        return found[::-1]

    def _layers(self, node: Any) -> list[str]:
        """Return the owners of a node's weights, and the module whose forward contains the node."""
        owners = [value.rpartition(".")[0] for value in node.input if value in self._weights and "." in value]
        scopes: list[str] = next((ast.literal_eval(p.value) for p in node.metadata_props if p.key == SCOPES), [])
        # The last entry is the operator's own name; the first is the whole network, whose name is empty.
        return [*owners, *([scopes[-2] or WHOLE_NETWORK] if len(scopes) > 1 else [])]


def plain(value: str) -> str:
    """Return a value's name from before the runtime changed its layout or type."""
    return ADDED.sub("", value)


def node_times(
    open_session: Callable[[Any], Any],
    options: Any,
    exported_file: Path,
    feed: Mapping[str, Any],
    runs: int,
    *,
    provider: str,
) -> Times | None:
    """Run a separate session with the profiler on, and return the times of each node in each run but the first.

    options: options of the timed session; profiling is enabled for this session and disabled again. Returns None for a
    graph that was not exported by torch, and on a GPU whose kernels the runtime does not time. Raises StageError if
    another provider ran a node.
    """
    import onnx

    exported = onnx.load(exported_file)
    if not any(p.key == SCOPES for node in exported.graph.node for p in node.metadata_props):
        return None
    with tempfile.TemporaryDirectory(prefix="cnnperf-") as folder:
        options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
        options.optimized_model_filepath, severity = f"{folder}/optimized.onnx", options.log_severity_level
        options.log_severity_level = 3  # No warning that the file is machine-specific.
        try:
            session = open_session(options)
        finally:
            options.enable_profiling, options.optimized_model_filepath = False, ""
            options.log_severity_level = severity
        for _ in range(runs + 1):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
        layers = Origin(exported.graph).layers(
            onnx.load(f"{folder}/optimized.onnx", load_external_data=False).graph.node
        )
    _check_provider(events, provider)
    found = on_host(events) if provider == HOST_PROVIDER else on_gpu(events)
    return Times(tuple(_grouped(found, layers))) if found else None


def _check_provider(events: Events, wanted: str) -> None:
    """Raise StageError if another provider ran a kernel."""
    for event in events:
        if event.get("cat") == "Node" and (got := event.get("args", {}).get("provider", wanted)) != wanted:
            node = event["name"].removesuffix(KERNEL)
            raise StageError(f"requested {wanted}, but {got} ran the node {node}; use another engine or device")


class Node(NamedTuple):
    """The profiler's data of one node."""

    operator: str
    times: list[float]
    """Seconds, one value per run."""


def on_host(events: Events) -> dict[str, Node]:
    """Return each node's kernel times by node name, on the CPU."""
    found: dict[str, Node] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            node = found.setdefault(event["name"].removesuffix(KERNEL), Node(event["args"]["op_name"], []))
            node.times.append(event["dur"] / 1e6)
    if not found:
        raise StageError("onnxruntime's profiler reported no kernel; update onnxruntime")
    return found


def on_gpu(events: Events) -> dict[str, Node]:
    """Return the time of each node's GPU kernels by node name; empty if they were not timed.

    On a GPU, a node's own time is the host time to queue its kernels. A build with CUPTI
    (onnxruntime_ENABLE_CUDA_PROFILING) also lists the kernels after their node, in whole microseconds; nodes without a
    kernel are omitted.
    """
    found: dict[str, Node] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(KERNEL):
            node = found.setdefault(event["name"], Node(event["args"]["op_name"], []))
            node.times.append(0.0)
        elif event.get("cat") == "Kernel" and (parent := event["args"].get("parent_name")) in found:
            found[parent].times[-1] += event["dur"] / 1e6
    return {name.removesuffix(KERNEL): node for name, node in found.items() if any(node.times)}


def _grouped(nodes: Mapping[str, Node], layers: Mapping[str, tuple[str, ...]]) -> Iterable[GraphNode]:
    for name, (operator, seconds) in nodes.items():
        yield GraphNode(layers.get(name, ()), operator, operator in REORDERS, seconds[1:])
