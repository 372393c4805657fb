"""A torch.profiler trace of a few steps, each layer marked by its name; also read for the peak of the allocations.

The profiler slows the network, so that no latency is taken from a trace.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function, schedule

from cnnperf.profiling.hooks import Hooks, Listener
from cnnperf.profiling.layers import Structure
from cnnperf.profiling.rows import UNATTRIBUTED
from cnnperf.profiling.step import ProfiledStep

WARMUP_STEPS = 1
"""Steps in which the profiler itself warms up."""
FIRST_STEP = f"ProfilerStep#{WARMUP_STEPS}"


class Marker(Listener):
    """Marks layers in the trace (`conv1`, `conv1 backward`) and other parts of a step (`(optimizer)`)."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._open: list[record_function] = []

    def forward_begins(self, layer: str) -> None:
        """Open the layer's range."""
        self._begin(layer)

    def forward_ends(self, layer: str) -> None:
        """Close the range of the layer."""
        self._end()

    def backward_begins(self, layer: str) -> None:
        """Open the range of one node of its backward."""
        self._begin(f"{layer} backward")

    def backward_ends(self, layer: str) -> None:
        """Close the range of the node."""
        self._end()

    def part_begins(self, part: str) -> None:
        """Open the part's range."""
        self._begin(part)

    def part_ends(self, part: str) -> None:
        """Close the range of the part."""
        self._end()

    def _begin(self, name: str) -> None:
        self.names.add(name)
        self._open.append(record_function(name))
        self._open[-1].__enter__()  # type: ignore[no-untyped-call]

    def _end(self) -> None:
        self._open.pop().__exit__(None, None, None)


def write_trace(path: Path, step: ProfiledStep, structure: Structure, *, steps: int, cuda: bool) -> set[str]:
    """Trace a few steps into a gzipped file for Perfetto, chrome://tracing and TensorBoard's profiler plugin.

    Returns the names of the ranges that mark layers and parts of the step.
    """
    marker = Marker()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(
        activities=activities,
        schedule=schedule(wait=0, warmup=WARMUP_STEPS, active=steps, repeat=1),
        on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(path)),
        profile_memory=True,
        record_shapes=True,
    ) as profiler:
        for _ in range(WARMUP_STEPS + steps):
            with Hooks(structure, marker) as hooks:
                step(hooks)
            profiler.step()
    return marker.names


def allocation_peak(path: Path, names: Container[str]) -> tuple[int, str]:
    """Return the peak of the first traced step's CPU allocations above its start, and the range of the peak.

    names: ranges that count; other ranges, marked by torch or the network, are ignored.
    """
    with gzip.open(path, "rt", encoding="utf-8") as file:
        events = json.load(file)["traceEvents"]
    ranges = {name: (start, end) for name, start, end in _ranges(events) if name == FIRST_STEP}
    begin, end = ranges[FIRST_STEP]
    held = peak = 0
    when = begin
    allocations = [e for e in events if e.get("name") == "[memory]" and e["args"]["Device Type"] == 0]
    for event in sorted(allocations, key=lambda e: e["ts"]):
        if begin <= event["ts"] <= end:
            held += event["args"]["Bytes"]
            if held > peak:
                peak, when = held, event["ts"]
    around = [(end - start, name) for name, start, end in _ranges(events) if start <= when <= end and name in names]
    return peak, min(around)[1] if around else UNATTRIBUTED


def _ranges(events: list[dict[str, Any]]) -> Iterator[tuple[str, float, float]]:
    for event in events:
        if event.get("cat") == "user_annotation":
            yield event["name"], event["ts"], event["ts"] + event["dur"]
