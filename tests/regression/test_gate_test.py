"""The gate's test of itself: which cells it measures and what it stores."""

from __future__ import annotations

import pytest
from in_process import workers_here

from cnnperf.duet.contest import Contest, Version
from cnnperf.regression import gate_test
from cnnperf.regression.gate import Result, UnwatchedGate
from cnnperf.regression.gate_test import CANDIDATES, SLOWDOWN, cells, outcome, run_gate_test
from cnnperf.regression.gate_verdict import scope
from cnnperf.regression.rule import Rule, decide
from cnnperf.sides import Both


@pytest.fixture(scope="module")
def ready() -> tuple[Contest, ...]:
    """Prepare the cells."""
    with workers_here():
        return cells()


def test_the_cells_are_small_and_need_no_data(ready: tuple[Contest, ...]) -> None:
    """The gate test has at least five cells, on one thread and synthetic images."""
    assert len({contest.cell for contest in ready}) == len(ready) >= 5
    for contest in ready:
        task, other = contest.tasks
        assert task == other
        assert (task.cell.dataset.name, task.threads) == ("synthetic", 1)


def test_one_suite_changes_nothing_and_the_other_only_the_time(ready: tuple[Contest, ...]) -> None:
    """Both candidates run the same code; the second one spins on the CPU to be slower."""
    unchanged, slowed = CANDIDATES.values()
    assert (unchanged.slowdown, slowed.slowdown, slowed.slowdown_by) == (0.0, SLOWDOWN, "spin")
    task = ready[0].tasks.baseline
    assert unchanged.launch(task, 3) == slowed.launch(task, 3)


def test_its_scope_is_kept(ready: tuple[Contest, ...]) -> None:
    """The gate test stores device, threads, metric and torch for later verdicts."""
    result = Result(Both(Version(name="a"), Version(name="b")), ready, Rule(), looks=(8, 14, 22))
    result.decisions = decide(result.series(), result.rule, (1,), final=True)
    kept = outcome(result, result).scope
    assert kept == scope(result)
    assert (kept.devices, kept.threads, kept.metrics) == (("cpu",), 1, ("train.step",))
    assert kept.torch


class Told(UnwatchedGate):
    """Keeps what the gate test reports to its watcher."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begun(self, title: str) -> None:
        """Keep the title."""
        self.told.append(title)

    def ended(self, title: str, result: Result) -> None:
        """Keep whether the suite ended or was interrupted."""
        self.told.append("interrupted" if result.interrupted else "ended")


@pytest.mark.parametrize("interrupted", [False, True])
def test_both_suites_share_the_minutes(monkeypatch: pytest.MonkeyPatch, interrupted: bool) -> None:
    """The second suite gets the minutes left by the first; Ctrl-C in the first gives no result."""
    now, asked = [0.0], []

    def run_suite(ready: object, candidate: Version, minutes: float, watcher: object) -> Result:
        asked.append((candidate, minutes))
        now[0] += 60
        return Result(Both(Version(name="a"), candidate), (), Rule(), interrupted=interrupted)

    monkeypatch.setattr(gate_test, "cells", tuple)
    monkeypatch.setattr(gate_test, "run_suite", run_suite)
    monkeypatch.setattr(gate_test.time, "monotonic", lambda: now[0])
    one, other = CANDIDATES
    watcher = Told()
    tested = run_gate_test(10, watcher)
    if interrupted:
        assert (tested, watcher.told, asked) == (None, [one, "interrupted"], [(CANDIDATES[one], 5.0)])
    else:
        assert tested is not None
        assert tested.slowdown == SLOWDOWN
        assert watcher.told == [one, "ended", other, "ended"]
        assert asked == [(CANDIDATES[one], 5.0), (CANDIDATES[other], 9.0)]
