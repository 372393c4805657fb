"""JSON: each table's rows, and the unit, direction and meaning of its columns; raw SI units, null if unmeasured."""

from __future__ import annotations

import json
from typing import TextIO

from cnnperf.regression.verdict import Comparison
from cnnperf.tables.table import Report


def write(report: Report, out: TextIO) -> None:
    """Write the whole report as one JSON object, one key per table."""
    document = {
        table.name: {
            "columns": {
                column.name: {"unit": column.unit, "better": column.better, "meaning": column.meaning}
                for column in table.columns
            },
            "rows": [{column.name: row[column.name] for column in table.columns} for row in table.rows],
        }
        for table in report.tables
    }
    json.dump(document, out, indent=2, ensure_ascii=False, allow_nan=False)
    out.write("\n")


def write_verdicts(comparison: Comparison, out: TextIO) -> None:
    """Write a comparison as one JSON object, raw SI units, null for missing values."""
    out.write(comparison.model_dump_json(indent=2) + "\n")
