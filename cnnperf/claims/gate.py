"""The gate applied to unchanged code and to deliberately slowed code."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

from cnnperf.claims import Bar, CheckedFigure, Context
from cnnperf.errors import StageError

if TYPE_CHECKING:
    from cnnperf.duet.contest import Contest
    from cnnperf.duet.pair import Fault
    from cnnperf.duet.schedule import Played
    from cnnperf.regression.gate import Result
    from cnnperf.regression.rule import Decision

CLAIM = "The gate of `cnnperf ab` calls no unchanged code worse, and finds code that is 5 % slower."
LIMIT_S = None
"""All remaining time, because each further replicate decides more."""

MODELS = ("lenet", "resnet")
"""Models out of those of `cnnperf doctor`: always the first, and further ones if time permits."""
CELL_S = 150.0
"""Approximate seconds to decide a cell in both suites."""
UNCHANGED_SHARE = 0.4
"""Share of the time for unchanged code, which is decided after 8 replicates; slower code is decided after 14."""
NONE = Bar.within(0, "of unchanged code 1 run in 100 may be called worse, whatever the number of cells")
ALL = Bar.within(
    0,
    "a slowdown of 5 % is found in both of two cells in 96 runs of 100 if the 22 replicates of each have a standard "
    "deviation of 3 %, in 46 if it is 5 %",
)


def check(context: Context) -> Iterator[CheckedFigure]:
    """Compare small cells of `cnnperf doctor` on the device with themselves, then with themselves slowed by 5 %."""
    from cnnperf.regression.gate_test import CANDIDATES
    from cnnperf.regression.gate_verdict import comparison

    end, ready = time.monotonic() + context.seconds, _cells(context)
    shares = (UNCHANGED_SHARE, 1.0)
    verdicts = []
    for (title, candidate), name, share in zip(CANDIDATES.items(), ("unchanged", "slowed"), shares, strict=True):
        context.progress(title)
        left_s = max(0.0, end - time.monotonic())
        result = _compared(context, ready, candidate, share * left_s, name)
        verdicts.append(comparison(result).verdicts)
        if broken := [each for each in verdicts[-1] if each.outcome in ("error", "missing")]:
            raise StageError(f"{title}: {broken[0].cell}: {broken[0].remark}")
    yield from counted(*([each.outcome for each in of] for of in verdicts))
    changes = [each.change for each in verdicts[1] if each.change is not None]
    if changes:
        yield slowdown(changes, CANDIDATES[list(CANDIDATES)[1]].slowdown)


def slowdown(changes: Sequence[float], injected: float) -> CheckedFigure:
    """Report the measured slowdowns together with the injected slowdown."""
    return CheckedFigure(
        quantity="slowdown as measured, median over cells",
        unit="fraction",
        figure=median(changes),
        reading=injected,
        source="injected, of a call's own duration",
        relative=False,
        bar=None,
        raw={"changes": tuple(changes)},
    )


def counted(unchanged: Sequence[str], slowed: Sequence[str]) -> Iterator[CheckedFigure]:
    """Count outcomes: one decided cell of unchanged code is enough, but every slowed cell must be found."""
    alarms, decided = unchanged.count("worse"), len(unchanged) - unchanged.count("inconclusive")
    # If no cell was decided, each cell might have been called worse with more time.
    most = alarms if decided else len(unchanged)
    yield _count("unchanged cells called worse", len(unchanged), alarms, 0, (alarms, most), NONE)
    found, open_ = slowed.count("worse"), slowed.count("inconclusive")
    least = found - len(slowed)
    yield _count("slowed cells called worse", len(slowed), found, len(slowed), (least, least + open_), ALL)


def _count(what: str, of: int, figure: int, reading: int, interval: tuple[float, float], bar: Bar) -> CheckedFigure:
    return CheckedFigure(
        quantity=f"{what}, of {of}",
        unit="count",
        figure=figure,
        reading=reading,
        source="the change that was made",
        relative=False,
        bar=bar,
        interval=interval,
    )


def _cells(context: Context) -> tuple[Contest, ...]:
    from cnnperf.duet.contest import contests
    from cnnperf.ipc.messages import SuiteRequest
    from cnnperf.regression.gate_test import GATE_SUITE, METRICS
    from cnnperf.running.preflight import prepare
    from cnnperf.suite import parse

    names = MODELS[: max(1, int(context.seconds // CELL_S))]
    models: list[Any] = [each for each in GATE_SUITE["models"] if each["name"] in names]
    suite = parse({**GATE_SUITE, "models": models, "devices": [context.device]}, where="selftest", name="selftest")
    context.progress("preparing")
    request = SuiteRequest(suite=suite, where="selftest", allow_busy=True)  # This process may hold the GPU.
    return contests(prepare(request).tasks, metrics=METRICS)


def _compared(context: Context, ready: Sequence[Contest], candidate: Any, seconds: float, name: str) -> Result:
    from cnnperf.duet.contest import Version
    from cnnperf.regression.gate import compare_versions

    return compare_versions(
        Version(name="this code"),
        candidate,
        ready,
        minutes=seconds / 60,
        folder=context.scratch / "gate" / name,
        watcher=_Narrator(context, name),
    )


class _Narrator:
    """Sends the progress of the comparison to the screen."""

    def __init__(self, context: Context, name: str) -> None:
        self._context = context
        self._name = name

    def calibrating(self, contests: int, minutes: tuple[float, float]) -> None:
        """Send the progress."""
        self._context.progress(f"{self._name}: measuring how long a call takes")

    def planned(self, minutes: tuple[float, float], looks: Sequence[int], power: str) -> None:
        """Say nothing."""

    def measured(self, number: int, contest: Contest, outcome: Played | Fault) -> None:
        """Send the progress."""
        self._context.progress(f"{self._name}: replicate {number}")

    def decided(self, number: int, decisions: Mapping[str, Decision], power: str) -> None:
        """Say nothing."""
