"""A torch.profiler trace of a few steps, each layer marked by its name; also read for the peak of the allocations.

Times under the profiler are not the network's: no latency is taken from here.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.profiler import ProfilerActivity, profile, record_function, schedule

from cnnperf.stages._layers import UNATTRIBUTED, Hooks, Listener, Structure
from cnnperf.stages._profile_step import Step

WARMUP_STEPS = 1
"""The profiler's own."""
FIRST_STEP = f"ProfilerStep#{WARMUP_STEPS}"


class Marker(Listener):
    """Marks layers in the trace: `conv1`, and `conv1 backward`."""

    def __init__(self) -> None:
        self._open: list[record_function] = []

    def forward_begins(self, layer: str) -> None:
        """Open the layer's range."""
        self._begin(layer)

    def forward_ends(self, layer: str) -> None:
        """Close it."""
        self._end()

    def backward_begins(self, layer: str) -> None:
        """Open the range of one node of its backward."""
        self._begin(f"{layer} backward")

    def backward_ends(self, layer: str) -> None:
        """Close it."""
        self._end()

    def _begin(self, name: str) -> None:
        self._open.append(record_function(name))
        self._open[-1].__enter__()  # type: ignore[no-untyped-call]

    def _end(self) -> None:
        self._open.pop().__exit__(None, None, None)


def write_trace(path: Path, step: Step, structure: Structure, *, steps: int, cuda: bool) -> None:
    """Trace a few steps into a gzipped file for Perfetto, chrome://tracing and TensorBoard's profiler plugin."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(
        activities=activities,
        schedule=schedule(wait=0, warmup=WARMUP_STEPS, active=steps, repeat=1),
        on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(path)),
        profile_memory=True,
        record_shapes=True,
    ) as profiler:
        for _ in range(WARMUP_STEPS + steps):
            with Hooks(structure, Marker()) as hooks:
                step(hooks)
            profiler.step()


def allocation_peak(path: Path) -> tuple[int, str]:
    """Return how far the first traced step's allocations on the CPU rise above its start, and in which layer."""
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
    around = [(end - start, name) for name, start, end in _ranges(events) if start <= when <= end]
    name = min(around)[1]
    return peak, UNATTRIBUTED if name == FIRST_STEP else name


def _ranges(events: list[dict[str, Any]]) -> Iterator[tuple[str, float, float]]:
    for event in events:
        if event.get("cat") == "user_annotation":
            yield event["name"], event["ts"], event["ts"] + event["dur"]
