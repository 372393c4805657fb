"""Intermediate values computed by ONNX Runtime's kernels, by their names in the exported graph."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnnperf.engines._nodes import plain

BLOCKED = "com.microsoft.nchwc"
"""Domain of the operators that use a blocked channel layout: N×C/b×H×W×b."""
UNBLOCK = "ReorderOutput"


class Values(NamedTuple):
    """The output of one run of an engine."""

    logits: NDArray[np.float32]
    before: Mapping[str, NDArray[np.float32]]
    """Intermediate values by their names in the exported graph."""


def values(
    open_session: Callable[..., Any],
    options: Any,
    exported_file: Path,
    feed: Mapping[str, NDArray[np.float32]],
    as_it_is: Any,
) -> Values:
    """Run a session's optimised graph with its intermediate values as outputs: the same kernels and weights.

    open_session: makes a session from options and, optionally, another file. as_it_is: the optimisation level that
    leaves a graph unchanged.
    """
    import onnx

    level, severity = options.graph_optimization_level, options.log_severity_level
    with tempfile.TemporaryDirectory(prefix="cnnperf-") as folder:
        file = f"{folder}/optimized.onnx"
        options.optimized_model_filepath = file
        options.log_severity_level = 3  # No warning that the file is machine-specific.
        try:
            last = open_session(options).get_outputs()[0].name
            options.optimized_model_filepath, options.graph_optimization_level = "", as_it_is
            model = onnx.load(file)
            holders = dict(_exposed(model.graph, onnx.load(exported_file).graph))
            onnx.save(model, file)
            session = open_session(options, file)
        finally:
            options.optimized_model_filepath, options.graph_optimization_level = "", level
            options.log_severity_level = severity
    logits, *found = session.run([last, *holders.values()], feed)
    return Values(logits, dict(zip(holders, found, strict=True)))


def _exposed(graph: Any, exported: Any) -> Iterator[tuple[str, str]]:
    """Make a graph's values outputs, and yield each value's name in the exported graph with its output.

    The runtime's own operator converts a value in blocked layout to N×C×H×W.
    """
    import onnx

    names, channels = _Names(exported), _channels(exported)
    outputs = {value.name for value in graph.output}
    found: set[str] = set()
    blocked: set[str] = set()
    for node in list(graph.node):
        value, name = node.output[0], names.of(node)
        if node.op_type != UNBLOCK and (node.domain == BLOCKED or blocked.intersection(node.input)):
            blocked.add(value)
        if name is None or name in found or (value in blocked and name not in channels):
            continue
        found.add(name)
        if value in blocked:
            of_block, value = value, f"cnnperf_{name}"
            graph.node.append(
                onnx.helper.make_node(UNBLOCK, [of_block], [value], domain=BLOCKED, channels=channels[name])
            )
        if value not in outputs:
            graph.output.append(onnx.ValueInfoProto(name=value))
        yield name, value


class _Names:
    """Map from values of an optimised graph to their names in the exported graph."""

    def __init__(self, exported: Any) -> None:
        self._writers = {output: node for node in exported.node for output in node.output}
        self._readers: dict[str, list[Any]] = defaultdict(list)
        for node in exported.node:
            for value in node.input:
                self._readers[value].append(node)

    def of(self, node: Any) -> str | None:
        """Return the exported name of a node's output; None if unknown.

        A node with blocked layout is named after the value that it wrote before a sum was fused into it.
        """
        called = plain(node.name)
        if node.output[0] in self._writers:
            return str(node.output[0])
        if called in self._writers:
            return self._fused(called, node)
        # Nodes in a file may be unnamed.
        return next((value for value, writer in self._writers.items() if called and writer.name == called), None)

    def _fused(self, value: str, node: Any) -> str | None:
        """Return the value after the sum and activation that were fused into the node that wrote it."""
        activation = next((each.s.decode() for each in node.attribute if each.name == "activation"), None)
        is_sum = len(node.input) > 3
        operators = [*["Add"] * is_sum, *([activation] if activation else [])]
        if self._writers[value].op_type in operators:
            return value
        for operator in operators:
            readers = [reader for reader in self._readers[value] if reader.op_type == operator]
            if len(readers) != 1:
                return None
            value = str(readers[0].output[0])
        return value


def _channels(exported: Any) -> dict[str, int]:
    """Return the channels of each value whose shape the exported graph states."""
    shapes = {info.name: info.type.tensor_type.shape.dim for info in (*exported.value_info, *exported.output)}
    return {name: int(dims[1].dim_value) for name, dims in shapes.items() if len(dims) == 4 and dims[1].dim_value}
