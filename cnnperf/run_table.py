"""From records to what was run: a row a run and machine, and a row a task with how it ended and what disturbed it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from cnnperf._repeats import Repeats, one_line
from cnnperf.record import Libraries, Machine, Platform, Processor, Record
from cnnperf.table import Column, Row, Table, Value

ENDS = ("ok", "failed", "timeout", "skipped")

SOFTWARE = ("torch", "onnxruntime", "cnnperf")

_PROCESSOR = (
    *(Column(name) for name in ("microcode", "hypervisor")),
    Column("numa_nodes", unit="count"),
    Column("physical_cores", unit="count"),
    Column("smt"),
    Column("nominal_hz", unit="Hz"),
)
_CACHES = {"L1d": "l1d_bytes", "L1i": "l1i_bytes", "L2": "l2_bytes", "L3": "l3_bytes"}
_PLATFORM = (
    *(Column(name) for name in ("kernel", "libc", "transparent_hugepages")),
    Column("page_bytes", unit="bytes"),
)
_MACHINE = (
    *(Column(name) for name in ("host", "os", "cpu", "cpu_model", "instruction_sets")),
    Column("cores", unit="count"),
    Column("memory_bytes", "memory", unit="bytes"),
    *_PROCESSOR,
    *(Column(name, unit="bytes") for name in _CACHES.values()),
    *_PLATFORM,
    *(Column(name) for name in ("governor", "gpu", "driver", "python", *SOFTWARE, "commit")),
)
"""Facts of the machine; a run has a row for each combination."""
_GPU = (
    *(Column(f"gpu_{name}") for name in ("uuid", "mig", "capability")),
    *(Column(f"gpu_{name}", unit="bytes") for name in ("memory_bytes", "usable_bytes")),
    Column("gpu_multiprocessors", unit="count"),
)
_LIBRARIES = ("openmp", "allocators", "onednn", "mkl", "openmp_version", "cpu_capability", "cuda", "cudnn")
_TOLD = (
    Column("frequency_hz", unit="Hz"),
    *_GPU,
    *(Column(name) for name in (*_LIBRARIES, "environment")),
)
"""What the processes of a run's tasks saw, each for itself: values that differ stand side by side."""

RUNS = (
    Column("run", shown=0),
    Column("suite", shown=0),
    Column("started", shown=0),
    Column("ended", shown=0),
    Column("task_s", "in tasks", unit="s", shown=0),
    Column("tasks", unit="count", shown=0),
    *(Column(end, unit="count", shown=0) for end in ENDS),
    *_MACHINE,
    *_TOLD,
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
    machine = record.machine
    processor, platform = machine.processor or Processor(), machine.platform or Platform()
    facts: dict[str, Any] = {name: machine.packages.get(name) for name in SOFTWARE}
    facts |= {column.name: getattr(processor, column.name) for column in _PROCESSOR}
    facts |= {name: processor.cache_bytes.get(cache) for cache, name in _CACHES.items()}
    facts |= {column.name: getattr(platform, column.name) for column in _PLATFORM}
    facts["smt"] = None if processor.smt is None else "on" if processor.smt else "off"
    return {c.name: facts[c.name] if c.name in facts else getattr(machine, c.name) for c in _MACHINE}


def _told(machine: Machine) -> dict[str, Any]:
    libraries = machine.libraries or Libraries()
    environment = (machine.environment or {}).items()
    return {
        "frequency_hz": machine.processor and machine.processor.frequency_hz,
        **{c.name: getattr(machine.accelerator, c.name.removeprefix("gpu_"), None) for c in _GPU},
        **{name: getattr(libraries, name) for name in _LIBRARIES},
        "environment": " ".join(f"{name}={value}" for name, value in environment),
    }


def _together(column: Column, values: Iterable[Any]) -> Value:
    """Return the one value of several processes; of text all that differ, of numbers the first."""
    words = (" + ".join(value) if isinstance(value, tuple) else value for value in values)
    found = list(dict.fromkeys(word for word in words if word not in (None, "")))
    if column.unit is None:
        return "; ".join(found) or None
    return found[0] if found else None


def _run(run: str, records: Sequence[Record]) -> Row:
    statuses: list[str] = [r.status for r in records]
    told = [_told(r.machine) for r in records]
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
        **{column.name: _together(column, (each[column.name] for each in told)) for column in _TOLD},
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
