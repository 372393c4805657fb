"""Files of pytest-benchmark in place of runs: listed, not judged."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from processes import completed

import cnnperf
from cnnperf.errors import StoreError, UsageError

NOTE = "times and speeds are indicative: two processes that run the same code easily differ by 20 %"


def saved(path: Path, times: Mapping[str, float], **machine: Any) -> Path:
    """Write a file with medians by full name."""
    benchmarks = [
        {"fullname": name, "group": None, "stats": {"median": time, "min": 0}} for name, time in times.items()
    ]
    path.write_text(json.dumps({"machine_info": machine, "benchmarks": benchmarks, "version": "5.1.0"}))
    return path


def test_each_time_is_listed_and_none_is_judged(tmp_path: Path) -> None:
    """A time of both sides is indicative; benchmarks of one side, and how the machines differ, are in the notes."""
    one = saved(tmp_path / "a.json", {"t.py::f": 0.02, "t.py::gone": 1.0}, node="x", cpu={"brand_raw": "P", "hz": [1]})
    other = saved(tmp_path / "b.json", {"t.py::f": 0.03, "t.py::new": 1.0}, node="y", cpu={"brand_raw": "P", "hz": [2]})
    found = cnnperf.compare([one], [other])
    [verdict] = found.verdicts
    assert (verdict.cell, verdict.metric, verdict.outcome) == ("t.py::f", "median", "indicative")
    assert verdict.evidence == "20.0 ms → 30.0 ms  +50.0 %  n=1"
    assert (found.exit_code, found.notes) == (
        0,
        (
            "differences (allowed): node (x against y)",
            "not measured in the candidate, and not judged: t.py::gone",
            "not in the baseline, and not compared: t.py::new",
            NOTE,
        ),
    )


def test_of_several_files_the_median_counts(tmp_path: Path) -> None:
    """Each file of a side is a process; its median is one of as many values."""
    slow, usual, fast = (saved(tmp_path / f"{time}.json", {"f": time}) for time in (9.0, 2.0, 1.0))
    [verdict] = cnnperf.compare([slow, usual, fast, fast], [usual, slow, fast]).verdicts
    assert (verdict.baseline, verdict.candidate, verdict.n) == (2.0, 2.0, 3)


def test_nothing_in_common_is_no_pass(tmp_path: Path) -> None:
    """Files without a common benchmark end in status 3."""
    found = cnnperf.compare([saved(tmp_path / "a.json", {"f": 1.0})], [saved(tmp_path / "b.json", {"g": 1.0})])
    assert (found.verdicts, found.exit_code) == ((), 3)


def test_a_time_of_0_has_a_difference(tmp_path: Path) -> None:
    """A benchmark below the clock's resolution is listed with the difference in seconds."""
    [verdict] = cnnperf.compare(
        [saved(tmp_path / "a.json", {"f": 0.0})], [saved(tmp_path / "b.json", {"f": 0.5})]
    ).verdicts
    assert verdict.change == 0.5
    assert "+500 ms" in verdict.evidence


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "a.json: cannot be read (No such file or directory)"),
        ("{", "a.json: no file of pytest-benchmark (Invalid JSON"),
        ("{}", "a.json: no file of pytest-benchmark (benchmarks: Field required)"),
        (
            '{"benchmarks": [{"fullname": "f", "stats": {"median": -1}}]}',
            "benchmarks.0.stats.median: must be at least 0",
        ),
        ('{"benchmarks": [{"fullname": "f", "stats": {"median": NaN}}]}', "a.json: no file of pytest-benchmark ("),
    ],
)
def test_a_file_of_something_else_is_one_sentence(tmp_path: Path, text: str | None, words: str) -> None:
    """The error names the file, the place and the cure."""
    if text is not None:
        (tmp_path / "a.json").write_text(text)
    with pytest.raises(StoreError) as refused:
        cnnperf.compare([tmp_path / "a.json"], [saved(tmp_path / "b.json", {"f": 1.0})])
    assert words in str(refused.value)
    assert "; give " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_run_is_not_compared_with_a_file(tmp_path: Path) -> None:
    """Both sides must be of one kind."""
    with pytest.raises(UsageError, match=r"a\.json is a file of pytest-benchmark and .*run is none; give such files"):
        cnnperf.compare([saved(tmp_path / "a.json", {"f": 1.0})], [tmp_path / "run"])


@pytest.mark.slow
def test_a_file_of_a_real_run_of_pytest_is_read(tmp_path: Path) -> None:
    """The file of `pytest --benchmark-json` is listed against itself without a change."""
    (tmp_path / "test_it.py").write_text("def test_it(benchmark):\n    benchmark(sum, [1, 2])\n")
    file = tmp_path / "found.json"
    words = ("-q", "-p", "no:cacheprovider", "--benchmark-max-time=0.01", f"--benchmark-json={file}", "test_it.py")
    # In a worker of xdist, pytest-benchmark measures nothing.
    alone = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = completed(sys.executable, "-m", "pytest", *words, cwd=tmp_path, env=alone)
    assert done.returncode == 0, done.stdout
    [verdict] = cnnperf.compare([file], [file]).verdicts
    assert (verdict.cell, verdict.change) == ("test_it.py::test_it", 0.0)
