"""Before the first task: one short-lived worker checks all that can be known to be wrong, and readies the data."""

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
"""A download that brings no byte for this time is stopped."""


class Request(Frozen):
    """A request to check a suite."""

    suite: Suite
    where: str
    """What errors call the suite: its path."""
    only: str | None = None
    """A glob over the cells; the others are not looked at."""
    data: Path | None = None
    """The folder given as --data."""
    quick: bool = False
    """Cut every stage's budget to a few seconds."""
    download: bool = True
    """Fetch what is not there; without it the answer says only how much that would be."""
    given_up: dict[str, str] = Field(default={})
    """Datasets not to be tried again, and why."""


class DataRequest(Frozen):
    """A request of `cnnperf data` for one dataset."""

    verb: Literal["fetch", "verify"]
    dataset: str
    data: Path | None = None
    """The folder given as --data."""


class Ready(Frozen):
    """A task that preflight has completed, and its estimates."""

    task: Task
    chosen: dict[str, Any] = Field(default={})
    """The suite's section of the stage, without defaults, recipe and the model's override."""
    folder: Path | None
    """Where its images lie as arrays; None if they are not there yet (without `download`)."""
    skip: str | None
    """Why it cannot run on this machine; None if it can."""
    estimate_s: float
    weight_bytes: int


class Prepared(Frozen):
    """Preflight's answer: the tasks in order, and what the user should know of the data."""

    tasks: tuple[Ready, ...]
    warnings: tuple[str, ...]
    downloads: dict[str, int]
    """The datasets that are to be downloaded and their bytes, where `download` was off."""


Downloading = Callable[[str, int, int], None]
"""Called with a dataset's name, its bytes so far and in all, whenever bytes arrive."""


def prepare(request: Request, downloading: Downloading | None = None) -> Prepared:
    """Check the suite, build its models on the meta device, and find, fetch and cache its data.

    A dataset whose download stalls is given up and the rest prepared without it. Warns where synthetic images
    stand in. Raises CnnperfError, worded for the user, for whatever is wrong.
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
    """Fetch or verify one dataset and return a sentence on it. Raises DataError."""
    try:
        return ask("--data", request.model_dump_json(), downloading)
    except _Stalled as stall:
        raise DataError(f"{request.dataset}: cannot be downloaded: {stall}; try again later") from stall


def ask(mode: str, request: str, downloading: Downloading | None = None) -> str:
    """Have one worker answer a request. Raises the CnnperfError that it raised."""
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


class _Stalled(Exception):  # noqa: N818 - not an error but a turn of events
    def __init__(self, dataset: str) -> None:
        super().__init__(f"no byte arrived for {STALL_S:g} s")
        self.dataset = dataset


class _Download:
    """When bytes last arrived, if a download is under way."""

    def __init__(self) -> None:
        self.dataset = ""
        self._done = -1
        self._last = 0.0

    def saw(self, dataset: str, done: int, total: int) -> None:
        if (dataset, done) != (self.dataset, self._done):
            # All there: what follows is unpacking, which brings no bytes.
            self.dataset = dataset if done < total else ""
            self._done, self._last = done, time.monotonic()

    def over(self) -> None:
        self.dataset = ""

    def patience(self) -> float | None:
        return max(0.0, self._last + STALL_S - time.monotonic()) if self.dataset else None
