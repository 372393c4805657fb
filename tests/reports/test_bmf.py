"""Bencher Metric Format: its schema, and which figures are in it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from furnished import furnish
from in_process import called

import cnnperf
from cnnperf.record import Record
from cnnperf.regression.verdict import Comparison, Verdict
from cnnperf.reports.bmf import write, write_verdicts
from cnnperf.tables.report import report_of
from cnnperf.tables.table import Report

RUNS = sorted((Path(__file__).parent.parent / "golden" / "smoke").iterdir())

METRIC = {
    "type": "object",
    "properties": {name: {"type": "number"} for name in ("value", "lower_value", "upper_value")},
    "required": ["value"],
    "additionalProperties": False,
}
MEASURES = {"type": "object", "additionalProperties": METRIC, "minProperties": 1, "propertyNames": {"maxLength": 64}}
SCHEMA = {"type": "object", "additionalProperties": MEASURES, "propertyNames": {"minLength": 1, "maxLength": 1024}}
"""The schema https://bencher.dev/bmf.json, with the lengths of names that Bencher documents, and without other keys."""


def written(write: Callable[..., None], given: Report | Comparison) -> dict[str, Any]:
    """Return the document that is written, once it is valid."""
    out = io.StringIO()
    write(given, out)
    document: dict[str, Any] = json.loads(out.getvalue())
    jsonschema.validate(document, SCHEMA)
    return document


def test_it_has_what_separate_runs_may_be_compared_by() -> None:
    """Accuracy has its interval, counts and memory have none; times, speeds and unpaired speed-ups are left out."""
    document = written(write, report_of(RUNS[:1]))
    cell = "synthetic[shape=1×28×28,train=600,test=200]/lenet/cpu"
    training = document[cell]
    assert training["test_accuracy"] == {
        "value": 0.1,
        "lower_value": 0.06567044866909588,
        "upper_value": 0.1494058124327174,
    }
    assert training["params"] == {"value": 61706}
    assert training["peak_above_start_bytes"] == {"value": 3872768}
    assert document[f"{cell} onnxruntime batch 8"].keys() == {"test_accuracy", "file_bytes"}
    measures = {name for of_benchmark in document.values() for name in of_benchmark}
    assert not [name for name in measures if name.endswith(("_s", "_low", "_high", "_loss", "speedup", "rank"))]


def test_two_runs_are_told_apart() -> None:
    """Cells of one name that two runs measured have the run behind the name, and no figure replaces another."""
    [one, other, both] = [written(write, report_of(runs)) for runs in (RUNS[:1], RUNS[1:], RUNS)]
    assert len(both) == len(one) + len(other)
    assert all(f"{name} run=smoke/{run.name}" in both for name in one.keys() & other.keys() for run in RUNS)
    assert one.keys() & other.keys()


def test_a_paired_speed_up_is_in_it(tmp_path: Path, trained: Callable[..., Record]) -> None:
    """A speed-up over six pairs has its interval; that of the baseline, which is 1 by definition, is left out."""
    report = report_of([furnish(tmp_path / "run", trained, networks=["nin"])])
    speedups = {name: each["speedup"] for name, each in written(write, report).items() if "speedup" in each}
    engines = report.table("engines")
    assert engines
    proven = [row for row in engines.rows if row.engine == "onnxruntime" and not row.speedup_flags]
    assert list(speedups) == [f"cifar10/nin/cpu onnxruntime batch {row.batch_size}" for row in proven]
    assert 0 < len(proven) < 3  # One of the three is flagged.
    assert all(1.5 <= s["lower_value"] <= s["value"] <= s["upper_value"] <= 1.7 for s in speedups.values())


def test_images_in_place_of_a_dataset_are_in_the_name(report: Report) -> None:
    """A cell whose images were generated in place of its dataset has a name of its own."""
    assert "mnist/lenet/cpu data=synthetic" in written(write, report)


def test_verdicts_give_the_change_with_the_bounds_that_are_known() -> None:
    """A ratio less 1 becomes a ratio, a difference stays one; indicative and missing verdicts are left out."""

    def verdict(metric: str, outcome: str = "same", **fields: object) -> Verdict:
        given = {"cell": "mnist/lenet/cpu", "metric": metric, "outcome": outcome} | fields
        return Verdict.model_validate(given)

    seconds = {"unit": "s", "baseline": 0.02, "candidate": 0.021}
    verdicts = (
        verdict("step", **seconds, change=0.05, low=0.02),
        verdict("forward[batch=8]", **seconds, change=-0.25, low=-0.5, high=0.0),
        verdict("accuracy", unit="fraction", baseline=0.9, candidate=0.5, change=-0.4, low=-0.5, high=-0.3),
        verdict("left", "indicative", **seconds, change=0.05),
        verdict("gone", "missing", remark="why"),
    )
    assert written(write_verdicts, Comparison(verdicts=verdicts, notes=())) == {
        "mnist/lenet/cpu": {
            "step_ratio": {"value": 1.05, "lower_value": 1.02},
            "accuracy_difference": {"value": -0.4, "lower_value": -0.5, "upper_value": -0.3},
        },
        "mnist/lenet/cpu [batch=8]": {"forward_ratio": {"value": 0.75, "lower_value": 0.5, "upper_value": 1.0}},
    }


def test_no_time_of_separate_runs_is_a_verdict_in_it() -> None:
    """`check` of two stored runs gives counts, memory and fractions, and no time."""
    document = written(write_verdicts, cnnperf.compare(RUNS[:1], RUNS[1:]))
    measures = {name for of_benchmark in document.values() for name in of_benchmark}
    assert "train.parameters_ratio" in measures
    assert "train.step_time_ratio" not in measures


@pytest.mark.parametrize("command", ["report", "check"])
def test_the_commands_know_the_format(command: str) -> None:
    """Both commands write a document on stdout."""
    given = [RUNS[0]] if command == "report" else ["--baseline", RUNS[0], "--candidate", RUNS[1]]
    jsonschema.validate(json.loads(called(command, *given, "--format", "bmf").stdout), SCHEMA)
