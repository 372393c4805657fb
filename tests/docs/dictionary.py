"""The data dictionary of `results/README.md`, from the package's own."""

from __future__ import annotations

from doc_table import table

from cnnperf.tables.dictionary import DICTIONARY, DescribedTable
from cnnperf.tables.table import Column

ARROWS = {"lower": "↓", "higher": "↑", None: ""}


def text() -> str:
    """Return the text of the whole dictionary."""
    return "\n\n".join(block for name, of in DICTIONARY.items() for block in (f"### {name}.csv", of.row, _table(of)))


def _table(of: DescribedTable) -> str:
    rows = ((f"`{c.name}`", c.unit or "", ARROWS[c.better], c.meaning, _source(c)) for c in (*of.columns, *of.patterns))
    return table(("column", "unit", "better", "meaning", "from"), rows)


def _source(column: Column) -> str:
    return ", ".join(each if each.startswith("(") else f"`{each}`" for each in column.source.split(", "))
