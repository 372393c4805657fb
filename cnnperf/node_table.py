"""From records to what an engine's kernels take: a row for the layers of a kernel, beside what torch takes for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median

from cnnperf.layer_table import LayerProfile, profiles
from cnnperf.record import Measurement, Record
from cnnperf.run_table import of_task
from cnnperf.table import Column, Row, Table

COLUMNS = (
    *(Column(name) for name in ("run", "dataset", "model", "device")),
    Column("repeat", unit="count"),
    Column("engine"),
    Column("batch_size", unit="count"),
    Column("order", unit="count"),
    Column("layers"),
    Column("operators"),
    Column("seconds", unit="s", better="lower"),
    Column("torch_seconds", unit="s", better="lower"),
    Column("task"),
)
"""seconds is the sum of the operators' medians under the engine's profiler, torch_seconds that of the layers'.

The latter comes from a forward profile (`mode = "infer"`) at the same batch size, and is absent without one.
"""


def node_table(records: Mapping[str, Sequence[Record]]) -> Table:
    """Lay out what engines were timed by: a row for all kernels that do the work of the same layers."""
    forward = {
        (profile.run, profile.record.task.cell.id, profile.tags["batch_size"]): profile
        for profile in profiles(records)
        if profile.tags["mode"] == "infer"
    }
    rows = [row for run, of_run in records.items() for r in of_run for row in _rows(run, r, forward)]
    return Table("nodes", COLUMNS, tuple(rows))


def _rows(run: str, record: Record, forward: Mapping[tuple[str, str, int], LayerProfile]) -> Iterator[Row]:
    nodes: dict[tuple[int, str], list[Measurement]] = {}
    for m in record.find("infer.node_time"):
        nodes.setdefault((int(m.tags["batch_size"]), str(m.tags["layer"])), []).append(m)
    for order, ((batch_size, layers), measured) in enumerate(nodes.items()):
        row = of_task(run, record) | {
            "engine": measured[0].tags["engine"],
            "batch_size": batch_size,
            "order": order,
            "layers": layers,
            "operators": ", ".join(dict.fromkeys(str(m.tags["operator"]) for m in measured)),
            "seconds": sum(median(m.values) for m in measured),
            "torch_seconds": _torch_s(forward.get((run, record.task.cell.id, batch_size)), layers),
        }
        yield {column.name: row[column.name] for column in COLUMNS}


def _torch_s(profile: LayerProfile | None, layers: str) -> float | None:
    """Return what torch took for these layers together; None unless it timed each of them."""
    times = {row["layer"]: row["forward_s"] for row in profile.rows} if profile else {}
    found = [times.get(layer) for layer in layers.split("+")]
    return sum(filter(None, found)) if all(each is not None for each in found) else None
