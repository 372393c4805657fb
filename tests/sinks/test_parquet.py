"""The Parquet store, read back by pyarrow: every table and every sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import cnnperf
from cnnperf.registry import find
from cnnperf.tables.report import report_of
from cnnperf.tables.table import Report, Row, Table, column, row_type

RUN = Path(__file__).parent.parent / "golden" / "smoke" / "20250102T030405Z-box"

parquet: Any = pytest.importorskip("pyarrow.parquet")


@row_type
class CountedRow(Row):
    """A row with one count."""

    steps: float | None = column(unit="count")


@pytest.fixture(scope="module")
def report() -> Report:
    """Return the report of a stored run."""
    return report_of([RUN])


@pytest.fixture(scope="module")
def folder(report: Report, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that it was exported to."""
    out = tmp_path_factory.mktemp("parquet")
    find("sinks", "parquet")(report, out)
    return out


def test_every_table_comes_back(report: Report, folder: Path) -> None:
    """Each table has a file with its rows, null for missing values, and the units of its columns."""
    assert {file.stem for file in folder.iterdir()} == {table.name for table in report.tables} | {"samples"}
    for table in report.tables:
        found = parquet.read_table(folder / f"{table.name}.parquet")
        names = [each.name for each in table.columns]
        assert found.column_names == names
        assert found.to_pylist() == [{name: row[name] for name in names} for row in table.rows]
        for each in table.columns:
            told = found.schema.field(each.name).metadata or {}
            assert told.get(b"unit", b"").decode() == (each.unit or "")


def test_a_type_does_not_depend_on_what_was_measured(folder: Path) -> None:
    """A column without a value has the type that it has with values, so that files of two runs can be joined."""
    schema = parquet.read_schema(folder / "leaderboard.parquet")
    types = {name: str(schema.field(name).type) for name in ("time_to_target_s", "params", "model", "target_accuracy")}
    assert types == {"time_to_target_s": "double", "params": "int64", "model": "string", "target_accuracy": "double"}


def test_every_sample_is_in_it(folder: Path) -> None:
    """Each measurement of each record is a row with its tags and values, in the order of the records."""
    expected = [
        (r.key, m.metric, m.unit, m.better, {name: str(tag) for name, tag in m.tags.items()}, list(m.values))
        for r in cnnperf.read(RUN)
        for m in r.measurements
    ]
    rows = parquet.read_table(folder / "samples.parquet").to_pylist()
    names = ("task", "metric", "unit", "better")
    assert [(*(row[n] for n in names), dict(row["tags"]), row["values"]) for row in rows] == expected
    assert {row["run"] for row in rows} == {"smoke/20250102T030405Z-box"}
    assert {row["model"] for row in rows} == {str(r.task.cell.model) for r in cnnperf.read(RUN) if r.measurements}


@pytest.mark.parametrize(
    ("values", "kind"), [((None,), "int64"), ((None, 2), "int64"), ((2, 107.5), "double"), ((), "int64")]
)
def test_a_count_is_whole_unless_a_median_is_not(values: tuple[float | None, ...], kind: str, tmp_path: Path) -> None:
    """A column of counts is of whole numbers, also if none was measured; a half of one makes it one of doubles."""
    table = Table("runs", CountedRow.columns(), tuple(CountedRow(steps=value) for value in values))
    find("sinks", "parquet")(Report((table,)), tmp_path)
    found = parquet.read_table(tmp_path / "runs.parquet")
    assert (str(found.schema.field("steps").type), found["steps"].to_pylist()) == (kind, list(values))
