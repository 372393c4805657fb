"""What the formats for people share: scaled numbers, marks on the best, titles and remarks of a group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cnnperf.stats import Interval
from cnnperf.tables.table import DOUBT, Column, Row, Table, Value
from cnnperf.task import DEFAULT_ALLOCATOR, DEFAULT_WAITING
from cnnperf.units import MISSING, scaled


def visible(table: Table[Any]) -> list[Column]:
    """Return the columns that people see: those for them that have a value in any row, and the run where it differs."""
    shown = [c for c in table.columns if c.shown is not None and any(row[c.name] is not None for row in table.rows)]
    # The run first: it tells apart the rows of two runs that are the same else, and which of them are compared.
    return [*(c for c in table.columns if c.name == "run" and c not in shown and _differs(c, table)), *shown]


def _differs(column: Column, table: Table[Any]) -> bool:
    return len({row[column.name] for row in table.rows}) > 1


def title(table: Table[Any]) -> str:
    """Say what the rows of a group have in common."""
    row = table.rows[0]
    threads = f"{row['threads']} thread{'s' if row['threads'] != 1 else ''}" if row["threads"] else None
    waiting = f"waiting {row['waiting']}" if row["waiting"] not in (None, DEFAULT_WAITING) else None
    allocator = f"allocator {row['allocator']}" if row["allocator"] not in (None, DEFAULT_ALLOCATOR) else None
    device = f"{row['device']} ({row['device_label']})" if row["device_label"] else row["device"]
    parts = (row["dataset"], generated(row), device, row["budget"], threads, waiting, allocator, row["host"])
    return " · ".join(filter(None, parts))


def generated(row: Row) -> str | None:
    """Say that a row's images are generated; None if they are not."""
    return f"data={row['data']}" if row["data"] == "synthetic" else None


def alarm(table: Table[Any]) -> str | None:
    """Say that a group's images are not those of its dataset, and why; None if they are."""
    row = table.rows[0]
    if not row["data_fallback"]:
        return None
    return f"data={row['data']}: these are not the images of {row['dataset']} ({row['data_fallback']})"


def remarks(table: Table[Any]) -> list[str]:
    """Say for each row that did not end well why."""
    return [f"{row['model']}: {row['status']}: {row['reason']}" for row in table.rows if row["reason"]]


def head_words(column: Column) -> str:
    """Return how people read a column's name."""
    return column.title or column.name.replace("_", " ")


def head(column: Column, rows: Sequence[Row]) -> str:
    """Return a column's head; over times and speeds it says on how many repeats they stand."""
    words = head_words(column)
    if column.unit not in ("s", "images/s"):
        return words
    repeats = sorted({row["repeats"] for row in rows if row[column.name] is not None})
    return f"{words}\nn={repeats[0]}" if len(repeats) == 1 else f"{words}\nn={repeats[0]}–{repeats[-1]}"


def footnotes(table: Table[Any]) -> list[str]:
    """Say for each value with the mark of doubt what is wrong with it."""
    return [
        f"{DOUBT} {row.row_label}: {head_words(column)}: {row[column.doubts]}"
        for column in visible(table)
        for row in table.rows
        if column.doubts and row[column.doubts]
    ]


def best(column: Column, rows: Sequence[Row]) -> list[bool]:
    """Mark the best row of a column and all whose interval overlaps its own, among the rows that it compares.

    Nothing is marked where the extent of any rival is unknown, or no rival is told apart from the best. An engine that
    failed, or computes something else, is shown and no rival.
    """
    if column.better is None:
        return [False for _ in rows]
    compared: dict[tuple[Value, ...], dict[int, Interval | None]] = {}
    for i, row in enumerate(rows):
        if _is_rival(column, row):
            compared.setdefault(tuple(row[name] for name in column.within), {})[i] = _extent(column, row)
    marked = {i for extents in compared.values() for i in _leaders(column, rows, extents)}
    return [i in marked for i, _ in enumerate(rows)]


def cell(column: Column, row: Row) -> str:
    """Return a row's value as people read it, with the interval that belongs to it and the mark of doubt."""
    value = row[column.name]
    if value is None:
        return MISSING
    words = scaled(value, column.unit)
    ends = interval(column, row)
    if ends and column.unit == "fraction":
        words = f"{words} ±{100 * (ends.high - ends.low) / 2:.1f}"
    elif ends:
        words = f"{words} [{scaled(ends.low, column.unit)}–{scaled(ends.high, column.unit)}]"
    return f"{words} {DOUBT}" if _is_doubtful(column, row) else words


def interval(column: Column, row: Row) -> Interval | None:
    """Return the interval that is printed beside a value; None where there is none, or none of any width."""
    low, high = (row[name] for name in column.interval) if column.interval else (None, None)
    return None if low is None or high is None or low == high else Interval(low, high)


def _leaders(column: Column, rows: Sequence[Row], extents: Mapping[int, Interval | None]) -> set[int]:
    """Return which of the rows with these extents are the best; none where that is unknown, or all of them are."""
    choose = max if column.better == "higher" else min
    winner = extents[choose(extents, key=lambda i: rows[i][column.name])]
    if winner is None or None in extents.values():
        return set()
    leaders = {i for i, extent in extents.items() if extent and winner.overlaps(extent)}
    return leaders if len(leaders) < len(extents) else set()


def _extent(column: Column, row: Row) -> Interval | None:
    """Return within which bounds a value is known; None where they are not."""
    if column.spread is None:
        return Interval(row[column.name], row[column.name]) if column.unit == "count" else None
    low, high = (row[name] for name in column.spread)
    is_short = column.least_repeats > 1 and row["repeats"] < column.least_repeats
    return None if low is None or high is None or is_short or _is_doubtful(column, row) else Interval(low, high)


def _is_rival(column: Column, row: Row) -> bool:
    return row[column.name] is not None and row.is_sound


def _is_doubtful(column: Column, row: Row) -> bool:
    return bool(column.doubts and row[column.doubts])
