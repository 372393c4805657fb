"""Contests: two versions of the code compared in one metric of one cell."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from cnnperf.ipc.messages import Ready
from cnnperf.ipc.process import Launch
from cnnperf.sides import Both
from cnnperf.task import Frozen, Task

METRICS_IN_TURNS = ("infer.forward", "train.step")
"""Metrics of a cell that two versions are compared in: keys of `workers.subjects.SUBJECTS`."""


class Version(Frozen):
    """One of the two compared versions: the origin of its code, and its changed settings."""

    name: str
    """Name of the version in messages: a revision, an interpreter, `this tree`."""
    python: str = sys.executable
    path: tuple[Path, ...] = ()
    """Folders that come first on the module path."""
    cwd: Path | None = None
    tree: Path | None = None
    """The worktree of a revision."""
    repository: Path | None = None
    """The tree to which the worktree belongs."""
    isolated: bool = False
    """Whether the working directory is excluded from the module path, so that installed packages are imported."""
    environment: dict[str, str] = Field(default={})
    slowdown: float = 0.0
    """Share of its own duration by which each call is slowed, for tests of the gate."""
    slowdown_by: Literal["spin", "sleep"] = "spin"

    def launch(self, task: Task, baton: int) -> Launch:
        """Return the settings to start the version's worker for a task; the worker inherits the descriptor `baton`."""
        places = [*map(str, self.path), *filter(None, [os.environ.get("PYTHONPATH")])]
        path = {"PYTHONPATH": os.pathsep.join(places)} if self.path else {}
        return Launch.of(
            task,
            # Code of a tree runs as `python -m` there would run it; all else must not run files of the folder.
            command=(self.python, *([] if self.path else ["-P"]), "-m", "cnnperf.duet_worker"),
            is_foreign=self.isolated or bool(self.path),
            environment={**path, **self.environment},
            cwd=self.cwd,
            pass_fds=(baton,),
        )


def _nothing() -> Both[Mapping[str, Any]]:
    return Both({}, {})


@dataclass(frozen=True, slots=True, eq=False)
class Contest:
    """One metric of one cell, for both sides; compared by identity."""

    metric: str
    """A key of `workers.subjects.SUBJECTS`."""
    tasks: Both[Task]
    """The cell's training task of each side, completed by preflight."""
    folder: Path
    """Folder of the images as arrays."""
    chosen: Both[Mapping[str, Any]] = field(default_factory=_nothing)
    """Settings of the suite; all others come from the recipe of each version."""

    @property
    def cell(self) -> str:
        """The cell's id."""
        return self.tasks.baseline.cell.id

    @property
    def key(self) -> str:
        """Name of the contest in messages."""
        return f"{self.cell} {self.metric}"


def contests(
    baseline: Sequence[Ready],
    candidate: Sequence[Ready] | None = None,
    metrics: Sequence[str] = METRICS_IN_TURNS,
) -> tuple[Contest, ...]:
    """Return the contests: every metric of every cell whose task can run here.

    candidate: the same tasks with other settings; the baseline's if they have the same.
    """
    return tuple(
        Contest(metric, Both(one.task, other.task), one.folder, Both(one.chosen, other.chosen))
        for one, other in zip(baseline, candidate or baseline, strict=True)
        if not one.skip and one.folder is not None
        for metric in metrics
    )
