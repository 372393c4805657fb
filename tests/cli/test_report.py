"""`cnnperf report`: the number of times that a run's records are read."""

from __future__ import annotations

from pathlib import Path

from in_process import called

RUNS = sorted((Path(__file__).parent.parent / "golden" / "smoke").iterdir())


def test_a_report_reads_each_run_once(reads: list[Path]) -> None:
    """A report on two runs reads the records of each run once, although one run is compared with the other."""
    done = called("report", *RUNS)
    assert done.returncode == 0, done.stderr
    assert sorted(reads) == RUNS
