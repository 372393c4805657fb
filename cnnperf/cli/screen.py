"""The view of a running suite: live on a terminal, a line per finished task elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cnnperf.record import Record
from cnnperf.running.preflight import Downloading, Ready
from cnnperf.task import Task

if TYPE_CHECKING:
    from cnnperf.claims._session import Outcome
    from cnnperf.duet.pair import Fault
    from cnnperf.duet.schedule import Played
    from cnnperf.duet.sides import Contest
    from cnnperf.regression.rule import Decision

MARKS = {"ok": "[green]✓[/]", "failed": "[red]✗[/]", "timeout": "[red]✗[/]", "skipped": "[yellow]–[/]"}


class Screen:
    """Follows a run on standard error. It is redrawn when a child reports and at no other time.

    Redrawing by a timer would take a core from what is being measured.
    """

    def __init__(self, console: Console, tasks: Sequence[Ready]) -> None:
        self._console = console
        self._estimates = [ready.estimate_s for ready in tasks]
        self._done = 0
        self._begun = self._task_begun = time.monotonic()
        self._task: Task | None = None
        self._numbers: dict[str, float] = {}
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def shown(self) -> AbstractContextManager[object]:
        """Return the context in which the view is on the screen."""
        return self._live or nullcontext()

    def started(self, task: Task) -> None:
        """A task begins."""
        self._task, self._numbers, self._task_begun = task, {}, time.monotonic()
        self._redraw()

    def progressed(self, numbers: dict[str, float]) -> None:
        """The task that runs reports."""
        self._numbers = numbers
        self._redraw()

    def finished(self, record: Record) -> None:
        """A task has ended."""
        self._done += 1
        place = f"[dim]{self._done}/{len(self._estimates)}[/]"
        line = f"{MARKS[record.status]} {place} {escape(record.task.label)}  {_outcome(record)}"
        self._console.print(line, soft_wrap=True, highlight=False)
        self._redraw()

    def _redraw(self) -> None:
        if self._live:
            self._live.update(Group(*self._lines()), refresh=True)

    def _lines(self) -> Sequence[RenderableType]:
        elapsed = time.monotonic() - self._begun
        count = len(self._estimates)
        bar = Table.grid(padding=(0, 1))
        done = f"task {min(self._done + 1, count)} of {count}"
        left = f"elapsed {clock(elapsed)}, about {clock(self._left_s(elapsed))} left"
        bar.add_row(done, ProgressBar(total=1.0, completed=self._fraction(elapsed), width=24), left)
        numbers = "  ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in self._numbers.items())
        current = f"{self._task.label}  {numbers or 'starting'}" if self._task else ""
        return bar, Text(current, overflow="ellipsis", no_wrap=True)

    def _left_s(self, elapsed: float) -> float:
        planned_done = sum(self._estimates[: self._done])
        # Once something has been timed, the plan is corrected by how it went so far.
        pace = (self._task_begun - self._begun) / planned_done if planned_done and self._done else 1.0
        return max(0.0, sum(self._estimates) * pace - elapsed)

    def _fraction(self, elapsed: float) -> float:
        left = self._left_s(elapsed)
        return elapsed / (elapsed + left) if elapsed + left else 0.0


class DuetScreen:
    """Follows a comparison in turns on standard error: the plan, then a line a look and, on a terminal, what runs.

    Redrawn when a contest has been measured and at no other time.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._looks: Sequence[int] = ()
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def shown(self) -> AbstractContextManager[object]:
        """Return the context in which the view is on the screen."""
        return self._live or nullcontext()

    def calibrating(self, contests: int, minutes: tuple[float, float]) -> None:
        """So many contests are looked at, once."""
        self._print(
            f"planned: {minutes[0]:.0f} to {minutes[1]:.0f} minutes for {contests} cell-metrics; measuring how long "
            "a call takes …"
        )

    def planned(self, minutes: tuple[float, float], looks: Sequence[int], power: str) -> None:
        """Print the minutes to the first and the last look, and the power."""
        self._looks = looks
        self._print(
            f"planned: about {minutes[0]:.1f} minutes ({looks[0]} replicates) if nothing changed, "
            f"{minutes[1]:.1f} ({looks[-1]}) at most"
        )
        self._print(f"power: {power}")

    def measured(self, number: int, contest: Contest, outcome: Played | Fault) -> None:
        """A contest has been measured, or failed."""
        if isinstance(outcome, Exception):
            kind = {None: "error", 0: "not in the baseline", 1: "missing"}[outcome.absent]
            self._print(f"{contest.key}: {kind}: {outcome}")
        elif self._live:
            ahead = next((look for look in self._looks if look >= number), number)
            line = f"replicate {number}, next look at {ahead}  {contest.key} measured"
            self._live.update(Text(line, overflow="ellipsis", no_wrap=True), refresh=True)

    def decided(self, number: int, decisions: Mapping[str, Decision], power: str) -> None:
        """So much is decided."""
        words = ", ".join(f"{key} {decision.outcome}" for key, decision in decisions.items())
        self._print(f"after {number} replicates: {words or 'nothing is decided yet'}")
        if power:
            self._print(f"power: {power}")

    def _print(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True, highlight=False)


class ClaimScreen:
    """Follows a self-test on standard error: a line a claim that has ended and, on a terminal, what runs."""

    def __init__(self, console: Console, claims: int) -> None:
        self._console = console
        self._claims = claims
        self._done = 0
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def shown(self) -> AbstractContextManager[object]:
        """Return the context in which the view is on the screen."""
        return self._live or nullcontext()

    def progressed(self, name: str, text: str) -> None:
        """A claim says what is under way."""
        if self._live:
            line = f"claim {self._done + 1} of {self._claims}  {name}  {text}"
            self._live.update(Text(line, overflow="ellipsis", no_wrap=True), refresh=True)

    def finished(self, outcome: Outcome) -> None:
        """A claim has ended."""
        self._done += 1
        ending = {"held": "held", "failed": "did not hold"}.get(outcome.ending, outcome.ending)
        line = f"{self._done}/{self._claims} {outcome.name}  {ending}, {outcome.seconds:.0f} s"
        self._console.print(Text(line), soft_wrap=True, highlight=False)


def planned(tasks: Sequence[Ready], downloads: Mapping[str, int]) -> Iterator[str]:
    """Yield the lines of a dry run: its tasks, and their total in minutes, disk space and downloads."""
    for ready in tasks:
        note = f"skipped: {ready.skip}" if ready.skip else f"about {clock(ready.estimate_s)}"
        yield f"{ready.task.label}  {note}"
    minutes = sum(ready.estimate_s for ready in tasks) / 60
    mebibytes = sum(ready.weight_bytes for ready in tasks) / 2**20
    yield f"{len(tasks)} tasks, about {minutes:.1f} minutes, about {mebibytes:.0f} MiB of weights"
    for dataset, size in downloads.items():
        yield f"to be downloaded: {dataset}, {size / 2**20:.0f} MiB"


@contextmanager
def downloads(console: Console) -> Iterator[Downloading]:
    """Show a bar for each dataset that is being downloaded; nothing if none is."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    bars: dict[str, TaskID] = {}

    def downloading(name: str, done: int, total: int) -> None:
        if name not in bars:
            progress.start()
            bars[name] = progress.add_task(f"downloading {name}", total=total)
        progress.update(bars[name], completed=done)

    try:
        yield downloading
    finally:
        if bars:
            progress.stop()


def stderr() -> Console:
    """Return the console on standard error, as wide and as colourful as that is."""
    return Console(stderr=True)


def clock(seconds: float) -> str:
    """Write a span as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _outcome(record: Record) -> str:
    if record.status != "ok":
        first = (record.error or "").partition("\n")[0]
        return f"{record.status}: {escape(first)}"
    accuracy = next(iter(record.find("train.test_accuracy")), None)
    speed = next(iter(record.find("train.total_images_per_s")), None)
    parts = [f"{record.duration_s:.0f} s"]
    if record.task.data and record.task.data.fallback:
        parts.append("on SYNTHETIC images")
    if accuracy:
        parts.insert(0, f"{accuracy.values[0]:.1%} of {accuracy.tags['n']:,} test images")
    if speed:
        parts.insert(1, f"{speed.values[0]:,.0f} images/s")
    return ", ".join(parts)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
