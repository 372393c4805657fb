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


def test_a_reference_and_a_run_of_other_threads_are_compared(
    tmp_path: Path, trained: Callable[..., Record], as_reference: Callable[[Path, str], str]
) -> None:
    """The table holds a run to a reference as `compare` does: threads may differ, and cells may be lacking."""
    theirs, mine = tmp_path / "theirs", tmp_path / "mine"
    for run in (theirs, mine):
        run.mkdir()
    store.append(theirs, trained())
    store.append(theirs, trained("vgg"))
    record = trained(accuracy=0.52)
    task = record.task.model_copy(update={"threads": 8})
    store.append(mine, record.model_copy(update={"task": task, "key": task.key}))
    runs = [as_reference(theirs, "cifar"), str(mine)]
    table = verdict_table(read_runs(runs), run_folders(runs))
    assert table
    assert {row.outcome for row in table.rows} == {"inconclusive", "indicative"}
    assert "differences from the reference (allowed): threads (2 against 8)" in table.notes
    runs[0] = str(theirs)
    table = verdict_table(read_runs(runs), run_folders(runs))
    assert table
    assert table.notes[1].startswith("Not compared: ")
