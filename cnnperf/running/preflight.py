"""Preflight: before the first task, one short-lived worker checks the suite and prepares the data."""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cnnperf import errors
from cnnperf.errors import CnnperfError, CnnperfWarning, DataError
from cnnperf.ipc.messages import Answered, GaveUp, Received, Refused
from cnnperf.ipc.process import Launch, WorkerProcess, tail
from cnnperf.suite import Suite
from cnnperf.task import Frozen, Task

COMMAND = (sys.executable, "-m", "cnnperf.workers.prepare")
STALL_S = 20.0
"""A download that delivers no byte for this time is stopped."""


class Request(Frozen):
    """A request to check a suite."""

    suite: Suite
    where: str
    """Name of the suite in errors: its path."""
    only: str | None = None
    """A glob over the cells; other cells are ignored."""
    data: Path | None = None
    """The folder given as --data."""
    quick: bool = False
    """Cut every stage's budget to a few seconds."""
    download: bool = True
    """Download missing data; otherwise the answer only states the size of the download."""
    given_up: dict[str, str] = Field(default={})
    """Datasets that must not be tried again, with the reason."""


class DataRequest(Frozen):
    """A request of `cnnperf data` for one dataset."""

    verb: Literal["fetch", "verify"]
    dataset: str
    data: Path | None = None
    """The folder given as --data."""


class Ready(Frozen):
    """A task completed by preflight, with its estimates."""

    task: Task
    chosen: dict[str, Any] = Field(default={})
    """The suite's section of the stage, without defaults, recipe and the model's override."""
    folder: Path | None
    """Folder of the images as arrays; None if they are missing (without `download`)."""
    skip: str | None
    """Reason why the task cannot run on this machine; None if it can."""
    estimate_s: float
    weight_bytes: int


class Prepared(Frozen):
    """Preflight's answer: the tasks in order, and warnings about the data."""

    tasks: tuple[Ready, ...]
    warnings: tuple[str, ...]
    downloads: dict[str, int]
    """Datasets still to be downloaded and their bytes, if `download` was off."""


Downloading = Callable[[str, int, int], None]
"""Called with a dataset's name, the bytes downloaded and the total bytes, whenever bytes arrive."""


def prepare(request: Request, downloading: Downloading | None = None) -> Prepared:
    """Check the suite, build its models on the meta device, and find, download and cache its data.

    If a dataset's download stalls, the others are prepared without it. Warns if synthetic images are used instead.
    Raises CnnperfError, worded for the user, for any fault.
    """
    try:
        answer = ask("--prepare", request.model_dump_json(), downloading)
    except _Stalled as stall:
        reason = str(stall)
        again = request.model_copy(update={"given_up": {**request.given_up, stall.dataset: reason}})
        return prepare(again, downloading)
    prepared = Prepared.model_validate_json(answer)
    for text in prepared.warnings:
        warnings.warn(text, CnnperfWarning, stacklevel=2)
    return prepared


def ask_data(request: DataRequest, downloading: Downloading | None = None) -> str:
    """Fetch or verify one dataset and return a sentence about it. Raises DataError."""
    try:
        return ask("--data", request.model_dump_json(), downloading)
    except _Stalled as stall:
        raise DataError(f"{request.dataset}: cannot be downloaded: {stall}; try again later") from stall


def ask(mode: str, request: str, downloading: Downloading | None = None) -> str:
    """Have one worker answer a request. Raises the worker's CnnperfError."""
    with tempfile.TemporaryDirectory(prefix="cnnperf-") as folder:
        log = Path(folder) / "log"
        watch = _Download()
        answer: str | None = None
        with WorkerProcess(mode, request, log=log, launch=Launch(command=COMMAND)) as worker:
            try:
                for message in worker.messages(watch.patience):
                    match message:
                        case Refused():
                            raise getattr(errors, message.error)(message.reason)
                        case Received():
                            watch.saw(message.dataset, message.done, message.total)
                            if downloading:
                                downloading(message.dataset, message.done, message.total)
                        case GaveUp():
                            watch.over()
                        case Answered():
                            answer = message.document
            except TimeoutError:
                raise _Stalled(watch.dataset) from None
        if answer is None:
            raise CnnperfError("preflight ended without an answer" + _because(worker, log))
        return answer


def _because(worker: WorkerProcess, log: Path) -> str:
    how = f" ({worker.signal or f'exit status {worker.returncode}'})"
    return "\n".join((how + "; its last words:", *tail(log))) + os.linesep


class _Stalled(Exception):  # noqa: N818 - an event, not an error
    def __init__(self, dataset: str) -> None:
        super().__init__(f"no byte arrived for {STALL_S:g} s")
        self.dataset = dataset


class _Download:
    """Time of the last received bytes during a download."""

    def __init__(self) -> None:
        self.dataset = ""
        self._done = -1
        self._last = 0.0

    def saw(self, dataset: str, done: int, total: int) -> None:
        if (dataset, done) != (self.dataset, self._done):
            # Download complete: unpacking follows, during which no bytes arrive.
            self.dataset = dataset if done < total else ""
            self._done, self._last = done, time.monotonic()

    def over(self) -> None:
        self.dataset = ""

    def patience(self) -> float | None:
        return max(0.0, self._last + STALL_S - time.monotonic()) if self.dataset else None
