"""From records to the tables of runs and tasks: where each ran, how it ended and what disturbed it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, cast

from cnnperf.record import Machine, Record
from cnnperf.tables.facts import ReducedColumn, fact, reduced, row_of
from cnnperf.tables.repeats import Repeats
from cnnperf.tables.table import Column, Row, Table, Value, column, declared_column, row_type
from cnnperf.units import in_runs, one_line

ENDS = ("ok", "failed", "timeout", "skipped", "disturbed")


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldColumn(Column):
    """A column of facts that each process of a run observed for itself: texts that differ are joined by `;`."""

    value: Callable[[Machine], Any]


def _at(path: str, machine: Machine) -> Any:
    """Return the value at a path of fields; None if any of them is None."""
    found: Any = machine
    for name in path.split("."):
        found = None if found is None else getattr(found, name)
    return found


def _machine(path: str, title: str = "", **described: Any) -> Any:
    """Declare a column of a fact of the machine, at a path of its fields."""
    return reduced(lambda r: cast("Value", _at(path, r.machine)), title, source=f"machine.{path}", **described)


def _cache(name: str) -> Any:
    def size(repeats: Repeats) -> Value:
        processor = repeats.machine.processor
        return processor.cache_bytes.get(name) if processor else None

    meaning = f"size of one {name} cache of the first core"
    return reduced(size, unit="bytes", meaning=meaning, source="machine.processor.cache_bytes")


def _told(path: str, value: Callable[[Machine], Any] | None = None, **described: Any) -> Any:
    """Declare a column of facts that processes observed, at a path of the machine's fields or computed by `value`."""
    make = partial(ToldColumn, value=value or partial(_at, path), source=f"machine.{path}", **described)
    return declared_column(cast("Callable[[str], Column]", make))


def _smt(repeats: Repeats) -> str | None:
    smt = _at("processor.smt", repeats.machine)
    return None if smt is None else "on" if smt else "off"


def _used_uuid(repeats: Repeats) -> str | None:
    """Return the UUID of the GPU that a task used; on the CPU the machine's GPU was not used."""
    return (
        None if repeats.task.cell.device.name == "cpu" else cast("str | None", _at("accelerator.uuid", repeats.machine))
    )


def _environment(machine: Machine) -> str:
    return " ".join(f"{name}={value}" for name, value in (machine.environment or {}).items())


def _tasks_that_ended(end: str) -> Any:
    return column(unit="count", shown=0, meaning=f"tasks that ended `{end}`", source="status")


@row_type
class RunRow(Row):
    """A run on one machine with one set of software: a run has a row for each combination."""

    run: str = fact(shown=0)
    suite: str | None = column(shown=0, meaning="name of the suite, or names of several", source="task.suite")
    started: str = column(shown=0, meaning="start of the first task, UTC, ISO 8601", source="started")
    ended: str = column(shown=0, meaning="end of the task that ended last, UTC, ISO 8601", source="started, duration_s")
    task_s: float = column(
        "in tasks",
        unit="s",
        shown=0,
        meaning="sum of `duration_s` over the tasks",
        source="duration_s",
    )
    tasks: int = column(
        unit="count",
        shown=0,
        meaning="tasks with a record; one that ran again counts once, as it ended last",
        source="(records)",
    )
    ok: int = _tasks_that_ended("ok")
    failed: int = _tasks_that_ended("failed")
    timeout: int = _tasks_that_ended("timeout")
    skipped: int = _tasks_that_ended("skipped")
    disturbed: int = _tasks_that_ended("disturbed")
    host: str = fact()
    os: str = _machine("os", meaning="operating system, with the kernel's version and the architecture")
    cpu: str = fact()
    cpu_model: str | None = fact()
    instruction_sets: str | None = fact()
    cores: int = _machine(
        "cores",
        unit="count",
        meaning="cores that a process of the run may use: those of its affinity, at most the control group's quota, "
        "rounded up",
    )
    memory_bytes: int = _machine(
        "memory_bytes",
        "memory",
        unit="bytes",
        meaning="memory of the machine or, where that is less, the limit of the run's control group",
    )
    microcode: str | None = _machine("processor.microcode", meaning="version of the processor's microcode")
    hypervisor: str | None = _machine("processor.hypervisor", meaning="vendor of the hypervisor")
    numa_nodes: int | None = _machine("processor.numa_nodes", unit="count", meaning="NUMA nodes of the machine")
    physical_cores: int | None = _machine(
        "processor.physical_cores",
        unit="count",
        meaning="cores of the machine; two threads of one core count once",
    )
    smt: str | None = reduced(
        _smt, meaning="whether two threads share a core: `on`, `off`", source="machine.processor.smt"
    )
    nominal_hz: float | None = _machine(
        "processor.nominal_hz", unit="Hz", meaning="frequency that the vendor names, without boost"
    )
    l1d_bytes: int | None = _cache("L1d")
    l1i_bytes: int | None = _cache("L1i")
    l2_bytes: int | None = _cache("L2")
    l3_bytes: int | None = _cache("L3")
    kernel: str | None = _machine("platform.kernel", meaning="version of the kernel")
    libc: str | None = _machine("platform.libc", meaning="name and version of the C library")
    transparent_hugepages: str | None = _machine(
        "platform.transparent_hugepages", meaning="`always`, `madvise`, `never`"
    )
    page_bytes: int | None = _machine("platform.page_bytes", unit="bytes", meaning="size of a page of memory")
    governor: str | None = _machine("governor", meaning="governor of the first core's frequency")
    gpu: str | None = _machine("gpu", meaning="name of the GPU that was used, else of the one with CUDA index 0")
    driver: str | None = _machine("driver", meaning="version of the GPU's driver")
    python: str = fact()
    torch: str | None = fact()
    onnxruntime: str | None = reduced(
        lambda r: r.machine.packages.get("onnxruntime"),
        meaning="version of ONNX Runtime",
        source="machine.packages",
    )
    cnnperf: str | None = fact()
    commit: str | None = fact()
    frequency_hz: float | None = _told(
        "processor.frequency_hz",
        unit="Hz",
        meaning="frequency of the processor before the first task, mean over cores",
    )
    gpu_uuid: str | None = _told("accelerator.uuid", meaning="UUID of that GPU or its MIG instance")
    gpu_mig: str | None = _told("accelerator.mig", meaning="MIG profile; empty for a whole GPU")
    gpu_capability: str | None = _told("accelerator.capability", meaning="compute capability")
    gpu_memory_bytes: int | None = _told(
        "accelerator.memory_bytes", unit="bytes", meaning="memory of the whole GPU, as the driver counts it"
    )
    gpu_usable_bytes: int | None = _told("accelerator.usable_bytes", unit="bytes", meaning="memory that torch may use")
    gpu_multiprocessors: int | None = _told("accelerator.multiprocessors", unit="count", meaning="multiprocessors")
    gpu_power_limit_w: float | None = _told(
        "accelerator.power_limit_w", unit="W", meaning="power to which the driver limits the whole GPU"
    )
    gpu_max_sm_clock_hz: float | None = _told(
        "accelerator.max_sm_clock_hz", unit="Hz", meaning="highest clock of its multiprocessors"
    )
    gpu_max_memory_clock_hz: float | None = _told(
        "accelerator.max_memory_clock_hz", unit="Hz", meaning="highest clock of its memory"
    )
    gpu_sm_clock_hz: float | None = _told(
        "accelerator.sm_clock_hz", unit="Hz", meaning="clock of its multiprocessors that is set for applications"
    )
    gpu_memory_clock_hz: float | None = _told(
        "accelerator.memory_clock_hz", unit="Hz", meaning="clock of its memory that is set for applications"
    )
    openmp: str | None = _told("libraries.openmp", meaning="files of the OpenMP runtimes in a process, joined by `+`")
    allocators: str | None = _told(
        "libraries.allocators",
        meaning="files of the allocators in a process that replace the C library's, joined by `+`",
    )
    onednn: str | None = _told("libraries.onednn", meaning="version of oneDNN")
    mkl: str | None = _told("libraries.mkl", meaning="version of MKL")
    openmp_version: str | None = _told(
        "libraries.openmp_version", meaning="OpenMP specification that torch was built for, by its date"
    )
    cpu_capability: str | None = _told(
        "libraries.cpu_capability", meaning="widest instructions that torch's own kernels use"
    )
    cuda: str | None = _told("libraries.cuda", meaning="version of CUDA that torch was built for")
    cudnn: str | None = _told("libraries.cudnn", meaning="version of cuDNN")
    environment: str | None = _told(
        "environment",
        _environment,
        meaning="environment variables of a process that decide about allocator, threads, kernels and GPU",
    )
    threads: int | None = fact(meaning="threads that compute an operator, as the first task sets them")
    waiting: str | None = fact(meaning="how threads are to wait for work, as the first task sets it")
    allocator: str | None = fact(meaning="what happens to freed memory, as the first task sets it")


@row_type
class TaskRow(Row):
    """A task."""

    run: str = fact()
    dataset: str = fact(shown=0)
    model: str = fact(shown=0)
    device: str = fact(shown=0)
    stage: str = column(
        shown=0,
        meaning="name of the stage: `train`, `profile`, `export`, `infer`, or one of a plug-in",
        source="task.stage",
    )
    variant: str | None = column(
        shown=0, meaning="what else tells the task apart, such as its engine", source="task.variant"
    )
    repeat: int = fact(shown=0)
    seed: int = fact()
    status: str = column(shown=0, meaning="`ok`, `failed`, `timeout`, `skipped`, `disturbed`", source="status")
    reason: str | None = fact(shown=0)
    started: str = column(meaning="start of the task, UTC, ISO 8601", source="started")
    duration_s: float = column(
        "took",
        unit="s",
        shown=0,
        meaning="wall time from the start of its process to the end; 0 if it was skipped without a process",
        source="duration_s",
    )
    disturbed: str | None = column(
        shown=0,
        meaning="measurements that were disturbed, or were not steady after the warm-up, and how; of waits for a core "
        "only those of the main thread are known",
        source="(remark disturbed)",
    )
    task: str = fact()
    gpu_uuid: str | None = reduced(
        _used_uuid, meaning="UUID of the GPU or MIG instance that it used", source="machine.accelerator.uuid"
    )
    bound_cores: str | None = reduced(
        lambda r: in_runs(r.machine.bound_cores or ()) or None,
        meaning="cores to which its process was bound, `0-3,8`, because tasks on other devices ran beside it",
        source="machine.bound_cores",
    )


def run_table(records: Mapping[str, Sequence[Record]]) -> Table[RunRow]:
    """Return a row for each run, machine and software."""
    own = [c for c in RunRow.columns() if isinstance(c, ReducedColumn) and c.source.startswith("machine")]
    alike: dict[tuple[Value, ...], list[Record]] = {}
    for run, of_run in records.items():
        for r in of_run:
            alike.setdefault((run, *(c.value(Repeats(run, (r,))) for c in own)), []).append(r)
    rows = (_run(Repeats(str(run), tuple(members))) for (run, *_), members in alike.items())
    return Table("runs", RunRow.columns(), tuple(rows))


def task_table(records: Mapping[str, Sequence[Record]]) -> Table[TaskRow]:
    """Return a row for each task."""
    rows = (_task(Repeats(run, (r,))) for run, of_run in records.items() for r in of_run)
    return Table("tasks", TaskRow.columns(), tuple(rows))


def _run(repeats: Repeats) -> RunRow:
    records = repeats.records
    statuses: list[str] = [r.status for r in records]
    told = (c for c in RunRow.columns() if isinstance(c, ToldColumn))
    return row_of(
        RunRow,
        repeats,
        suite=", ".join(dict.fromkeys(r.task.suite for r in records if r.task.suite)) or None,
        started=min(r.started for r in records),
        ended=max(_end(r) for r in records),
        task_s=sum(r.duration_s for r in records),
        tasks=len(records),
        **{end: statuses.count(end) for end in ENDS},
        **{c.name: _together(c, (c.value(r.machine) for r in records)) for c in told},
    )


def _together(told: Column, values: Iterable[Any]) -> Value:
    """Return one value for several processes: texts that differ joined, of numbers the first."""
    words = (" + ".join(value) if isinstance(value, tuple) else value for value in values)
    found = list(dict.fromkeys(word for word in words if word not in (None, "")))
    if told.unit is None:
        return "; ".join(found) or None
    return found[0] if found else None


def _end(record: Record) -> str:
    end = datetime.fromisoformat(record.started) + timedelta(seconds=record.duration_s)
    return end.isoformat(timespec="milliseconds")


def _task(repeats: Repeats) -> TaskRow:
    (record,) = repeats.records
    return row_of(
        TaskRow,
        repeats,
        stage=record.task.stage,
        variant=" ".join(map(str, record.task.variant.values())) or None,
        status=repeats.status,
        started=record.started,
        duration_s=record.duration_s,
        disturbed="; ".join(_disturbances([record])) or None,
    )


def _disturbances(records: Iterable[Record]) -> Iterator[str]:
    for r in records:
        for m in r.measurements:
            if "disturbed" in m.remarks:
                batch = f" at batch {m.tags['batch_size']}" if "batch_size" in m.tags else ""
                yield f"{m.metric}{batch}: {one_line(str(m.remarks['disturbed']))}"
