"""Cells on different devices of this machine side by side, the tasks of each device on cores of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from cnnperf import registry
from cnnperf.errors import UsageError
from cnnperf.executors import SuiteWork
from cnnperf.ipc.messages import Ready
from cnnperf.machine.cores import shares
from cnnperf.machine.fingerprint import usable_cores
from cnnperf.record import Record
from cnnperf.running.runner import Run, Stopped, Unwatched, Watcher, Workplace
from cnnperf.task import Cell, Task
from cnnperf.units import amount_of

SYS = Path("/sys")


@dataclass(frozen=True, slots=True)
class _Lane:
    """The tasks of one device, in the order of the plan, and where they run."""

    device: str
    tasks: tuple[Ready, ...]
    place: Workplace


@dataclass(frozen=True, slots=True)
class _Ended:
    """A lane has ended."""

    device: str
    error: BaseException | None


_Said = SimpleQueue[tuple[str, str, dict[str, float]] | Record | _Ended]
"""Messages of lanes: device, label and numbers of the current task; a record; the end of a lane."""


def run_side_by_side(work: SuiteWork, run: Run, watcher: Watcher) -> Iterator[Record]:
    """Run the pending tasks, those of different GPUs at the same time.

    Cells on the CPU, and those that train on several GPUs, follow one after the other.
    Each device has an equal part of the physical cores, to which its tasks are bound. With one device all is as
    without. Raises UsageError if a part has fewer cores than a task has threads, or for repetitions of disturbed tasks:
    the tasks of one device keep the machine busy for those of another.
    """
    lanes = _lanes(work.tasks)
    if len(lanes) < 2:
        yield from run.execute(work.tasks, watcher, strict=work.strict)
        return
    if work.strict is not None:
        raise UsageError("`strict` waits for a quiet machine, which it never is with `parallel_devices`; leave one out")
    said: _Said = SimpleQueue()
    threads = [threading.Thread(target=_follow, args=(lane, run, said), daemon=True) for lane in lanes]
    try:
        for thread in threads:
            thread.start()
        yield from _heard(said, len(lanes), watcher)
    finally:
        for lane in lanes:
            lane.place.stop()
        for thread in threads:
            if thread.ident:
                thread.join()
    beside = {ready.task.key for lane in lanes for ready in lane.tasks}
    yield from run.execute([ready for ready in work.tasks if ready.task.key not in beside], watcher)


def _heard(said: _Said, lanes: int, watcher: Watcher) -> Iterator[Record]:
    """Tell the watcher what lanes say until all have ended, and yield their records. Raises the error of a lane."""
    while lanes:
        match said.get():
            case Record() as record:
                watcher.finished(record)
                yield record
            case _Ended(device=device, error=error):
                lanes -= 1
                watcher.on_node(device, None, {})
                if error:
                    raise error
            case device, label, numbers:
                watcher.on_node(device, label, numbers)


def _lanes(tasks: Sequence[Ready]) -> tuple[_Lane, ...]:
    """Divide the tasks on devices of which a machine may have several. Raises UsageError if there are too few cores."""
    on_several = {ready.task.cell.id for ready in tasks if ready.task.settings.get("processes", 1) > 1}
    of_device: dict[str, list[Ready]] = {}
    for ready in tasks:
        if ready.task.cell.id not in on_several and (device := _device(ready.task.cell)):
            of_device.setdefault(device, []).append(ready)
    if len(of_device) < 2:
        return ()
    parts = shares(len(of_device), SYS)
    each = min(usable_cores() // len(parts), *map(len, parts))
    most = max(ready.task.threads or 1 for several in of_device.values() for ready in several)
    if most > each:
        cure = f"give `threads` of at most {each}, or leave it out" if each else "leave it out"
        raise UsageError(
            f"`parallel_devices`: {len(parts)} devices side by side have {amount_of(each, 'core')} each, and a task "
            f"has {amount_of(most, 'thread')}; {cure}"
        )
    named = zip(of_device.items(), parts, strict=True)
    return tuple(_Lane(device, tuple(several), Workplace(part)) for (device, several), part in named)


def _device(cell: Cell) -> str | None:
    """Return the name of a cell's device with its index; None for the CPU, and for devices of other packages."""
    name = cell.device.name
    return f"{name}:{cell.device.options.get('index', 0)}" if name in registry.having("devices", "count") else None


def _follow(lane: _Lane, run: Run, said: _Said) -> None:
    """Run the tasks of a lane in this thread, until their end or until the place is stopped."""
    error: BaseException | None = None
    try:
        for _ in run.execute(lane.tasks, _LaneTeller(lane.device, said), place=lane.place):
            if lane.place.is_stopped:
                break
    except Stopped:
        pass
    except BaseException as fault:  # Raised again in the thread of the caller.
        error = fault
    said.put(_Ended(lane.device, error))


class _LaneTeller(Unwatched):
    """Says what happens in a lane to the thread that may write on the screen."""

    def __init__(self, device: str, said: _Said) -> None:
        self._device, self._said, self._label = device, said, ""

    def started(self, task: Task) -> None:
        """A task begins."""
        self._label = task.label
        self._said.put((self._device, self._label, {}))

    def progressed(self, numbers: dict[str, float]) -> None:
        """The current task reports numbers."""
        self._said.put((self._device, self._label, numbers))

    def finished(self, record: Record) -> None:
        """A task has ended and its record is on disk."""
        self._said.put(record)
