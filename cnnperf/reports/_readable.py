"""Shared by the readable formats: scaled numbers, marks on the best, titles and remarks of a group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from cnnperf.regression.conditions import setting_word
from cnnperf.regression.verdict import change_in_words, is_difference, unit_as_read
from cnnperf.stats import Interval
from cnnperf.tables.table import DISTURBED, DOUBT, Column, Row, Table, Value, grouped
from cnnperf.task import DEFAULT_ALLOCATOR, DEFAULT_WAITING
from cnnperf.units import MISSING, amount_of, printable, scaled

if TYPE_CHECKING:
    from cnnperf.tables.verdicts import VerdictRow


def visible(table: Table[Any]) -> list[Column]:
    """Return the columns to show: readable ones with a value in any row, and run, sitting and repeat if they differ.

    The budget is shown if several are known; a single one is in the title.
    """
    shown = [c for c in table.columns if c.shown is not None and any(row[c.name] is not None for row in table.rows)]
    # These come first, because they distinguish otherwise equal rows.
    first = [c for name in ("run", "sitting", "repeat") for c in table.columns if c.name == name and _differs(c, table)]
    first += [c for c in table.columns if c.name == "budget" and len({row.budget for row in table.rows} - {None}) > 1]
    return [*(c for c in first if c not in shown), *shown]


def _differs(column: Column, table: Table[Any]) -> bool:
    return len({row[column.name] for row in table.rows}) > 1


def title(table: Table[Any]) -> str:
    """Return the common facts of a group's rows; of its budget only if it is the only one."""
    row = table.rows[0]
    budgets = {label for each in table.rows if (label := each.budget_label)}
    threads = amount_of(row["threads"], "thread") if row["threads"] else None
    asked = row.trait("waiting")
    waiting = f"waiting {asked}" if asked not in (None, DEFAULT_WAITING) else None
    allocator = f"allocator {row['allocator']}" if row["allocator"] not in (None, DEFAULT_ALLOCATOR) else None
    device = f"{row['device']} ({row['device_label']})" if row["device_label"] else row["device"]
    budget = budgets.pop() if len(budgets) == 1 else None
    parts = (row["dataset"], generated(row), device, budget, threads, waiting, allocator, row["host"])
    return " · ".join(filter(None, parts))


def generated(row: Row) -> str | None:
    """Return a remark if a row's images are generated; else None."""
    return f"data={row['data']}" if row["data"] == "synthetic" else None


def alarm(table: Table[Any]) -> str | None:
    """Return a remark with the reason if a group's images are not those of its dataset; else None."""
    row = table.rows[0]
    if not row["data_fallback"]:
        return None
    return f"data={row['data']}: these are not the images of {row['dataset']} ({row['data_fallback']})"


def remarks(table: Table[Any]) -> list[str]:
    """Return why rows did not end well or are undecided, and the settings in which rows of one label and run differ.

    If the rows are of several runs, each remark has the run.
    """
    reasons = [
        f"{_run_of(row, table)}{row.row_label}: {row['status']}: {row['reason']}" for row in table.rows if row["reason"]
    ]
    of_label = grouped(table.rows, lambda row: (row["run"], row.row_label))
    unlike = [remark for rows in of_label.values() for remark in _unlike_settings(rows, table)]
    return reasons + [printable(remark) for remark in unlike]


def _unlike_settings(rows: Sequence[Row], table: Table[Any]) -> Iterator[str]:
    """Yield a remark on the settings in which rows of one label differ, in the order of the rows."""
    unlike = [name for name in dict.fromkeys(chain(*(row.settings for row in rows))) if _is_unlike(name, rows)]
    if unlike:
        of_rows = (", ".join(f"{name} {setting_word(row.settings.get(name))}" for name in unlike) for row in rows)
        yield f"{_run_of(rows[0], table)}{rows[0].row_label}: rows differ in settings: {'; '.join(of_rows)}"


def _is_unlike(name: str, rows: Sequence[Row]) -> bool:
    return any(row.settings.get(name) != rows[0].settings.get(name) for row in rows)


def _run_of(row: Row, table: Table[Any]) -> str:
    return f"{row['run']} " if any(c.name == "run" and _differs(c, table) for c in table.columns) else ""


def head_words(column: Column) -> str:
    """Return a column's name in readable form."""
    return column.title or column.name.replace("_", " ")


def head(column: Column, rows: Sequence[Row]) -> str:
    """Return a column's head; for times and speeds it includes the number of repeats."""
    words = head_words(column)
    if column.unit not in ("s", "images/s"):
        return words
    repeats = sorted({row.repeats_of(column.name) or 0 for row in rows if row[column.name] is not None})
    return f"{words}\nn={repeats[0]}" if len(repeats) == 1 else f"{words}\nn={repeats[0]}–{repeats[-1]}"


def footnotes(table: Table[Any]) -> list[str]:
    """Return each reason for the mark of doubt once a row, with its columns, and the run if there are several.

    A flag without a doubt holds for the network, so it is given once for all its rows.
    """
    noted: dict[tuple[str, str], dict[str, None]] = {}
    for column in visible(table):
        for row in table.rows:
            if reason := doubt(column, row):
                label = row.row_label if column.doubts else row["model"]
                noted.setdefault((f"{_run_of(row, table)}{label}", reason), {})[head_words(column)] = None
    return [f"{DOUBT} {label}: {', '.join(heads)}: {reason}" for (label, reason), heads in noted.items()]


def doubt(column: Column, row: Row) -> str | None:
    """Return why a value has the mark of doubt; None if it has none, or is absent."""
    if row[column.name] is None:
        return None
    return "; ".join(_reasons((*column.doubts, *column.flags), row)) or None


def best(column: Column, rows: Sequence[Row]) -> list[bool]:
    """Mark the best row of a column and all whose interval overlaps its own, among the rows that it compares.

    Nothing is marked if the extent of any compared row is unknown, or if no row is distinguishable from the best.
    Engines that failed or compute something else are shown but not compared. A disturbed row is compared where its
    value has an extent, and never marked.
    """
    if column.better is None:
        return [False for _ in rows]
    compared: dict[tuple[Value, ...], dict[int, Interval | None]] = {}
    for i, row in enumerate(rows):
        if _is_rival(column, row):
            compared.setdefault(tuple(row[name] for name in column.within), {})[i] = _extent(column, row)
    marked = {i for extents in compared.values() for i in _leaders(column, rows, extents)}
    return [i in marked and not row.is_disturbed for i, row in enumerate(rows)]


def cell_text(column: Column, row: Row) -> str:
    """Return a row's value in readable form, with its interval and the mark of doubt."""
    value = row[column.name]
    if value is None:
        return MISSING
    words = scaled(value, column.read_as)
    ends = interval(column, row)
    if ends and column.read_as == "fraction":
        words = f"{words} ±{100 * (ends.high - ends.low) / 2:.1f}"
    elif ends:
        words = f"{words} [{''.join(interval_words(column, ends))}]"
    return f"{words} {DOUBT}" if doubt(column, row) else words


def interval_words(column: Column, ends: Interval) -> tuple[str, str, str]:
    """Return the lower end of an interval, the sign between the ends, and the upper end, in readable form."""
    if column.read_as == "points":
        # A dash would look like the minus sign of the upper end.
        return f"{100 * ends.low:+.1f}", "…", f"{100 * ends.high:+.1f}"
    return scaled(ends.low, column.read_as), "–", scaled(ends.high, column.read_as)


def read_as(row: VerdictRow) -> str | None:
    """Return the unit in which readers see both values of a verdict."""
    return unit_as_read(row.metric, row.unit)


def signed(change: float, row: VerdictRow) -> str:
    """Return a change, or an end of its interval, in readable form: points, percent, or the unit of the row."""
    is_in_unit = is_difference(row.metric, row.unit, row.baseline or 0.0, row.candidate or 0.0)
    return change_in_words(change, row.metric, row.unit, is_in_unit=is_in_unit)


def interval(column: Column, row: Row) -> Interval | None:
    """Return the interval to print beside a value; None if there is none or its width is zero."""
    low, high = (row[name] for name in column.interval) if column.interval else (None, None)
    if low is None or high is None:
        return None
    low = _lowest(column, row, low)
    return None if low == high else Interval(low, high)


def _leaders(column: Column, rows: Sequence[Row], extents: Mapping[int, Interval | None]) -> set[int]:
    """Return the best of the rows with these extents; none if that is unknown or if all are equal."""
    choose = max if column.better == "higher" else min
    winner = extents[choose(extents, key=lambda i: rows[i][column.name])]
    if winner is None or None in extents.values():
        return set()
    leaders = {i for i, extent in extents.items() if extent and winner.overlaps(extent)}
    return leaders if len(leaders) < len(extents) else set()


def _extent(column: Column, row: Row) -> Interval | None:
    """Return the bounds of a value; None if they are unknown."""
    if column.spread is None:
        return Interval(row[column.name], row[column.name]) if column.unit == "count" else None
    low, high = (row[name] for name in column.spread)
    is_short = column.least_repeats > 1 and (row.repeats_of(column.name) or 0) < column.least_repeats
    is_unproved = column.proof is not None and row[column.proof] is None
    if low is None or high is None or is_short or is_unproved or any(_reasons(column.doubts, row)):
        return None
    return Interval(_lowest(column, row, low), high)


def _lowest(column: Column, row: Row, low: float) -> float:
    """Return the lower end of an interval: the least value possible where the row knows it, else the one measured."""
    earliest: float | None = getattr(row, column.earliest) if column.earliest else None
    return low if earliest is None else earliest


def _reasons(columns: Iterable[str], row: Row) -> Iterator[str]:
    """Yield the reasons that a row gives in these columns."""
    for name in columns:
        if name != DISTURBED and row[name]:
            yield row[name]
        elif name == DISTURBED and row.is_disturbed:
            yield f"{DISTURBED}: {row[name]}"


def _is_rival(column: Column, row: Row) -> bool:
    return row[column.name] is not None and row.is_sound
