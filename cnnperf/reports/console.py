"""Tables for a terminal: one per group, the best of each column marked, fewer columns if it is narrow."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from cnnperf.regression.verdict import Comparison
from cnnperf.reports._choice import readable_choice
from cnnperf.reports._fit import fit, left_out, widen
from cnnperf.reports._readable import alarm, best, cell_text, footnotes, head, remarks, title, visible
from cnnperf.reports._verdicts import readable_lines
from cnnperf.tables.choice import Selection
from cnnperf.tables.table import Column, Report, Table

IS_DEFAULT = True


def write(report: Report, out: TextIO) -> None:
    """Write the readable tables, then notes on their numbers; columns are hidden only to fit a terminal."""
    console = Console(file=out, highlight=False)
    groups = report.groups()
    widen(console, (_grid(group, visible(group)) for group in groups))
    dropped = [column for group in groups for column in _print(console, group)]
    for note in report.notes if groups else ("Nothing was trained in these runs.",):
        console.print(Text(note, style="dim"))
    if dropped:
        console.print(left_out(dropped, "the CSV"))


def write_verdicts(comparison: Comparison, out: TextIO) -> None:
    """Write one line per verdict, then the summary and the notes."""
    console = Console(file=out, highlight=False, soft_wrap=True)
    for line in readable_lines(comparison.verdicts):
        console.print(line)
    console.print(Text(comparison.summary, style="bold"))
    for note in comparison.notes:
        console.print(Text(note, style="dim"))


def write_selection(selection: Selection, out: TextIO) -> None:
    """Write the bounds, one line per network, engine and batch size, the answer and the notes."""
    console = Console(file=out, highlight=False, soft_wrap=True)
    console.print(Text(title(selection.table), style="bold"))
    if warning := alarm(selection.table):
        console.print(Text(f"!! {warning}", style="bold red"))
    console.print(Text(f"bounds: {selection.bounds}"))
    for line in readable_choice(selection):
        console.print(line)
    console.print(Text(selection.summary, style="bold"))
    for note in selection.notes:
        console.print(Text(note, style="dim"))


def _print(console: Console, group: Table[Any]) -> list[Column]:
    """Print one group and return the hidden columns."""
    columns, dropped = fit(console, visible(group), partial(_grid, group))
    console.print(Text(title(group), style="bold"))
    warning = alarm(group)
    if warning:
        console.print(Text(f"!! {warning}", style="bold red"))
    console.print(_grid(group, columns))
    for remark in (*footnotes(group), *remarks(group)):
        console.print(Text(remark, style="yellow"))
    console.print()
    return dropped


def _grid(group: Table[Any], columns: Sequence[Column]) -> RichTable:
    grid = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    for column in columns:
        words = Text(head(column, group.rows))
        grid.add_column(words, justify="left" if column.unit is None else "right", overflow="fold", vertical="bottom")
    marks = [best(column, group.rows) for column in columns]
    for index, row in enumerate(group.rows):
        cells = zip(columns, marks, strict=True)
        grid.add_row(*(_marked(cell_text(column, row), marked=of[index], room=any(of)) for column, of in cells))
    return grid


def _marked(words: str, *, marked: bool, room: bool) -> Text:
    """Mark the best by a star as well as by colour, and keep the digits of the others in line."""
    return Text(f"{words} *", style="bold green") if marked else Text(f"{words}  " if room else words)
