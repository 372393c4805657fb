"""GitHub's Markdown: one table per group, the best of each column in bold."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, TextIO

from cnnperf.regression.verdict import FAILING, Comparison
from cnnperf.reports._readable import alarm, best, cell_text, footnotes, head, remarks, title, visible
from cnnperf.tables.table import Column, Report, Row, Table
from cnnperf.units import printable

MARKS = {**dict.fromkeys(FAILING, "❌"), "inconclusive": "❔", "better": "✅", "same": "✅", "indicative": ""}
"""Symbol of each verdict, before its row."""


def write(report: Report, out: TextIO) -> None:
    """Write the readable tables, then notes on their numbers."""
    groups = report.groups()
    for group in groups:
        out.write("\n".join(_lines(group)) + "\n\n")
    out.writelines(f"- {escaped(note)}\n" for note in report.notes if groups)
    if not groups:
        out.write("Nothing was trained in these runs.\n")


def write_verdicts(comparison: Comparison, out: TextIO) -> None:
    """Write the summary, a table of the verdicts and the notes, for GitHub."""
    out.write(f"**{comparison.summary}**\n\n")
    if comparison.verdicts:
        out.write("| | cell | metric | verdict | evidence |\n| --- | --- | --- | --- | --- |\n")
    for verdict in comparison.verdicts:
        cells = (MARKS[verdict.outcome], verdict.cell, verdict.metric, verdict.outcome, verdict.evidence)
        out.write(f"| {' | '.join(map(escaped, cells))} |\n")
    out.writelines([f"\n- {escaped(note)}" for note in comparison.notes] + ["\n"])


def _lines(group: Table[Any]) -> list[str]:
    columns = visible(group)
    marks = {column.name: best(column, group.rows) for column in columns}
    warning = alarm(group)
    below = [*footnotes(group), *remarks(group)]
    return [
        f"### {escaped(title(group))}",
        "",
        *((f"> **{escaped(warning)}**", "") if warning else ()),
        _line(escaped(head(column, group.rows)) for column in columns),
        _line("---" if column.unit is None else "--:" for column in columns),
        *(_line(_cell(c, row, marked=marks[c.name][i]) for c in columns) for i, row in enumerate(group.rows)),
        *(("", *(f"- {escaped(line)}" for line in below)) if below else ()),
    ]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(column: Column, row: Row, *, marked: bool) -> str:
    words = escaped(cell_text(column, row))
    return f"**{words}**" if marked else words


def escaped(text: str) -> str:
    """Return a text escaped for Markdown, on one line."""
    return re.sub(r"([\\`*_|<\[\]~])", r"\\\1", printable(text)).replace("\n", "<br>")
