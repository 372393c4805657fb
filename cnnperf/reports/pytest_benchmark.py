"""JSON that `pytest-benchmark compare` reads: the calls and steps that were timed more than once, in seconds.

A round is a sample, and the rounds of all repeats stand together, so that `stddev` is the deviation between calls and
not the larger one between processes; `extra_info` has the median of each repeat. Nothing but times is written, for
pytest-benchmark has no other unit; layers are left out, because hooks cost time. Verdicts hold no samples and cannot be
written. Separate processes of the same code easily differ by 20 %, and pytest-benchmark does not know that two files,
or two benchmarks of a file, are of separate processes: `cnnperf ab` compares versions instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from statistics import fmean, median, stdev
from typing import Any, TextIO

from cnnperf.record import Machine
from cnnperf.regression.cell_stages import metric_label
from cnnperf.reports._figures import told_apart
from cnnperf.stats import quartiles
from cnnperf.tables.repeats import disturbance
from cnnperf.tables.table import Report
from cnnperf.tables.timings import RepeatedTiming, timings
from cnnperf.units import printable

FORMAT = "5.1.0"
"""Version of pytest-benchmark whose files these are."""
TUKEY = 1.5
"""Interquartile ranges beyond the quartiles where outliers begin."""


def write(report: Report, out: TextIO) -> None:
    """Write a benchmark per cell and metric, with statistics of all samples and the samples themselves."""
    found = list(timings(report.records))
    names = told_apart([_name(each) for each in found], [each.facts for each in found])
    records = [record for each in found for record in each.repeats.records]
    document = {
        "machine_info": _shared(_machine_info(record.machine) for record in records),
        "commit_info": _shared(_commit_info(record.machine) for record in records),
        "benchmarks": [_benchmark(each, name) for each, name in zip(found, names, strict=True)],
        "datetime": max((record.started for record in records), default=None),
        "version": FORMAT,
    }
    json.dump(document, out, indent=2, ensure_ascii=False, allow_nan=False)
    out.write("\n")


def _name(timing: RepeatedTiming) -> str:
    return printable(f"{timing.repeats.task.cell.id} {metric_label((timing.metric, sorted(timing.tags.items())))}")


def _benchmark(timing: RepeatedTiming, fullname: str) -> dict[str, Any]:
    """Describe a timing; in a group, only networks and engines differ."""
    cell = timing.repeats.task.cell
    tags = {name: value for name, value in sorted(timing.tags.items()) if name != "engine"}
    words = (str(cell.model), timing.tags.get("engine"), fullname.removeprefix(_name(timing)).strip())
    disturbed = disturbance(timing.repeats.records, **timing.tags)
    return {
        "group": printable(f"{cell.dataset}/{cell.device} {metric_label((timing.metric, tags.items()))}"),
        "name": printable(" ".join(str(word) for word in words if word)),
        "fullname": fullname,
        "params": None,
        "param": None,
        "extra_info": {
            "run": timing.repeats.run,
            "medians_s": [median(samples) for samples in timing.of_repeats],
            **({} if disturbed is None else {"disturbed": printable(disturbed)}),
        },
        "options": {},
        "stats": _stats(timing.seconds, min(timing.calls, default=1)),
    }


def _stats(seconds: Sequence[float], iterations: int) -> dict[str, Any]:
    """Return the statistics of two or more samples, each the mean of `iterations` calls."""
    mean, deviation = fmean(seconds), stdev(seconds)
    q1, middle, q3 = quartiles(seconds)
    fences = q1 - TUKEY * (q3 - q1), q3 + TUKEY * (q3 - q1)
    within = [value for value in seconds if fences[0] <= value <= fences[1]]
    beyond = sum(not mean - deviation <= value <= mean + deviation for value in seconds)
    return {
        "min": min(seconds),
        "max": max(seconds),
        "mean": mean,
        "stddev": deviation,
        "rounds": len(seconds),
        "median": middle,
        "iqr": q3 - q1,
        "q1": q1,
        "q3": q3,
        "iqr_outliers": len(seconds) - len(within),
        "stddev_outliers": beyond,
        "outliers": f"{beyond};{len(seconds) - len(within)}",
        "ld15iqr": min(within),
        "hd15iqr": max(within),
        "ops": 1 / mean if mean else 0.0,
        "total": sum(seconds),
        "data": list(seconds),
        "iterations": iterations,
    }


def _machine_info(machine: Machine) -> dict[str, Any]:
    return {
        "node": printable(machine.host),
        "processor": printable(machine.cpu),
        "system": printable(machine.os),
        "python_version": printable(machine.python),
        "cpu": {"brand_raw": printable(machine.cpu_model or machine.cpu), "count": machine.cores},
    }


def _commit_info(machine: Machine) -> dict[str, Any]:
    """Return the commit of cnnperf's checkout, which is not that of a package whose networks it measured."""
    commit = printable(machine.commit or "unversioned")
    return {"id": commit.removesuffix("+"), "dirty": commit.endswith("+"), "project": "cnnperf"}


def _shared(facts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return the facts that all have in common."""
    first, *others = [*facts] or [{}]
    return {name: value for name, value in first.items() if all(each[name] == value for each in others)}
