"""A Slurm cluster: each cell is a job of an array, alone on its node; all nodes see the run folder."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

from pydantic import Field

from cnnperf.errors import RunError, UsageError, shorten
from cnnperf.executors import SuiteWork
from cnnperf.executors._distribution import Contents, Event, Lost, distribute
from cnnperf.executors._node import files_of_record
from cnnperf.ipc.lines import LONGEST_ANSWER, Lines
from cnnperf.ipc.messages import Arrived, CellEnded, CellRequest, Refused, decode, encode
from cnnperf.ipc.process import PYTHON, interrupts_held
from cnnperf.record import Record
from cnnperf.running.cell import MESSAGES, REQUEST
from cnnperf.running.runner import Run, Watcher

IS_REMOTE = True
PACKAGES: tuple[str, ...] = ("submitit",)
LOOK_EACH_S = 1.0
"""Seconds between two looks at the jobs' messages; Slurm calls nobody."""
QUEUE_S = 20.0
"""Seconds between two looks at Slurm's queue, for jobs that ended without their last message."""
QUEUE = ("squeue", "--me", "--noheader", "--array", "--format=%i")
"""Command that prints the ids of the user's jobs that have not ended; unlike sacct it needs no accounting."""


def run_tasks(
    work: SuiteWork,
    run: Run,
    watcher: Watcher,
    *,
    address: str = "slurm",
    partition: str | None = None,
    gres: str | None = None,
    time_min: Annotated[int, Field(ge=1)] = 240,
    constraint: str | None = None,
    jobs: Annotated[int, Field(ge=1)] = 1000,
) -> Iterator[Record]:
    """Run the pending cells as jobs of a Slurm array, each alone on its node (`--exclusive`).

    address: `slurm`, or `local` for processes of this machine, one cell at a time, to try it. partition, gres,
    constraint: as of sbatch. time_min: time limit of a cell in minutes. jobs: most cells that are submitted at once.
    Raises UsageError if the jobs are refused.
    """
    given = {"partition": partition, "gres": gres, "constraint": constraint}
    parameters: dict[str, Any] = {f"slurm_{name}": value for name, value in given.items() if value is not None}
    # The batch script itself has the whole node, with all memory; a step of srun would be bound to a part.
    parameters |= {"timeout_min": time_min, "slurm_exclusive": True, "slurm_mem": "0", "slurm_use_srun": False}
    with SlurmCluster(address, run.folder, parameters, jobs if address == "slurm" else 1) as cluster:
        yield from distribute(work, run, watcher, cluster)


@dataclass(slots=True)
class _Running:
    """A job, and the messages that it has written so far."""

    job: Any
    folder: Path
    node: str = "its node"
    read: int = 0
    """Bytes of its messages that were read."""
    lines: Lines = field(default_factory=lambda: Lines(LONGEST_ANSWER))


class SlurmCluster:
    """Jobs of this run; leaving the `with` block cancels those that have not ended."""

    def __init__(self, address: str, run: Path, parameters: dict[str, Any], jobs: int) -> None:
        self._address = address
        self._run = run
        self._parameters = parameters
        self._jobs = jobs
        self._new: dict[int, Path] = {}
        self._running: dict[int, _Running] = {}
        self._held: dict[int, _Running] = {}
        """Jobs that keep a node that has refused a cell."""
        self._stack = ExitStack()
        self._queue_read = time.monotonic()

    def __enter__(self) -> Self:
        import submitit

        self._submitit = submitit
        with ExitStack() as stack:
            place = tempfile.TemporaryDirectory(dir=self._run, prefix="slurm-", ignore_cleanup_errors=True)
            self._folder = Path(stack.enter_context(place)).resolve()
            try:
                self._executor = submitit.AutoExecutor(folder=self._folder / "%j", cluster=self._address)
                self._executor.update_parameters(name="cnnperf", **self._parameters)
            except (ValueError, TypeError, RuntimeError) as error:
                raise UsageError(f"the executor 'slurm': {shorten(error)}") from error
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with interrupts_held(), self._stack:
            for each in (*self._running.values(), *self._held.values()):
                each.job.cancel(check=False)

    def capacity(self) -> int:
        """Return how many cells are submitted at once; Slurm chooses the nodes."""
        return self._jobs - len(self._held)

    def start(self, number: int, request: CellRequest, files: Contents) -> None:
        """Write a cell's folder; all that are new are submitted together by `wait`."""
        folder = self._folder / f"cell-{number}"
        folder.mkdir()
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)
        (folder / REQUEST).write_bytes(encode(request))
        self._new[number] = folder

    def wait(self) -> Iterable[Event]:
        """Submit the new cells, then look at all jobs until one has said something or has ended."""
        self._submit()
        found: list[Event] = []
        while not found:
            gone = self._gone()
            found = [event for number in list(self._running) for event in self._look(number, gone)]
            if not found:
                time.sleep(LOOK_EACH_S)
        return found

    def release(self, number: int) -> None:
        """End the job that keeps a node from taking cells."""
        if held := self._held.pop(number, None):
            held.job.cancel(check=False)

    def _submit(self) -> None:
        """Submit the new cells as one job array: commands, no pickled objects of cnnperf."""
        if not self._new:
            return
        command = self._submitit.helpers.CommandFunction
        jobs = []
        with interrupts_held():  # No job is submitted without being known here.
            try:
                with self._executor.batch():
                    for folder in self._new.values():
                        words = [sys.executable, *PYTHON[1:], "cnnperf.workers.node", str(folder)]
                        jobs.append(self._executor.submit(command(words, verbose=False)))
            except (self._submitit.core.utils.FailedJobError, OSError, subprocess.SubprocessError) as error:
                kind = RunError if self._running or self._held else UsageError
                raise kind(f"the executor 'slurm': the jobs were refused ({shorten(error)})") from error
            for (number, folder), job in zip(self._new.items(), jobs, strict=True):
                self._running[number] = _Running(job, folder)
        self._new = {}

    def _gone(self) -> Collection[int]:
        """Return the jobs that have ended, from time to time."""
        if self._address != "slurm":
            return {number for number, each in self._running.items() if each.job.done()}
        if time.monotonic() - self._queue_read < QUEUE_S:
            return ()
        self._queue_read = time.monotonic()
        try:
            told = subprocess.run(QUEUE, capture_output=True, text=True, check=True, timeout=QUEUE_S).stdout
        except (OSError, subprocess.SubprocessError):  # Slurm's controller may be busy or restart.
            return ()
        waiting = set(told.split())
        return {number for number, each in self._running.items() if each.job.job_id not in waiting}

    def _look(self, number: int, gone: Collection[int]) -> Iterator[Event]:
        """Yield what a job has written since the last look; then, if it has ended without a last word, its loss."""
        running = self._running[number]
        path = running.folder / MESSAGES
        if path.exists():
            with open(path, "rb") as file:
                file.seek(running.read)
                content = file.read()
            running.read += len(content)
            for line in running.lines.feed(content):
                message: Any = decode(line)
                if isinstance(message, Arrived):
                    running.node = message.machine.host
                if isinstance(message, CellEnded | Refused):
                    del self._running[number]
                if isinstance(message, Refused):
                    self._held[number] = running
                yield Event(number, message, files_of_record(message, running.folder), running.node)
        if number in gone and number in self._running:
            del self._running[number]
            yield Event(number, Lost(f"job {running.job.job_id} ended: {self._last_words(running)}"), node=running.node)

    def _last_words(self, running: _Running) -> str:
        """Return the last line that a job printed as an error."""
        try:
            lines = running.job.paths.stderr.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError:
            return "it printed nothing"
        return shorten(next(filter(str.strip, reversed(lines)), "it printed nothing"), 200)
