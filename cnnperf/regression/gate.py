"""The gate for times: two versions measured in turns, replicate by replicate, until each contest is decided."""

from __future__ import annotations

import math
import random
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, stdev
from typing import Any, Protocol

from cnnperf.duet.contest import Contest, Version
from cnnperf.duet.pair import Fault, Patience
from cnnperf.duet.schedule import LONGEST_CALL_S, Conditions, Played, calibrate, replicate
from cnnperf.errors import UsageError
from cnnperf.regression import ratios
from cnnperf.regression.rule import (
    TYPICAL_DEVIATIONS,
    Decision,
    Rule,
    Series,
    decide,
    looks_taken,
    overstated_words,
    power_words,
)
from cnnperf.regression.samples_file import Write, sample_lines, writing
from cnnperf.sides import PAIRS, Both
from cnnperf.timing.sampling import SAMPLE_S

START_S = 6.0
"""Approximate seconds of a pair of processes before its first turn; for the plan only."""
OPEN_S = 0.7
"""Approximate seconds to prepare one contest; for the plan only."""


class GateWatcher(Protocol):
    """Listener to a comparison."""

    def calibrating(self, contests: int, minutes: tuple[float, float]) -> None:
        """Calibration begins: each of `contests` is timed once.

        minutes: bounds of the whole comparison; the lower one holds if nothing changed.
        """

    def planned(self, minutes: tuple[float, float], looks: Sequence[int], power: str) -> None:
        """Calibration has ended.

        minutes: until the first and until the last look. looks: numbers of replicates. power: a sentence on the share
        of slowdowns that are found, for several standard deviations of the replicates.
        """

    def measured(self, number: int, contest: Contest, outcome: Played | Fault) -> None:
        """A contest has been measured for the n-th time, or failed."""

    def decided(self, number: int, decisions: Mapping[str, Decision], power: str) -> None:
        """A look has been taken after `number` replicates; contests without a decision are measured further.

        power: a sentence on the share of slowdowns that are found, for the standard deviation of these replicates.
        """


class UnwatchedGate:
    """Listener that ignores all events."""

    def calibrating(self, contests: int, minutes: tuple[float, float]) -> None:
        """Say nothing."""

    def planned(self, minutes: tuple[float, float], looks: Sequence[int], power: str) -> None:
        """Say nothing."""

    def measured(self, number: int, contest: Contest, outcome: Played | Fault) -> None:
        """Say nothing."""

    def decided(self, number: int, decisions: Mapping[str, Decision], power: str) -> None:
        """Say nothing."""


@dataclass(slots=True)
class Result:
    """The result of a comparison, decided or not."""

    versions: Both[Version]
    contests: tuple[Contest, ...]
    rule: Rule
    looks: tuple[int, ...] = ()
    conditions: dict[Contest, Conditions] = field(default_factory=dict)
    played: dict[Contest, list[Played]] = field(default_factory=dict)
    """The replicates of each contest, in the order in which they were measured."""
    faults: dict[Contest, Fault] = field(default_factory=dict)
    decisions: dict[str, Decision] = field(default_factory=dict)
    """Decision on each contest, by the contest's key."""
    interrupted: bool = False
    folder: Path | None = None
    """Folder of the raw samples; None if they are not kept."""
    replicate_s: float | None = None
    """Seconds of the last replicate; None if there is none."""

    @property
    def compared(self) -> tuple[Contest, ...]:
        """The contests that the baseline has; the others are not compared."""
        return tuple(
            each for each in self.contests if each not in self.faults or self.faults[each].absent != "baseline"
        )

    def series(self) -> dict[str, Series]:
        """Return the replicates of each contest for the rule, by the contest's key."""
        return {
            each.key: ratios.series(self.played.get(each, ()), str(self.faults[each]) if each in self.faults else None)
            for each in self.compared
        }

    def power(self) -> str:
        """Return a sentence on the share of slowdowns found at the contests' median and largest standard deviation.

        Empty if no contest has two replicates.
        """
        return self._simulated(power_words)

    def overstated(self) -> str:
        """Return a sentence on the overestimate of slowdowns that are called worse, for the same deviations."""
        return self._simulated(overstated_words)

    def _simulated(self, words: Callable[[Rule, Sequence[int], int, Sequence[float]], str]) -> str:
        """Return a sentence on the rule, for the contests' median and largest standard deviation of replicates."""
        sound = [each.differences for each in self.series().values() if not each.fault()]
        several = [differences for differences in sound if len(differences) > 1]
        if not several:
            return ""
        deviations = list(map(stdev, several))
        shown = dict.fromkeys((median(deviations), max(deviations)))
        said = words(self.rule, self._looks_held(), len(self.compared), tuple(shown))
        return f"{said} (here: median and largest)" if len(shown) > 1 else f"{said} (here)"

    def _looks_held(self) -> Sequence[int]:
        """Return the planned looks, or those actually taken if the time ended before the last."""
        cut = [d.n for d in self.decisions.values() if d.outcome == "inconclusive" and d.n < self.looks[-1]]
        return looks_taken(self.looks, max(cut)) if cut else self.looks

    def noise(self) -> ratios.Noise:
        """Return the noise of the measurement."""
        return ratios.Noise.of(self.played.values())


def compare_versions(
    baseline: Version,
    candidate: Version,
    contests: Sequence[Contest],
    *,
    rule: Rule | None = None,
    minutes: float | None = None,
    folder: Path | None = None,
    watcher: GateWatcher | None = None,
    seed: int | None = None,
    patience: Patience | None = None,
    pairs: int = PAIRS[1],
    is_strict: bool = False,
) -> Result:
    """Measure the contests on both sides until each is decided, or until no look or no time is left.

    folder: where each line of raw samples is written at once. seed: of all random orders. pairs: maximum pairs of
    samples in a replicate. is_strict: refuse minutes in which no verdict is possible, once the calls are timed.
    Ctrl-C ends it early; the replicates so far are decided on (`interrupted`). Raises UsageError if nothing can be
    compared, or if the minutes are refused.
    """
    refuse_none(contests)
    result = Result(Both(baseline, candidate), tuple(contests), rule or Rule(), folder=folder)
    course = _Course(
        result, watcher or UnwatchedGate(), minutes, random.Random(seed), patience, pairs, is_strict=is_strict
    )
    try:
        with tempfile.TemporaryDirectory(prefix="cnnperf-ab-") as scratch:
            course.run(Path(scratch))
    except KeyboardInterrupt:
        result.interrupted = True
    course.finish()
    return result


def refuse_none(contests: Sequence[object]) -> None:
    """Raise UsageError if there is nothing to compare."""
    if not contests:
        raise UsageError(
            "nothing to compare: no cell of this suite can run on this machine; give a suite with a device that it has"
        )


def shortest_turns(count: int, pairs: int) -> list[float]:
    """Return the seconds of each of `count` contests in a replicate where their calls are as short as can be."""
    return [Conditions.of(1, SAMPLE_S, pairs).turn_s] * count


def bounds(count: int, looks: Sequence[int], pairs: int) -> tuple[float, float]:
    """Return the minutes of `count` contests for the shortest calls until the first look, and for the longest."""
    longest = [Conditions.of(1, LONGEST_CALL_S, pairs).turn_s] * count
    return looks[0] * _replicate_s(shortest_turns(count, pairs)) / 60, looks[-1] * _replicate_s(longest) / 60


def refuse_short(minutes: float | None, turns_s: Sequence[float], rule: Rule, *, spent_s: float = 0.0) -> None:
    """Raise UsageError if no verdict is possible within the minutes.

    turns_s: seconds of each contest in a replicate. spent_s: seconds that have passed. An estimate is no measurement:
    minutes that are short by a tenth are accepted.
    """
    least = rule.least_for_same
    needed = (spent_s + least * _replicate_s(turns_s)) / 60
    if minutes is not None and minutes < 0.9 * needed:
        said = f"{round(needed, 1):g}" if needed < 10 else f"{needed:.0f}"
        raise UsageError(
            f"`minutes`: {minutes:g} is too short; {least} replicates, the fewest for a verdict, take about {said} "
            f"minute{'s' * (said != '1')}"
        )


class _Course:
    """A comparison in progress."""

    def __init__(
        self,
        result: Result,
        watcher: GateWatcher,
        minutes: float | None,
        dice: random.Random,
        patience: Patience | None,
        pairs: int,
        *,
        is_strict: bool,
    ) -> None:
        self._result = result
        self._watcher = watcher
        self._begun = time.monotonic()
        self._limit = minutes if is_strict else None
        self._deadline = None if minutes is None else self._begun + 60 * minutes
        self._dice = dice
        self._patience = patience
        self._pairs = pairs
        self._done = 0

    def run(self, scratch: Path) -> None:
        """Calibrate, then measure one replicate after the other."""
        result = self._result
        result.looks = result.rule.scheduled(len(result.contests))
        self._watcher.calibrating(len(result.contests), self._bounds())
        calibrating = calibrate(result.versions, result.contests, scratch, self._patience, self._pairs)
        with closing(calibrating) as calibrated:
            for contest, found in calibrated:
                if isinstance(found, Fault):
                    self._fail(0, contest, found)
                else:
                    result.conditions[contest] = found
        comparisons, turns_s = max(1, len(result.compared)), [each.turn_s for each in result.conditions.values()]
        result.looks = result.rule.scheduled(comparisons, self._affordable(turns_s))
        if result.conditions:
            refuse_short(self._limit, turns_s, result.rule, spent_s=time.monotonic() - self._begun)
            words = power_words(result.rule, result.looks, comparisons, TYPICAL_DEVIATIONS)
            self._watcher.planned(self._minutes(turns_s), result.looks, words)
        with writing(result.folder, self._header()) as write:
            longest_s = 0.0
            while (active := self._active()) and self._done < result.looks[-1] and self._is_time_for(longest_s):
                begun = time.monotonic()
                with closing(self._replicate(active, scratch)) as outcomes:
                    for contest, outcome in outcomes:
                        self._note(contest, outcome, write)
                longest_s = result.replicate_s = time.monotonic() - begun
                self._done += 1
                if self._done in result.looks[:-1]:
                    result.decisions |= decide(result.series(), result.rule, result.looks)
                    self._watcher.decided(self._done, result.decisions, result.power())

    def finish(self) -> None:
        """Decide on the replicates so far; nothing more will be measured."""
        result = self._result
        if not result.compared:
            return
        looks = looks_taken(result.looks, self._done)
        # What an earlier look has decided stays so.
        result.decisions = decide(result.series(), result.rule, looks, final=True) | result.decisions

    def _replicate(
        self, active: Mapping[Contest, Conditions], scratch: Path
    ) -> Generator[tuple[Contest, Played | Fault], None, None]:
        try:
            yield from replicate(self._result.versions, active, scratch, self._dice, self._patience)
        except UsageError as error:
            if not any(self._result.played.values()):
                raise
            # Both sides could be started before, so the replicates so far are kept.
            yield from ((contest, Fault(str(error))) for contest in self._active() if contest in active)

    def _active(self) -> dict[Contest, Conditions]:
        result = self._result
        return {
            contest: conditions
            for contest, conditions in result.conditions.items()
            if contest not in result.faults and contest.key not in result.decisions
        }

    def _is_time_for(self, seconds: float) -> bool:
        return self._deadline is None or not self._done or time.monotonic() + seconds <= self._deadline

    def _bounds(self) -> tuple[float, float]:
        """Return the bounds of the minutes, at most those that are left."""
        least, most = bounds(len(self._result.contests), self._result.looks, self._pairs)
        limit = math.inf if self._deadline is None else max(0.0, self._deadline - time.monotonic()) / 60
        return min(least, limit), min(most, limit)

    def _affordable(self, turns_s: Iterable[float]) -> int:
        """Return how many replicates of all contests fit into the minutes; 0 without a time limit."""
        if self._deadline is None:
            return 0
        return max(0, int((self._deadline - time.monotonic()) / _replicate_s(turns_s)))

    def _minutes(self, turns_s: Iterable[float]) -> tuple[float, float]:
        """Return the minutes to the first look and to the last."""
        replicate_s = _replicate_s(turns_s)
        first, *_, last = (look * replicate_s / 60 for look in self._result.looks)
        return first, last

    def _note(self, contest: Contest, outcome: Played | Fault, write: Write) -> None:
        if isinstance(outcome, Fault):
            self._fail(self._done + 1, contest, outcome)
            write({"contest": contest.key, "replicate": self._done + 1, "error": str(outcome)})
            return
        self._result.played.setdefault(contest, []).append(outcome)
        for document in sample_lines(contest, self._done + 1, self._result.conditions[contest], outcome):
            write(document)
        self._watcher.measured(self._done + 1, contest, outcome)

    def _header(self) -> dict[str, Any]:
        result = self._result
        return {
            "arms": [version.model_dump(mode="json") for version in result.versions],
            "contests": {each.key: [task.model_dump(mode="json") for task in each.tasks] for each in result.contests},
            "rule": result.rule.model_dump(mode="json"),
            "looks": result.looks,
        }

    def _fail(self, number: int, contest: Contest, fault: Fault) -> None:
        self._result.faults[contest] = fault
        self._watcher.measured(number, contest, fault)


def _replicate_s(turns_s: Iterable[float]) -> float:
    """Return the approximate seconds of a replicate of contests with these turns."""
    return START_S + sum(turn_s + OPEN_S for turn_s in turns_s)
