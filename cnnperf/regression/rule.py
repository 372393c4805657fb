"""The rule that decides whether times measured in turns are the same, worse or better.

It is sequential: it looks at the replicates a few times and stops as soon as they suffice. The error rates are divided
among the looks and, by Holm's procedure, among all comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cnnperf.stats import SignedRanks, holm, replicates_needed, sample_size
from cnnperf.task import Frozen

FLAGGED_SHARE = 0.25
"""Share of flagged replicates above which there is no verdict; of unsteady pairs above which a speed-up is doubtful."""

PLANNED_DEVIATION, PLANNED_POWER = 0.05, 0.9
"""If time allows, the last look is postponed until a slowdown of theta is found with this probability, for replicates
with this standard deviation."""
TYPICAL_DEVIATIONS = (0.02, 0.03, 0.04, 0.05)
"""Standard deviations of replicates for which the power is stated before the measurement."""
POWER_DRAWS = 2000
"""Number of series in a simulation."""
SHOWN = 40
"""Minimum number of series with an outcome for their mean to be stated."""


class Rule(Frozen):
    """The limits of the gate: which change may be ignored, which must be excluded, and the error rates."""

    alpha: float = 0.01
    """Probability that anything unchanged is called worse, over all comparisons; half of it at each later look."""
    beta: float = 0.05
    """Probability that a slowdown of theta is called the same; a third of it at each look."""
    tau: float = 0.01
    """A slowdown up to this is ignored."""
    theta: float = 0.05
    """A slowdown of this must be excluded before anything is called the same."""
    looks: tuple[int, int, int] = (8, 14, 22)
    """Numbers of replicates at which to look. The first look never decides worse."""

    def scheduled(self, comparisons: int, affordable: int = 0) -> tuple[int, int, int]:
        """Return the looks for a number of comparisons; the second is the earliest that can call one of them worse.

        affordable: replicates that fit into the time; up to it, the last look is postponed to reach PLANNED_POWER.
        Nothing here depends on a difference that was measured, so that the levels hold.
        """
        first, second, last = self.looks
        second = max(second, math.ceil(math.log2(1 / self.worse_level * comparisons)))
        shift = math.log1p(self.theta) - math.log1p(self.tau)
        wanted = sample_size(PLANNED_DEVIATION, shift, self.worse_level / comparisons, PLANNED_POWER)
        return first, second, max(second, last, min(affordable, wanted))

    @property
    def least_for_same(self) -> int:
        """The fewest replicates whose bounds are finite."""
        return math.ceil(math.log2(1 / self.same_level))

    def least_for_worse(self, comparisons: int) -> int:
        """Return the fewest replicates, after those of the first look, that can call one of these comparisons worse."""
        return max(self.looks[0] + 1, math.ceil(math.log2(comparisons / self.worse_level)))

    @property
    def worse_level(self) -> float:
        """The family-wise level at which one of the later looks calls something worse."""
        return self.alpha / 2

    @property
    def same_level(self) -> float:
        """The level of the bounds at each look."""
        return self.beta / 3


@dataclass(frozen=True, slots=True)
class Series:
    """The replicates of one cell and metric in the order in which they were measured."""

    differences: tuple[float, ...]
    """ln(candidate / baseline), one per replicate: the median of its pairs."""
    flagged: tuple[bool, ...]
    """Whether a replicate drifted or never became steady."""
    error: str | None = None
    """Why the measurement failed; None if it did not."""

    def fault(self) -> str | None:
        """Return the error that rules out any verdict; None if there is none."""
        for index, difference in enumerate(self.differences, start=1):
            if not math.isfinite(difference):
                return f"replicate {index} gave no finite ratio of times, got {difference}"
        return self.error

    def doubt(self) -> str | None:
        """Return why these replicates permit no decision; None if they permit one."""
        flagged = sum(self.flagged)
        if flagged > FLAGGED_SHARE * len(self.flagged):
            return (
                f"{flagged} of {len(self.flagged)} replicates drifted or never became steady; end other work on this "
                "machine"
            )
        if len(self.differences) > 1 and len(set(self.differences)) == 1:
            return f"all {len(self.differences)} replicates gave one ratio to the last digit; the clock is at fault"
        return None

    def first(self, count: int) -> Series:
        """Return the first replicates, or all if there are no more."""
        return Series(self.differences[:count], self.flagged[:count])


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision on one series; estimate and bounds are logarithms of ratios, as the differences are."""

    outcome: Literal["same", "better", "worse", "inconclusive", "error"]
    n: int
    estimate: float = math.nan
    low: float = -math.inf
    high: float = math.inf
    p: float = math.nan
    """One-sided: of better where that is the outcome, of worse otherwise."""
    p_holm: float = math.nan
    reason: str = ""
    """Why the outcome is inconclusive or an error, and what would decide; else empty."""
    needed: int | None = None
    """The replicates, those measured included, that would decide an inconclusive outcome; None if more do not."""


def decide(
    series: Mapping[str, Series], rule: Rule, looks: Sequence[int], *, final: bool = False
) -> dict[str, Decision]:
    """Take every look for which there are enough replicates, and return the decisions.

    series: all that is compared, including what an earlier look decided and is no longer measured.
    looks: the numbers of replicates at which a look is taken, at most three; an early look replaces the planned one.
    final: nothing more will be measured, so series that the last look cannot decide become inconclusive.
    """
    decided = {
        key: Decision("error", len(each.differences), reason=fault)
        for key, each in series.items()
        if (fault := each.fault())
    }
    for number, count in enumerate(looks):
        ends = final and number == len(looks) - 1
        seen = {
            key: each.first(count)
            for key, each in series.items()
            if key not in decided and (ends or len(each.differences) >= count)
        }
        decided |= _look(seen, rule, comparisons=len(series), number=number, ends=ends)
    return decided


def looks_taken(looks: Sequence[int], done: int) -> list[int]:
    """Return the looks of a comparison that ended after a number of replicates: those before the end, and the end."""
    return [*(look for look in looks if look < done), max(1, done)][: len(looks)]


class Simulated(NamedTuple):
    """The decisions on many simulated series, one place per series."""

    outcome: NDArray[np.str_]
    estimate: NDArray[np.float64]
    """At the look that decided."""
    n: NDArray[np.int64]


def simulate(
    draws: NDArray[np.float64], rule: Rule, looks: Sequence[int] | None = None, comparisons: int = 1
) -> Simulated:
    """Take every look at many series at once, as `decide` does at each of them to the end.

    draws: series × replicates, none flagged. comparisons: the size of the family. Nothing else in the family is
    rejected, so Holm's procedure is at its first step.
    """
    looks = looks or rule.scheduled(comparisons)
    outcome = np.full(len(draws), "inconclusive")
    estimate, n = np.zeros(len(draws)), np.zeros(len(draws), dtype=np.int64)
    is_open = np.ones(len(draws), dtype=bool)
    for number, count in enumerate(looks):
        ends = number == len(looks) - 1
        undecided = np.flatnonzero(is_open)
        ranks = SignedRanks(draws[undecided, :count])
        low, high, middle = ranks.lower(rule.same_level), ranks.upper(rule.same_level), ranks.estimate
        level = rule.worse_level / comparisons if number else 0.0
        same = (high < math.log1p(rule.theta)) & (low <= math.log1p(rule.tau))
        found = {
            "worse": ranks.p_above(math.log1p(rule.tau)) <= level,
            "better": ranks.p_below(-math.log1p(rule.tau)) <= level,
            "same": same & (ends | (high >= -math.log1p(rule.tau))),
            "inconclusive": np.full(len(undecided), ends),
        }
        for name, where in found.items():
            decided = where & is_open[undecided]
            rows = undecided[decided]
            outcome[rows], estimate[rows], n[rows] = name, middle[decided], count
            is_open[rows] = False
    return Simulated(outcome, estimate, n)


def power(rule: Rule, looks: Sequence[int], comparisons: int, deviation: float) -> float:
    """Return the probability that one slowdown of theta among these comparisons is called worse, by simulation.

    deviation: the standard deviation of the replicates, assumed normal; the other comparisons are not slower.
    """
    noise = np.random.default_rng(0).normal(math.log1p(rule.theta), deviation, (POWER_DRAWS, looks[-1]))
    return float(np.mean(simulate(noise, rule, looks, comparisons).outcome == "worse"))


def power_words(rule: Rule, looks: Sequence[int], comparisons: int, deviations: Sequence[float]) -> str:
    """Return a sentence on the probability of finding a slowdown of theta at these standard deviations."""
    found = " / ".join(f"{100 * power(rule, looks, comparisons, each):.0f}" for each in deviations)
    scatter = " / ".join(f"{100 * each:.2g}" for each in deviations)
    return (
        f"if {_one_of(comparisons)} is slower by {100 * rule.theta:g} %, it is called worse in {found} of 100 runs; "
        f"SD of replicates: {scatter} %"
    )


def overstated(rule: Rule, looks: Sequence[int], comparisons: int, deviation: float, change: float) -> float | None:
    """Return the mean overestimate of a slowdown that is called worse, by simulation.

    change: the true slowdown of one comparison; the others are unchanged. None if fewer than SHOWN series are called
    worse.
    """
    noise = np.random.default_rng(0).normal(math.log1p(change), deviation, (POWER_DRAWS, looks[-1]))
    found = simulate(noise, rule, looks, comparisons)
    called = found.estimate[found.outcome == "worse"]
    return float(np.expm1(called).mean()) - change if len(called) >= SHOWN else None


def overstated_words(rule: Rule, looks: Sequence[int], comparisons: int, deviations: Sequence[float]) -> str:
    """Return a sentence on the overestimate of slowdowns that are called worse, at these standard deviations."""
    changes = (rule.tau + rule.theta) / 2, rule.theta
    middle, large = (
        " / ".join(_points(overstated(rule, looks, comparisons, each, change)) for each in deviations)
        for change in changes
    )
    scatter = " / ".join(f"{100 * each:.2g}" for each in deviations)
    return (
        f"a slowdown of {100 * changes[0]:g} % that is called worse is overestimated by {middle} points on average, "
        f"one of {100 * changes[1]:g} % by {large} points ({_one_of(comparisons)} slower); SD of replicates: "
        f"{scatter} %"
    )


def _one_of(comparisons: int) -> str:
    return "the only cell-metric" if comparisons == 1 else f"one of {comparisons} cell-metrics"


def _points(share: float | None) -> str:
    return "?" if share is None else f"{100 * share:z.1f}"


@dataclass(frozen=True, slots=True)
class _Bounds:
    """Estimate, bounds and p-values of one series at one look."""

    series: Series
    estimate: float
    low: float
    high: float
    p_worse: float
    p_better: float

    @classmethod
    def of(cls, series: Series, rule: Rule) -> _Bounds:
        ranks = SignedRanks(series.differences)
        return cls(
            series,
            estimate=float(ranks.estimate),
            low=float(ranks.lower(rule.same_level)),
            high=float(ranks.upper(rule.same_level)),
            p_worse=float(ranks.p_above(math.log1p(rule.tau))),
            p_better=float(ranks.p_below(-math.log1p(rule.tau))),
        )

    def excludes_theta(self, rule: Rule) -> bool:
        """Return whether a slowdown of theta is excluded, and one of more than tau is not proved.

        With the upper bound alone, most slowdowns between tau and theta would be decided as the same before they could
        be decided as worse.
        """
        return self.high < math.log1p(rule.theta) and self.low <= math.log1p(rule.tau)

    def decision(
        self,
        outcome: Literal["same", "better", "worse", "inconclusive"],
        p: float,
        reason: str = "",
        needed: int | None = None,
    ) -> Decision:
        n = len(self.series.differences)
        one_sided = self.p_better if outcome == "better" else self.p_worse
        return Decision(outcome, n, self.estimate, self.low, self.high, one_sided, p, reason, needed)


def _look(seen: Mapping[str, Series], rule: Rule, *, comparisons: int, number: int, ends: bool) -> dict[str, Decision]:
    evidence = {key: _Bounds.of(each, rule) for key, each in seen.items() if each.differences}
    # Series that failed or are no longer measured count among the comparisons and are not rejected.
    others = [1.0] * (comparisons - len(evidence))
    worse = holm([*(each.p_worse for each in evidence.values()), *others])
    better = holm([*(each.p_better for each in evidence.values()), *others])
    decided = {key: Decision("inconclusive", 0, reason="nothing was measured") for key in seen.keys() - evidence.keys()}
    for (key, each), p_worse, p_better in zip(evidence.items(), worse, better, strict=False):
        doubt = each.series.doubt()
        is_late = number > 0 and not doubt
        # A likely speed-up is measured further to prove it; if it is never proved, the outcome is still "same".
        is_open = each.high < -math.log1p(rule.tau) and not ends
        if is_late and p_worse <= rule.worse_level:
            decided[key] = each.decision("worse", p_worse)
        elif is_late and p_better <= rule.worse_level:
            decided[key] = each.decision("better", p_better)
        elif not doubt and each.excludes_theta(rule) and not is_open:
            decided[key] = each.decision("same", p_worse)
        elif ends:
            reason, needed = (doubt, None) if doubt else _shortfall(each, rule, comparisons)
            decided[key] = each.decision("inconclusive", p_worse, reason, needed)
    return decided


def _shortfall(evidence: _Bounds, rule: Rule, comparisons: int) -> tuple[str, int | None]:
    """Return what is known of a series and what would decide, as a sentence, and the replicates that would."""
    differences = evidence.series.differences
    n = len(differences)
    seen = f"slower in {sum(each > 0 for each in differences)} of {n}"
    is_slower = evidence.estimate > math.log1p(rule.tau)
    provable = rule.least_for_worse(comparisons)
    least = provable if is_slower else rule.least_for_same
    shift = math.log1p(rule.theta) - math.log1p(rule.tau)
    needed = replicates_needed(differences, shift, rule.worse_level / comparisons) if n > 1 else 0
    if n < least and needed <= provable:  # The replicates vary little: their number alone is too small.
        return f"{seen}; a verdict needs {least} replicates", least
    theta, tau = 100 * rule.theta, 100 * rule.tau
    if needed > n:
        return f"{seen}; a verdict on {theta:g} % needs about {needed} replicates", needed
    change = f"the change is between {tau:g} % and {theta:g} %, or too close to a limit to decide"
    return f"{seen}; {change}; run more replicates", None
