"""Preflight: before the first task, one short-lived worker checks the suite and prepares the data."""

from __future__ import annotations

import errno
import math
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from cnnperf import errors
from cnnperf.errors import CURES, CnnperfError, CnnperfWarning, DataError, SuiteError, names_listed, shorten
from cnnperf.ipc.lines import LONGEST_ANSWER
from cnnperf.ipc.log import tail
from cnnperf.ipc.messages import (
    DataHandled,
    DataRequest,
    FromPreflight,
    GaveUp,
    MalformedError,
    Message,
    Noted,
    Prepared,
    Received,
    Refused,
    SuiteRequest,
    ToPreflight,
)
from cnnperf.ipc.process import PYTHON, Launch, WorkerProcess
from cnnperf.suite import foreign_places, plan

COMMAND = (*PYTHON, "cnnperf.workers.prepare")
STALL_S = 20.0
"""A download that delivers no byte for this time is stopped."""
NO_THREADS = ("pthread_create failed", "can't start new thread", "libgomp: Thread creation failed")
"""Words of OpenBLAS, Python and OpenMP where the system allows no more threads."""
TOLD_AFTER_S = 10.0
"""Seconds after which it is said what the check waits for."""


A = TypeVar("A", bound=FromPreflight)

Downloading = Callable[[str, int, int], None]
"""Called with a dataset's name, the bytes downloaded and the total bytes, whenever bytes arrive."""


def prepare(request: SuiteRequest, downloading: Downloading | None = None) -> Prepared:
    """Check the suite, build its models on the meta device, and find, download and cache its data.

    If a dataset's download stalls, the others are prepared without it. Warns if synthetic images are used instead, and,
    before a check that downloads nothing, that it imports code of other packages.
    Raises CnnperfError, worded for the user, for any fault.
    """
    if not request.download and (places := foreign_places(plan(request.suite, request.only))):
        words = f"the check imports and calls code of other packages: {names_listed(places)}"
        warnings.warn(words, CnnperfWarning, stacklevel=2)
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
        launch = Launch(command=COMMAND)
        with WorkerProcess(request, log=log, launch=launch, longest_line=LONGEST_ANSWER) as worker:
            found = _heard(worker, _Watch(request, downloading), answer)
        if found is None:
            raise _crash(worker, log)
        return found


def _heard(worker: WorkerProcess, watch: _Watch, answer: type[A]) -> A | None:
    """Listen to a worker until it answers, and return the answer; None if it ends without one."""
    while True:
        try:
            for message in worker.messages(watch.patience):
                if isinstance(message, Refused):
                    raise _refusal(message)
                if isinstance(message, answer):
                    return message  # It has nothing more to do, and may hang at its end.
                watch.enter(message)
        except TimeoutError:
            watch.judge()
        except MalformedError as error:
            raise CnnperfError(
                f"the check of the request sent a line that is no message ({shorten(error)}); no model may write to "
                "the pipe of its process"
            ) from error
        else:
            return None


def _refusal(message: Refused) -> CnnperfError:
    kind = getattr(errors, message.error, None)
    if isinstance(kind, type) and issubclass(kind, CnnperfError):
        return kind(message.reason)
    return CnnperfError(message.reason)


def _crash(worker: WorkerProcess, log: Path) -> CnnperfError:
    """Return the error of a worker that ended without an answer; its log is kept for a report."""
    if worker.returncode == 0:
        return CnnperfError(
            "the check of the request ended with status 0 without an answer: a model ended its own process (os._exit "
            "or sys.exit); correct the model"
        )
    lines = tail(log)
    if any(sign in line for line in lines for sign in NO_THREADS):
        return CnnperfError(f"the check of the request can start no more threads; {CURES[errno.EAGAIN]}")
    kept = Path(tempfile.mkdtemp(prefix="cnnperf-crash-")) / log.name
    shutil.copyfile(log, kept)
    how = worker.signal or f"exit status {worker.returncode}"
    words = next(filter(str.strip, reversed(lines)), "no message")
    return CnnperfError(f"the check of the request crashed ({how}): {shorten(words)}; report the log {kept}")


class _Stalled(Exception):  # noqa: N818 - an event, not an error
    def __init__(self, dataset: str) -> None:
        super().__init__(f"no byte arrived for {STALL_S:g} s")
        self.dataset = dataset


class _Watch:
    """How long the parent still waits: for bytes while a download is under way, else for the end of the check."""

    def __init__(self, request: ToPreflight, downloading: Downloading | None) -> None:
        self._downloading = downloading
        suite = request.suite if isinstance(request, SuiteRequest) else None
        self._limit_s = suite.preflight_timeout_s if suite else math.inf
        self._where = request.where if isinstance(request, SuiteRequest) else ""
        self._doing = "the suite"
        self._dataset = ""
        """The dataset that is downloading; empty if none is."""
        self._done = -1
        self._arrived = 0.0
        self._left_s = self._limit_s
        """Time left, without that of downloads, when the clock was read last."""
        self._read = time.monotonic()
        self._told = False

    def enter(self, message: Message) -> None:
        """Take note of a message."""
        self._count()
        match message:
            case Noted():
                self._doing = message.text
            case GaveUp():
                self._dataset = ""
            case Received(dataset=dataset, done=done, total=total):
                if (dataset, done) != (self._dataset, self._done):
                    # Download complete: unpacking follows, during which no bytes arrive.
                    self._dataset = dataset if done < total else ""
                    self._done, self._arrived = done, time.monotonic()
                if self._downloading:
                    self._downloading(dataset, done, total)

    def patience(self) -> float | None:
        """Return the seconds until `judge` has something to say; None if it never has."""
        self._count()
        if self._dataset:
            return max(0.0, self._arrived + STALL_S - self._read)
        if self._limit_s == math.inf:
            return None
        return max(0.0, self._left_s if self._told else min(self._left_s, self._left_s - self._limit_s + TOLD_AFTER_S))

    def judge(self) -> None:
        """Say that the check takes long. Raises _Stalled for a download, SuiteError when the time has passed."""
        self._count()
        if self._dataset:
            raise _Stalled(self._dataset)
        limit, doing = f"preflight_timeout_s = {self._limit_s:g} s", shorten(self._doing, 100)
        if self._left_s <= 0:
            raise SuiteError(
                f"{self._where}: the check was stopped after {limit} while it waited for {doing}; correct it, or raise "
                "preflight_timeout_s"
            )
        self._told = True
        words = f"{self._where}: the check waits for {doing}; it is stopped after {limit}"
        warnings.warn(words, CnnperfWarning, stacklevel=2)

    def _count(self) -> None:
        now = time.monotonic()
        if not self._dataset:
            self._left_s -= now - self._read
        self._read = now
