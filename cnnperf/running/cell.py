"""The node's side of a run on several machines: the tasks of one cell, run here in a folder of their own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from queue import SimpleQueue

from cnnperf import errors
from cnnperf.errors import CnnperfError, UsageError
from cnnperf.ipc.messages import Arrived, Begun, CellEnded, CellRequest, FromNode, Progressed, Ready, Recorded, Refused
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.record import append
from cnnperf.running.preflight import prepare
from cnnperf.running.runner import Run, Unwatched
from cnnperf.task import Task

REQUEST, MESSAGES = "request.json", "messages.jsonl"
"""Files of a cell's folder that head and node both see, in place of a connection."""


def run_cell(request: CellRequest, folder: Path) -> Iterator[FromNode]:
    """Run the pending tasks of a cell in a run folder of this machine, and yield what happens.

    The suite is checked and the images are found on this machine. The folder has the artifacts of the request's
    records. The last message is `CellEnded`, or `Refused` for a fault that makes the cell impossible here.
    """
    said: SimpleQueue[FromNode | None] = SimpleQueue()

    def work() -> None:
        try:
            _run(request, folder, said.put)
        except CnnperfError as fault:
            kind = next(kind for kind in type(fault).__mro__ if kind.__module__ == errors.__name__)
            said.put(Refused(error=kind.__name__, reason=str(fault)))
        finally:
            said.put(None)

    # Messages come while a task is waited for, and a generator cannot yield from within a call.
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while (message := said.get()) is not None:
        yield message
    thread.join()


def _run(request: CellRequest, folder: Path, say: Callable[[FromNode], None]) -> None:
    say(Arrived(machine=fingerprint(), niceness=os.getpriority(os.PRIO_PROCESS, 0)))
    if (here := version("cnnperf")) != request.version:
        raise UsageError(f"cnnperf {here} is installed here and {request.version} where the run was started")
    tasks = prepare(request.asked).tasks
    _check_equal(tasks, request)
    with Run(folder) as run:
        for record in request.records:
            append(folder, record)
            run.left[record.key] = record
        for record in run.execute(tasks, _Teller(say), strict=request.strict):
            say(Recorded(record=record))
    say(CellEnded())


def _check_equal(tasks: tuple[Ready, ...], request: CellRequest) -> None:
    """Raise UsageError if this machine would run other tasks than planned, such as on other images."""
    if unlike := [ready.task for ready in tasks if ready.task.key not in request.keys]:
        data = unlike[0].data
        images = f"; its images are {data.name} {data.sha256[:8]}…" if data else ""
        raise UsageError(f"{unlike[0].label} would differ from the task that was planned{images}")


class _Teller(Unwatched):
    """Tells the head what happens; each record is told on its own."""

    def __init__(self, say: Callable[[FromNode], None]) -> None:
        self._say = say

    def started(self, task: Task) -> None:
        """A task begins."""
        self._say(Begun(label=task.label))

    def progressed(self, numbers: dict[str, float]) -> None:
        """The current task reports numbers."""
        self._say(Progressed(numbers=numbers))
