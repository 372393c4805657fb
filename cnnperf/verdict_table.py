"""From two runs to the table of verdicts: what `cnnperf check` says of the second, held to the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cnnperf.check import compare
from cnnperf.errors import UsageError
from cnnperf.record import Record
from cnnperf.table import Column, Table

COLUMNS = (
    Column("cell", shown=0),
    Column("metric", shown=0),
    Column("outcome", "verdict", shown=0),
    Column("unit"),
    Column("baseline", unit="1", shown=0),
    Column("candidate", unit="1", shown=0),
    Column("change", unit="1", shown=0, interval=("low", "high")),
    *(Column(name, unit="1") for name in ("low", "high", "p", "p_holm")),
    Column("n", unit="count", shown=0),
    Column("remark", shown=0),
)
"""Baseline and candidate are in the row's unit; change is of a fraction their difference, else their ratio less 1."""


def verdict_table(records: Mapping[str, Sequence[Record]], folders: Mapping[str, Path]) -> Table | None:
    """Hold the second of two runs to the first; None unless there are two that ran something alike."""
    work = [{(r.task.cell.id, r.task.stage) for r in of_run} for of_run in records.values()]
    if len(work) != 2 or not work[0] & work[1]:
        return None
    baseline, candidate = folders
    sides = f"baseline: {baseline}; candidate: {candidate}."
    try:
        comparison = compare([folders[baseline]], [folders[candidate]])
    except UsageError as error:
        return Table("verdicts", COLUMNS, (), notes=(sides, f"Not compared: {error}"))
    rows = tuple({column.name: getattr(v, column.name) for column in COLUMNS} for v in comparison.verdicts)
    return Table("verdicts", COLUMNS, rows, notes=(sides, comparison.summary, *comparison.notes))
