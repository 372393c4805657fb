"""The data dictionary on a terminal: a grid per table, with the meaning folded to the width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from cnnperf.reports._fit import widen
from cnnperf.tables.dictionary import DescribedTable
from cnnperf.units import MISSING

NARROW = 60
"""Terminal columns below which names are folded too."""


def write(tables: Mapping[str, DescribedTable], out: TextIO) -> None:
    """Write each table's name, the meaning of its rows, and name, unit, direction and meaning of its columns.

    Output that does not go to a terminal has one line per column.
    """
    console = Console(file=out, highlight=False)
    grids = {name: _grid(table, folds_names=console.width < NARROW) for name, table in tables.items()}
    widen(console, grids.values())
    for name, table in tables.items():
        console.print(Text(f"{name}.csv", style="bold"))
        console.print(Text(table.row, style="dim"))
        console.print(grids[name])
        console.print()


def _grid(table: DescribedTable, *, folds_names: bool) -> RichTable:
    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    grid.add_column("column", overflow="fold", no_wrap=not folds_names)
    for head in ("unit", "better", "meaning"):
        grid.add_column(head, overflow="fold")
    for column in (*table.columns, *table.patterns):
        grid.add_row(*map(Text, (column.name, column.unit or MISSING, column.better or MISSING, column.meaning)))
    return grid
