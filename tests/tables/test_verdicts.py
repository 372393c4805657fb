"""The verdicts of two runs as a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from cnnperf import record as store
from cnnperf.record import Record, read_runs, run_folders
from cnnperf.regression.check import compare
from cnnperf.tables.verdicts import verdict_table


def test_the_second_run_is_held_to_the_first(tmp_path: Path, trained: Callable[..., Record]) -> None:
    """The table has the verdicts of `compare` for two runs, and is absent for one run or three."""
    runs = [tmp_path / name for name in ("first", "second", "third")]
    for run, accuracy in zip(runs, (0.5, 0.7, 0.6), strict=True):
        run.mkdir()
        store.append(run, trained(accuracy=accuracy))
    table = verdict_table(read_runs(runs[:2]), run_folders(runs[:2]))
    assert table
    comparison = compare([runs[0]], [runs[1]])
    assert [(row["metric"], row["outcome"], row["baseline"]) for row in table.rows] == [
        (verdict.metric, verdict.outcome, verdict.baseline) for verdict in comparison.verdicts
    ]
    assert table.notes[0].startswith("baseline: ")
    assert comparison.summary in table.notes
    for number in (1, 3):
        assert verdict_table(read_runs(runs[:number]), run_folders(runs[:number])) is None
