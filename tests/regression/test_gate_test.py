"""The gate's test of itself: which cells, and what of them is kept."""

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
    """Make the cells ready."""
    with workers_here():
        return cells()


def test_the_cells_are_small_and_need_no_data(ready: tuple[Contest, ...]) -> None:
    """Five at least, on one thread and on generated images, each compared by one metric."""
    assert len({contest.cell for contest in ready}) == len(ready) >= 5
    for contest in ready:
        task, other = contest.tasks
        assert task == other
        assert (task.cell.dataset.name, task.threads) == ("synthetic", 1)


def test_one_suite_changes_nothing_and_the_other_only_the_time(ready: tuple[Contest, ...]) -> None:
    """The versions run the same code; the second candidate spins, so that its CPU time says the same."""
    unchanged, slowed = CANDIDATES.values()
    assert (unchanged.slowdown, slowed.slowdown, slowed.slowdown_by) == (0.0, SLOWDOWN, "spin")
    task = ready[0].tasks.baseline
    assert unchanged.launch(task, 3) == slowed.launch(task, 3)


def test_its_scope_is_kept(ready: tuple[Contest, ...]) -> None:
    """Device, threads, metric and torch, for later verdicts to be held against."""
    result = Result(Both(Version(name="a"), Version(name="b")), ready, Rule(), looks=(8, 14, 22))
    result.decisions = decide(result.series(), result.rule, (1,), final=True)
    kept = outcome(result, result).scope
    assert kept == scope(result)
    assert (kept.devices, kept.threads, kept.metrics) == (("cpu",), 1, ("train.step",))
    assert kept.torch


class Told(UnwatchedGate):
    """Keeps what a watcher is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def begun(self, title: str) -> None:
        """Keep it."""
        self.told.append(title)

    def ended(self, title: str, result: Result) -> None:
        """Keep it."""
        self.told.append("interrupted" if result.interrupted else "ended")


@pytest.mark.parametrize("interrupted", [False, True])
def test_both_suites_share_the_minutes(monkeypatch: pytest.MonkeyPatch, interrupted: bool) -> None:
    """The first that leaves time gives it to the second; Ctrl-C in the first ends it without a result."""
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
