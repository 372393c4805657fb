"""Where the tasks of a suite run. One file per executor; `run_tasks(work, run, watcher, …)` runs the pending tasks.

Each record is yielded once it is on disk. Further parameters are options, which a suite may give; `address` is the one
that may follow the name, as in `name:address`. A file that declares IS_REMOTE runs the tasks on other machines, so that
the suite must give the number of threads; one that declares PACKAGES needs these, which the extra of its name installs.
"""

from __future__ import annotations

from dataclasses import dataclass

from cnnperf.ipc.messages import Ready, SuiteRequest

GIVEN = ("work", "run", "watcher")
"""Parameters of an executor that are no options."""


@dataclass(frozen=True, slots=True)
class SuiteWork:
    """The tasks of a run."""

    asked: SuiteRequest
    """The request, from which another machine plans the same tasks."""
    tasks: tuple[Ready, ...]
    """All tasks, in the order of the plan."""
    strict: int | None = None
    """How often a disturbed task is tried again, as `measure_suite` takes it."""
