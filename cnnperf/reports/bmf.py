"""Bencher Metric Format: JSON for bencher.dev, whose thresholds compare a figure with those of earlier runs.

A report gives what separate runs may be compared by: accuracies, parameters, MACs, memory, sizes of files, and
speed-ups over pairs of processes. It gives no time, speed or loss. Verdicts give the candidate's change, a ratio or a
difference; indicative ones, which `cnnperf check` gives on times, are left out. A lower or upper value is there only
where an interval or a bound is known.
"""

from __future__ import annotations

import json
from typing import TextIO

from cnnperf.regression.verdict import Comparison
from cnnperf.reports._figures import comparable_verdicts, figures
from cnnperf.tables.table import Report
from cnnperf.units import printable

Metrics = dict[str, dict[str, dict[str, float]]]
"""Values and their ends, by benchmark and measure."""


def write(report: Report, out: TextIO) -> None:
    """Write a benchmark per cell, engine and batch size, and a measure per column, in the column's unit."""
    found: Metrics = {}
    for each in figures(report):
        found.setdefault(each.subject, {})[each.name] = _metric(each.value, each.low, each.high)
    _write(found, out)


def write_verdicts(comparison: Comparison, out: TextIO) -> None:
    """Write a benchmark per cell and tags of the metric, and a measure `<metric>_ratio` or `<metric>_difference`.

    A ratio is the candidate over the baseline, a difference the candidate less the baseline, in the metric's unit.
    """
    found: Metrics = {}
    for verdict in comparable_verdicts(comparison):
        cell, (metric, _, tags) = printable(verdict.cell), printable(verdict.metric).partition("[")
        shift, kind = (0.0, "difference") if verdict.is_in_unit else (1.0, "ratio")
        ends = (None if end is None else shift + end for end in (verdict.low, verdict.high))
        of_benchmark = found.setdefault(f"{cell} [{tags}" if tags else cell, {})
        of_benchmark[f"{metric}_{kind}"] = _metric(shift + (verdict.change or 0.0), *ends)
    _write(found, out)


def _metric(value: float, low: float | None, high: float | None) -> dict[str, float]:
    known = {"value": value, "lower_value": low, "upper_value": high}
    return {name: number for name, number in known.items() if number is not None}


def _write(found: Metrics, out: TextIO) -> None:
    json.dump(found, out, indent=2, ensure_ascii=False, allow_nan=False)
    out.write("\n")
