"""`cnnperf report`: the number of times that a run's records are read, and the file that it replaces."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from in_process import called

RUNS = sorted((Path(__file__).parent.parent / "golden" / "smoke").iterdir())


def test_a_report_reads_each_run_once(reads: list[Path]) -> None:
    """A report on two runs reads the records of each run once, although one run is compared with the other."""
    done = called("report", *RUNS)
    assert done.returncode == 0, done.stderr
    assert sorted(reads) == RUNS


def test_a_report_that_cannot_be_made_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a format's package is not installed, the file of an earlier report stays as it was."""
    page = tmp_path / "page.html"
    page.write_text("an earlier report")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    done = called("report", RUNS[0], "--format", "html", "--out", page)
    assert (done.returncode, page.read_text()) == (2, "an earlier report"), done.stderr
    assert "pip install" in done.stderr
