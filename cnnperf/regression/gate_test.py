"""The gate test: small cells compared with themselves, then with themselves slowed on purpose."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from cnnperf.duet.contest import Contest, Version, contests
from cnnperf.ipc.messages import SuiteRequest
from cnnperf.machine.fingerprint import fingerprint
from cnnperf.regression.gate import GateWatcher, Result, compare_versions
from cnnperf.regression.gate_test_result import GateTest
from cnnperf.regression.gate_verdict import comparison, scope
from cnnperf.running.preflight import prepare
from cnnperf.suite import parse

SLOWDOWN = 0.05
"""The candidate spins for this share of each call's duration; the rule is designed to find this slowdown."""
CANDIDATES = {
    "A/A, nothing changed": Version(name="this code again"),
    f"A/B, slowed by {100 * SLOWDOWN:g} %": Version(name="this code, slowed", slowdown=SLOWDOWN),
}
"""The candidates of the two suites, by the suite's title; the baseline is the current code."""
METRICS = ("train.step",)
GATE_SUITE: dict[str, Any] = {
    "datasets": [{"name": "synthetic", "train": 1024, "test": 256}],
    "models": [
        {"name": "mlp", "train": {"batch_size": 256}},
        {"name": "lenet", "train": {"batch_size": 64}},
        {"name": "trashnet", "train": {"batch_size": 4}},
        {"name": "speedrun", "train": {"batch_size": 8}},
        {"name": "resnet", "train": {"batch_size": 4}},
    ],
    "threads": 1,
    "train": {"validation_images": 0},
}
"""Calls of 5 to 20 ms on one core, so that a replicate takes about a third of a minute."""


class GateTestWatcher(GateWatcher, Protocol):
    """Listener to the gate test: the events of each suite's comparison, and its begin and end."""

    def begun(self, title: str) -> None:
        """A suite begins."""

    def ended(self, title: str, result: Result) -> None:
        """A suite has ended, by itself or by Ctrl-C."""


def run_gate_test(minutes: float, watcher: GateTestWatcher) -> GateTest | None:
    """Test the gate with both suites within the minutes; None if Ctrl-C ended it.

    Each suite has an equal share of the time that is left when it begins. The result is not stored.
    """
    try:
        return _tested(minutes, watcher)
    except KeyboardInterrupt:  # Outside of a comparison, which handles it.
        return None


def _tested(minutes: float, watcher: GateTestWatcher) -> GateTest | None:
    end, ready = time.monotonic() + 60 * minutes, cells()
    results: list[Result] = []
    for title, candidate in CANDIDATES.items():
        watcher.begun(title)
        left = max(0.0, end - time.monotonic()) / 60
        result = run_suite(ready, candidate, left / (len(CANDIDATES) - len(results)), watcher)
        watcher.ended(title, result)
        if result.interrupted:
            return None
        results.append(result)
    return outcome(*results)


def cells() -> tuple[Contest, ...]:
    """Prepare the cells, with generated images."""
    suite = parse(GATE_SUITE, where="doctor", name="doctor")
    return contests(prepare(SuiteRequest(suite=suite, where="doctor")).tasks, metrics=METRICS)


def run_suite(ready: Sequence[Contest], candidate: Version, minutes: float, watcher: GateWatcher) -> Result:
    """Compare the cells with one of the CANDIDATES within the minutes."""
    return compare_versions(Version(name="this code"), candidate, ready, minutes=minutes, watcher=watcher)


def outcome(unchanged: Result, slowed: Result) -> GateTest:
    """Return the results of both suites, to be stored."""
    return GateTest(
        machine=fingerprint(),
        day=datetime.now(UTC).date(),
        slowdown=SLOWDOWN,
        scope=scope(unchanged),
        unchanged=comparison(unchanged).verdicts,
        slowed=comparison(slowed).verdicts,
    )
