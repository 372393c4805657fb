"""Width of tables: a terminal hides columns that do not fit; other outputs get all columns."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from cnnperf.tables.table import Column

UNBOUNDED = 10_000
"""Terminal columns left free by every table."""

PAGE = 100
"""Minimum width of output that does not go to a terminal, for titles and notes."""


def widen(console: Console, grids: Iterable[RichTable]) -> None:
    """Widen output that does not go to a terminal to its tables, unless $COLUMNS sets a width."""
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = max([PAGE, *(_width(console, grid) for grid in grids)])


def fit(
    console: Console, columns: Sequence[Column], grid: Callable[[Sequence[Column]], RichTable]
) -> tuple[list[Column], list[Column]]:
    """Return the columns of a grid that fit, and the hidden ones; the last of `shown` are hidden first."""
    kept, dropped = list(columns), []
    while _width(console, grid(kept)) > console.width and any(column.shown for column in kept):
        least = max(reversed(kept), key=lambda column: column.shown or 0)
        kept.remove(least)
        dropped.append(least)
    return kept, dropped


def left_out(dropped: Iterable[Column], where: str) -> Text:
    """Return the note on hidden columns and their file."""
    names = sorted({(column.title or column.name).replace("\n", " ") for column in dropped})
    return Text(f"Columns hidden (terminal too narrow): {', '.join(names)}; {where} has all.", style="dim")


def _width(console: Console, grid: RichTable) -> int:
    return Measurement.get(console, console.options.update(max_width=UNBOUNDED), grid).maximum
