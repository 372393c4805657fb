"""Common parts of the measurements of one network: the request, the progress listener and the result."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from cnnperf.errors import SuiteError
from cnnperf.ipc.messages import Prepared, Ready, SuiteRequest
from cnnperf.record import Record
from cnnperf.running import runner
from cnnperf.running.preflight import prepare
from cnnperf.running.runner import created, execute, folder_to_make
from cnnperf.suite import parse
from cnnperf.tables.report import exit_code, report_of_run
from cnnperf.tables.table import Report

ARGUMENTS = {
    r"models\.0": "model",
    r"datasets\.0\.shape(?:\.\d)?": "shape",
    r"datasets\.0\.num_classes": "classes",
    r"datasets\.0": "dataset",
    r"devices\.0": "device",
    r"threads": "threads",
    r"train\.seconds": "train",
    r"infer\.engines|infer: engines|infer(?=: unknown engine)": "engines",
    r"infer\.batch_sizes|infer: batch_sizes": "batch_sizes",
    r"profile\.batch_sizes\.0|profile: batch_sizes \d+": "batch_size",
    r"infer\.samples|profile\.samples": "samples",
    r"infer\.pairs": "pairs",
    r"profile\.mode": "mode",
}
"""The argument that gives the value at each place of the suite of a request; places as errors name them."""


class MeasurementWatcher(runner.Watcher, Protocol):
    """Listener to the measurement of one network, from preflight on."""

    def downloading(self, dataset: str, done: int, total: int) -> None:
        """Bytes of a dataset have been downloaded, out of a total."""

    def planned(self, tasks: Sequence[Ready], folder: Path) -> None:
        """Preflight has ended; these tasks will run in this run folder."""


class UnwatchedMeasurement(runner.Unwatched):
    """Listener that ignores all events."""

    def downloading(self, dataset: str, done: int, total: int) -> None:
        """Say nothing."""

    def planned(self, tasks: Sequence[Ready], folder: Path) -> None:
        """Say nothing."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of one network: its records, and their report."""

    folder: Path
    """The run folder: records, weights, logs, traces."""
    records: tuple[Record, ...]
    report: Report
    """The tables; `report.table("engines").frame()` is one of them as a DataFrame."""
    plan: Prepared | None = field(default=None, kw_only=True)
    """The tasks of a dry run and their estimates; None of a measurement."""

    @property
    def exit_code(self) -> Literal[0, 1, 3]:
        """1 if a task failed, else 3 if more test images are needed to decide an engine's parity, else 0."""
        return exit_code(self.records)


def request(
    name: str,
    document: dict[str, Any],
    waiting: str | None,
    allocator: str | None,
    data: Path | None,
    where: str,
    *,
    allow_busy: bool,
) -> SuiteRequest:
    """Return the request for preflight. Raises UsageError for settings that are invalid in a suite."""
    with _naming_arguments(where):
        suite = parse(document, where=where, name=name).launched(waiting=waiting, allocator=allocator)
        if suite.is_open:
            raise SuiteError(f"{where}: devices.0: several devices; give one, such as {suite.devices[0].name}:0")
    return SuiteRequest(suite=suite, where=where, data=data, allow_busy=allow_busy)


def measure_and_report(
    asked: SuiteRequest, out: Path | None, watcher: MeasurementWatcher, *, dry_run: bool = False
) -> Measured:
    """Run the tasks of a request, in a new run folder, and make their report; only plan them in a dry run."""
    folder = folder_to_make(asked.suite, out)
    with _naming_arguments(asked.where):
        prepared = prepare(asked.model_copy(update={"download": not dry_run, "probes": dry_run}), watcher.downloading)
    if dry_run:
        return Measured(folder, (), Report(()), plan=prepared)
    tasks = prepared.tasks
    folder = out or created(folder)
    watcher.planned(tasks, folder)
    records = tuple(execute(tasks, folder, watcher, is_new=True))
    return Measured(folder, records, report_of_run(folder, records))


@contextmanager
def _naming_arguments(where: str) -> Iterator[None]:
    """In errors, replace a place in the generated suite by the argument's name."""
    try:
        yield
    except SuiteError as error:
        raise SuiteError(_of_arguments(str(error), where)) from error


def _of_arguments(message: str, where: str) -> str:
    text = message.removeprefix(f"{where}: ")
    for place, argument in ARGUMENTS.items():
        if found := re.match(rf"(?:{place})(?=[:. ])", text):
            return f"`{argument}`{_with_cure(text[found.end() :])}"
    return message


def _with_cure(text: str) -> str:
    """Return a sentence on a missing or invalid value as one that ends in what to give; others as they are."""
    text = re.sub(r" \(and \d+ more\)$", "", text)
    if lacking := re.fullmatch(r"(.* needs (\w+).*); write \{.*\}", text):
        return f"{lacking[1]}; add `options` {lacking[2]}=…"
    found = re.fullmatch(r"(.*: )(?:Input should|must) be (.+), got (.+)", text)
    if not found:
        return text
    before, allowed, got = found.groups()
    is_whole = allowed.startswith(("a ", "an ", "at ", "'"))
    kind = "" if is_whole else "one of " if allowed[0].isdigit() else "a number "
    return f"{before}{got} is not valid; give {kind}{allowed}"
