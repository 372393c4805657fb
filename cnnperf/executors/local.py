"""The machine of the command: one task after the other, all cells once before the next repeat."""

from __future__ import annotations

from collections.abc import Iterator

from cnnperf.executors import SuiteWork
from cnnperf.record import Record
from cnnperf.running.runner import Run, Watcher, pending, warn_if_busy


def run_tasks(work: SuiteWork, run: Run, watcher: Watcher) -> Iterator[Record]:
    """Run the pending tasks here; warn before if others keep the machine busy."""
    warn_if_busy(pending(work.tasks, run.left))
    yield from run.execute(work.tasks, watcher, strict=work.strict)
