"""JSON for github-action-benchmark: its tools `customSmallerIsBetter` and `customBiggerIsBetter`.

A report gives what separate runs may be compared by: accuracies, parameters, MACs, memory, sizes of files, and
speed-ups over pairs of processes. It gives no time, speed or loss, because the action compares an entry with one of an
earlier run. Verdicts give the ratio of the candidate and the baseline, all as smaller-is-better; indicative ones, which
`cnnperf check` gives on times, are left out. A range is there only where an interval or a bound is known.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

from cnnperf.errors import CnnperfWarning
from cnnperf.record import replacing
from cnnperf.regression.verdict import Comparison, Verdict
from cnnperf.reports._figures import RunFigure, comparable_verdicts, figures
from cnnperf.tables.table import Report
from cnnperf.units import amount_of, printable

SUFFIX = ".json"

_FILES = {"lower": f"smaller_is_better{SUFFIX}", "higher": f"bigger_is_better{SUFFIX}"}
"""File of the figures of each direction: the action reads those of one direction from one file."""


def write(report: Report, out: TextIO | Path) -> None:
    """Write the figures of each direction to a file of a folder; to a stream those of which smaller is better.

    The figures that a stream lacks are counted in a warning. Raises OSError.
    """
    entries = {better: [_entry(f) for f in figures(report) if f.better == better] for better in _FILES}
    if isinstance(out, Path):
        for better, name in _FILES.items():
            with replacing(out / name) as file:
                _write(entries[better], file)
        return
    if lacking := len(entries["higher"]):
        words = f"{amount_of(lacking, 'figure')} of which bigger is better left out"
        warnings.warn(f"{words}; write to a folder, which gets both files", CnnperfWarning, stacklevel=2)
    _write(entries["lower"], out)


def write_verdicts(comparison: Comparison, out: TextIO) -> None:
    """Write a ratio per verdict: candidate over baseline, or its inverse where a higher value is better.

    The ratio of two fractions is that of their values, without a range: their bounds are of the difference. A verdict
    on a value that is 0 or negative has no ratio and is left out.
    """
    _write(filter(None, map(_ratio, comparable_verdicts(comparison))), out)


def _entry(figure: RunFigure) -> dict[str, Any]:
    name = printable(f"{figure.subject} {figure.name}")
    return {"name": name, "unit": figure.unit, "value": figure.value, **_range(figure.low, figure.high)}


def _ratio(verdict: Verdict) -> dict[str, Any] | None:
    baseline, candidate = verdict.baseline, verdict.candidate
    if not verdict.is_in_unit:
        ratio = 1 + (verdict.change or 0.0)
        ends = [None if end is None else 1 + end for end in (verdict.low, verdict.high)]
    elif baseline and candidate and min(baseline, candidate) > 0:
        ratio, ends = candidate / baseline, [None, None]
    else:
        return None
    if ratio <= 0:  # Lost to rounding.
        return None
    unit = "candidate/baseline"
    if verdict.better == "higher":
        unit, ratio, ends = "baseline/candidate", 1 / ratio, [1 / end if end else None for end in reversed(ends)]
    name, extra = (
        printable(words) for words in (f"{verdict.cell} {verdict.metric}", f"{verdict.outcome}: {verdict.evidence}")
    )
    return {"name": name, "unit": unit, "value": ratio, **_range(*ends), "extra": extra}


def _range(low: float | None, high: float | None) -> dict[str, str]:
    """Return the words for an interval, one end of which may be unknown."""
    if low is None and high is None:
        return {}
    words = ("" if end is None else f"{end:.4g}" for end in (low, high))
    return {"range": " … ".join(words)}


def _write(entries: Iterable[dict[str, Any]], out: TextIO) -> None:
    json.dump(list(entries), out, indent=2, ensure_ascii=False, allow_nan=False)
    out.write("\n")
