"""The data dictionary describes every column of every CSV file with a meaning and a source."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import dictionary
import furnished
import pytest
from pydantic import BaseModel

from cnnperf.record import Record, read
from cnnperf.regression.verdict import is_difference, is_of_fractions
from cnnperf.reports import csv as csv_report
from cnnperf.tables.dictionary import DICTIONARY
from cnnperf.tables.report import report_of

ROOT = Path(__file__).parents[2]
STORED = sorted((ROOT / "results" / "reference").glob("*/*.csv"))
RUNS = sorted((ROOT / "tests" / "golden" / "smoke").iterdir())
MEASUREMENTS = [measurement for run in RUNS for record in read(run) for measurement in record.measurements]
TABLES = [
    path
    for path in (*STORED, *sorted((ROOT / "tests" / "golden" / "expected").glob("*.csv")))
    if path.stem in DICTIONARY
]


def test_the_dictionary_is_what_the_code_says(part: Callable[[str, str, str], None]) -> None:
    """The dictionary in `results/README.md` equals the generated one."""
    part("results/README.md", "data dictionary", dictionary.text())


@pytest.mark.parametrize("name", DICTIONARY)
def test_every_column_has_a_meaning_and_a_source(name: str) -> None:
    """Every column has a meaning and a source, and no name occurs twice in a file."""
    file = DICTIONARY[name]
    columns = [*file.columns, *file.patterns]
    assert [column.name for column in columns if not (column.meaning and column.source)] == []
    names = [column.name for column in columns]
    assert len(set(names)) == len(names)


def described(path: Path) -> list[str]:
    """Return the columns of a CSV file that the dictionary does not describe by name."""
    file = DICTIONARY[path.stem]
    names = {column.name for column in file.columns}
    with open(path, encoding="utf-8") as lines:
        head = next(csv.reader(lines))
    return [name for name in head if name not in names]


def test_every_file_of_a_run_is_described(tmp_path: Path, trained: Callable[..., Record]) -> None:
    """Two runs write every table except the campaign's, and the dictionary has each of their columns."""
    runs = [furnished.furnish(tmp_path / name, trained, networks=("lenet", "nin")) for name in ("a", "b")]
    csv_report.write(report_of(runs), tmp_path)
    written = sorted(tmp_path.glob("*.csv"))
    assert {path.stem for path in written} == DICTIONARY.keys() - {"cell_metrics", "counts"}
    assert {path.stem: described(path) for path in written if described(path)} == {}


@pytest.mark.parametrize("path", STORED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_stored_file_is_described(path: Path) -> None:
    """Each column of a reference file is described, in the dictionary or in the reference's README.md."""
    if path.stem in DICTIONARY:
        assert described(path) == []
        return
    beside = (path.parents[1] / "README.md").read_text(encoding="utf-8")
    assert "(reference/README.md#columns-of-the-benchmarks)" in (ROOT / "results" / "README.md").read_text("utf-8")
    with open(path, encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    for name, value in rows[0].items():
        found = re.findall(rf"^\| `{path.name}` \| `{name}` \|(.*)\|(.+)\|(.+)\|$", beside, re.MULTILINE)
        assert len(found) == 1, name
        unit, meaning, source = map(str.strip, found[0])
        assert bool(unit) == bool(re.fullmatch(r"[\d.e-]+", value)), f"{name}: only numbers have a unit"
        assert meaning, name
        assert source, name


@pytest.mark.parametrize("path", TABLES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_fraction_lies_from_0_to_1(path: Path) -> None:
    """Every column with the unit `fraction` has only values from 0 to 1."""
    names = [column.name for column in DICTIONARY[path.stem].columns if column.unit == "fraction"]
    with open(path, encoding="utf-8") as lines:
        found = [(name, float(row[name])) for row in csv.DictReader(lines) for name in names if row.get(name)]
    assert [(name, value) for name, value in found if not 0 <= value <= 1] == []


def test_a_change_has_a_unit_that_its_column_names() -> None:
    """The unit of the column names both kinds of change: pure numbers, and differences in the unit of the row."""
    with open(ROOT / "tests" / "golden" / "expected" / "verdicts.csv", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["change"]]
    numbers = [(row["metric"], row["unit"], float(row["baseline"]), float(row["candidate"])) for row in rows]
    has_unit = {is_difference(*each) and not is_of_fractions(*each[:2]) for each in numbers}
    [unit] = [column.unit for column in DICTIONARY["verdicts"].columns if column.name == "change"]
    assert unit is not None
    assert set(unit.split(" or ")) == {"(unit)" if each else "1" for each in has_unit}


def test_every_metric_of_a_training_has_a_column_of_its_own() -> None:
    """Every metric of a stored training has a column with the same unit and direction."""
    described = {(column.source, column.unit, column.better) for column in DICTIONARY["leaderboard"].columns}
    described |= {("train.confusion", "count", None)}  # confusion.csv
    records = [record for run in RUNS for record in read(run) if record.task.stage == "train"]
    measured = {(m.metric, m.unit, m.better) for record in records for m in record.measurements if not m.is_point}
    assert measured
    # A stretch has as many steps as last 10 ms, so that a shorter one is not better; older versions recorded `lower`.
    assert measured - described <= {("train.stretch", "s", "lower")}


def sources() -> set[str]:
    """Return all sources that columns name."""
    columns = [column for file in DICTIONARY.values() for column in file.columns]
    return {source for column in columns for source in column.source.split(", ")}


def code(*folders: str) -> str:
    """Return the code of these folders of the package."""
    files = (file for folder in folders for file in sorted((ROOT / "cnnperf" / folder).rglob("*.py")))
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


# Without the tables: their code has the source of every column.
MEASURING = code("inference", "machine", "profiling", "stages", "timing", "training", "workers")
STORING = code("inference", "record", "regression", "running", "training", "workers")
METRICS = {measurement.metric for measurement in MEASUREMENTS}
TAGS = {tag for measurement in MEASUREMENTS for tag in measurement.tags}
REMARKS = {remark for measurement in MEASUREMENTS for remark in measurement.remarks}


@pytest.mark.parametrize("source", sorted(sources()))
def test_every_source_is_there(source: str) -> None:
    """Each source is a metric, tag, remark or file of a run, a field of the record, or a word that is no data."""
    if source in ("(folder)", "(records)", "(rule)"):
        return
    if found := re.fullmatch(r"\((tag|remark) (\w+)\)", source):
        assert found[2] in {"tag": TAGS, "remark": REMARKS}[found[1]] or f'"{found[2]}"' in MEASURING
    elif source.startswith(("train.", "profile.", "infer.")):
        assert is_measured(source)
    elif source.endswith((".json", ".jsonl")):
        assert f'"{source}"' in STORING
    else:
        assert is_field(Record, source.split("."))


@pytest.mark.parametrize("wrong", ["train.test_acuracy", "infer.top1_accuracy", "profile.step_seconds_raw"])
def test_a_metric_that_nothing_measures_is_not_there(wrong: str) -> None:
    """A name that differs from a metric, or joins a metric and a suffix of others, is not taken for one."""
    assert not is_measured(wrong)


SUFFIXES = {"train.epoch_test_accuracy_raw": "_raw", "train.stretch_frequency": "_frequency"}
"""Metrics that no stored run has, with the suffix that the code adds to the name of another."""


def is_measured(metric: str) -> bool:
    """Tell whether a stored run has a metric, or the code that measures writes its name."""
    suffix = SUFFIXES.get(metric, "")
    if suffix and f'"{suffix}"' not in MEASURING:
        return False
    stage, _, quantity = metric.removesuffix(suffix).partition(".")
    return metric.removesuffix(suffix) in METRICS or bool(
        re.search(rf'"({stage}|{{stage}})\.{quantity}["{{]', MEASURING)
    )


def is_field(model: Any, path: list[str]) -> bool:
    """Tell whether a path of names leads through the fields of nested models."""
    if not path:
        return True
    models = [model, *get_args(model)]
    found = [m for m in models if isinstance(m, type) and issubclass(m, BaseModel) and path[0] in m.model_fields]
    return any(is_field(m.model_fields[path[0]].annotation, path[1:]) for m in found)
