"""The CSV format: stable, unrounded, and harmless in a spreadsheet."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cnnperf.reports.csv import write
from cnnperf.tables.table import Report, Row, Table, column, row_type
from cnnperf.units import printable


def written(report: Report) -> str:
    """Return what the format writes to a stream."""
    out = io.StringIO(newline="")
    write(report, out)
    return out.getvalue()


def test_golden(report: Report, golden: Callable[[str, str], None]) -> None:
    """The leaderboard of a report with every kind of row equals the golden file."""
    golden("leaderboard.csv", written(report))


def test_every_value_comes_back_and_nothing_stands_for_what_is_missing(report: Report) -> None:
    """Numbers are read back bit-equal, and a missing value is an empty cell."""
    table = report.tables[0]
    for row, read in zip(table.rows, csv.DictReader(io.StringIO(written(report))), strict=True):
        for name in (each.name for each in table.columns):
            if row[name] is None:
                assert read[name] == ""
            elif not isinstance(row[name], str):
                assert float(read[name]) == row[name]


def test_a_folder_gets_a_file_a_table(report: Report, tmp_path: Path) -> None:
    """A folder gets the leaderboard, equal to the stream's text, and the curves."""
    write(report, tmp_path)
    assert (tmp_path / "leaderboard.csv").read_text(encoding="utf-8") == written(report)
    curves = list(csv.DictReader(io.StringIO((tmp_path / "curves.csv").read_text(encoding="utf-8"))))
    assert len(curves) == 2 * 5
    assert [(row["step"], row["train_loss"], row["train_accuracy"]) for row in curves[:2]] == [
        ("2", "2.25", ""),
        ("4", "1.625", ""),
    ]


@row_type
class Cells(Row):
    """A row with a text and two numbers."""

    text: str = column()
    number: float = column()
    count: int = column()


@given(st.text(), st.sampled_from(["", *"=+-@\t\r\n＝＋－＠"]), st.floats(allow_nan=False, allow_infinity=False))
def test_no_text_is_a_formula_and_every_number_stays_one(text: str, start: str, number: float) -> None:
    """No text cell starts a formula; texts are read back with control characters made visible, numbers unchanged."""
    table = Table("t", Cells.columns(), (Cells(text=start + text, number=number, count=-3),))
    _, cells = csv.reader(io.StringIO(written(Report((table,))), newline=""))
    assert not cells[0].startswith(tuple("=+-@\t\r\n＝＋－＠"))
    assert cells[0].removeprefix("'") == printable(start + text).removeprefix("'")
    assert (math.copysign(1, float(cells[1])), float(cells[1]), cells[2]) == (math.copysign(1, number), number, "-3")
