"""Common parts of the measurements of one network: its name, the progress listener and the result."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from cnnperf.ipc.messages import Ready, SuiteRequest
from cnnperf.record import Record
from cnnperf.running import runner
from cnnperf.running.preflight import prepare
from cnnperf.running.runner import execute, folder_to_make
from cnnperf.suite import parse
from cnnperf.tables.report import exit_code, report_of_run
from cnnperf.tables.table import Report

Named = str | os.PathLike[str] | dict[str, Any]
"""A name, or a table with a name and options, as in a suite: `{"name": "resnet", "depth": 18}`."""


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

    @property
    def exit_code(self) -> Literal[0, 1, 3]:
        """1 if a task failed, else 3 if more test images are needed to decide an engine's parity, else 0."""
        return exit_code(self.records)


def lists_of_cell(model: Named, dataset: Named, device: str) -> dict[str, Any]:
    """Return the lists of a suite of one cell."""
    return {"datasets": [_plain(dataset)], "models": [_plain(model)], "devices": [device]}


def _plain(choice: Named) -> str | dict[str, Any]:
    return choice if isinstance(choice, dict) else os.fspath(choice)


def name_of(choice: Named) -> str:
    """Return only the name."""
    return str(choice.get("name")) if isinstance(choice, dict) else os.fspath(choice)


def request(
    name: str, document: dict[str, Any], waiting: str | None, allocator: str | None, data: Path | None, where: str
) -> SuiteRequest:
    """Return the request for preflight. Raises UsageError for settings that are invalid in a suite."""
    suite = parse(document, where=where, name=name).launched(waiting=waiting, allocator=allocator)
    return SuiteRequest(suite=suite, where=where, data=data)


def measure_and_report(asked: SuiteRequest, out: Path | None, watcher: MeasurementWatcher) -> Measured:
    """Run the tasks of a request, in a new run folder, and make their report."""
    folder = folder_to_make(asked.suite, out)
    tasks = prepare(asked, watcher.downloading).tasks
    watcher.planned(tasks, folder)
    records = tuple(execute(tasks, folder, watcher))
    return Measured(folder, records, report_of_run(folder, records))
