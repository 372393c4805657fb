"""Columns that are computed from the repeats of a task, and those that several tables share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

from cnnperf.machine.disturbance import TOLERATED
from cnnperf.tables.repeats import Repeats
from cnnperf.tables.table import DISTURBED, DOUBT, Column, R, Row, Value, declared_column
from cnnperf.training.recipe import images_per_step

C = TypeVar("C", bound=Column)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReducedColumn(Column):
    """A column and the function that computes its value from a row's repeats."""

    value: Callable[[Repeats], Value]
    metric: str | None = None
    """The metric whose unit and direction it takes, if that was measured."""


def reduced(value: Callable[[Repeats], Value], title: str = "", **described: Any) -> Any:
    """Declare a column and the function for its value. described: fields of ReducedColumn except the name."""
    return declared_column(
        cast("Callable[[str], Column]", partial(ReducedColumn, title=title, value=value, **described))
    )


def fact(title: str = "", *, shown: int | None = None, **described: Any) -> Any:
    """Declare a column of FACTS, whose name is the field's. described: fields of Column that differ in this table."""
    return declared_column(lambda name: replace(FACTS[name], title=title, shown=shown, **described))


def row_of(kind: type[R], repeats: Repeats, /, **measured: Any) -> R:
    """Make a row of a task's repeats: columns that are not given are computed from them."""
    columns = (c for c in kind.columns() if isinstance(c, ReducedColumn) and c.name not in measured)
    return cast("Callable[..., R]", kind)(**{c.name: c.value(repeats) for c in columns}, **measured)


_FACTS = (
    ReducedColumn(
        "run",
        meaning="run folder, `<suite>/<utc>-<host>`; the whole path where two share that",
        source="(folder)",
        value=lambda r: r.run,
    ),
    ReducedColumn(
        "sitting",
        meaning="invocation of `cnnperf run` that measured it, numbered within the run; one number per repeat if they "
        "differ (`1 1 2`); only where several measured a run: rows of unlike sittings are not compared by speed",
        source="sitting",
        value=lambda r: r.sitting,
    ),
    ReducedColumn(
        "task",
        meaning="key of the task: a hash of all that decides its outcome",
        source="key",
        value=lambda r: r.records[0].key,
    ),
    ReducedColumn(
        "dataset",
        meaning="dataset that the suite asked for, with its options",
        source="task.cell.dataset",
        value=lambda r: str(r.task.cell.dataset),
    ),
    ReducedColumn(
        "data",
        meaning="images that were used: the dataset, or `synthetic` in its place",
        source="task.data.name",
        value=lambda r: r.data.name if r.data else None,
    ),
    ReducedColumn(
        "data_fallback",
        meaning="why synthetic images were used instead",
        source="task.data.fallback",
        value=lambda r: r.data.fallback if r.data else None,
    ),
    ReducedColumn(
        "data_sha256",
        meaning="SHA-256 of the training images, their labels, the test images and their labels, in this order",
        source="task.data.sha256",
        value=lambda r: r.data.sha256 if r.data else None,
    ),
    ReducedColumn(
        "model",
        meaning="network, with its options",
        source="task.cell.model",
        value=lambda r: str(r.task.cell.model),
    ),
    ReducedColumn(
        "device",
        meaning="device, with its options",
        source="task.cell.device",
        value=lambda r: str(r.task.cell.device),
    ),
    ReducedColumn(
        "device_label",
        meaning="hardware of the device: the processor's model, or the GPU's name, memory, capability and MIG profile; "
        "of tasks beside which tasks on other devices ran, also the cores to which they were bound",
        source="machine.processor, machine.accelerator, machine.bound_cores",
        value=lambda r: r.device_label,
    ),
    ReducedColumn(
        "status",
        meaning="`ok`, `failed`, `timeout`, `skipped`, `disturbed`; of repeats that ended differently `ok 2/3` if some "
        "ended well, else `failed`",
        source="status",
        value=lambda r: r.status,
    ),
    ReducedColumn(
        "reason",
        meaning="why it did not end well: the error on one line, or the signal",
        source="error, signal",
        value=lambda r: "; ".join(filter(None, (r.reason, r.unequal_code))) or None,
    ),
    ReducedColumn(
        DISTURBED,
        meaning=f"what disturbed its measurements for more than {100 * TOLERATED:g} % of the time: a thread that "
        "waited for a core, the hypervisor, or a quota; or other processes on its GPU; of several repeats, in how "
        "many; `no` if nothing did; empty where waits were not measured, as in records of earlier versions",
        source="(remark waited_share), (remark stolen_share), (remark throttled_share), (remark foreign_processes)",
        value=lambda r: r.disturbed,
    ),
    ReducedColumn(
        "repeat",
        unit="count",
        meaning="number of the repeat, from 0",
        source="task.repeat",
        value=lambda r: r.task.repeat,
    ),
    ReducedColumn(
        "repeats",
        unit="count",
        meaning="repeats that ended well, each a process of its own",
        source="status",
        value=lambda r: len(r.ok) or None,
    ),
    ReducedColumn(
        "seed",
        unit="count",
        meaning="seed of this repeat; in a row of several repeats that of the first",
        source="task.seed",
        value=lambda r: r.task.seed,
    ),
    ReducedColumn(
        "budget",
        meaning="budget of the training: `60 s`, `1 epoch`, `500 steps or until 90 %`",
        source="task.settings",
        value=lambda r: r.budget,
    ),
    ReducedColumn(
        "batch_size",
        unit="count",
        meaning="images in a training step",
        source="task.settings",
        value=lambda r: images_per_step(r.task.settings),
    ),
    ReducedColumn(
        "threads",
        unit="count",
        meaning="threads that compute an operator, as the task sets them",
        source="task.threads",
        value=lambda r: r.task.threads,
    ),
    ReducedColumn(
        "waiting",
        meaning="how threads are to wait for work, as the task sets it: `brief`, `spin`, `passive`",
        source="task.waiting",
        value=lambda r: r.task.waiting,
    ),
    ReducedColumn(
        "allocator",
        meaning="what happens to freed memory, as the task sets it: `keep`, `system`",
        source="task.allocator",
        value=lambda r: r.task.allocator,
    ),
    ReducedColumn("host", meaning="name of the machine", source="machine.host", value=lambda r: r.machine.host),
    ReducedColumn(
        "cpu",
        meaning="processor's name, which different processors may share",
        source="machine.cpu",
        value=lambda r: r.machine.cpu,
    ),
    ReducedColumn(
        "cpu_model",
        meaning="processor's name, family, model and stepping",
        source="machine.processor",
        value=lambda r: r.machine.cpu_model,
    ),
    ReducedColumn(
        "instruction_sets",
        meaning="processor's vector and matrix instructions (x86), or all its features (ARM)",
        source="machine.processor.instruction_sets",
        value=lambda r: r.machine.instruction_sets,
    ),
    ReducedColumn(
        "torch",
        meaning="version of torch",
        source="machine.packages",
        value=lambda r: r.machine.packages.get("torch"),
    ),
    ReducedColumn(
        "cnnperf",
        meaning="version of cnnperf",
        source="machine.packages",
        value=lambda r: r.machine.packages.get("cnnperf"),
    ),
    ReducedColumn(
        "commit",
        meaning="git commit of cnnperf's checkout, `+` behind it if files were changed; empty if installed",
        source="machine.commit",
        value=lambda r: r.machine.commit,
    ),
    ReducedColumn("python", meaning="version of Python", source="machine.python", value=lambda r: r.machine.python),
)

FACTS: Mapping[str, ReducedColumn] = {column.name: column for column in _FACTS}
"""Columns on what was run, on which images, where, with which software, and how it ended; by name."""

DISTURBED_NOTE = (
    f"{DOUBT} {DISTURBED}: for more than {100 * TOLERATED:g} % of the time that a row's measurements took, a thread "
    "waited for a core, the hypervisor took the processor, or a quota stopped the process. Such a row has no rank and "
    "no mark, and its engine is neither best nor on the front. Repeat it on a quiet machine."
)
"""Meaning of a disturbed row, in the notes of a report that has one."""

SITTINGS = (
    "sitting: the invocation of cnnperf run that measured a row, of each repeat if they differ. Cells take turns "
    "within a sitting. Rows of unlike sittings are not compared by speed; within a rank, rows are still sorted by "
    "speed."
)
"""Meaning of several sittings, in the notes of a report whose rows have them."""


def without_sitting(columns: Iterable[C], rows: Iterable[Row]) -> tuple[C, ...]:
    """Return a table's columns, without the sitting unless a row has one."""
    has_several = any(row["sitting"] for row in rows)
    return tuple(column for column in columns if has_several or column.name != "sitting")


GROUP = (
    *("dataset", "data", "data_sha256", "device", "budget"),
    *("host", "cpu", "cpu_model", "instruction_sets", "device_label", "threads", "waiting", "allocator"),
)
"""Columns that must be equal in two rows of the leaderboard, or of profiles, that are compared."""
