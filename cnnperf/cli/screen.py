"""Progress on standard error: a live view on a terminal, otherwise a line per finished task."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

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

from cnnperf.cli.options import with_options
from cnnperf.ipc.messages import Ready
from cnnperf.machine.disturbance import disturbed, is_disturbing
from cnnperf.record import Record
from cnnperf.task import Task
from cnnperf.units import printable

if TYPE_CHECKING:
    from cnnperf.duet.contest import Contest
    from cnnperf.duet.pair import Fault
    from cnnperf.duet.schedule import Played
    from cnnperf.regression.gate import Result as GateResult
    from cnnperf.regression.rule import Decision
    from cnnperf.running.selftest import ClaimOutcome

MARKS = {
    "ok": "[green]✓[/]",
    "failed": "[red]✗[/]",
    "timeout": "[red]✗[/]",
    "skipped": "[yellow]–[/]",
    "disturbed": "[yellow]†[/]",
}


class View:
    """Progress on standard error: a bar for each download, then, on a terminal, a live view of the current work.

    The view is redrawn only when it changes: a timer would disturb the measurement.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._downloads: Progress | None = None
        self._bars: dict[str, TaskID] = {}

    @contextmanager
    def shown(self) -> Iterator[Self]:
        """Remove the view from the screen at the end."""
        try:
            yield self
        finally:
            self._clear()

    def downloading(self, dataset: str, done: int, total: int) -> None:
        """Handle the progress of a download."""
        if self._downloads is None:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._downloads = Progress(*columns, TimeRemainingColumn(), console=self._console, transient=True)
            self._downloads.start()
        if dataset not in self._bars:
            self._bars[dataset] = self._downloads.add_task(f"downloading {dataset}", total=total)
        self._downloads.update(self._bars[dataset], completed=done)

    def _show(self, view: RenderableType) -> None:
        """Redraw the view; does nothing without a terminal."""
        if not self._console.is_terminal:
            return
        if self._live is None:
            self._clear()
            self._live = Live(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        self._live.update(view, refresh=True)

    def _print(self, text: str) -> None:
        say(self._console, text)

    def _clear(self) -> None:
        if self._downloads:
            self._downloads.stop()
        if self._live:
            self._live.stop()
        self._downloads, self._live, self._bars = None, None, {}


class Screen(View):
    """Follows a run: a line per finished task and, on a terminal, the current task and the remaining time."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self.folder: Path | None = None
        """The run folder; None until preflight has ended."""
        self._estimates: list[float] = []
        self._done = 0
        self._begun = self._task_begun = time.monotonic()
        self._task: Task | None = None
        self._numbers: dict[str, float] = {}
        self._nodes: dict[str, tuple[str, dict[str, float]]] = {}
        """Current task of each node of a cluster, and its numbers."""

    def planned(self, tasks: Sequence[Ready], folder: Path) -> None:
        """Preflight has ended; these tasks will run."""
        self._clear()
        self.folder = folder
        self._estimates = [ready.estimate_s for ready in tasks]
        self._begun = time.monotonic()

    def started(self, task: Task) -> None:
        """A task begins; without a terminal, this is a line too."""
        self._task, self._numbers, self._task_begun = task, {}, time.monotonic()
        estimate_s = self._estimates[self._done]
        if estimate_s and not self._console.is_terminal:  # A task that is skipped takes no time, and ends at once.
            place = f"{self._done + 1}/{len(self._estimates)}"
            self._print(f"… {place} {printable(task.label)}  about {clock(estimate_s)}")
        self._redraw()

    def progressed(self, numbers: dict[str, float]) -> None:
        """The current task reports numbers."""
        self._numbers = numbers
        self._redraw()

    def on_node(self, node: str, label: str | None, numbers: dict[str, float]) -> None:
        """A node of a cluster works on a task, with no numbers at its begin; None when it has ended a cell."""
        if label is None:
            self._nodes.pop(node, None)
        else:
            self._nodes[node] = label, numbers
            if not numbers:
                self._task_begun = time.monotonic()
                if not self._console.is_terminal:
                    self._print(f"… {printable(label)}  on {node}")
        self._redraw()

    def finished(self, record: Record) -> None:
        """A task has ended."""
        self._done += 1
        place = f"[dim]{self._done}/{len(self._estimates)}[/]"
        line = f"{MARKS[record.status]} {place} {escape(printable(record.task.label))}  {_outcome(record)}"
        self._console.print(line, soft_wrap=True, highlight=False)
        self._redraw()

    def _redraw(self) -> None:
        self._show(Group(*self._lines()))

    def _lines(self) -> Sequence[RenderableType]:
        elapsed = time.monotonic() - self._begun
        count = len(self._estimates)
        bar = Table.grid(padding=(0, 1))
        done = f"task {min(self._done + 1, count)} of {count}"
        left = f"elapsed {clock(elapsed)}, about {clock(self._left_s(elapsed))} left"
        bar.add_row(done, ProgressBar(total=1.0, completed=self._fraction(elapsed), width=24), left)
        works = [f"{node}  {_work(label, numbers)}" for node, (label, numbers) in sorted(self._nodes.items())]
        works = works or [_work(self._task.label, self._numbers) if self._task else ""]
        return bar, *(Text(line, overflow="ellipsis", no_wrap=True) for line in works)

    def _left_s(self, elapsed: float) -> float:
        planned_done = sum(self._estimates[: self._done])
        # After the first finished task, the plan is scaled by the measured progress.
        pace = (self._task_begun - self._begun) / planned_done if planned_done and self._done else 1.0
        return max(0.0, sum(self._estimates) * pace - elapsed)

    def _fraction(self, elapsed: float) -> float:
        left = self._left_s(elapsed)
        return elapsed / (elapsed + left) if elapsed + left else 0.0


class DuetScreen(View):
    """Follows a comparison in turns: the plan, then a line per look and, on a terminal, the current work."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._looks: Sequence[int] = ()
        self._number = 0

    def installing(self, text: str) -> None:
        """An environment is being created for a revision."""
        self._clear()
        self._print(f"cnnperf: {with_options(text)}")

    def calibrating(self, contests: int, minutes: tuple[float, float]) -> None:
        """Calibration of this number of contests begins."""
        self._clear()
        self._print(
            f"planned: {minutes[0]:.0f} to {minutes[1]:.0f} minutes for {contests} cell-metrics; measuring how long "
            "a call takes …"
        )

    def planned(self, minutes: tuple[float, float], looks: Sequence[int], power: str) -> None:
        """Print the minutes to the first and last look, and the power."""
        self._looks = looks
        self._print(
            f"planned: about {minutes[0]:.1f} minutes ({looks[0]} replicates) if nothing changed, "
            f"{minutes[1]:.1f} ({looks[-1]}) at most"
        )
        self._print(f"power: {power}")

    def measured(self, number: int, contest: Contest, outcome: Played | Fault) -> None:
        """A contest has been measured, or failed."""
        if isinstance(outcome, Exception):
            kind = {None: "error", "baseline": "not in the baseline", "candidate": "missing"}[outcome.absent]
            self._print(f"{contest.key}: {kind}: {outcome}")
        else:
            ahead = next((look for look in self._looks if look >= number), number)
            line = f"replicate {number}, next look at {ahead}"
            self._show(Text(f"{line}  {contest.key} measured", overflow="ellipsis", no_wrap=True))
            if number != self._number and not self._console.is_terminal:
                self._print(f"… {line}")
            self._number = number

    def decided(self, number: int, decisions: Mapping[str, Decision], power: str) -> None:
        """A look has ended with these verdicts."""
        words = ", ".join(f"{key} {decision.outcome}" for key, decision in decisions.items())
        self._print(f"after {number} replicates: {words or 'nothing is decided yet'}")
        if power:
            self._print(f"power: {power}")


class GateTestScreen(DuetScreen):
    """Follows the gate test: each suite like any comparison, then its verdicts on standard output."""

    def __init__(self, console: Console, out: Console) -> None:
        super().__init__(console)
        self._out = out

    def begun(self, title: str) -> None:
        """A suite begins."""
        self._print(title)

    def ended(self, title: str, result: GateResult) -> None:
        """A suite has ended."""
        from cnnperf.regression.gate_verdict import comparison
        from cnnperf.reports import verdict_lines

        self._clear()
        self._out.print(f"\n{title}")
        for line in verdict_lines(comparison(result).verdicts):
            self._out.print(line)
        if any(result.played.values()):
            self._out.print(f"noise: {result.noise()}")


class ClaimScreen(View):
    """Follows a self-test: a line per finished claim and, on a terminal, the current work."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._claims = 0
        self._done = 0

    def planned(self, names: Sequence[str]) -> None:
        """Take the names of the claims that will be tested."""
        self._claims = len(names)

    def progressed(self, name: str, text: str) -> None:
        """A claim reports its current work."""
        line = f"claim {self._done + 1} of {self._claims}  {name}  {text}"
        self._show(Text(line, overflow="ellipsis", no_wrap=True))

    def finished(self, outcome: ClaimOutcome) -> None:
        """A claim has ended."""
        self._done += 1
        ending = {"held": "held", "failed": "did not hold"}.get(outcome.ending, outcome.ending)
        self._print(f"{self._done}/{self._claims} {outcome.name}  {ending}, {outcome.seconds:.0f} s")


def plan_document(tasks: Sequence[Ready], downloads: Mapping[str, int]) -> dict[str, Any]:
    """Return a dry run's tasks with their estimates in seconds and bytes, and the downloads in bytes."""
    return {
        "tasks": [
            {"task": each.task.label, **each.model_dump(mode="json", include={"skip", "estimate_s", "weight_bytes"})}
            for each in tasks
        ],
        "downloads": dict(downloads),
    }


def planned(tasks: Sequence[Ready], downloads: Mapping[str, int]) -> Iterator[str]:
    """Yield the lines of a dry run: its tasks, and their total in minutes, size of weights and downloads."""
    for ready in tasks:
        note = f"skipped: {ready.skip}" if ready.skip else f"about {clock(ready.estimate_s)}"
        yield f"{ready.task.label}  {note}"
    minutes = sum(ready.estimate_s for ready in tasks) / 60
    mebibytes = sum(ready.weight_bytes for ready in tasks) / 2**20
    count = f"{len(tasks)} task{'s' * (len(tasks) != 1)}"
    yield f"{count}, about {minutes:.1f} minutes, about {mebibytes:.0f} MiB of weights"
    for dataset, size in downloads.items():
        yield f"to be downloaded: {dataset}, {size / 2**20:.0f} MiB"


def print_plan(tasks: Sequence[Ready], downloads: Mapping[str, int], *, as_json: bool) -> None:
    """Print a dry run."""
    document = json.dumps(plan_document(tasks, downloads), indent=2, ensure_ascii=False) if as_json else ""
    print(document or "\n".join(planned(tasks, downloads)))


def stderr(*, quiet: bool = False) -> Console:
    """Return the console on standard error; a quiet one prints nothing."""
    return Console(stderr=True, quiet=quiet)


def say(console: Console, text: object) -> None:
    """Print a text on a console as it is."""
    console.print(Text(str(text)), soft_wrap=True, highlight=False)


def clock(seconds: float) -> str:
    """Format a duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _work(label: str, numbers: Mapping[str, float]) -> str:
    told = "  ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in numbers.items())
    return f"{label}  {told or 'starting'}"


def _outcome(record: Record) -> str:
    if record.status != "ok":
        first = (record.error or "").partition("\n")[0]
        return f"{record.status}: {escape(printable(first))}"
    accuracy = next(iter(record.find("train.test_accuracy")), None)
    speed = next(iter(record.find("train.total_images_per_s")), None)
    parts = [f"{record.duration_s:.0f} s"]
    if record.task.data and record.task.data.fallback:
        parts.append("on SYNTHETIC images")
    if accuracy:
        parts.insert(0, f"{accuracy.values[0]:.1%} of {accuracy.remarks['n']:,} test images")
    if speed:
        parts.insert(1, f"{speed.values[0]:,.0f} images/s in all")
    if is_disturbing(words := disturbed(record.measurements)):
        parts.append(f"disturbed: {words}")
    return ", ".join(parts)


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"
