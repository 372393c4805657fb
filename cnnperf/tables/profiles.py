"""From records to the table of profiled networks: a row a run, cell and batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cnnperf.record import Record
from cnnperf.tables.facts import facts
from cnnperf.tables.layers import STAGE, LayerProfile, profiles, steps_of
from cnnperf.tables.repeats import Repeats
from cnnperf.tables.table import Column, Row, Table

GROUP = (
    *("dataset", "data", "data_sha256", "device", "budget"),
    *("host", "cpu", "cpu_model", "instruction_sets", "device_label", "threads", "waiting", "allocator"),
)
"""What two rows must have in common to be compared."""

COLUMNS = (
    *facts("dataset", "data", "data_fallback", "data_sha256"),
    *facts("model", shown=0),
    *facts("device"),
    *facts("status", shown=2),
    *facts("reason", "repeat"),
    Column("repeats", unit="count", meaning="1 where it ended well: a row is one repeat", source="status"),
    Column("budget", meaning="what was profiled: `training steps of 32 images`", source="(tag mode), (tag batch_size)"),
    Column("mode", meaning="`train`: training steps; `infer`: forward passes", source="(tag mode)"),
    Column("batch_size", unit="count", meaning="images in a step", source="(tag batch_size)"),
    Column("weights", shown=4, meaning="`trained`, or `fresh` as built", source="(remark weights)"),
    Column(
        "parameters",
        "params",
        unit="count",
        better="lower",
        shown=4,
        meaning="parameters of the network",
        source="profile.parameters",
    ),
    Column(
        "macs",
        "forward MACs",
        unit="count",
        better="lower",
        shown=1,
        meaning="multiply-accumulates of a forward pass, by torch's formulas",
        source="profile.forward_macs",
    ),
    Column(
        "step_s",
        "step",
        unit="s",
        better="lower",
        shown=0,
        meaning="time of a step without hooks, median",
        source="profile.step_seconds",
    ),
    Column(
        "forward_s",
        "forward",
        unit="s",
        better="lower",
        shown=2,
        meaning="sum of `forward_s` over the rows of layers.csv",
        source="profile.forward_seconds",
    ),
    Column(
        "backward_s",
        "backward",
        unit="s",
        better="lower",
        shown=2,
        meaning="sum of `backward_s` over the rows of layers.csv",
        source="profile.backward_seconds",
    ),
    Column(
        "optimizer_s",
        "optimizer",
        unit="s",
        better="lower",
        shown=5,
        meaning="time of the optimizer in a step, median",
        source="profile.seconds",
    ),
    Column(
        "saved_bytes",
        "saved",
        unit="bytes",
        better="lower",
        shown=3,
        meaning="bytes that autograd keeps for backward, sum over the rows of layers.csv",
        source="profile.saved_bytes",
    ),
    Column(
        "peak_above_start_bytes",
        "peak above start",
        unit="bytes",
        better="lower",
        shown=2,
        meaning="peak of torch's allocations in a step above its start",
        source="profile.peak_above_start_bytes",
    ),
    Column(
        "process_peak_above_start_bytes",
        unit="bytes",
        better="lower",
        meaning="peak of the process in a step above its start, freed memory being returned; what libraries below "
        "torch allocate is in it; empty on CUDA",
        source="profile.process_peak_above_start_bytes",
    ),
    Column("peak_at", "peak at", shown=3, meaning="layer and direction that reached the peak", source="(remark at)"),
    Column(
        "mfu",
        "MFU",
        unit="fraction",
        better="higher",
        shown=1,
        meaning="counted FLOPs, forward and backward, over what `peak_flops_per_s` would do in `step_s`",
        source="profile.forward_macs, profile.backward_macs, profile.step_seconds, profile.probe_flops_per_s",
    ),
    Column(
        "overhead",
        "overhead of hooks",
        unit="fraction",
        shown=6,
        meaning="share by which hooks make a step longer, median over neighbouring steps",
        source="profile.step_seconds, profile.instrumented_step_seconds",
    ),
    Column(
        "peak_flops_per_s",
        unit="FLOP/s",
        meaning="highest speed of a product or convolution on this machine, measured in the same process",
        source="profile.probe_flops_per_s",
    ),
    Column("peak_probe", meaning="product or convolution that reached it", source="(tag probe)"),
    Column(
        "peak_bytes_per_s",
        unit="bytes/s",
        meaning="speed of a large copy in memory, measured in the same process",
        source="profile.probe_bytes_per_s",
    ),
    *facts("threads", "waiting", "allocator", "host", "cpu", "cpu_model", "instruction_sets", "device_label"),
    *facts("torch", "cnnperf", "commit", "run"),
)

NOTES = (
    "step: median over steps without hooks; forward and backward: sums of the layers' medians.",
    "peak above start: of what the step allocates through torch, and the process may rise by much more (profiles.csv); "
    "saved: what autograd keeps for backward.",
    "MFU: counted FLOPs (2 × MACs, forward and backward) ÷ what the machine's best probe would do in a step.",
)
"""What the table's numbers mean."""


def profile_table(records: Mapping[str, Sequence[Record]]) -> Table:
    """Lay out every profile, and every one that did not end well."""
    rows = [_of_profile(profile) for profile in profiles(records)]
    for run, of_run in records.items():
        rows += [_of_record(run, r) for r in of_run if r.task.stage == STAGE and r.status != "ok"]
    return Table("profiles", COLUMNS, tuple(rows), GROUP)


def _of_profile(profile: LayerProfile) -> Row:
    row = _of_record(profile.run, profile.record)
    row |= {"budget": steps_of(profile.tags), **profile.tags}
    parameters = profile.one("parameters")
    row |= {"parameters": None if parameters is None else int(parameters)}
    row |= {
        "weights": profile.remark("parameters", "weights"),
        "peak_at": profile.remark("peak_above_start_bytes", "at"),
    }
    for name in ("peak_above_start_bytes", "process_peak_above_start_bytes"):
        value = profile.one(name)
        row[name] = None if value is None else int(value)
    row |= {name: profile.total(name) for name in ("forward_s", "backward_s", "saved_bytes")}
    row["optimizer_s"] = next((r["seconds"] for r in profile.rows if r["layer"] == "(optimizer)"), None)
    row |= {"macs": profile.total("forward_macs"), "step_s": profile.one("step_seconds")}
    row |= {"mfu": profile.mfu, "overhead": profile.overhead}
    roofline = profile.roofline
    row |= {"peak_flops_per_s": roofline.flops_per_s, "peak_probe": roofline.probe}
    row["peak_bytes_per_s"] = roofline.bytes_per_s
    return row


def _of_record(run: str, record: Record) -> dict[str, Any]:
    one = Repeats(run, (record,))
    cell, data, machine = record.task.cell, one.data, one.machine
    row: dict[str, Any] = dict.fromkeys(column.name for column in COLUMNS)
    row |= {"dataset": str(cell.dataset), "model": str(cell.model), "device": str(cell.device), "run": run}
    if data:
        row |= {"data": data.name, "data_fallback": data.fallback, "data_sha256": data.sha256}
    row |= {"status": one.status, "reason": one.reason, "repeat": record.task.repeat, "repeats": len(one.ok) or None}
    row |= {name: getattr(record.task, name) for name in ("threads", "waiting", "allocator")}
    row |= {name: getattr(machine, name) for name in ("host", "cpu", "cpu_model", "instruction_sets")}
    row |= {name: machine.packages.get(name) for name in ("torch", "cnnperf")}
    return row | {"device_label": one.device_label, "commit": machine.commit}
