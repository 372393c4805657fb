"""One network measured without a suite: `cnnperf.profile` and `cnnperf.infer`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from cnnperf.engines import usual
from cnnperf.errors import RunError, UsageError
from cnnperf.record import Record
from cnnperf.running import runner
from cnnperf.running.preflight import Ready, Request, prepare
from cnnperf.running.runner import execute, folder_to_make
from cnnperf.suite import parse
from cnnperf.tables.engines import is_undecided
from cnnperf.tables.report import report_of_run
from cnnperf.tables.table import Report
from cnnperf.task import Choice

Named = str | os.PathLike[str] | dict[str, Any]
"""A name, or a table with a name and options, as in a suite: `{"name": "resnet", "depth": 18}`."""


class MeasurementWatcher(runner.Watcher, Protocol):
    """Who follows the measurement of one network, from its preflight on."""

    def downloading(self, dataset: str, done: int, total: int) -> None:
        """Bytes of a dataset have arrived: so many, of so many."""

    def planned(self, tasks: Sequence[Ready], folder: Path) -> None:
        """Preflight has ended: these tasks are run next, in this run folder."""


class UnwatchedMeasurement(runner.Unwatched):
    """Follows the measurement of one network without a word."""

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
        """1 if a task failed, else 3 if more test images are needed to tell an engine's parity."""
        if any(record.status not in ("ok", "skipped") for record in self.records):
            return 1
        return 3 if is_undecided(self.report) else 0


def profile(
    model: Named,
    *,
    dataset: Named = "cifar10",
    device: str = "cpu",
    batch_size: int | None = None,
    mode: Literal["train", "infer"] = "train",
    samples: int | None = None,
    waiting: str | None = None,
    allocator: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    watcher: MeasurementWatcher | None = None,
    where: str = "cnnperf.profile",
) -> Measured:
    """Measure where the time and memory of a freshly built network go, layer by layer, in a process of its own.

        layers = cnnperf.profile("lenet", dataset="mnist").report.table("layers").frame()

    model: a name, or pkg.module:callable. batch_size: images a step, the recipe's if None. samples: steps with hooks,
    and as many without. data: a folder in torchvision's layout. out: the run folder to make; a new one below
    `results/` if None. where: what errors call the request.
    Raises UsageError, before anything is measured, for what cannot be carried out; RunError if the profile failed.
    """
    section: dict[str, Any] = {"mode": mode}
    section |= {} if batch_size is None else {"batch_sizes": [batch_size]}
    section |= {} if samples is None else {"samples": samples}
    document = {**_cell(model, dataset, device), "stages": ["profile"], "profile": section}
    request = _request("profile", document, waiting, allocator, data, where)
    measured = _measured(request, out, watcher or UnwatchedMeasurement())
    [record] = measured.records
    if record.status == "skipped":
        raise UsageError(f"{record.task.label}: {record.error}; profile it on another device")
    if record.status != "ok":
        raise RunError(
            f"{record.task.label}: {record.status}: {record.error or record.signal}; see {measured.folder / 'logs'}"
        )
    return measured


def infer(
    model: Named,
    *,
    dataset: Named = "cifar10",
    device: str = "cpu",
    engines: Sequence[str] | None = None,
    batch_sizes: Sequence[int] | Literal["auto"] | None = None,
    train: float | None = None,
    samples: int | None = None,
    pairs: int | None = None,
    threads: int | None = None,
    waiting: str | None = None,
    allocator: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    watcher: MeasurementWatcher | None = None,
    where: str = "cnnperf.infer",
) -> Measured:
    """Run one network in several engines, each in fresh processes: their parity, their speed, their layers.

        engines = cnnperf.infer("lenet", dataset="mnist", train=20).report.table("engines").frame()

    model: a name, pkg.module:callable, or an ONNX file. engines: all that can run it and need not compile if None.
    train: seconds of training first; None for weights as built. samples: the least number of timed calls at each batch
    size. pairs: fresh pairs of processes that take turns; 0 compares separate processes. threads: every usable core if
    None. data: a folder in torchvision's layout. out: the run folder to make; a new one below `results/` if None.
    where: what errors call the request.
    An engine that failed has its reason in the tables. Raises UsageError for what cannot be carried out; Ctrl-C leaves
    the records so far in the run folder.
    """
    network = Choice.model_construct(name=_name(model))
    if network.is_onnx and train is not None:
        raise UsageError(f"--train: {network.name}: an ONNX file is not trained; leave --train out")
    section: dict[str, Any] = {"engines": list(engines or usual(network))}
    if batch_sizes is not None:
        section["batch_sizes"] = batch_sizes if isinstance(batch_sizes, str) else list(batch_sizes)
    section |= {} if samples is None else {"samples": samples}
    section |= {} if pairs is None else {"pairs": pairs}
    document = {
        **_cell(model, dataset, device),
        "stages": [*(["train"] if train is not None else ()), "export", "infer"],
        "infer": section,
        **({} if train is None else {"train": {"seconds": train}}),
        **({} if threads is None else {"threads": threads}),
    }
    request = _request("infer", document, waiting, allocator, data, where)
    measured = _measured(request, out, watcher or UnwatchedMeasurement())
    if all(record.status == "skipped" for record in measured.records):
        first = measured.records[0]
        raise UsageError(f"{first.task.label}: {first.error}; nothing was measured")
    return measured


def _cell(model: Named, dataset: Named, device: str) -> dict[str, Any]:
    return {"datasets": [_plain(dataset)], "models": [_plain(model)], "devices": [device]}


def _plain(choice: Named) -> str | dict[str, Any]:
    return choice if isinstance(choice, dict) else os.fspath(choice)


def _name(choice: Named) -> str:
    return str(choice.get("name")) if isinstance(choice, dict) else os.fspath(choice)


def _request(
    name: str, document: dict[str, Any], waiting: str | None, allocator: str | None, data: Path | None, where: str
) -> Request:
    suite = parse(document, where=where, name=name).launched(waiting=waiting, allocator=allocator)
    return Request(suite=suite, where=where, data=data)


def _measured(request: Request, out: Path | None, watcher: MeasurementWatcher) -> Measured:
    folder = folder_to_make(request.suite, out)
    tasks = prepare(request, watcher.downloading).tasks
    watcher.planned(tasks, folder)
    records = tuple(execute(tasks, folder, watcher))
    return Measured(folder, records, report_of_run(folder, records))
