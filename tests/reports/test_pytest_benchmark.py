"""The format of pytest-benchmark, read by its own command, and back by `cnnperf check`."""

from __future__ import annotations

import csv
import io
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from in_process import called
from pytest_benchmark.cli import main as compare

import cnnperf
from cnnperf.reports.pytest_benchmark import write
from cnnperf.tables.report import report_of

RUNS = sorted((Path(__file__).parent.parent / "golden" / "smoke").iterdir())
CELL = "synthetic[shape=1×28×28,train=600,test=200]/lenet/cpu"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Write both stored runs, each to a file."""
    folder = tmp_path_factory.mktemp("benchmarks")
    for number, run in enumerate(RUNS):
        with open(folder / f"{number}.json", "w", encoding="utf-8") as out:
            write(report_of([run]), out)
    return [folder / f"{number}.json" for number in range(len(RUNS))]


def benchmarks(file: Path) -> dict[str, dict[str, Any]]:
    """Return the benchmarks of a file by their full names."""
    found = json.loads(file.read_text(encoding="utf-8"))["benchmarks"]
    by_name = {each["fullname"]: each for each in found}
    assert len(by_name) == len(found)
    return by_name


def test_rounds_are_the_samples_of_the_records(files: list[Path]) -> None:
    """A benchmark has the samples of all repeats in seconds, and the median of each repeat beside them."""
    found = benchmarks(files[0])[f"{CELL} train.step_time"]
    samples = [
        m.values
        for record in cnnperf.read(RUNS[0])
        if record.task.cell.id == CELL
        for m in record.find("train.step_time")
    ]
    pooled = [value for values in samples for value in values]
    assert found["stats"]["data"] == pooled
    assert found["stats"]["median"] == median(pooled)
    assert found["stats"]["rounds"] == len(pooled)
    assert found["extra_info"]["medians_s"] == list(map(median, samples))
    assert len(samples) == 2


def test_only_repeated_times_are_in_it(files: list[Path]) -> None:
    """Training steps, profiled steps and calls of engines are in it; layers, single times and other units are not."""
    metrics = {
        name.removeprefix(f"{CELL} ").partition("[")[0] for name in benchmarks(files[0]) if name.startswith(CELL)
    }
    assert metrics == {"train.step_time", "train.stretch", "profile.step_seconds", "infer.latency"}


def test_a_group_compares_networks_and_engines(files: list[Path]) -> None:
    """The benchmarks of a group differ in network or engine, and in nothing else."""
    found = benchmarks(files[0])
    one, other = (found[f"{CELL} infer.latency[batch_size=8,engine={engine}]"] for engine in ("torch", "onnxruntime"))
    assert one["group"] == other["group"]
    assert one["group"].endswith("/cpu infer.latency[batch_size=8]")
    assert (one["name"], other["name"]) == ("lenet torch", "lenet onnxruntime")


def test_two_runs_of_one_report_are_told_apart() -> None:
    """Benchmarks of one cell and metric have the run in both names."""
    out = io.StringIO()
    write(report_of(RUNS), out)
    found = [
        each for each in json.loads(out.getvalue())["benchmarks"] if each["fullname"].startswith(f"{CELL} train.step")
    ]
    assert len({each["fullname"] for each in found}) == len({each["name"] for each in found}) == len(found) == 2
    assert all(each["name"].startswith("lenet run=smoke/") for each in found)


def test_pytest_benchmark_compares_it(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command shows both files' times beside each other, and its table has the same medians."""
    table = tmp_path / "table.csv"
    words = ("--storage", f"file://{tmp_path}", "compare", *map(str, files), "--csv", str(table))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["pytest-benchmark", *words])
    compare()
    shown = "".join(capsys.readouterr())
    assert "Failed to load" not in shown
    assert "lenet onnxruntime (0" in shown
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(name, each["stats"]["median"]) for file in files for name, each in benchmarks(file).items()]
    assert sorted((row["name"], float(row["median"])) for row in rows) == sorted(expected)


def test_check_lists_its_own_files(files: list[Path]) -> None:
    """`cnnperf check` reads what `cnnperf report` wrote, and judges no time."""
    done = called("check", "--baseline", files[0], "--candidate", files[1], "--json")
    assert done.returncode == 0, done.stderr
    verdicts = json.loads(done.stdout)["verdicts"]
    assert {each["outcome"] for each in verdicts} == {"indicative"}
    assert {each["cell"] for each in verdicts} == benchmarks(files[0]).keys() & benchmarks(files[1]).keys()


def test_verdicts_cannot_be_written() -> None:
    """Verdicts hold no samples, and the refusal names the formats that can write them."""
    done = called("check", "--baseline", RUNS[0], "--candidate", RUNS[1], "--format", "pytest_benchmark")
    assert (done.returncode, done.stdout) == (2, "")
    assert "unknown format 'pytest_benchmark'" in done.stderr
