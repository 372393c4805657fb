"""The format of github-action-benchmark: the entries, and the file of each direction."""

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

from cnnperf.record import Record
from cnnperf.regression.verdict import Comparison, Verdict
from cnnperf.reports.github import write_verdicts

RUNS = sorted((Path(__file__).parent.parent / "golden" / "smoke").iterdir())

TEXT = {"type": "string"}
ENTRY = {
    "type": "object",
    "properties": {"name": TEXT, "unit": TEXT, "value": {"type": "number"}, "range": TEXT, "extra": TEXT},
    "required": ["name", "unit", "value"],
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": ENTRY}
"""The interface BenchmarkResult in src/extract.ts of benchmark-action/github-action-benchmark."""


def entries(text: str) -> dict[str, dict[str, Any]]:
    """Return the entries by name, once they are valid and no name is used twice."""
    document = json.loads(text)
    jsonschema.validate(document, SCHEMA)
    found = {entry.pop("name"): entry for entry in document}
    assert len(found) == len(document)
    return found


def test_a_folder_gets_a_file_for_each_direction(tmp_path: Path) -> None:
    """A file has the figures of one direction; no time is in either."""
    done = called("report", RUNS[0], "--format", "github", "--out", tmp_path / "bench")
    assert done.returncode == 0, done.stderr
    assert sorted(file.name for file in (tmp_path / "bench").iterdir()) == [
        "bigger_is_better.json",
        "smaller_is_better.json",
    ]
    smaller, bigger = (
        entries((tmp_path / "bench" / f"{which}_is_better.json").read_text()) for which in ("smaller", "bigger")
    )
    cell = "synthetic[shape=1×28×28,train=600,test=200]/lenet/cpu"
    assert smaller[f"{cell} params"] == {"unit": "count", "value": 61706}
    assert bigger[f"{cell} test_accuracy"] == {"unit": "fraction", "value": 0.1, "range": "0.06567 … 0.1494"}
    assert {entry["unit"] for entry in (smaller | bigger).values()} == {"count", "bytes", "fraction"}


def test_a_stream_gets_one_direction_and_says_so(tmp_path: Path) -> None:
    """Without a folder, the figures of which smaller is better are written, and the others are counted in a warning."""
    done = called("report", RUNS[0], "--format", "github")
    assert called("report", RUNS[0], "--format", "github", "--out", tmp_path / "bench").stderr == ""
    smaller, bigger = ((tmp_path / "bench" / f"{which}_is_better.json").read_text() for which in ("smaller", "bigger"))
    assert done.stdout == smaller
    assert f"{len(entries(bigger))} figures of which bigger is better left out" in done.stderr


def test_a_paired_speed_up_is_bigger_is_better(tmp_path: Path, trained: Callable[..., Record]) -> None:
    """A speed-up over six pairs of processes has a range."""
    run = furnish(tmp_path / "run", trained, networks=["nin"])
    assert called("report", run, "--format", "github", "--out", tmp_path / "bench").returncode == 0
    found = entries((tmp_path / "bench" / "bigger_is_better.json").read_text())[
        "cifar10/nin/cpu onnxruntime batch 1 speedup"
    ]
    assert (found["unit"], " … " in found["range"]) == ("1", True)


def test_verdicts_are_ratios_of_which_smaller_is_better() -> None:
    """A metric of which a higher value is better is inverted with its bounds; without values there is no entry."""

    def verdict(metric: str, outcome: str = "same", **fields: object) -> Verdict:
        return Verdict.model_validate({"cell": "mnist/lenet/cpu", "metric": metric, "outcome": outcome} | fields)

    verdicts = (
        verdict("step", "worse", unit="s", baseline=0.02, candidate=0.021, change=0.05, low=0.02, better="lower"),
        verdict("speed", unit="1", baseline=2.0, candidate=2.5, change=0.25, low=0.0, high=1.0, better="higher"),
        verdict("accuracy", unit="fraction", baseline=0.9, candidate=0.75, change=-0.15, low=-0.2, better="higher"),
        verdict("drop", unit="count", baseline=0.0, candidate=3.0, change=3.0, better="lower"),
        verdict("lost", unit="count", baseline=1e18, candidate=1.0, change=-1.0, better="higher"),
        verdict("left", "indicative", unit="s", baseline=0.02, candidate=0.021, change=0.05, better="lower"),
        verdict("gone", "missing", remark="why"),
    )
    out = io.StringIO()
    write_verdicts(Comparison(verdicts=verdicts, notes=()), out)
    found = entries(out.getvalue())
    assert {name: entry.pop("extra") for name, entry in found.items()}["mnist/lenet/cpu step"].startswith("worse: 20.0")
    assert found == {
        "mnist/lenet/cpu step": {"unit": "candidate/baseline", "value": 1.05, "range": "1.02 … "},
        "mnist/lenet/cpu speed": {"unit": "baseline/candidate", "value": 0.8, "range": "0.5 … 1"},
        "mnist/lenet/cpu accuracy": {"unit": "baseline/candidate", "value": pytest.approx(1.2)},
    }


def test_the_direction_of_a_verdict_is_that_of_its_metric() -> None:
    """`check` of stored runs inverts an accuracy and not a number of parameters; times are left out."""
    done = called("check", "--baseline", RUNS[0], "--candidate", RUNS[1], "--format", "github")
    cell = "synthetic[shape=1×28×28,train=600,test=200]/lenet/cpu"
    found = entries(done.stdout)
    assert found[f"{cell} train.parameters"]["unit"] == "candidate/baseline"
    assert found[f"{cell} train.test_accuracy"]["unit"] == "baseline/candidate"
    assert f"{cell} train.step_time" not in found
