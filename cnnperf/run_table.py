"""From records to what was run: a row a run and machine, and a row a task with how it ended and what disturbed it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from cnnperf._repeats import Repeats, one_line
from cnnperf.record import Machine, Record
from cnnperf.table import Column, Row, Table

ENDS = ("ok", "failed", "timeout", "skipped")

_MACHINE = (
    *(Column(name) for name in ("host", "os", "cpu")),
    Column("cores", unit="count"),
    Column("memory_bytes", "memory", unit="bytes"),
    *(Column(name) for name in ("governor", "gpu", "driver", "python", "torch", "onnxruntime", "cnnperf", "commit")),
)

RUNS = (
    Column("run", shown=0),
    Column("suite", shown=0),
    Column("started", shown=0),
    Column("ended", shown=0),
    Column("task_s", "in tasks", unit="s", shown=0),
    Column("tasks", unit="count", shown=0),
    *(Column(end, unit="count", shown=0) for end in ENDS),
    *_MACHINE,
    Column("threads", unit="count"),
    Column("waiting"),
    Column("allocator"),
)
"""task_s is the sum over tasks, from spawn to exit of each."""

TASKS = (
    Column("run"),
    *(Column(name, shown=0) for name in ("dataset", "model", "device", "stage", "variant")),
    Column("repeat", unit="count", shown=0),
    Column("seed", unit="count"),
    Column("status", shown=0),
    Column("reason", shown=0),
    Column("started"),
    Column("duration_s", "took", unit="s", shown=0),
    Column("disturbed", shown=0),
    Column("task"),
)
"""`disturbed`: what each disturbed figure says of its samples; `task` is the record's key."""


def run_table(records: Mapping[str, Sequence[Record]]) -> Table:
    """Lay out each run, once for every machine and software that it ran on."""
    alike: dict[tuple[Any, ...], list[Record]] = {}
    for run, of_run in records.items():
        for r in of_run:
            alike.setdefault((run, *_facts(r).values()), []).append(r)
    return Table("runs", RUNS, tuple(_run(key[0], of) for key, of in alike.items()))


def task_table(records: Mapping[str, Sequence[Record]]) -> Table:
    """Lay out every task."""
    return Table("tasks", TASKS, tuple(_task(run, r) for run, of_run in records.items() for r in of_run))


def of_task(run: str, record: Record) -> dict[str, Any]:
    """Return what a row says of its task."""
    cell = record.task.cell
    names = {"dataset": str(cell.dataset), "model": str(cell.model), "device": str(cell.device)}
    data = {"data": record.task.data.name if record.task.data else None}
    return {"run": run, **names, **data, "repeat": record.task.repeat, "task": record.key}


def _facts(record: Record) -> dict[str, Any]:
    machine: Machine = record.machine
    facts = machine.model_dump(exclude={"packages", "threads"})
    return facts | {name: machine.packages.get(name) for name in ("torch", "onnxruntime", "cnnperf")}


def _run(run: str, records: Sequence[Record]) -> Row:
    statuses: list[str] = [r.status for r in records]
    row = {
        "run": run,
        "suite": ", ".join(dict.fromkeys(r.task.suite for r in records if r.task.suite)) or None,
        "started": min(r.started for r in records),
        "ended": max(_end(r) for r in records),
        "task_s": sum(r.duration_s for r in records),
        "tasks": len(records),
        **{name: getattr(records[0].task, name) for name in ("threads", "waiting", "allocator")},
        **{end: statuses.count(end) for end in ENDS},
        **_facts(records[0]),
    }
    return {column.name: row[column.name] for column in RUNS}


def _end(record: Record) -> str:
    end = datetime.fromisoformat(record.started) + timedelta(seconds=record.duration_s)
    return end.isoformat(timespec="milliseconds")


def _task(run: str, record: Record) -> Row:
    one = Repeats(run, (record,))
    row = of_task(run, record) | {
        "stage": record.task.stage,
        "variant": " ".join(map(str, record.task.variant.values())) or None,
        "seed": record.task.seed,
        "status": one.status,
        "reason": one.reason,
        "started": record.started,
        "duration_s": record.duration_s,
        "disturbed": "; ".join(_disturbances([record])) or None,
    }
    return {column.name: row[column.name] for column in TASKS}


def _disturbances(records: Iterable[Record]) -> Iterator[str]:
    for r in records:
        for m in r.measurements:
            if "disturbed" in m.tags:
                batch = f" at batch {m.tags['batch_size']}" if "batch_size" in m.tags else ""
                yield f"{m.metric}{batch}: {one_line(str(m.tags['disturbed']))}"
