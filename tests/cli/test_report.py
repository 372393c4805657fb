"""`cnnperf report`: how often it reads a run's records."""

from __future__ import annotations

from pathlib import Path

from in_process import called

RUNS = sorted((Path(__file__).parent.parent / "golden" / "smoke").iterdir())


def test_a_report_reads_each_run_once(reads: list[Path]) -> None:
    """Also where it judges one of two runs by the other."""
    done = called("report", *RUNS)
    assert done.returncode == 0, done.stderr
    assert sorted(reads) == RUNS
