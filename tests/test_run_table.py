"""What was run, as rows: a run for every machine it ran on, a task with its end and what disturbed it."""

from __future__ import annotations

from collections.abc import Callable

from cnnperf.record import Measurement, Record
from cnnperf.run_table import run_table, task_table

Trained = Callable[..., Record]


def test_a_run_says_when_where_and_how_it_ended(trained: Trained) -> None:
    """From the first start to the last end; each end is counted."""
    later = trained("nin", status="failed", error="no").model_copy(update={"started": "2025-01-02T03:10:00.250+00:00"})
    (row,) = run_table({"suite/run": (trained(), later, trained("vgg", status="skipped", error="no"))}).rows
    assert (row["tasks"], row["ok"], row["failed"], row["timeout"], row["skipped"]) == (3, 1, 1, 0, 1)
    assert (row["started"], row["ended"]) == ("2025-01-02T03:04:05Z", "2025-01-02T03:11:40.250+00:00")
    assert row["task_s"] == 300.0
    assert row["suite"] is None
    assert row["host"] == "box"


def test_a_run_says_of_which_suite_it_is(trained: Trained) -> None:
    """Wherever its folder lies; of a folder that two suites went into, both."""
    records = [
        r.model_copy(update={"task": r.task.model_copy(update={"suite": suite})})
        for r, suite in ((trained(), "cifar"), (trained("nin"), "mine"), (trained("vgg"), "cifar"))
    ]
    (row,) = run_table({"anywhere": records}).rows
    assert row["suite"] == "cifar, mine"


def test_another_machine_has_a_row_of_its_own(trained: Trained) -> None:
    """A run that went on elsewhere, and back, has two rows."""
    records = (trained(), trained("nin", host="other"), trained("vgg"))
    assert [(row["host"], row["tasks"]) for row in run_table({"suite/run": records}).rows] == [("box", 2), ("other", 1)]


def test_a_task_says_what_disturbed_it(trained: Trained) -> None:
    """Each figure's own words, with the batch that it stands on; nothing where nothing was noticed."""
    tags = {"batch_size": 8, "disturbed": "the load was 9.0 on 2 cores"}
    latency = Measurement(metric="infer.latency", unit="s", better="lower", values=(0.1,), tags=tags)
    rows = task_table(
        {"suite/run": (trained(measured=[latency]), trained("nin", status="timeout", error="60\ns"))}
    ).rows
    assert rows[0]["disturbed"] == "infer.latency at batch 8: the load was 9.0 on 2 cores"
    assert rows[0]["reason"] is None
    assert (rows[1]["disturbed"], rows[1]["status"], rows[1]["reason"]) == (None, "timeout", "60 s")
