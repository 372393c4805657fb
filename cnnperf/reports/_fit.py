"""Tables as wide as where they go: a terminal's width drops columns, and what is no terminal gets them all."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from cnnperf.tables.table import Column

UNBOUNDED = 10_000
"""Columns of a terminal that no table fills."""

PAGE = 100
"""The least width of what goes to no terminal, for titles and notes."""


def widen(console: Console, grids: Iterable[RichTable]) -> None:
    """Let what goes to no terminal be as wide as its tables; a width that $COLUMNS names stands."""
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = max([PAGE, *(_width(console, grid) for grid in grids)])


def fit(
    console: Console, columns: Sequence[Column], grid: Callable[[Sequence[Column]], RichTable]
) -> tuple[list[Column], list[Column]]:
    """Return the columns with which a grid has room, and those that gave way: what is `shown` last goes first."""
    kept, dropped = list(columns), []
    while _width(console, grid(kept)) > console.width and any(column.shown for column in kept):
        least = max(reversed(kept), key=lambda column: column.shown or 0)
        kept.remove(least)
        dropped.append(least)
    return kept, dropped


def left_out(dropped: Iterable[Column], where: str) -> Text:
    """Say which columns found no room, and where they are."""
    names = sorted({(column.title or column.name).replace("\n", " ") for column in dropped})
    return Text(f"Columns hidden (terminal too narrow): {', '.join(names)}; {where} has all.", style="dim")


def _width(console: Console, grid: RichTable) -> int:
    return Measurement.get(console, console.options.update(max_width=UNBOUNDED), grid).maximum
