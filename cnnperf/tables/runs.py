"""From records to the tables of runs and tasks: where each ran, how it ended and what disturbed it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from cnnperf.record import Libraries, Machine, Platform, Processor, Record
from cnnperf.tables.facts import facts
from cnnperf.tables.repeats import Repeats
from cnnperf.tables.table import Column, Row, Table, Value
from cnnperf.units import one_line

ENDS = ("ok", "failed", "timeout", "skipped")

SOFTWARE = ("torch", "onnxruntime", "cnnperf")

_PROCESSOR = (
    Column("microcode", meaning="version of the processor's microcode", source="machine.processor.microcode"),
    Column("hypervisor", meaning="vendor of the hypervisor", source="machine.processor.hypervisor"),
    Column("numa_nodes", unit="count", meaning="NUMA nodes", source="machine.processor.numa_nodes"),
    Column(
        "physical_cores",
        unit="count",
        meaning="cores of the machine; two threads of one core count once",
        source="machine.processor.physical_cores",
    ),
    Column("smt", meaning="whether two threads share a core: `on`, `off`", source="machine.processor.smt"),
    Column(
        "nominal_hz",
        unit="Hz",
        meaning="frequency that the maker names, without boost",
        source="machine.processor.nominal_hz",
    ),
)
_CACHES = {"L1d": "l1d_bytes", "L1i": "l1i_bytes", "L2": "l2_bytes", "L3": "l3_bytes"}
_PLATFORM = (
    Column("kernel", meaning="version of the kernel", source="machine.platform.kernel"),
    Column("libc", meaning="name and version of the C library", source="machine.platform.libc"),
    Column(
        "transparent_hugepages",
        meaning="`always`, `madvise`, `never`",
        source="machine.platform.transparent_hugepages",
    ),
    Column("page_bytes", unit="bytes", meaning="size of a page of memory", source="machine.platform.page_bytes"),
)
_MACHINE = (
    *facts("host"),
    Column("os", meaning="operating system", source="machine.os"),
    *facts("cpu", "cpu_model", "instruction_sets"),
    Column(
        "cores",
        unit="count",
        meaning="cores that a process of the run may use: affinity and cgroup quota count",
        source="machine.cores",
    ),
    Column("memory_bytes", "memory", unit="bytes", meaning="memory of the machine", source="machine.memory_bytes"),
    *_PROCESSOR,
    *(
        Column(
            name,
            unit="bytes",
            meaning=f"size of one {cache} cache of the first core",
            source="machine.processor.cache_bytes",
        )
        for cache, name in _CACHES.items()
    ),
    *_PLATFORM,
    Column("governor", meaning="governor of the processor's frequency", source="machine.governor"),
    Column("gpu", meaning="name of the accelerator", source="machine.gpu"),
    Column("driver", meaning="version of its driver", source="machine.driver"),
    *facts("python", "torch"),
    Column("onnxruntime", meaning="version of ONNX Runtime", source="machine.packages"),
    *facts("cnnperf", "commit"),
)
"""Facts of the machine; a run has a row for each combination."""
_GPU = (
    Column("gpu_uuid", meaning="UUID of the GPU or MIG instance", source="machine.accelerator.uuid"),
    Column("gpu_mig", meaning="MIG profile; empty for a whole GPU", source="machine.accelerator.mig"),
    Column("gpu_capability", meaning="compute capability", source="machine.accelerator.capability"),
    Column(
        "gpu_memory_bytes",
        unit="bytes",
        meaning="memory of the whole GPU, as the driver counts it",
        source="machine.accelerator.memory_bytes",
    ),
    Column(
        "gpu_usable_bytes",
        unit="bytes",
        meaning="memory that torch may use",
        source="machine.accelerator.usable_bytes",
    ),
    Column(
        "gpu_multiprocessors",
        unit="count",
        meaning="multiprocessors",
        source="machine.accelerator.multiprocessors",
    ),
)
_LIBRARIES = {
    "openmp": "files of the OpenMP runtimes in the processes",
    "allocators": "files of the allocators that replace the C library's",
    "onednn": "version of oneDNN",
    "mkl": "version of MKL",
    "openmp_version": "OpenMP specification that torch was built for, by its date",
    "cpu_capability": "widest instructions that torch's own kernels use",
    "cuda": "version of CUDA that torch was built for",
    "cudnn": "version of cuDNN",
}
_TOLD = (
    Column(
        "frequency_hz",
        unit="Hz",
        meaning="frequency of the processor when the machine was described, mean over cores",
        source="machine.processor.frequency_hz",
    ),
    *_GPU,
    *(Column(name, meaning=meaning, source=f"machine.libraries.{name}") for name, meaning in _LIBRARIES.items()),
    Column(
        "environment",
        meaning="environment variables that decide about allocator, threads, kernels and GPU",
        source="machine.environment",
    ),
)
"""What the processes of a run's tasks saw, each for itself: values that differ are joined by `;`."""

RUNS = (
    *facts("run", shown=0),
    Column("suite", shown=0, meaning="name of the suite", source="task.suite"),
    Column("started", shown=0, meaning="start of the first task, UTC, ISO 8601", source="started"),
    Column("ended", shown=0, meaning="end of the last task, UTC, ISO 8601", source="started, duration_s"),
    Column(
        "task_s",
        "in tasks",
        unit="s",
        shown=0,
        meaning="sum over tasks of the wall time from spawn to exit",
        source="duration_s",
    ),
    Column("tasks", unit="count", shown=0, meaning="tasks", source="(records)"),
    *(Column(end, unit="count", shown=0, meaning=f"tasks that ended `{end}`", source="status") for end in ENDS),
    *_MACHINE,
    *_TOLD,
    *facts("threads", "waiting", "allocator"),
)

TASKS = (
    *facts("run"),
    *facts("dataset", "model", "device", shown=0),
    Column("stage", shown=0, meaning="`train`, `profile`, `export`, `infer`", source="task.stage"),
    Column("variant", shown=0, meaning="what else tells the task apart, such as its engine", source="task.variant"),
    *facts("repeat", shown=0),
    *facts("seed"),
    Column("status", shown=0, meaning="`ok`, `failed`, `timeout`, `skipped`", source="status"),
    *facts("reason", shown=0),
    Column("started", meaning="start of the task, UTC, ISO 8601", source="started"),
    Column("duration_s", "took", unit="s", shown=0, meaning="wall time from spawn to exit", source="duration_s"),
    Column(
        "disturbed",
        shown=0,
        meaning="measurements that something on the machine disturbed, and what it was",
        source="(remark disturbed)",
    ),
    *facts("task"),
)


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
            if "disturbed" in m.remarks:
                batch = f" at batch {m.tags['batch_size']}" if "batch_size" in m.tags else ""
                yield f"{m.metric}{batch}: {one_line(str(m.remarks['disturbed']))}"
