"""The machine of the command: one task after the other, all cells once before the next repeat.

With `parallel_devices` the cells of several GPUs run at the same time, each GPU's one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator

from cnnperf.executors import SuiteWork
from cnnperf.executors._side_by_side import run_side_by_side
from cnnperf.record import Record
from cnnperf.running.runner import Run, Watcher, pending, warn_if_busy


def run_tasks(work: SuiteWork, run: Run, watcher: Watcher, *, parallel_devices: bool = False) -> Iterator[Record]:
    """Run the pending tasks here; warn before if others keep the machine busy.

    parallel_devices: run the cells of different GPUs side by side, each bound to its own part of the cores. Raises
    UsageError if the cores are too few.
    """
    warn_if_busy(pending(work.tasks, run.left))
    if parallel_devices:
        yield from run_side_by_side(work, run, watcher)
    else:
        yield from run.execute(work.tasks, watcher, strict=work.strict)
