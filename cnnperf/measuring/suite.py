"""Runs a suite in a new or resumed run folder; the call behind `cnnperf run`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from cnnperf import registry
from cnnperf.errors import SuiteError, UsageError, first_error
from cnnperf.executors import GIVEN, SuiteWork
from cnnperf.ipc.messages import Ready, SuiteRequest
from cnnperf.measuring.measured import Measured, MeasurementWatcher
from cnnperf.record import Record
from cnnperf.running.preflight import Downloading, prepare
from cnnperf.running.runner import Run, Unwatched, Watcher, created, new_folder, pending
from cnnperf.running.shards import Shard
from cnnperf.suite import EVERY, Suite
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
    _check_strict(strict)
    execute = chosen_executor(asked.suite, asked.where)
    tasks = _planned(asked, watcher.downloading)
    if shard:
        tasks = shard.of(tasks)
    folder = folder if is_named else created(folder)
    made: list[str] = []
    interrupted = False
    with Run(folder, is_new=is_new, shard=shard) as run:
        watcher.planned(pending(tasks, run.left), folder)
        try:
            made.extend(record.key for record in execute(SuiteWork(asked, tasks, strict), run, watcher))
        except KeyboardInterrupt:
            interrupted = True
        found = run.records
    report = report_of_run(folder, found)
    of_task = {record.key: record for record in found}
    of_tasks = tuple(of_task[ready.task.key] for ready in tasks if ready.task.key in of_task)
    return MeasuredSuite(folder, of_tasks, report, tuple(of_task[key] for key in made), interrupted)


def run(
    suite: Suite,
    folder: Path | None = None,
    *,
    shard: str | None = None,
    strict: int | None = None,
    allow_busy: bool = False,
    watcher: Watcher | None = None,
) -> Iterator[Record]:
    """Run a suite, one fresh process per task and repeat, and yield each record once it is on disk.

    folder: the run folder; a new one below `results/` by default. An existing run is resumed: tasks whose
    record is ok and whose key is unchanged are not run again. shard: `2/3` runs the second of three parts of the
    cells. strict: how often a disturbed task is tried again before it ends as `disturbed`; by default it ends like
    others. allow_busy: run although other processes compute on a GPU. Raises CnnperfError, before any measurement, if
    the request cannot be carried out.
    """
    _check_strict(strict)
    part = None if shard is None else Shard.parse(shard)
    asked = SuiteRequest(suite=suite, where=suite.name, allow_busy=allow_busy)
    execute = chosen_executor(suite, asked.where)
    tasks = _planned(asked)
    if part:
        tasks = part.of(tasks)
    with Run(folder or created(new_folder(suite)), "folder", shard=part) as opened:
        yield from execute(SuiteWork(asked, tasks, strict), opened, watcher or Unwatched())


def _check_strict(strict: int | None) -> None:
    if strict is not None and strict < 0:
        raise UsageError(f"`strict`: got {strict}; give the number of further attempts, 0 or more")


def _planned(asked: SuiteRequest, downloading: Downloading | None = None) -> tuple[Ready, ...]:
    """Have this machine check the suite and prepare its tasks. Raises CnnperfError."""
    is_elsewhere = bool(registry.declared("executors", asked.suite.executor.name).get("IS_REMOTE"))
    return prepare(asked.model_copy(update={"is_elsewhere": is_elsewhere}), downloading).tasks


def chosen_executor(suite: Suite, where: str) -> Callable[[SuiteWork, Run, Watcher], Iterator[Record]]:
    """Return the function that runs a suite's tasks. where: the suite's name in errors.

    Raises SuiteError for an option that the executor does not have, or if the suite leaves the threads or the number of
    devices to each machine although the tasks run on others; UsageError if a package that it needs is not installed.
    """
    choice = suite.executor
    verb = registry.find("executors", choice.name)
    try:
        options = registry.options(verb, GIVEN).model_validate(choice.options, strict=True)
    except ValidationError as error:
        raise SuiteError(f"{where}: {first_error(error, 'executor')}") from error
    declared = registry.declared("executors", choice.name)
    for package in declared.get("PACKAGES", ()):
        if find_spec(package) is None:
            install = f"pip install 'cnnperf[{choice.name}]'"
            raise UsageError(f"the executor {choice.name!r} needs {package}, which is not installed; run {install}")
    is_remote = declared.get("IS_REMOTE")
    if is_remote and suite.is_open:
        raise SuiteError(
            f"{where}: devices: the executor {choice.name!r} needs the index of each device, because machines may have "
            f"different numbers of devices; write cuda:0, cuda:1 … in place of cuda:{EVERY}"
        )
    if is_remote and suite.threads is None:
        raise SuiteError(
            f"{where}: the executor {choice.name!r} needs `threads`, because machines may have different numbers of "
            "cores; give the number of threads"
        )
    return partial(verb, **{name: getattr(options, name) for name in options.model_fields_set})
