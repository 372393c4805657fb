"""Preflight: before the first task, one short-lived worker checks the suite and prepares the data."""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cnnperf import errors
from cnnperf.errors import CnnperfError, CnnperfWarning, DataError, shorten
from cnnperf.ipc.messages import (
    DataHandled,
    DataRequest,
    FromPreflight,
    GaveUp,
    Prepared,
    Received,
    Refused,
    SuiteRequest,
    ToPreflight,
)
from cnnperf.ipc.process import Launch, WorkerProcess, tail

COMMAND = (sys.executable, "-m", "cnnperf.workers.prepare")
STALL_S = 20.0
"""A download that delivers no byte for this time is stopped."""


A = TypeVar("A", bound=FromPreflight)

Downloading = Callable[[str, int, int], None]
"""Called with a dataset's name, the bytes downloaded and the total bytes, whenever bytes arrive."""


def prepare(request: SuiteRequest, downloading: Downloading | None = None) -> Prepared:
    """Check the suite, build its models on the meta device, and find, download and cache its data.

    If a dataset's download stalls, the others are prepared without it. Warns if synthetic images are used instead.
    Raises CnnperfError, worded for the user, for any fault.
    """
    try:
        prepared = ask(request, Prepared, downloading)
    except _Stalled as stall:
        reason = str(stall)
        again = request.model_copy(update={"given_up": {**request.given_up, stall.dataset: reason}})
        return prepare(again, downloading)
    for text in prepared.warnings:
        warnings.warn(text, CnnperfWarning, stacklevel=2)
    return prepared


def ask_data(request: DataRequest, downloading: Downloading | None = None) -> str:
    """Fetch or verify one dataset and return a sentence about it. Raises DataError."""
    try:
        return ask(request, DataHandled, downloading).sentence
    except _Stalled as stall:
        raise DataError(f"{request.dataset}: cannot be downloaded: {stall}; try again later") from stall


def ask(request: ToPreflight, answer: type[A], downloading: Downloading | None = None) -> A:
    """Have one worker answer a request. Raises the worker's CnnperfError."""
    with tempfile.TemporaryDirectory(prefix="cnnperf-") as folder:
        log = Path(folder) / "log"
        watch = _Download()
        found: A | None = None
        with WorkerProcess(request, log=log, launch=Launch(command=COMMAND)) as worker:
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
                        case answer():
                            found = message
            except TimeoutError:
                raise _Stalled(watch.dataset) from None
        if found is None:
            raise _crash(worker, log)
        return found


def _crash(worker: WorkerProcess, log: Path) -> CnnperfError:
    """Return the error of a worker that ended without an answer; its log is kept for a report."""
    kept = Path(tempfile.mkdtemp(prefix="cnnperf-crash-")) / log.name
    shutil.copyfile(log, kept)
    how = worker.signal or f"exit status {worker.returncode}"
    words = next(filter(str.strip, reversed(tail(log))), "no message")
    return CnnperfError(f"the check of the request crashed ({how}): {shorten(words)}; report the log {kept}")


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
