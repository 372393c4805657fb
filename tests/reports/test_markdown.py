"""The Markdown format: tables that GitHub renders, with markup in names and errors escaped."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace

from cnnperf.reports.markdown import write
from cnnperf.tables.table import Report


def written(report: Report) -> str:
    """Return what the format writes to a stream."""
    out = io.StringIO()
    write(report, out)
    return out.getvalue()


def test_golden(report: Report, golden: Callable[[str, str], None]) -> None:
    """The leaderboard of a report with every kind of row equals the golden file."""
    golden("leaderboard.md", written(report))


def test_every_line_of_a_table_has_its_heads_cells(report: Report) -> None:
    """Each line of a table has as many cells as its head, and each row has a line."""
    tables = re.findall(r"(?:^\|.*\n)+", written(report), flags=re.MULTILINE)
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}) == 1
    assert sum(len(table.splitlines()) - 2 for table in tables) == len(report.tables[0].rows)


def test_markup_is_shown_as_it_is(report: Report) -> None:
    """Bars, stars, brackets and tags in a cell are escaped, and a line end does not end the row."""
    row = replace(report.tables[0].rows[0], model="a|b*c*[d](e)<f>\ng")
    assert r"| a\|b\*c\*\[d\](e)\<f><br>g |" in written(Report((replace(report.tables[0], rows=(row,)),)))


def test_nothing_trained_is_said(report: Report) -> None:
    """A report without rows is written as one sentence."""
    assert written(Report((replace(report.tables[0], rows=()),))) == "Nothing was trained in these runs.\n"
