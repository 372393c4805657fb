"""Distribution of a suite's cells over nodes: the longest first, one at a time on each node, lost ones again."""

from __future__ import annotations

import heapq
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from itertools import count
from pathlib import Path
from typing import Protocol

from cnnperf.errors import CnnperfWarning, RunError, StageError
from cnnperf.executors import SuiteWork
from cnnperf.ipc.messages import Arrived, Begun, CellEnded, CellRequest, FromNode, Progressed, Ready, Recorded, Refused
from cnnperf.record import Machine, Record
from cnnperf.running.runner import Run, Watcher, blank, pending, why_stopped

ATTEMPTS = 3
"""How often a cell is started if its nodes are lost, and how many nodes may refuse it."""
SENT = ("artifacts", "logs")
"""Folders of a run folder whose files a node may send."""

Contents = Mapping[str, bytes]
"""Contents of files by their path in a run folder."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A node ended before its cell did."""

    reason: str


@dataclass(frozen=True, slots=True)
class Event:
    """A message of a node, or its loss."""

    number: int
    """Number of the start to which it belongs."""
    message: FromNode | Lost
    files: Contents = field(default_factory=dict)
    """Files of a record."""
    node: str = "its node"
    """Name of the node."""


class Cluster(Protocol):
    """Nodes that each run one cell at a time."""

    def capacity(self) -> int:
        """Return how many cells the nodes can run at once, without the nodes that are held."""

    def start(self, number: int, request: CellRequest, files: Contents) -> None:
        """Give a cell to the next free node, with the files that its tasks read."""

    def wait(self) -> Iterable[Event]:
        """Block until something happens, and return it. A node that refuses a cell is held from then on."""

    def release(self, number: int) -> None:
        """Let the node that refused a start take cells again."""


def distribute(work: SuiteWork, run: Run, watcher: Watcher, cluster: Cluster) -> Iterator[Record]:
    """Run the pending cells on a cluster, and yield each record once it is on disk.

    The cells, longest planned duration first, each go to the next free node (Graham, 1969). A cell whose node is lost
    keeps the records that came and is started again; after ATTEMPTS its tasks are recorded as failed. A node that
    refuses a cell, such as one with another version of cnnperf, takes no other until that cell has ended elsewhere:
    otherwise it would refuse all cells in a moment. Raises RunError if no node is left or the folder is not writable.
    """
    try:
        yield from _Head(work, run, watcher, cluster).records()
    except OSError as error:
        raise RunError(why_stopped(run.folder, error)) from error


@dataclass(slots=True)
class _Job:
    """The tasks of one cell, and what became of it so far."""

    tasks: tuple[Ready, ...]
    nominal_s: float
    losses: int = 0
    refusals: list[int] = field(default_factory=list)
    """Starts that a node refused."""
    fault: str = ""
    """Reason of the last loss or refusal."""
    machine: Machine | None = None
    node: str = "its node"
    label: str = ""
    """Label of the current task."""
    ended: set[str] = field(default_factory=set)
    """Keys of the tasks that have a record of this run."""


class _Head:
    """The head of a distribution: only this process writes the run folder."""

    def __init__(self, work: SuiteWork, run: Run, watcher: Watcher, cluster: Cluster) -> None:
        self._work, self._run, self._watcher, self._cluster = work, run, watcher, cluster
        self._waiting = _jobs(work, run)
        self._flying: dict[int, _Job] = {}
        self._numbers = count()
        self._nice: set[str] = set()
        """Hosts of low priority that were named."""

    def records(self) -> Iterator[Record]:
        """Distribute all cells, and yield the records."""
        while self._waiting or self._flying:
            self._start()
            if not self._flying:
                yield from self._refused_by_all()
                continue
            for event in self._cluster.wait():
                yield from self._take(event)

    def _start(self) -> None:
        free = self._cluster.capacity() - len(self._flying) if self._waiting else 0
        for _ in range(min(free, len(self._waiting))):
            _, _, job = heapq.heappop(self._waiting)
            number = next(self._numbers)
            request = _request(self._work, self._run, job)
            self._cluster.start(number, request, _contents_of(self._run.folder, request.records))
            self._flying[number] = job

    def _refused_by_all(self) -> Iterator[Record]:
        """Fail the cells that were refused, since no node is left that has not."""
        refused = [entry for entry in self._waiting if entry[2].refusals]
        if not refused:
            raise RunError(f"{self._run.folder}: no node can run a cell; start nodes and resume")
        self._waiting = [entry for entry in self._waiting if not entry[2].refusals]
        heapq.heapify(self._waiting)
        for _, _, job in refused:
            yield from self._fail(job)

    def _take(self, event: Event) -> Iterator[Record]:
        job = self._flying[event.number]
        match event.message:
            case Arrived(machine=machine, niceness=niceness):
                job.machine, job.node = machine, event.node
                self._name_low_priority(machine.host, niceness)
            case Begun(label=label):
                job.label = label
                self._watcher.on_node(job.node, label, {})
            case Progressed(numbers=numbers):
                self._watcher.on_node(job.node, job.label, numbers)
            case Recorded(record=record):
                job.ended.add(record.key)
                yield self._kept(_taken(self._run.folder, record, event))
            case Lost(reason=reason) | Refused(reason=reason) as end:
                self._landed(event.number)
                job.fault = reason
                if isinstance(end, Refused):
                    job.refusals.append(event.number)
                else:
                    job.losses += 1
                if max(job.losses, len(job.refusals)) >= ATTEMPTS:
                    yield from self._fail(job)
                else:
                    heapq.heappush(self._waiting, (-job.nominal_s, next(self._numbers), job))
            case CellEnded():
                self._landed(event.number)
                self._release(job)

    def _kept(self, record: Record) -> Record:
        record = self._run.take(record)
        self._watcher.finished(record)
        return record

    def _landed(self, number: int) -> None:
        self._watcher.on_node(self._flying.pop(number).node, None, {})

    def _fail(self, job: _Job) -> Iterator[Record]:
        self._release(job)
        times = f", for the {ATTEMPTS}rd time" if job.losses >= ATTEMPTS else ""
        for ready in pending(job.tasks, self._run.left):
            if ready.task.key not in job.ended:
                yield self._kept(blank(ready, "failed", f"{job.node}: {job.fault}{times}", job.machine))

    def _release(self, job: _Job) -> None:
        for number in job.refusals:
            self._cluster.release(number)

    def _name_low_priority(self, host: str, niceness: int) -> None:
        if niceness > os.getpriority(os.PRIO_PROCESS, 0) and host not in self._nice:
            self._nice.add(host)
            words = f"{host}: the tasks have a low priority (niceness {niceness}), so that other processes slow them"
            warnings.warn(words, CnnperfWarning, stacklevel=2)


def _jobs(work: SuiteWork, run: Run) -> list[tuple[float, int, _Job]]:
    """Return a heap of the cells that have a pending task, the longest first."""
    of_cell: dict[str, list[Ready]] = defaultdict(list)
    for ready in work.tasks:
        of_cell[ready.task.cell.id].append(ready)
    heap = []
    for number, tasks in enumerate(of_cell.values()):
        if left := pending(tasks, run.left):
            nominal_s = sum(ready.nominal_s for ready in left)
            heap.append((-nominal_s, number - len(of_cell), _Job(tuple(tasks), nominal_s)))
    heapq.heapify(heap)
    return heap


def _request(work: SuiteWork, run: Run, job: _Job) -> CellRequest:
    found = (run.left.get(ready.task.key) for ready in job.tasks)
    cell = job.tasks[0].task.cell
    lists = {"datasets": (cell.dataset,), "models": (cell.model,), "devices": (cell.device,), "only": ()}
    suite = work.asked.suite.model_copy(update=lists)
    return CellRequest(
        asked=work.asked.model_copy(update={"suite": suite, "only": None}),
        cell=cell,
        keys=tuple(ready.task.key for ready in job.tasks),
        version=version("cnnperf"),
        strict=work.strict,
        records=tuple(each.model_copy(update={"measurements": ()}) for each in found if each and each.status == "ok"),
    )


def _contents_of(folder: Path, records: Sequence[Record]) -> Contents:
    """Read the artifacts of records; the task that reads one on its node says if it is missing or has changed."""
    paths = (artifact.path for record in records for artifact in record.artifacts.values())
    return {path: (folder / path).read_bytes() for path in paths if (folder / path).is_file()}


def _taken(folder: Path, record: Record, event: Event) -> Record:
    """Write a record's files, and return it; as failed if a file did not arrive as it was recorded."""
    try:
        for path, content in event.files.items():
            target = folder / path
            if Path(path).parts[0] not in SENT or not target.resolve().is_relative_to(folder.resolve()):
                raise StageError(f"{path}: not a place for files of a task, and thus not written")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        for artifact in record.artifacts.values():
            artifact.verified(folder)
    except StageError as error:
        return record.model_copy(update={"status": "failed", "error": f"{event.node}: {error}"})
    return record
