"""Shared by the formats of services that compare figures of separate runs: which figures, and under which names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cnnperf.regression.conditions import setting_word
from cnnperf.regression.judge import JUDGED
from cnnperf.regression.verdict import Comparison, Verdict
from cnnperf.reports._readable import doubt, interval
from cnnperf.tables.table import Column, Report, Row, Table
from cnnperf.units import printable

TELLING = ("mode", "budget", "threads", "waiting", "allocator", "device_label", "host", "torch", "run", "sitting")
"""Columns that tell rows of one name apart, in the order in which they are added to it."""


@dataclass(frozen=True, slots=True)
class RunFigure:
    """A figure that may be compared with one of the same names from another run."""

    subject: str
    """The cell, and what tells it apart: engine, batch size."""
    name: str
    """The column or, of a verdict, the metric."""
    value: float
    unit: str
    better: Literal["lower", "higher"]
    low: float | None
    """Lower end of its interval; None if it has none."""
    high: float | None


def figures(report: Report) -> Iterator[RunFigure]:
    """Yield the figures of a report that separate runs may be compared by, table by table.

    These are the values with a direction in whole numbers, bytes and fractions, as `cnnperf check` judges them, and
    ratios whose interval is known, such as a speed-up over pairs of processes. Times and speeds are none: separate
    processes of the same code easily differ by 20 %.
    """
    for table in report.tables:
        if table.group:
            subjects = _subjects(table)
            for column in _compared(table):
                for subject, row in zip(subjects, table.rows, strict=True):
                    if row[column.name] is not None and _is_comparable(column, row):
                        yield _figure(subject, column, row)


def comparable_verdicts(comparison: Comparison) -> Iterator[Verdict]:
    """Yield the verdicts with a change that separate comparisons may be compared by: all but the indicative ones."""
    return (v for v in comparison.verdicts if v.change is not None and v.outcome != "indicative")


def _compared(table: Table[Any]) -> Iterator[Column]:
    """Yield the columns with a direction, without those that are ends of another's interval."""
    pairs = (pair for column in table.columns for pair in (column.interval, column.spread) if pair)
    ends = {name for pair in pairs for name in pair}
    return (column for column in table.columns if column.better and column.name not in ends)


def _is_comparable(column: Column, row: Row) -> bool:
    if column.unit in JUDGED:
        return True
    is_proven = column.unit == "1" and interval(column, row) is not None
    return is_proven and row.is_sound and doubt(column, row) is None


def _figure(subject: str, column: Column, row: Row) -> RunFigure:
    ends = interval(column, row)
    low, high = (ends.low, ends.high) if ends else (None, None)
    assert column.better, "only columns with a direction are compared"
    assert column.unit, "a column with a direction has a unit"
    return RunFigure(subject, column.name, row[column.name], column.unit, column.better, low, high)


def _subjects(table: Table[Any]) -> list[str]:
    """Name each row of a table; rows of one name are told apart by columns and settings in which they differ."""
    known = {column.name for column in table.columns}
    columns = [name for name in TELLING if name in known]
    names = [_subject(row) for row in table.rows]
    facts = [_facts(row, columns) for row in table.rows]
    return told_apart(names, facts)


def _facts(row: Row, columns: Sequence[str]) -> dict[str, Any]:
    return {**{name: row[name] for name in columns}, **row.settings}


def _subject(row: Row) -> str:
    cell = f"{row['dataset']}/{row['model']}/{row['device']}"
    data = f"data={row['data']}" if row["data_fallback"] else ""
    return " ".join(filter(None, (cell, row.row_label.removeprefix(row["model"]).strip(), data)))


def told_apart(names: Sequence[str], facts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names with the facts that tell equal ones apart, as few as are needed; with a number if none does.

    facts: of each name, in the order of preference.
    """
    told = list(map(printable, names))
    for fact in dict.fromkeys(key for of_name in facts for key in of_name):
        words = [setting_word(of_name.get(fact)) for of_name in facts]
        values: dict[str, set[str]] = {}
        for name, word in zip(told, words, strict=True):
            values.setdefault(name, set()).add(word)
        told = [
            f"{name} {fact}={printable(word)}" if len(values[name]) > 1 else name
            for name, word in zip(told, words, strict=True)
        ]
    seen: Counter[str] = Counter()
    for i, name in enumerate(told):
        seen[name] += 1
        if seen[name] > 1:
            told[i] = f"{name} #{seen[name]}"
    return told
