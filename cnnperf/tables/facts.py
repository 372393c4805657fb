"""Columns that several tables have: what was run, on which images, where, with which software, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cnnperf.tables.table import Column

_COLUMNS = (
    Column("run", meaning="run folder, `<suite>/<utc>-<host>`; the whole path where two share that", source="(folder)"),
    Column("task", meaning="key of the task: a hash of all that decides its outcome", source="key"),
    Column("dataset", meaning="dataset that the suite asked for, with its options", source="task.cell.dataset"),
    Column("data", meaning="images that were used: the dataset, or `synthetic` in its place", source="task.data.name"),
    Column("data_fallback", meaning="why synthetic images were used instead", source="task.data.fallback"),
    Column("data_sha256", meaning="checksum of images and labels", source="task.data.sha256"),
    Column("model", meaning="network, with its options", source="task.cell.model"),
    Column("device", meaning="device, with its options", source="task.cell.device"),
    Column(
        "device_label",
        meaning="hardware of the device: the processor's model, or the GPU's name, memory, capability and MIG profile",
        source="machine.processor, machine.accelerator",
    ),
    Column(
        "status",
        meaning="`ok`, `failed`, `timeout`, `skipped`, or `ok 2/3` if some repeats ended well",
        source="status",
    ),
    Column("reason", meaning="why it did not end well", source="error, signal"),
    Column("repeat", unit="count", meaning="number of the repeat, from 0", source="task.repeat"),
    Column("repeats", unit="count", meaning="repeats that ended well, each a process of its own", source="status"),
    Column(
        "seed",
        unit="count",
        meaning="seed of this repeat; in a row of several repeats that of the first",
        source="task.seed",
    ),
    Column(
        "budget", meaning="budget of the training: `60 s`, `1 epoch`, `500 steps or until 90 %`", source="task.settings"
    ),
    Column("batch_size", unit="count", meaning="images in a batch", source="task.settings"),
    Column("threads", unit="count", meaning="threads of the computation", source="task.threads"),
    Column("waiting", meaning="how threads wait for work: `brief`, `spin`, `passive`", source="task.waiting"),
    Column("allocator", meaning="what happens to freed memory: `keep`, `system`", source="task.allocator"),
    Column("host", meaning="name of the machine", source="machine.host"),
    Column("cpu", meaning="processor's name, which different processors may share", source="machine.cpu"),
    Column("cpu_model", meaning="processor's name, family, model and stepping", source="machine.processor"),
    Column(
        "instruction_sets",
        meaning="processor's vector and matrix instructions (x86), or all its features (ARM)",
        source="machine.processor.instruction_sets",
    ),
    Column("torch", meaning="version of torch", source="machine.packages"),
    Column("cnnperf", meaning="version of cnnperf", source="machine.packages"),
    Column(
        "commit",
        meaning="git commit of cnnperf's checkout, `+` behind it if files were changed; empty if installed",
        source="machine.commit",
    ),
    Column("python", meaning="version of Python", source="machine.python"),
)

FACTS: Mapping[str, Column] = {column.name: column for column in _COLUMNS}
"""By name."""


def facts(*names: str, shown: int | None = None) -> tuple[Column, ...]:
    """Return columns of these names; `shown` as in Column."""
    return tuple(replace(FACTS[name], shown=shown) for name in names)
