"""From records to the per-layer profile: a row a cell, batch size and layer, and how close each is to the peak."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from cnnperf.record import Measurement, Record
from cnnperf.roofline import Roofline
from cnnperf.tables import engine_layers
from cnnperf.tables.facts import facts
from cnnperf.tables.table import Column, Row, Table

if TYPE_CHECKING:
    from pandas import DataFrame

STAGE = "profile"
DIRECTIONS = ("forward", "backward")
BYTES = {
    "parameter": "bytes of the layer's parameters",
    "gradient": "bytes of their gradients after a step",
    "optimizer_state": "bytes of the optimizer's state for them",
    "output": "bytes of the layer's outputs",
    "saved": "bytes that autograd keeps for backward: each storage once, without parameters and buffers",
}
"""Of a layer, and what each column says."""
UNATTRIBUTED = "(unattributed)"
APART = ("batch_size", "mode")
"""Tags that tell the profiles of a record apart."""


def _of_direction(name: str) -> tuple[Column, ...]:
    macs, moved, seconds = (f"profile.{name}_{quantity}" for quantity in ("macs", "moved_bytes", "seconds"))
    return (
        Column(
            f"{name}_macs",
            unit="count",
            better="lower",
            meaning=f"multiply-accumulates of the {name} pass, by torch's formulas; empty without a formula",
            source=macs,
        ),
        Column(f"{name}_flops", unit="count", better="lower", meaning=f"2 × `{name}_macs`", source=macs),
        Column(
            f"{name}_moved_bytes",
            unit="bytes",
            better="lower",
            meaning=f"operands read and results written by the {name} pass, operator by operator",
            source=moved,
        ),
        Column(
            f"{name}_uncounted",
            meaning=f"operators of the {name} pass that have no formula",
            source="(remark uncounted)",
        ),
        Column(
            f"{name}_flops_per_byte",
            unit="1",
            meaning=f"`{name}_flops` over `{name}_moved_bytes`",
            source=f"{macs}, {moved}",
        ),
        Column(
            f"{name}_flops_per_s",
            unit="FLOP/s",
            better="higher",
            meaning=f"`{name}_flops` over `{name}_s`",
            source=f"{macs}, {seconds}",
        ),
        Column(
            f"{name}_bytes_per_s",
            unit="bytes/s",
            better="higher",
            meaning=f"`{name}_moved_bytes` over `{name}_s`",
            source=f"{moved}, {seconds}",
        ),
        Column(
            f"{name}_share",
            unit="fraction",
            better="higher",
            meaning=f"the {name} pass's share of the speed that the machine's measured roofline allows; above 1 a "
            "probe is missing",
            source=f"{macs}, {moved}, {seconds}, profile.probe_flops_per_s, profile.probe_bytes_per_s",
        ),
        Column(
            f"{name}_bound",
            meaning=f"`compute-bound` or `memory-bound`: on which side of the roofline's edge the {name} pass lies",
            source=f"{macs}, {moved}, profile.probe_flops_per_s, profile.probe_bytes_per_s",
        ),
        Column(
            f"{name}_missing_probe",
            meaning=f"probe that would explain a `{name}_share` above 1.05",
            source=f"{macs}, {moved}, {seconds}, profile.probe_flops_per_s, profile.probe_bytes_per_s",
        ),
    )


COLUMNS = (
    *facts("dataset", "data", "model", "device"),
    Column("mode", meaning="`train`, `infer` (of `profile`), or `infer` in the rows of an engine", source="(tag mode)"),
    Column("batch_size", unit="count", meaning="images in a step", source="(tag batch_size)"),
    Column("weights", meaning="`trained`, or `fresh` as built", source="(remark weights)"),
    *facts("repeat"),
    Column("order", unit="count", meaning="place of the layer in the forward pass, from 0", source="(remark order)"),
    Column(
        "layer",
        meaning="name of the module; several joined by `+` in the row of a fused kernel; `(loss)`, `(data)`, "
        "`(optimizer)`, `(unattributed)` for what is no layer's",
        source="(tag layer)",
    ),
    Column("type", meaning="class of the module", source="(remark type)"),
    Column("inputs", meaning="shapes of its inputs", source="(remark inputs)"),
    Column("outputs", meaning="shapes of its outputs", source="(remark outputs)"),
    Column("dtype", meaning="type of its output's values", source="(remark dtype)"),
    Column("calls", unit="count", meaning="calls of the module in a step", source="profile.calls"),
    Column(
        "samples",
        unit="count",
        meaning="values behind each median of seconds, of forward and backward the fewer: with hooks for a layer, "
        "`(loss)` and `(unattributed)`, without for `(data)` and `(optimizer)`; a value is of one step on the CPU, "
        "elsewhere the mean of several; steps that did not call the layer have none; empty in the rows of an engine",
        source="profile.forward_seconds, profile.backward_seconds, profile.seconds",
    ),
    Column(
        "seconds",
        unit="s",
        better="lower",
        meaning="`forward_s` + `backward_s`, or the whole of a row that has neither",
        source="profile.forward_seconds, profile.backward_seconds, profile.seconds",
    ),
    Column(
        "forward_s",
        unit="s",
        better="lower",
        meaning="time of the forward pass, median over samples",
        source="profile.forward_seconds, infer.node_time",
    ),
    Column(
        "backward_s",
        unit="s",
        better="lower",
        meaning="time of the backward pass, median over samples",
        source="profile.backward_seconds",
    ),
    *(column for direction in DIRECTIONS for column in _of_direction(direction)),
    *(
        Column(f"{kind}_bytes", unit="bytes", better="lower", meaning=meaning, source=f"profile.{kind}_bytes")
        for kind, meaning in BYTES.items()
    ),
    Column(
        "peak_above_start_bytes",
        unit="bytes",
        better="lower",
        meaning="peak of torch's allocations in a step above its start, in the row of the layer that reached it",
        source="profile.peak_above_start_bytes",
    ),
    Column("peak_at", meaning="layer and direction that reached it", source="(remark at)"),
    *engine_layers.COLUMNS,
    *facts("run"),
)

UNITS = {column.name: column.unit for column in COLUMNS}
"""Of each column; None for text."""


@dataclass(frozen=True, slots=True)
class LayerProfile:
    """The profile of one cell at one batch size in one repeat."""

    run: str
    record: Record
    tags: Mapping[str, Any]
    roofline: Roofline
    rows: tuple[Row, ...]
    """As COLUMNS has them: called layers in order, modules never called, then what belongs to no layer."""

    def one(self, metric: str) -> float | None:
        """Return the median of a measurement of the whole step."""
        found = self.record.find(f"{STAGE}.{metric}", **self.tags)
        return median(found[0].values) if found else None

    def remark(self, metric: str, name: str) -> Any:
        """Return a remark about a measurement of the whole step."""
        return next((m.remarks.get(name) for m in self.record.find(f"{STAGE}.{metric}", **self.tags)), None)

    def total(self, column: str) -> Any:
        """Return the sum of a column; None if no row has a value."""
        return summed(self.rows, column)

    @property
    def overhead(self) -> float | None:
        """Return by which share the hooks made a step longer."""
        metrics = ("step_seconds", "instrumented_step_seconds")
        found = [m.values for metric in metrics for m in self.record.find(f"{STAGE}.{metric}", **self.tags)[:1]]
        # Of neighbours, for a busy machine moves both alike.
        return median(hooked / plain for plain, hooked in zip(*found, strict=False)) - 1 if len(found) == 2 else None

    @property
    def mfu(self) -> float | None:
        """Return the network's counted FLOPs over what the machine's measured peak does in a step without hooks."""
        flops = [self.total(f"{direction}_flops") for direction in DIRECTIONS]
        step_s, peak = self.one("step_seconds"), self.roofline.flops_per_s
        return sum(filter(None, flops)) / (step_s * peak) if any(flops) and step_s and peak else None


def summed(rows: Iterable[Row], column: str) -> Any:
    """Return the sum of a column over rows; None if none of them has a value."""
    values = [row[column] for row in rows if row[column] is not None]
    return sum(values) if values else None


def steps_of(row: Row) -> str:
    """Say what was profiled: `training steps of 32 images`."""
    what = "training steps" if row["mode"] == "train" else "forward passes"
    return f"{what} of {row['batch_size']} images"


def layers(runs: str | Path | Iterable[str | Path]) -> DataFrame:
    """Return the per-layer profiles of run folders, one row a run, cell, batch size, layer and engine, raw SI.

    Raises StoreError for a folder without records.
    """
    from cnnperf.record import read_runs

    return layer_table(read_runs(runs)).frame()


def layer_table(records: Mapping[str, Sequence[Record]]) -> Table:
    """Lay out every layer of every profile, then those of every engine beside torch's."""
    empty = dict.fromkeys(column.name for column in COLUMNS)
    joined = ({**empty, **row} for row in engine_layers.rows(records))
    return Table("layers", COLUMNS, (*(row for profile in profiles(records) for row in profile.rows), *joined))


def profiles(records: Mapping[str, Sequence[Record]]) -> Iterator[LayerProfile]:
    """Yield what the profile stage measured, in the order of the records."""
    for run, of_run in records.items():
        for record in of_run:
            if record.task.stage == STAGE:
                for measured in record.find(f"{STAGE}.step_seconds"):
                    yield _profile(run, record, {name: measured.tags[name] for name in APART if name in measured.tags})


def _profile(run: str, record: Record, tags: Mapping[str, Any]) -> LayerProfile:
    roofline = Roofline.of(record)
    of_layer: dict[str, list[Measurement]] = {}
    for m in record.measurements:
        if "layer" in m.tags and tags.items() <= m.tags.items():
            of_layer.setdefault(str(m.tags["layer"]), []).append(m)
    peaks = record.find(f"{STAGE}.peak_above_start_bytes", **tags)
    rows = [_row(run, record, layer, of, roofline, peaks) for layer, of in of_layer.items()]
    rows.sort(key=lambda row: (row["order"] is None, row["order"] or 0, row["layer"].startswith(UNATTRIBUTED)))
    return LayerProfile(run, record, tags, roofline, tuple(rows))


def _row(
    run: str,
    record: Record,
    layer: str,
    measured: Sequence[Measurement],
    roofline: Roofline,
    peaks: Sequence[Measurement],
) -> Row:
    cell, data = record.task.cell, record.task.data
    row: dict[str, Any] = dict.fromkeys(column.name for column in COLUMNS)
    row |= {"dataset": str(cell.dataset), "data": data.name if data else None, "model": str(cell.model)}
    row |= {"device": str(cell.device), "repeat": record.task.repeat, "run": run}
    row["weights"] = next((m.remarks.get("weights") for m in record.find(f"{STAGE}.parameters")), None)
    for m in measured:
        name = m.metric.removeprefix(f"{STAGE}.").replace("_seconds", "_s")
        known = {**m.tags, **m.remarks}
        if "uncounted" in known:
            known[f"{name.split('_')[0]}_uncounted"] = known.pop("uncounted")
        row |= {key: value for key, value in known.items() if key in row and value != ""}
        row[name] = int(median(m.values)) if m.unit in ("count", "bytes") else median(m.values)
        if m.unit == "s":
            row["samples"] = min(len(m.values), row["samples"] or len(m.values))
    times = [row[f"{direction}_s"] for direction in DIRECTIONS if row[f"{direction}_s"] is not None]
    row["seconds"] = sum(times) if times else row["seconds"]
    for direction in DIRECTIONS:
        macs = row[f"{direction}_macs"]
        row[f"{direction}_flops"] = None if macs is None else 2 * macs
        if row["order"] is None:
            continue  # No layer: part of its work is elsewhere.
        placed = roofline.place(row[f"{direction}_flops"], row[f"{direction}_moved_bytes"], row[f"{direction}_s"])
        row |= {f"{direction}_{name}": value for name, value in placed.items()}
    for peak in peaks:
        if peak.remarks["at"] in (layer, f"{layer} backward"):
            row |= {"peak_above_start_bytes": int(peak.values[0]), "peak_at": peak.remarks["at"]}
    return row
