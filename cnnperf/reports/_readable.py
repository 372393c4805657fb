"""What the formats for people share: scaled numbers, marks on the best, titles and remarks of a group."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cnnperf.stats import Interval
from cnnperf.table import Column, Row, Table
from cnnperf.task import DEFAULT_ALLOCATOR, DEFAULT_WAITING

MISSING = "–"


def visible(table: Table) -> list[Column]:
    """Return the columns that people see: those for them that have a value in any row."""
    return [c for c in table.columns if c.shown is not None and any(row[c.name] is not None for row in table.rows)]


def title(table: Table) -> str:
    """Say what the rows of a group have in common."""
    row = table.rows[0]
    threads = f"{row['threads']} thread{'s' if row['threads'] != 1 else ''}" if row["threads"] else None
    waiting = f"waiting {row['waiting']}" if row.get("waiting") not in (None, DEFAULT_WAITING) else None
    allocator = f"allocator {row['allocator']}" if row.get("allocator") not in (None, DEFAULT_ALLOCATOR) else None
    device = f"{row['device']} ({row['device_label']})" if row["device_label"] else row["device"]
    parts = (row["dataset"], generated(row), device, row["budget"], threads, waiting, allocator, row["host"])
    return " · ".join(filter(None, parts))


def generated(row: Row) -> str | None:
    """Say that a row's images are generated; None if they are not."""
    return f"data={row['data']}" if row["data"] == "synthetic" else None


def alarm(table: Table) -> str | None:
    """Say that a group's images are not those of its dataset, and why; None if they are."""
    row = table.rows[0]
    if not row["data_fallback"]:
        return None
    return f"data={row['data']}: these are not the images of {row['dataset']} ({row['data_fallback']})"


def remarks(table: Table) -> list[str]:
    """Say for each row that did not end well why."""
    return [f"{row['model']}: {row['status']}: {row['reason']}" for row in table.rows if row["reason"]]


def head(column: Column, rows: Sequence[Row]) -> str:
    """Return a column's head; over times and speeds it says on how many repeats they stand."""
    words = column.title or column.name.replace("_", " ")
    if column.unit not in ("s", "images/s"):
        return words
    repeats = sorted({row["repeats"] for row in rows if row[column.name] is not None})
    return f"{words}\nn={repeats[0]}" if len(repeats) == 1 else f"{words}\nn={repeats[0]}–{repeats[-1]}"


def best(column: Column, rows: Sequence[Row]) -> list[bool]:
    """Mark the best row of a column and all that its interval or spread of repeats reaches; one row has no rival.

    An engine that failed, or computes something else, is shown and no rival.
    """
    rivals = [row for row in rows if row[column.name] is not None and ("parity" not in row or row["parity"] == "ok")]
    if column.better is None or len(rivals) < 2:
        return [False for _ in rows]
    choose = max if column.better == "higher" else min
    winner = _extent(column, choose(rivals, key=lambda row: row[column.name]))
    return [row in rivals and winner.overlaps(_extent(column, row)) for row in rows]


def cell(column: Column, row: Row) -> str:
    """Return a row's value as people read it, with the interval that belongs to it."""
    value = row[column.name]
    if value is None:
        return MISSING
    words = scaled(value, column.unit)
    low, high = (row[name] for name in column.interval) if column.interval else (None, None)
    if low is None or high is None:
        return words
    if column.unit == "fraction":
        return f"{words} ±{100 * (high - low) / 2:.1f}"
    return f"{words} [{scaled(low, column.unit)}–{scaled(high, column.unit)}]"


def scaled(value: str | float, unit: str | None) -> str:
    """Write a value in the unit that people use for its size: %, ms, MiB, k, M; three digits where it is not exact."""
    if isinstance(value, str):
        return value
    if unit == "fraction":
        return f"{100 * value:.1f} %"
    if unit == "s":
        return _scaled(value, ((1, "s"), (1e-3, "ms"), (1e-6, "µs")))
    if unit == "bytes":
        return _scaled(value, ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")))
    if isinstance(value, int) and abs(value) < 100_000:
        return f"{value:,}"
    return _scaled(value, ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")))


def _scaled(value: float, scales: tuple[tuple[float, str], ...]) -> str:
    size, unit = next((scale for scale in scales if abs(value) >= scale[0]), scales[-1])
    number = value / size
    decimals = 2 - math.floor(math.log10(abs(number))) if number else 0
    return f"{number:.{max(decimals, 0)}f} {unit}".strip()


def _extent(column: Column, row: Row) -> Interval:
    low, high = (row[name] for name in column.spread) if column.spread else (None, None)
    value = row[column.name]
    return Interval(value if low is None else low, value if high is None else high)
