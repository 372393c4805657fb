"""Stages run as for a user: prepared, then each in a fresh process. This module does not import torch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnnperf.claims import Context, NotApplicable
from cnnperf.datasets import Dataset, open_arrays
from cnnperf.engines import FILES, baseline_of
from cnnperf.errors import StageError
from cnnperf.ipc.messages import Ready, SuiteRequest
from cnnperf.record import Record
from cnnperf.running.preflight import prepare
from cnnperf.running.runner import Run, Unwatched
from cnnperf.suite import parse

IMPORT_LOG = "PYTHONPROFILEIMPORTTIME"
"""Makes an interpreter log each import to its standard error, which is a task's log."""

ENGINES: dict[str, Any] = {
    "datasets": [{"name": "synthetic", "train": 2048, "test": 512}],
    "models": ["resnet"],
    "stages": ["train", "export", "infer"],
    "train": {"steps": 20, "batch_size": 32, "validation_images": 0, "normalize": "dataset"},
    "export": {"test_images": 512},
    "infer": {"engines": [baseline_of(FILES)], "batch_sizes": [1, 32], "pairs": 0, "seconds": 0.2, "test_images": 512},
}
"""A small residual network, trained a little, exported and run in ONNX Runtime."""


@dataclass(frozen=True, slots=True)
class Made:
    """The results of one run, in which every task succeeded."""

    folder: Path
    ready: tuple[Ready, ...]
    records: tuple[Record, ...]

    def record(self, stage: str) -> Record:
        """Return the record of a stage that ran once."""
        [found] = [record for record in self.records if record.task.stage == stage]
        return found

    def value(self, stage: str, metric: str, **tags: Any) -> tuple[float, ...]:
        """Return the values of all measurements of one metric."""
        found = self.record(stage).find(metric, **tags)
        if not found:
            raise StageError(f"the stage {stage} recorded no {metric}; this is a fault of cnnperf")
        return tuple(value for each in found for value in each.values)

    def artifact(self, stage: str, kind: str) -> Path:
        """Return a file that a stage wrote. Raises StageError if the file has changed since."""
        return self.record(stage).artifacts[kind].verified(self.folder)

    def log(self, stage: str) -> Path:
        """Return what a stage's process printed."""
        [found] = (self.folder / "logs").glob(f"*-{self.record(stage).key}.log")
        return found

    @property
    def dataset(self) -> Dataset:
        """The images."""
        ready = self.ready[0]
        assert ready.folder is not None, "preflight readies the data of what is run"
        return open_arrays(ready.folder, ready.task.data)


def ran(context: Context, name: str, document: Mapping[str, Any], *, copy: str = "") -> Made:
    """Run a suite on the device, except tasks that an earlier claim of the self-test has run.

    copy: distinguishes runs of the same suite. Raises NotApplicable if a task was skipped, StageError if a task failed.
    """
    where = {"devices": [context.device], "threads": context.threads, "timeout_s": context.seconds}
    suite = parse({**where, **document}, where="selftest", name=name)
    context.progress("preparing")
    tasks = prepare(SuiteRequest(suite=suite, where="selftest", allow_busy=True)).tasks
    folder = context.scratch / "runs" / (name + copy)
    with _imports_logged(), Run(folder) as run:
        for record in run.execute(tasks, Unwatched()):
            context.progress(f"{record.task.label} {record.status}")
            if record.status == "skipped":
                raise NotApplicable(record.error or "skipped")
            if record.status != "ok":
                raise StageError(f"{record.task.label}: {record.status}: {record.error}")
    return Made(folder, tasks, run.records)


@contextmanager
def _imports_logged() -> Iterator[None]:
    before = os.environ.get(IMPORT_LOG)
    os.environ[IMPORT_LOG] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[IMPORT_LOG]
        else:
            os.environ[IMPORT_LOG] = before
