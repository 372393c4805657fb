"""Two stored runs and all tables made from them: stored results give the same tables in every version."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

import cnnperf
from cnnperf.registry import find
from cnnperf.reports import VERDICTS, writer
from cnnperf.tables.report import report_of

GOLDEN = Path(__file__).parent / "golden"
RUNS = sorted((GOLDEN / "smoke").iterdir())
EXPECTED = GOLDEN / "expected"


def rendered(folder: Path) -> None:
    """Write the tables of both runs, and the verdicts on the second with the first as baseline."""
    report = report_of(RUNS)
    find("reports", "csv")(report, folder)
    page = io.StringIO()
    find("reports", "markdown")(report, page)
    (folder / "report.md").write_text(page.getvalue(), encoding="utf-8")
    comparison = cnnperf.compare(RUNS[:1], RUNS[1:])
    for format_, name in (("json", "check.json"), ("markdown", "check.md")):
        text = io.StringIO()
        writer(format_, VERDICTS)(comparison, text)
        (folder / name).write_text(text.getvalue(), encoding="utf-8")


def test_the_tables_of_a_stored_run_are_the_same(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """All tables of the stored runs and the verdicts on the second run match the expected files byte for byte."""
    if request.config.getoption("--update-golden"):
        rendered(EXPECTED)
    rendered(tmp_path)
    names = sorted(file.name for file in EXPECTED.iterdir())
    assert sorted(file.name for file in tmp_path.iterdir()) == names
    for name in names:
        assert (tmp_path / name).read_bytes() == (EXPECTED / name).read_bytes(), name


def test_the_stored_run_holds_what_a_run_leaves() -> None:
    """The stored run has records of each stage and each status, and each record has the key of its task."""
    records = cnnperf.read(RUNS[0])
    assert {record.task.stage for record in records} == {"train", "profile", "export", "infer"}
    assert {record.status for record in records} == {"ok", "failed", "skipped"}
    # Each record is still the answer to the task that it was made for.
    assert [record.key for record in records] == [record.task.key for record in records]
