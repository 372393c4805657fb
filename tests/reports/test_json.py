"""The JSON format: everything in the tables, unchanged."""

from __future__ import annotations

import io
import json

from cnnperf.reports.json import write
from cnnperf.tables.table import Report


def test_rows_come_back_with_null_for_what_is_missing(report: Report) -> None:
    """Every table is read back with equal rows, null for missing values, and columns with unit, direction, meaning."""
    out = io.StringIO()
    write(report, out)
    document = json.loads(out.getvalue())
    assert {name: table["rows"] for name, table in document.items()} == {
        t.name: [{column.name: row[column.name] for column in t.columns} for row in t.rows] for t in report.tables
    }
    found = document["leaderboard"]["columns"]["images_per_s"]
    assert (found["unit"], found["better"]) == ("images/s", "higher")
    assert {name: table["columns"] for name, table in document.items()} == {
        t.name: {c.name: {"unit": c.unit, "better": c.better, "meaning": c.meaning} for c in t.columns}
        for t in report.tables
    }
    assert all(column["meaning"] for table in document.values() for column in table["columns"].values())
    assert any(row["test_accuracy"] is None for row in document["leaderboard"]["rows"])
