"""Comma-separated values: raw SI units, empty cells for unmeasured values, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, TextIO

from cnnperf.record import replacing
from cnnperf.tables.table import Report, Table, Value

SUFFIX = ".csv"
IN_RUN_FOLDER = True

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\n", "＝", "＋", "－", "＠")
"""Prefixes of text that a spreadsheet would execute, line ends being \\n. Source: OWASP, CSV Injection."""


def write(report: Report, out: TextIO | Path) -> None:
    """Write the report's first table to a stream, or every table to a separate file in a folder. Raises OSError."""
    if not isinstance(out, Path):
        _write(report.tables[0], out)
        return
    for table in report.tables:
        with replacing(out / f"{table.name}{SUFFIX}") as file:
            _write(table, file)


def _write(table: Table[Any], out: TextIO) -> None:
    names = [column.name for column in table.columns]
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_neutral(row[name]) for name in names] for row in table.rows)


def _neutral(value: Value) -> Value:
    """Put an apostrophe before text that a spreadsheet would execute; numbers stay unchanged."""
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")  # The writer quotes only its own line end.
    return f"'{text}" if text.startswith(FORMULA_STARTS) else text
