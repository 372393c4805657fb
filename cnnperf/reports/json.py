"""JSON: each table's rows, and the unit, direction and meaning of its columns; raw SI units, null if unmeasured."""

from __future__ import annotations

import json
from typing import Any, TextIO

from cnnperf.regression.verdict import Comparison
from cnnperf.tables.choice import Selection, Standing
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


def write_selection(selection: Selection, out: TextIO) -> None:
    """Write a choice as one JSON object, raw SI units: the bounds, then every cell with its state, the chosen first."""
    document = {
        "bounds": dict(selection.limits),
        "batch_size": selection.batch_size,
        "cells": [_cell(standing) for standing in selection.standings],
        "summary": selection.summary,
        "notes": selection.notes,
        "exit_code": selection.exit_code,
    }
    json.dump(document, out, indent=2, ensure_ascii=False, allow_nan=False)
    out.write("\n")


def _cell(standing: Standing) -> dict[str, Any]:
    row, margin = standing.row, standing.margin
    names = ("dataset", "model", "device", "engine", "batch_size", "run")
    figures = {
        figure.column.name: {
            "value": figure.value,
            "low": figure.interval.low,
            "high": figure.interval.high,
            "limit": figure.limit,
            "miss": figure.miss,
        }
        for figure in standing.figures
    }
    beaten = margin and {
        "test_accuracy": margin.accuracy,
        "intervals_apart": margin.is_apart,
        "images_per_s_ratio": margin.speed,
        "low": margin.interval and margin.interval.low,
        "high": margin.interval and margin.interval.high,
    }
    told = {"state": standing.state, "figures": figures, "doubt": standing.doubt, "beaten_by": beaten}
    return {**{name: row[name] for name in names}, **told}
