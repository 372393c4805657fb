"""Runs a suite in a new or resumed run folder; the call behind `cnnperf run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cnnperf.errors import UsageError
from cnnperf.ipc.messages import SuiteRequest
from cnnperf.measuring.measured import Measured, MeasurementWatcher
from cnnperf.record import Record
from cnnperf.running.preflight import prepare
from cnnperf.running.runner import Run, created, pending, warn_if_busy
from cnnperf.running.shards import Shard
from cnnperf.tables.report import report_of_run


@dataclass(frozen=True, slots=True)
class MeasuredSuite(Measured):
    """The results of a suite: the records of its tasks, and the report of the whole run folder."""

    made: tuple[Record, ...]
    """The records that this call added; the others are of an earlier run that it resumed."""
    interrupted: bool
    """Whether Ctrl-C ended it early."""


def measure_suite(
    asked: SuiteRequest,
    folder: Path,
    watcher: MeasurementWatcher,
    *,
    is_named: bool = True,
    is_new: bool = False,
    shard: Shard | None = None,
    strict: int | None = None,
) -> MeasuredSuite:
    """Run the pending tasks of a suite in a run folder, and make the report of all its records.

    is_named: whether the user named the folder; otherwise it is created, under another name if this one is taken.
    is_new: whether the folder must contain no records.
    shard: the part of the suite to run; None: all of it.
    strict: how often a disturbed task is tried again before it ends as `disturbed`; None: it ends like others.
    Ctrl-C ends it early; what was measured until then is reported. Raises CnnperfError, before any measurement, if the
    request cannot be carried out, RunError if the run fails midway.
    """
    if strict is not None and strict < 0:
        raise UsageError(f"`strict`: got {strict}; give the number of further attempts, 0 or more")
    tasks = prepare(asked, watcher.downloading).tasks
    if shard:
        tasks = shard.of(tasks)
    folder = folder if is_named else created(folder)
    made: list[Record] = []
    interrupted = False
    with Run(folder, is_new=is_new, shard=shard) as run:
        due = pending(tasks, run.left)
        watcher.planned(due, folder)
        try:
            warn_if_busy(due)
            made.extend(run.execute(tasks, watcher, strict=strict))
        except KeyboardInterrupt:
            interrupted = True
    report = report_of_run(folder, run.records)
    return MeasuredSuite(folder, run.records_of(tasks), report, tuple(made), interrupted)
