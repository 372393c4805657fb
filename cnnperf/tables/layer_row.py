"""A row of layers.csv: the figures of one layer, forward and backward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cnnperf.tables.facts import ReducedColumn, fact
from cnnperf.tables.table import Row, column, row_type

DIRECTIONS = ("forward", "backward")
BYTES = {
    "parameter": "bytes of the layer's parameters; shared ones count for the first layer that has them",
    "gradient": "bytes of their gradients before the update",
    "optimizer_state": "bytes of the optimizer's state for them",
    "output": "bytes of the layer's outputs, all calls together, without those of layers inside it",
    "saved": "bytes that autograd keeps for backward: each storage once, for the first layer that saves it, without "
    "parameters and buffers",
}
"""Kinds of memory of a layer, and the meaning of each column."""
PROBES = "profile.probe_flops_per_s, profile.probe_bytes_per_s"
"""Sources of all columns that are relative to the roofline."""


def _work(direction: str) -> str:
    return f"profile.{direction}_macs, profile.{direction}_moved_bytes"


def _macs(direction: str) -> Any:
    return column(
        default=None,
        unit="count",
        better="lower",
        meaning=f"multiply-accumulates of the {direction} pass by formulas (see above), of those operators that have "
        "one; empty if none has",
        source=f"profile.{direction}_macs",
    )


def _flops(direction: str) -> Any:
    return column(
        default=None,
        unit="count",
        better="lower",
        meaning=f"2 × `{direction}_macs`",
        source=f"profile.{direction}_macs",
    )


def _moved_bytes(direction: str) -> Any:
    return column(
        default=None,
        unit="bytes",
        better="lower",
        meaning=f"bytes of operands and results of the {direction} pass, summed over operators, whatever caches keep",
        source=f"profile.{direction}_moved_bytes",
    )


def _uncounted(direction: str) -> Any:
    return column(
        default=None,
        meaning=f"operators of the {direction} pass that compute without a formula",
        source="(remark uncounted)",
    )


def _flops_per_byte(direction: str) -> Any:
    return column(
        default=None,
        unit="FLOP/byte",
        meaning=f"`{direction}_flops` over `{direction}_moved_bytes`",
        source=f"profile.{direction}_macs, profile.{direction}_moved_bytes",
    )


def _flops_per_s(direction: str) -> Any:
    return column(
        default=None,
        unit="FLOP/s",
        better="higher",
        meaning=f"`{direction}_flops` over `{direction}_s`",
        source=f"profile.{direction}_macs, profile.{direction}_seconds",
    )


def _bytes_per_s(direction: str) -> Any:
    return column(
        default=None,
        unit="bytes/s",
        better="higher",
        meaning=f"`{direction}_moved_bytes` over `{direction}_s`",
        source=f"profile.{direction}_moved_bytes, profile.{direction}_seconds",
    )


def _share(direction: str) -> Any:
    return column(
        default=None,
        unit="1",
        in_percent=True,
        better="higher",
        meaning=f"speed of the {direction} pass over the highest that was measured: `{direction}_flops_per_s` over "
        f"`peak_flops_per_s` of profiles.csv if compute-bound, `{direction}_bytes_per_s` over `peak_bytes_per_s` if "
        "memory-bound; mostly below 1; above 1 the pass is faster than every probe, as by data that stays in a cache",
        source=f"{_work(direction)}, profile.{direction}_seconds, {PROBES}",
    )


def _bound(direction: str) -> Any:
    return column(
        default=None,
        meaning=f"`compute-bound` if `{direction}_flops_per_byte` is at least `peak_flops_per_s` over "
        "`peak_bytes_per_s`, else `memory-bound`",
        source=f"{_work(direction)}, {PROBES}",
    )


def _missing_probe(direction: str) -> Any:
    return column(
        default=None,
        meaning=f"probe that would explain a `{direction}_share` above 1.05",
        source=f"{_work(direction)}, profile.{direction}_seconds, {PROBES}",
    )


def _quartile(direction: str, which: str) -> Any:
    return column(
        default=None,
        unit="s",
        better="lower",
        meaning=f"{which} quartile over the samples of `{direction}_s`, interpolated linearly; empty in the rows of an "
        "engine",
        source=f"profile.{direction}_seconds",
    )


def _held(kind: str) -> Any:
    return column(default=None, unit="bytes", better="lower", meaning=BYTES[kind], source=f"profile.{kind}_bytes")


@row_type
class LayerRow(Row):
    """A layer of a profile, or a group of layers that an engine runs as one."""

    dataset: str = fact()
    data: str | None = fact()
    model: str = fact()
    device: str = fact()
    mode: str | None = column(
        default=None,
        meaning="`train`, `infer` (of `profile`), or `infer` in the rows of an engine",
        source="(tag mode), task.stage",
    )
    batch_size: int | None = column(default=None, unit="count", meaning="images in a step", source="(tag batch_size)")
    weights: str | None = column(default=None, meaning="`trained`, or `fresh` as built", source="(remark weights)")
    repeat: int = fact()
    disturbed: str | None = fact()
    order: int | None = column(
        default=None,
        unit="count",
        meaning="place of the layer by its first call in the forward pass, from 0; layers that are never called come "
        "last; in the rows of an engine the place of the group",
        source="(remark order)",
    )
    layer: str = column(
        meaning="name of the module; several joined by `+` in the row of a fused kernel; for an engine's "
        "kernels, `(unmapped)` for unknown origin; `(network)` for what the network's own forward does; for torch's "
        "time, `(loss)`, `(data)`, `(optimizer)`, and `(unattributed)` for the rest, between the layers, with the name "
        "of a backward node of no layer",
        source="(tag layer)",
    )
    type: str | None = column(
        default=None,
        meaning="class of the module; with `(own)` where it contains layers: its row has its own operations alone",
        source="(remark type)",
    )
    inputs: str | None = column(
        default=None, meaning="shapes of its inputs at its first call", source="(remark inputs)"
    )
    outputs: str | None = column(
        default=None, meaning="shapes of its outputs at its first call", source="(remark outputs)"
    )
    dtype: str | None = column(default=None, meaning="type of its first output's values", source="(remark dtype)")
    calls: int | None = column(
        default=None, unit="count", meaning="calls of the module in a forward pass", source="profile.calls"
    )
    samples: int | None = column(
        default=None,
        unit="count",
        meaning="values behind each median of seconds, of forward and backward the fewer: with hooks for a layer, "
        "`(loss)` and `(unattributed)`, without for `(data)` and `(optimizer)`; a value is of one step on the CPU, "
        "elsewhere the mean of several; steps that did not call the layer have none; empty in the rows of an engine",
        source="profile.forward_seconds, profile.backward_seconds, profile.seconds",
    )
    seconds: float | None = column(
        default=None,
        unit="s",
        better="lower",
        meaning="sum of `forward_s` and `backward_s`, as far as a row has them; of `(data)` and `(optimizer)` their "
        "time in steps without hooks, median over samples; empty in the rows of an engine",
        source="profile.forward_seconds, profile.backward_seconds, profile.seconds",
    )
    forward_s: float | None = column(
        default=None,
        unit="s",
        better="lower",
        meaning="time of the forward pass in steps with hooks, median over samples; in the rows of an engine torch's "
        "time for these layers, sum of the medians over runs with hooks",
        source="profile.forward_seconds, infer.node_time",
    )
    backward_s: float | None = column(
        default=None,
        unit="s",
        better="lower",
        meaning="time of the backward pass in steps with hooks, median over samples",
        source="profile.backward_seconds",
    )
    forward_q25_s: float | None = _quartile("forward", "lower")
    forward_q75_s: float | None = _quartile("forward", "upper")
    backward_q25_s: float | None = _quartile("backward", "lower")
    backward_q75_s: float | None = _quartile("backward", "upper")
    forward_macs: int | None = _macs("forward")
    forward_flops: int | None = _flops("forward")
    forward_moved_bytes: int | None = _moved_bytes("forward")
    forward_uncounted: str | None = _uncounted("forward")
    forward_flops_per_byte: float | None = _flops_per_byte("forward")
    forward_flops_per_s: float | None = _flops_per_s("forward")
    forward_bytes_per_s: float | None = _bytes_per_s("forward")
    forward_share: float | None = _share("forward")
    forward_bound: str | None = _bound("forward")
    forward_missing_probe: str | None = _missing_probe("forward")
    backward_macs: int | None = _macs("backward")
    backward_flops: int | None = _flops("backward")
    backward_moved_bytes: int | None = _moved_bytes("backward")
    backward_uncounted: str | None = _uncounted("backward")
    backward_flops_per_byte: float | None = _flops_per_byte("backward")
    backward_flops_per_s: float | None = _flops_per_s("backward")
    backward_bytes_per_s: float | None = _bytes_per_s("backward")
    backward_share: float | None = _share("backward")
    backward_bound: str | None = _bound("backward")
    backward_missing_probe: str | None = _missing_probe("backward")
    parameter_bytes: int | None = _held("parameter")
    gradient_bytes: int | None = _held("gradient")
    optimizer_state_bytes: int | None = _held("optimizer_state")
    output_bytes: int | None = _held("output")
    saved_bytes: int | None = _held("saved")
    peak_above_start_bytes: int | None = column(
        default=None,
        unit="bytes",
        better="lower",
        meaning="peak of torch's allocations in one step with hooks above its start, in the row of the layer that "
        "reached it",
        source="profile.peak_above_start_bytes",
    )
    peak_at: str | None = column(default=None, meaning="layer and direction that reached it", source="(remark at)")
    engine: str | None = column(
        default=None, meaning="engine beside torch, in rows that compare the two layer by layer", source="task.variant"
    )
    operators: str | None = column(
        default=None, meaning="operators of the engine's kernels for these layers", source="(tag operator)"
    )
    engine_s: float | None = column(
        default=None,
        unit="s",
        better="lower",
        meaning="time of these kernels under ONNX Runtime's profiler, sum of the medians over runs; it counts each in "
        "whole microseconds",
        source="infer.node_time",
    )
    engine_reorder_s: float | None = column(
        default=None,
        unit="s",
        better="lower",
        meaning="part of `engine_s` in kernels that only change the order of values in memory",
        source="infer.node_time",
    )
    engine_speedup: float | None = column(
        default=None,
        unit="1",
        better="higher",
        meaning="torch's `forward_s` over `engine_s`, not paired",
        source="infer.node_time",
    )
    engine_share: float | None = column(
        default=None,
        unit="fraction",
        meaning="`engine_s` over its sum over all rows of the engine",
        source="infer.node_time",
    )
    mapped_share: float | None = column(
        default=None,
        unit="fraction",
        meaning="share of the kernel time of all runs that is assigned to a module: to a layer, or to a module that "
        "contains layers (`(network)` included) for operations of its own, such as a sum; the same in all rows of an "
        "engine",
        source="infer.mapped_share",
    )
    run: str = fact()

    task: str
    """Key of the task that measured it; in a row of an engine, the engine's task."""
    first_key: str
    """Key of that task in repeat 0."""

    def without_figures(self, **figures: Any) -> LayerRow:
        """Return a row of the same task and place with these values instead of the layer's."""
        absent = dict.fromkeys(c.name for c in LayerRow.columns() if not isinstance(c, ReducedColumn))
        kept = {"mode": self.mode, "batch_size": self.batch_size, "order": self.order}
        return replace(self, **{**absent, **kept, **figures})
