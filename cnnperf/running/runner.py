"""The parent's side: a fresh process per task, a record for every task, and no process left running."""

from __future__ import annotations

import errno
import math
import os
import re
import secrets
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Protocol

from filelock import Timeout

from cnnperf.errors import CURES, CnnperfWarning, RunError, StoreError, UsageError, capped, shorten
from cnnperf.ipc.channel import PROGRESS_INTERVAL_S
from cnnperf.ipc.log import tail
from cnnperf.ipc.messages import Answered, MalformedError, Noted, Progressed, Ready, TaskRequest
from cnnperf.ipc.process import Launch, WorkerProcess
from cnnperf.machine.disturbance import disturbed, is_disturbing
from cnnperf.machine.doctor import becomes_quiet, busy
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.record import COMPRESSED_FILE, FILE, Machine, Record, Status, append, kept_file, lock, read, read_locked
from cnnperf.running.shards import Shard
from cnnperf.suite import Suite
from cnnperf.task import Task

GRACE_S = 30.0
"""Seconds that a task's process may take to end after its answer. To leave torch and CUDA takes a busy machine some
seconds; a process that takes several times as long hangs, and the next task should not wait for `timeout_s`."""
QUIET_LIMIT_S = 300.0
"""Seconds for which the repetition of a disturbed task waits for a quiet machine."""
LIMIT = f"{QUIET_LIMIT_S / 60:g} minutes"
OF_WRITING = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Errors of the system that only a write has."""
TO_RUN = "name it with `resume` to resume it, or give another folder"
"""Cure for a run folder that is taken, in a command that can resume it."""
MOST_PHASES = 30
"""Most phases of a task that are told apart."""
NO_ANSWER = "the process ended with status 0 without an answer: the code ended its own process (os._exit or sys.exit)"


class Watcher(Protocol):
    """Listener to a run."""

    def started(self, task: Task) -> None:
        """A task begins."""

    def progressed(self, numbers: dict[str, float]) -> None:
        """The current task reports numbers, at most once a second."""

    def on_node(self, node: str, label: str | None, numbers: dict[str, float]) -> None:
        """A node of a cluster works on a task, with no numbers at its begin; None when it has ended a cell."""

    def finished(self, record: Record) -> None:
        """A task has ended and its record is on disk."""


class Stopped(Exception):  # noqa: N818 - an event, not an error
    """The tasks of a place were stopped."""


class Workplace:
    """Where tasks run one after the other, in one thread; another thread may stop them."""

    def __init__(self, cores: tuple[int, ...] | None = None) -> None:
        """cores: the only cores that the tasks may use; None: all that this process may use."""
        self.cores = cores
        self.is_stopped = False
        self._lock = threading.Lock()
        self._worker: WorkerProcess | None = None

    @contextmanager
    def holding(self, worker: WorkerProcess) -> Iterator[None]:
        """Let `stop` end a worker in the block. Raises Stopped if the place was stopped before the block or in it."""
        with self._lock:
            if self.is_stopped:
                raise Stopped
            self._worker = worker
        try:
            yield
        finally:
            with self._lock:
                self._worker = None
        if self.is_stopped:
            raise Stopped

    def stop(self) -> None:
        """End the current task, and let no other begin."""
        with self._lock:
            self.is_stopped = True
            if self._worker:
                self._worker.kill()


class Unwatched:
    """Listener that ignores all events."""

    def started(self, task: Task) -> None:
        """Say nothing."""

    def progressed(self, numbers: dict[str, float]) -> None:
        """Say nothing."""

    def on_node(self, node: str, label: str | None, numbers: dict[str, float]) -> None:
        """Say nothing."""

    def finished(self, record: Record) -> None:
        """Say nothing."""


def new_folder(suite: Suite, results: Path = Path("results")) -> Path:
    """Name a run folder: `results/<suite>/<utc>-<host>`."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    return results / suite.name / f"{now}-{_slug(fingerprint().host)}"


def created(folder: Path) -> Path:
    """Create a new run folder and return its path, with `-2`, `-3` … appended if another run has taken the name.

    Runs that begin in the same second name the same folder. Raises StoreError if the folder cannot be created.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            path = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
            with suppress(FileExistsError):
                path.mkdir()
                break
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror}); give another folder with `out`") from error
    return path


def folder_to_make(suite: Suite, out: Path | None, *others: str, cure: str = "give another folder") -> Path:
    """Return the requested run folder, by default a new one.

    others: files that mark a run, besides that of the records.
    Raises UsageError, with a cure, if the folder already contains a run.
    """
    if out:
        refuse_run(out, *others, cure=cure)
    return out or new_folder(suite)


def refuse_run(out: Path, *others: str, cure: str = "give another folder") -> None:
    """Raise UsageError, with a cure, if a folder contains a run. others: as in `folder_to_make`."""
    if any((out / file).exists() for file in (FILE, COMPRESSED_FILE, *others)):
        raise _taken(out, cure)


def _taken(folder: Path, cure: str, argument: str = "out") -> UsageError:
    return UsageError(f"`{argument}`: {folder} already contains a run; {cure}")


def folder_to_run(suite: Suite, out: Path | None, resume: Path | None) -> Path:
    """Return the requested run folder: `out` to create, `resume` to continue an earlier run, by default a new one.

    Raises UsageError if both are given, if `out` already contains a run, or if `resume` contains none.
    """
    if out and resume:
        raise UsageError("`out` and `resume` both name the run folder; give one of them")
    if resume and not (resume / FILE).is_file():
        raise UsageError(f"`resume`: {resume} contains no {FILE}; give the folder of an earlier run")
    return resume or folder_to_make(suite, out, cure=TO_RUN)


def left_in(folder: Path, reading: Callable[[Path], tuple[Record, ...]] = read) -> dict[str, Record]:
    """Return the records of a run folder by key, without their samples; empty if the folder does not exist yet."""
    return {record.key: _brief(record) for record in reading(folder)} if (folder / FILE).exists() else {}


def _brief(record: Record) -> Record:
    """Return a record without its samples and log, which are most of it: what is kept of ten thousand tasks."""
    return record.model_copy(update={"measurements": (), "log_tail": ()})


def pending(tasks: Sequence[Ready], left: Mapping[str, Record]) -> tuple[Ready, ...]:
    """Return the tasks without an ok record."""
    return tuple(ready for ready in tasks if ready.task.key not in left or left[ready.task.key].status != "ok")


def warn_if_busy(tasks: Sequence[Ready]) -> None:
    """Watch the machine for a second, unless there is nothing to run, and warn if other work keeps it busy."""
    if any(not ready.skip for ready in tasks) and (words := busy()):
        warnings.warn(
            f"the machine is busy: {words}; end that work, or disturbed figures will bear the mark †",
            CnnperfWarning,
            stacklevel=2,
        )


def execute(
    tasks: Sequence[Ready], folder: Path, watcher: Watcher, *, argument: str = "out", is_new: bool = False
) -> Iterator[Record]:
    """Run the pending tasks of a run folder, and yield each record once it is on disk; warn before if others are busy.

    argument: the caller's argument that names the folder, for errors. is_new: as for `Run`.
    Raises StoreError if the folder cannot be written or another run is writing it, RunError if the run fails midway.
    """
    with Run(folder, argument, is_new=is_new) as run:
        warn_if_busy(pending(tasks, run.left))
        yield from run.execute(tasks, watcher)


class Run:
    """A run folder that is being written: within the `with` block it is locked, and `left` tells how its tasks ended.

    The records are read when the block begins; their samples stay on disk. Entering the block raises StoreError if the
    folder cannot be written or another run is writing it, UsageError if it must be new and contains records.
    """

    def __init__(
        self, folder: Path, argument: str = "out", *, is_new: bool = False, shard: Shard | None = None
    ) -> None:
        """Name a run folder.

        argument: the caller's argument that names it, for errors. is_new: whether records in it are those of another
        run, which may have begun and ended since the folder was found to be free. shard: the part of the suite.
        """
        self.folder = folder
        self._argument = argument
        self._is_new = is_new
        self._shard = shard
        self._sitting: str | None = None
        self._taking = threading.Lock()
        self.left: dict[str, Record] = {}
        """Latest record of each task by key, without samples, in the order in which the tasks first ran."""
        self._stack = ExitStack()

    def __enter__(self) -> Run:
        with ExitStack() as stack:
            stack.enter_context(held_for_writing(self.folder, self._argument))
            self.left = left_in(self.folder, read_locked)
            if self._is_new and (self.folder / FILE).exists():
                raise _taken(self.folder, TO_RUN, self._argument)
            # While the folder is locked nobody else can take the same moment.
            self._sitting = datetime.now(UTC).isoformat(timespec="microseconds")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def records(self) -> tuple[Record, ...]:
        """The records, read anew as by `record.read`; damaged lines were named when the block began."""
        return read_locked(self.folder, warn=False) if (self.folder / FILE).exists() else ()

    def execute(
        self, tasks: Sequence[Ready], watcher: Watcher, *, strict: int | None = None, place: Workplace | None = None
    ) -> Iterator[Record]:
        """Run the pending tasks, and yield each record once it is on disk.

        strict: how often a disturbed task is tried again, each time once the machine is quiet; if it is still
        disturbed, or the machine does not become quiet within QUIET_LIMIT_S, it ends as `disturbed`. None: disturbed
        tasks end like others. place: where the tasks run; several threads may run tasks at once, each the cells of its
        own place. Raises RunError if the run fails midway, Stopped if the place was stopped.
        """
        place = place or Workplace()
        for ready in pending(tasks, self.left):
            watcher.started(ready.task)
            try:
                record = self._settled(ready, watcher, strict, place)
            except OSError as error:
                raise RunError(why_stopped(self.folder, error)) from error
            watcher.finished(record)
            yield record

    def _settled(self, ready: Ready, watcher: Watcher, strict: int | None, place: Workplace) -> Record:
        """Run a task, again as long as it is disturbed and `strict` permits, and store the record of each attempt."""
        record = self._stored(ready, watcher, place, is_strict=strict is not None)
        for attempt in range(1, (strict or 0) + 1):
            if record.status != "disturbed":
                break
            again = f"repeated ({attempt} of {strict}) once the machine is quiet, within {LIMIT}"
            _tell(ready.task, f"{record.error}; {again}")
            if not becomes_quiet(QUIET_LIMIT_S):
                _tell(ready.task, f"the machine was not quiet within {LIMIT}; it ends as disturbed")
                break
            record = self._stored(ready, watcher, place, is_strict=True)
        return record

    def _stored(self, ready: Ready, watcher: Watcher, place: Workplace, *, is_strict: bool) -> Record:
        """Run a task or skip it, and store its record."""
        reason = ready.skip or _unmet(ready.task, self.left)
        needs = [] if reason else [self.left[key] for key in ready.task.needs]
        record = _skipped(ready, reason) if reason else _run(ready, needs, self.folder, watcher, place)
        if is_strict and record.status == "ok" and is_disturbing(words := disturbed(record.measurements)):
            record = record.model_copy(update={"status": "disturbed", "error": words})
        return self.take(record)

    def take(self, record: Record) -> Record:
        """Append a record, made here or on another machine, and return it as it was stored. Raises OSError."""
        record = record.model_copy(update={"sitting": self._sitting, "shard": self._shard and str(self._shard)})
        with self._taking:
            append(self.folder, record)
            self.left[record.key] = _brief(record)
        return record


def _tell(task: Task, words: str) -> None:
    warnings.warn(f"{task.label}: disturbed: {words}", CnnperfWarning, stacklevel=2)


def why_stopped(folder: Path, error: OSError) -> str:
    """Say what the system refused: to write the folder, or something else that a task needs."""
    place = None if error.filename is None else os.fsdecode(error.filename)
    is_inside = place is not None and Path(place).resolve().is_relative_to(folder.resolve())
    if is_inside or (place is None and error.errno in OF_WRITING):
        what = f"cannot be written ({error.strerror})"
    else:
        what = (
            f"the run cannot go on ({place}: {error.strerror})" if place else f"the run cannot go on ({error.strerror})"
        )
    return f"{folder}: {what}; records are kept; {CURES.get(error.errno or 0, 'correct that')} and resume"


@contextmanager
def held_for_writing(folder: Path, argument: str = "out") -> Iterator[None]:
    """Create a run folder and hold its lock. argument: the caller's argument that names it, for errors.

    Raises StoreError if the folder cannot be written or another run is writing it.
    """
    try:
        (folder / "logs").mkdir(parents=True, exist_ok=True)
        held = lock(folder)
        held.acquire()
    except Timeout as error:
        raise StoreError(
            f"{folder}: another run is writing this folder; wait for it or give another `{argument}`"
        ) from error
    except OSError as error:
        raise StoreError(
            f"{folder}: cannot be written ({error.strerror}); give another folder with `{argument}`"
        ) from error
    try:
        yield
    finally:
        held.release()


def _unmet(task: Task, left: Mapping[str, Record]) -> str | None:
    """Return the fault of a needed task that did not end well; None if all did."""
    for key in task.needs:
        if key not in left:
            return "needs a task that has not run; run its stages together"
        if (need := left[key]).status != "ok":
            return f"needs {need.task.label}, which ended as {need.status}: {need.error}"
    return None


def _run(ready: Ready, needs: Sequence[Record], folder: Path, watcher: Watcher, place: Workplace) -> Record:
    """Run a task; if the system killed its process for lack of memory, run it again with its saved measurements."""
    kept = kept_file(folder, ready.task)
    kept.unlink(missing_ok=True)  # An interrupted run has left these measurements; the end of its process is unknown.
    try:
        record = _attempt(ready, needs, folder, watcher, place)
        if record.signal == "SIGKILL" and kept.exists():
            record = _attempt(ready, needs, folder, watcher, place)
        return record
    finally:
        kept.unlink(missing_ok=True)


def _attempt(ready: Ready, needs: Sequence[Record], folder: Path, watcher: Watcher, place: Workplace) -> Record:
    task = ready.task
    assert ready.folder is not None, "preflight prepares the data of every task that is not skipped"
    log = folder / "logs" / f"{_slug(task.label)[:150]}-{task.key}.log"
    answer = log.with_suffix(".json")
    request = TaskRequest(
        task=task,
        machine=fingerprint().model_copy(update={"bound_cores": place.cores}),
        run=folder.resolve(),
        folder=ready.folder,
        answer=answer.resolve(),
        nonce=secrets.token_hex(8),
        needs=tuple(need.model_copy(update={"measurements": ()}) for need in needs),
    )
    begun, started, cpu = datetime.now(UTC), time.monotonic(), time.process_time()
    launch = Launch.of(task, cores=place.cores)
    with WorkerProcess(request, log=log, launch=launch) as worker, place.holding(worker):
        heard = _hear(worker, started, task.timeout_s, watcher)
    facts = {
        "nonce": request.nonce,
        "started": begun.isoformat(timespec="milliseconds"),
        "duration_s": time.monotonic() - started,
        "parent_cpu_s": time.process_time() - cpu,
    }
    answered = _answer(request)
    record = answered or blank(ready, "failed", "")
    ending: dict[str, str | None] = {}
    if heard.fault:
        ending = {"status": "failed", "error": heard.fault}
    elif heard.was_stopped and not answered:
        error = f"took longer than timeout_s = {task.timeout_s:g}; {heard.phases.words(time.monotonic())}"
        ending = {"status": "timeout", "error": error}
    elif heard.was_stopped:
        heard.remarks.insert(0, "the process did not end by itself after it had measured; ended")
    elif worker.returncode:
        after = "" if record.status == "failed" else ", after it had measured"
        ending = {"status": "failed", "error": f"the process {worker.ending}{after}", "signal": worker.signal}
    elif not answered:
        ending = {"error": NO_ANSWER}
    failed = bool(ending) or record.status != "ok"
    record = record.model_copy(update=facts | ending | ({"log_tail": tail(log)} if failed else {}))
    for remark in heard.remarks:
        warnings.warn(f"{task.label}: {remark}", CnnperfWarning, stacklevel=2)
    error = "; ".join(filter(None, (record.error, *heard.remarks)))
    return record.model_copy(update={"error": capped(error) if error else None})


class _Phases:
    """The phases that a task's process has named, with the seconds of each."""

    def __init__(self, started: float) -> None:
        self._name, self._since = "start", started
        self._seconds: dict[str, float] = {}

    def enter(self, name: str, now: float) -> None:
        """Begin a phase, which may continue an earlier one."""
        self._seconds[self._name] = self._seconds.get(self._name, 0.0) + now - self._since
        self._since = now
        # A network may write to the pipe itself: the names are kept few.
        self._name = shorten(name, 60) if len(self._seconds) < MOST_PHASES else "others"

    def words(self, now: float) -> str:
        """Return the phase at the end, and the time of all."""
        self.enter(last := self._name, now)
        spent = ", ".join(f"{name} {seconds:,.1f} s" for name, seconds in self._seconds.items())
        return f"ended in the phase {last!r} ({spent})"


@dataclass(slots=True)
class _Outside:
    """The parent's knowledge of a task's process, besides the answer."""

    phases: _Phases
    fault: str | None = None
    """The message that no task sends, in words; the process was stopped then."""
    was_stopped: bool = False
    """Whether it was stopped because its time had passed."""
    remarks: list[str] = field(default_factory=list)


def _hear(worker: WorkerProcess, started: float, timeout_s: float, watcher: Watcher) -> _Outside:
    """Listen to a task's process until it ends, its time has passed or it says what no task says."""
    heard, deadline, told = _Outside(_Phases(started)), started + timeout_s, -math.inf

    def left_s() -> float:
        return max(0.0, deadline - time.monotonic())

    try:
        for message in worker.messages(left_s):
            now = time.monotonic()
            match message:
                case Progressed() if now - told >= PROGRESS_INTERVAL_S / 2:
                    told = now
                    watcher.progressed(message.numbers)
                case Progressed():
                    pass
                case Noted():
                    heard.phases.enter(message.text, now)
                case Answered():
                    deadline = min(deadline, now + GRACE_S)
                case _:
                    heard.fault = f"the process sent {message.kind!r}, which is no message of a task; ended"
                    break
    except TimeoutError:
        heard.was_stopped = True
    except MalformedError as error:
        heard.fault = f"the process sent a line that is no message ({shorten(error)}); ended"
    if loss := worker.loss:
        heard.remarks.append(loss)
    return heard


def _answer(request: TaskRequest) -> Record | None:
    """Return the record of an attempt, and remove its file; None if there is none.

    A file of an earlier attempt is ignored.
    """
    request.answer.with_suffix(".part").unlink(missing_ok=True)
    try:
        record = Record.model_validate_json(request.answer.read_text(encoding="utf-8"))
        request.answer.unlink()
    except (OSError, ValueError):
        return None
    return record if record.nonce == request.nonce else None


def _skipped(ready: Ready, reason: str) -> Record:
    return blank(ready, "skipped", reason)


def blank(ready: Ready, status: Status, error: str, machine: Machine | None = None) -> Record:
    """Return the record of a task that was not measured. machine: that of its node; None: this one."""
    return Record(
        task=ready.task,
        key=ready.task.key,
        machine=machine or fingerprint(),
        started=datetime.now(UTC).isoformat(timespec="milliseconds"),
        duration_s=0.0,
        status=status,
        error=error,
    )


def _slug(text: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", text).strip("-")
