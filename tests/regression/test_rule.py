"""The decision rule, replayed on measured samples of identical networks and tested on simulated ones."""

from __future__ import annotations

import csv
import gzip
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binom, exponnorm, wilcoxon

from cnnperf.regression.rule import (
    TYPICAL_DEVIATIONS,
    Decision,
    Rule,
    Series,
    decide,
    overstated,
    overstated_words,
    power,
    power_words,
    simulate,
)
from cnnperf.stats import SignedRanks

SAMPLES = Path(__file__).parents[1] / "data" / "aa-samples.csv.gz"
"""Times of two identical networks; README.md beside it says where they are from."""
WARMUP = 10
DRAWS = 5000
DECIDED = 200
FALSE_ALARMS = 0.013
"""Limit of the rate in 5,000 draws, where the true rate is 0.98 %, the exact level of ten replicates."""

Floats = NDArray[np.float64]


class Measured(NamedTuple):
    """The samples of one schedule and one network; process × pair of samples."""

    baseline: Floats
    candidate: Floats

    @property
    def ratios(self) -> Floats:
        """The logarithm of the ratio of each pair."""
        return np.log(self.candidate) - np.log(self.baseline)

    @property
    def differences(self) -> Floats:
        """The median log ratio of each process."""
        return np.median(self.ratios, axis=1)


@pytest.fixture(scope="module")
def measured() -> dict[str, Measured]:
    """Read the samples without warm-up: `LR` is the network R, measured by the schedule L."""
    times: dict[str, dict[int, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    with gzip.open(SAMPLES, "rt") as file:
        for row in csv.DictReader(file):
            if int(row["i"]) >= WARMUP:
                times[row["sched"] + row["model"]][int(row["proc"])][row["arm"]].append(float(row["wall_us"]))
    return {
        name: Measured(*(np.array([of[side if side in of else "A"] for of in processes.values()]) for side in "AB"))
        for name, processes in times.items()
    }


def drawn(differences: Floats, n: int, seed: int, draws: int = DRAWS) -> Floats:
    """Draw n replicates without replacement, with sides swapped at random, `draws` times."""
    random = np.random.default_rng(seed)
    order = random.permuted(np.tile(np.arange(len(differences)), (draws, 1)), axis=1)[:, :n]
    return differences[order] * random.choice((-1.0, 1.0), (draws, n))


IN_TURNS = ("LL", "LR", "PL", "PR")


@pytest.mark.parametrize("name", IN_TURNS)
def test_replayed_at_ten_replicates(measured: dict[str, Measured], name: str) -> None:
    """At most 1.3 % of unchanged networks are called worse, and at least 95 % of those slowed by 5 %."""
    draws = drawn(measured[name].differences, n=10, seed=1)
    assert np.mean(SignedRanks(draws).p_above(0) <= 0.01) <= FALSE_ALARMS
    assert np.mean(SignedRanks(draws + math.log(1.05)).p_above(0) <= 0.01) >= 0.95


def outcomes(draws: Floats, looks: Sequence[int] = Rule().looks) -> Counter[str]:
    """Count the outcomes of the rule for the draws; check that `decide` agrees on the first of them."""
    found = simulate(draws, Rule(), looks).outcome
    for draw, outcome in zip(draws[:DECIDED], found, strict=False):
        each = {"": Series(tuple(draw.tolist()), (False,) * len(draw))}
        assert decide(each, Rule(), looks, final=True)[""].outcome == outcome
    return Counter(found.tolist())


@pytest.mark.parametrize("name", IN_TURNS)
def test_replayed_by_the_whole_rule(measured: dict[str, Measured], name: str) -> None:
    """Unchanged networks are the same in at least 95 % of draws; those slowed by 5 % are worse in at least 90 %."""
    draws = drawn(measured[name].differences, n=22, seed=2)
    unchanged, slower = outcomes(draws), outcomes(draws + math.log(1.05))
    assert unchanged["worse"] <= 0.01 * DRAWS
    assert unchanged["same"] >= 0.95 * DRAWS
    assert slower["same"] <= 0.05 * DRAWS
    assert slower["worse"] >= 0.90 * DRAWS


GATE_WAY = ("LL", "LR")
"""Two processes that take turns, which is how the gate measures; in P both sides share one process."""


def as_measured(differences: Floats, n: int, seed: int, draws: int = 1000) -> Floats:
    """Draw n replicates without replacement as they were measured, with no side swapped."""
    random = np.random.default_rng(seed)
    return differences[random.permuted(np.tile(np.arange(len(differences)), (draws, 1)), axis=1)[:, :n]]


def hold_no_alarm(draws: Floats) -> None:
    """Raise AssertionError where more draws are called worse than the rule allows of unchanged code."""
    assert np.mean(simulate(draws, Rule()).outcome == "worse") <= Rule().alpha


@pytest.mark.parametrize("name", IN_TURNS)
def test_replayed_as_measured_nothing_is_called_worse(measured: dict[str, Measured], name: str) -> None:
    """Replicates of two identical networks, as measured, are called worse or better in at most 1 % of draws."""
    draws = as_measured(measured[name].differences, 22, seed=8)
    hold_no_alarm(draws)
    hold_no_alarm(-draws)


@pytest.mark.parametrize("name", GATE_WAY)
def test_replayed_as_measured_the_sides_are_exchangeable(measured: dict[str, Measured], name: str) -> None:
    """The exact test without a margin finds no difference between the sides."""
    draws = as_measured(measured[name].differences, 10, seed=9)
    for each in (draws, -draws):
        assert np.mean(SignedRanks(each).p_above(0) <= 0.01) <= FALSE_ALARMS
    differences = measured[name].differences
    assert min(SignedRanks(differences).p_above(0), SignedRanks(differences).p_below(0)) > 0.05


@pytest.mark.parametrize("name", IN_TURNS)
def test_the_replay_fails_where_the_data_are_not_unchanged(measured: dict[str, Measured], name: str) -> None:
    """Replicates slowed by 20 % break the replay as measured, but not the one with random signs."""
    slowed = measured[name].differences + math.log(1.2)
    with pytest.raises(AssertionError):
        hold_no_alarm(as_measured(slowed, 22, seed=8))
    hold_no_alarm(drawn(slowed, 22, seed=8))


def test_replayed_with_five_times_the_noise(measured: dict[str, Measured]) -> None:
    """With five times the noise most draws are inconclusive and at most 1 % worse."""
    found = outcomes(5 * drawn(measured["LR"].differences, n=22, seed=3))
    assert found["inconclusive"] > 0.5 * DRAWS
    assert found["worse"] <= 0.01 * DRAWS


def test_replayed_with_five_replicates(measured: dict[str, Measured]) -> None:
    """Five replicates are too few for any verdict, however large the change."""
    draws = drawn(measured["LL"].differences, n=5, seed=4)
    assert outcomes(draws, looks=(5,)) == outcomes(draws + math.log(1.5), looks=(5,)) == {"inconclusive": DRAWS}


def test_without_turns_unchanged_code_is_called_worse(measured: dict[str, Measured]) -> None:
    """Ablation: the exact test breaks its bound when ten processes of one version precede ten of the other."""
    alarms = []
    for name in ("XL", "XR"):
        medians = np.median(np.log(measured[name].baseline), axis=1)
        for start in range(len(medians) - 20):
            first, then = medians[start : start + 10], medians[start + 10 : start + 20]
            ranks = SignedRanks(then - first)
            alarms += [bool(ranks.p_above(0) <= 0.01), bool(ranks.p_below(0) <= 0.01)]
    assert np.mean(alarms) > 3 * FALSE_ALARMS


def test_pooled_samples_call_unchanged_code_worse(measured: dict[str, Measured]) -> None:
    """Ablation: the test breaks its bound when each pair of samples counts as a replicate."""
    ratios = measured["LR"].ratios
    random = np.random.default_rng(5)
    pooled = [
        (ratios[random.permutation(len(ratios))[:10]] * random.choice((-1.0, 1.0), (10, 1))).ravel()
        for _ in range(1000)
    ]
    p = wilcoxon(pooled, alternative="greater", method="asymptotic", axis=1).pvalue
    assert np.mean(p <= 0.01) > 3 * FALSE_ALARMS


Noise = Callable[[np.random.Generator, tuple[int, ...]], Floats]

PROCESSES: dict[str, Noise] = {
    "normal": lambda random, shape: random.normal(0, 0.02, shape),
    "heavy": lambda random, shape: 0.01 * random.standard_t(2, shape),
    "skewed": lambda random, shape: random.exponential(0.02, shape),
}
"""How processes of one version differ among themselves, in logarithms."""
TRIALS = 10_000
MISSES = float(binom.isf(1e-6, TRIALS, Rule().same_level)) / TRIALS
"""Limit of the rate in all trials, where the true rate is 1.67 %; one fair test in a million exceeds these 2.3 %."""


def of_pairs(kinds: tuple[str, str], n: int, *, correlation: float, seed: int) -> Floats:
    """Make trials of n replicates of 12 pairs each; TRIALS × n. The two sides differ in their processes.

    Both sides share the machine's drift and its autocorrelated noise; each has the effect of its process and outliers.
    """
    random, pairs = np.random.default_rng(seed), 12
    noise = random.normal(0, 0.05, (TRIALS, n, 2 * pairs))
    for sample in range(1, 2 * pairs):
        noise[..., sample] += correlation * noise[..., sample - 1]
    noise += 0.5 * correlation * np.linspace(0, 1, 2 * pairs)
    noise += np.where(random.random(noise.shape) < 0.1, random.exponential(0.5, noise.shape), 0)
    swapped = random.random((TRIALS, n, pairs)) < 0.5  # which side of a pair comes first
    baseline = np.where(swapped, noise[..., 1::2], noise[..., ::2])
    candidate = np.where(swapped, noise[..., ::2], noise[..., 1::2])
    process = [PROCESSES[kind](random, (TRIALS, n)) for kind in kinds]
    differences: Floats = np.median(candidate - baseline, axis=-1) + process[1] - process[0]
    return differences


def misses(differences: Floats, centre: float) -> tuple[float, float]:
    """Return how often the upper bound lies below the centre, and how often the lower bound above it."""
    ranks, level = SignedRanks(differences), Rule().same_level
    return float(np.mean(ranks.upper(level) < centre)), float(np.mean(ranks.lower(level) > centre))


@pytest.mark.parametrize("n", Rule().looks)
@pytest.mark.parametrize("correlation", [0.0, 0.9])
@pytest.mark.parametrize("kind", PROCESSES)
def test_bounds_cover_the_change_as_often_as_they_say(kind: str, correlation: float, n: int) -> None:
    """Each bound holds its level under any noise that is the same on both sides."""
    assert max(misses(of_pairs((kind, kind), n, correlation=correlation, seed=n), 0.0)) <= MISSES


UNLIKE = [(one, other) for one in PROCESSES for other in PROCESSES if one != other]


def unlike(kinds: tuple[str, str], n: int, seed: int) -> Floats:
    """Make trials of replicates whose sides differ in distribution and not in the median of the log ratio."""
    random = np.random.default_rng(seed)

    def made(shape: tuple[int, ...]) -> Floats:
        return PROCESSES[kinds[1]](random, shape) - PROCESSES[kinds[0]](random, shape)

    return made((TRIALS, n)) - float(np.median(made((2_000_000,))))


@pytest.mark.parametrize("kinds", UNLIKE, ids="-".join)
def test_arms_of_unlike_distributions_keep_what_the_rule_promises(kinds: tuple[str, str]) -> None:
    """With unlike distributions at most 1 % of draws are worse, and at most 5 % of draws slowed by 5 % are the same."""
    draws = unlike(kinds, 22, seed=6)
    at_tau, slowed = (np.mean(simulate(draws + math.log1p(by), Rule()).outcome == kind) for by, kind in SHIFTED)
    assert at_tau <= 0.01
    assert slowed <= 0.05


SHIFTED = ((Rule().tau, "worse"), (Rule().theta, "same"))


def test_bounds_of_unlike_skewed_arms_miss_the_median_more_often_than_they_say() -> None:
    """Limit of the method: a bound misses the median of a skewed log ratio in up to 4 % of trials, not 1.67 %.

    A signed-rank test estimates the centre of a symmetric distribution; of a skewed one it estimates the pseudo-median,
    which a skewed side moves by 0.2 points here. Unchanged code has exchangeable sides, and no skew.
    """
    worst = {kinds: max(misses(unlike(kinds, 22, seed=7), 0.0)) for kinds in UNLIKE}
    assert max(worst.values()) > MISSES
    assert max(worst, key=worst.__getitem__) in {("heavy", "skewed"), ("skewed", "heavy")}
    assert max(worst.values()) <= 0.04
    assert all(worst[kinds] <= MISSES for kinds in UNLIKE if "skewed" not in kinds)


@pytest.mark.parametrize(("scale", "times", "worse"), [(0.02, 1.4, 0.0), (0.05, 2.6, 0.1), (0.15, 4.1, 1.2)])
def test_a_longer_tail_of_one_arm_breaks_the_bounds_as_the_document_says(
    scale: float, times: float, worse: float
) -> None:
    """With an exponential candidate the bounds miss the median more often than stated, by the documented factors."""
    random, shape, level = np.random.default_rng(6), (6 * TRIALS, 22), Rule().same_level
    draws = random.exponential(scale, shape) - PROCESSES["normal"](random, shape)
    draws -= exponnorm.median(scale / 0.02, scale=0.02)
    assert max(misses(draws, 0.0)) / level == pytest.approx(times, abs=3 * math.sqrt(times / level / len(draws)))
    assert 100 * np.mean(simulate(draws, Rule()).outcome == "worse") == pytest.approx(worse, abs=0.1)


def series(*differences: float, flagged: int = 0) -> Series:
    """Make a series whose first replicates are flagged."""
    return Series(differences, tuple(index < flagged for index in range(len(differences))))


def around(center: float, n: int, spread: float = 0.001) -> tuple[float, ...]:
    """Return n differences spread symmetrically about the logarithm of a change."""
    steps = (spread * (1 + index // 2) / n * (-1) ** index for index in range(n))
    return tuple(math.log1p(center) + step for step in steps)


def only(each: Series, looks: Sequence[int] = (8, 14, 22), *, final: bool = True) -> Decision | None:
    """Decide on one series alone."""
    return decide({"": each}, Rule(), looks, final=final).get("")


@pytest.mark.parametrize("change", [-0.03, 0.0, 0.03, 0.05])
def test_what_is_simulated_is_what_is_decided(change: float) -> None:
    """`simulate` agrees with `decide` in outcome, estimate and look."""
    draws = np.random.default_rng(10).normal(math.log1p(change), 0.03, (200, 22))
    found = simulate(draws, Rule())
    one_by_one = [only(series(*draw)) for draw in draws.tolist()]
    assert [(d.outcome, d.estimate, d.n) for d in one_by_one if d] == list(
        zip(found.outcome.tolist(), found.estimate.tolist(), found.n.tolist(), strict=True)
    )


def test_the_power_is_what_ten_compared_at_once_leave() -> None:
    """With ten contests a 5 % slowdown is always found at a deviation of 2 %, in 43 % of runs at 5 %."""
    rule = Rule()
    of_ten = [power(rule, rule.scheduled(10), 10, deviation) for deviation in TYPICAL_DEVIATIONS]
    assert of_ten == pytest.approx([1.0, 0.96, 0.72, 0.43], abs=0.03)
    assert power(rule, rule.scheduled(1), 1, 0.05) == pytest.approx(0.76, abs=0.03)
    assert power(rule, (8,), 1, 0.02) == 0.0
    words = power_words(rule, rule.scheduled(10), 10, (0.02, 0.031))
    assert re.fullmatch(
        r"if one of 10 cell-metrics is slower by 5 %, it is called worse in 100 / 9\d of 100 runs; "
        r"SD of replicates: 2 / 3.1 %",
        words,
    )


def test_more_replicates_are_planned_where_the_time_allows() -> None:
    """The last look grows with the affordable replicates, up to the number that a noisy machine needs."""
    rule = Rule()
    assert rule.scheduled(10) == rule.scheduled(10, 15) == (8, 14, 22)
    assert rule.scheduled(10, 30) == (8, 14, 30)
    looks = rule.scheduled(10, 10_000)
    assert looks[:2] == (8, 14)
    assert power(rule, looks, 10, 0.05) >= 0.8
    assert power(rule, looks, 10, 0.05) > power(rule, rule.scheduled(10), 10, 0.05) + 0.3


@pytest.mark.parametrize("affordable", [0, 30, 10_000])
@pytest.mark.parametrize("comparisons", [1, 10])
def test_a_put_off_look_keeps_the_levels(comparisons: int, affordable: int) -> None:
    """With a later last look, a family slower by tau has any contest called worse in at most 1 % of runs.

    A contest slower by 5 % is called the same in at most 5 % of runs.
    """
    rule, families = Rule(), 20_000 // comparisons
    looks = rule.scheduled(comparisons, affordable)
    noise = np.random.default_rng(11).normal(0, 0.03, (families * comparisons, looks[-1]))
    found = simulate(noise + math.log1p(rule.tau), rule, looks, comparisons).outcome
    alarms = int((found.reshape(families, comparisons) == "worse").any(axis=1).sum())
    assert alarms <= binom.isf(1e-4, families, rule.alpha)
    missed = simulate(noise + math.log1p(rule.theta), rule, looks, comparisons).outcome == "same"
    assert missed.mean() <= rule.beta


BIAS = {(0.01, 0.0): 0.05, (0.03, 0.0): 0.2, (0.03, 0.02): 0.2, (0.03, 0.03): 0.2, (0.03, 0.05): 0.1, (0.05, 0.02): 0.4}
"""By deviation of the replicates and true change: the bias of the estimate over all runs, in points at most."""


@pytest.mark.parametrize(("deviation", "change"), BIAS)
def test_the_bias_of_early_stopping_is_small_over_all_runs(deviation: float, change: float) -> None:
    """The estimate's bias over all runs, whatever their outcome, stays within its limit."""
    draws = np.random.default_rng(12).normal(math.log1p(change), deviation, (TRIALS, 22))
    bias = 100 * (np.expm1(simulate(draws, Rule()).estimate).mean() - change)
    assert abs(bias) <= BIAS[deviation, change]


OVERSTATED = {
    (1, 0.03): (0.66, 0.06),
    (1, 0.05): (1.73, 0.62),
    (10, 0.03): (0.82, 0.13),
    (10, 0.05): (2.11, 0.98),
}
"""By comparisons and deviation: how much too high 3 % and 5 % read where they are called worse, in points."""


def by_scipy(draws: NDArray[np.float64], rule: Rule, comparisons: int) -> NDArray[np.float64]:
    """Return the Hodges–Lehmann estimates of the draws that the rule calls worse, by SciPy's signed-rank test."""

    def p(values: NDArray[np.float64], center: float, alternative: str) -> Any:
        return wilcoxon(values - math.log1p(center), axis=1, alternative=alternative, method="exact").pvalue

    still_open, estimates = np.ones(len(draws), dtype=bool), []
    for number, count in enumerate(rule.scheduled(comparisons)):
        seen = draws[still_open, :count]
        worse = p(seen, rule.tau, "greater") <= rule.worse_level / comparisons * (number > 0)
        better = p(seen, -rule.tau, "less") <= rule.worse_level / comparisons * (number > 0)
        # Whatever lies within the bounds of the signed ranks is what the test does not reject.
        same = (p(seen, rule.theta, "less") <= rule.same_level) & (p(seen, rule.tau, "greater") > rule.same_level)
        same &= (p(seen, -rule.tau, "less") > rule.same_level) | (number == 2)
        estimates += [np.median([(a + b) / 2 for i, a in enumerate(each) for b in each[i:]]) for each in seen[worse]]
        still_open[still_open] = ~(worse | better | same)
    return np.array(estimates)


@pytest.mark.parametrize(("comparisons", "deviation"), OVERSTATED)
def test_the_block_says_how_much_too_high_reads_what_is_called_worse(comparisons: int, deviation: float) -> None:
    """The overstatement of slowdowns called worse agrees with that of an independent simulation.

    The independent simulation uses SciPy's test; the stored figures are from a third one.
    """
    rule, printed = Rule(), []
    looks = rule.scheduled(comparisons)
    for change, known in zip((0.03, 0.05), OVERSTATED[comparisons, deviation], strict=True):
        draws = np.random.default_rng(13).normal(math.log1p(change), deviation, (3000, looks[-1]))
        independent = 100 * (np.expm1(by_scipy(draws, rule, comparisons)).mean() - change)
        found = overstated(rule, looks, comparisons, deviation, change)
        assert found is not None
        assert 100 * found == pytest.approx(independent, abs=0.2)
        assert 100 * found == pytest.approx(known, abs=0.15)
        printed.append(f"{100 * found:.1f}")
    words = overstated_words(rule, looks, comparisons, (deviation,))
    family = "the only cell-metric" if comparisons == 1 else f"one of {comparisons} cell-metrics"
    assert words == (
        f"a slowdown of 3 % that is called worse is overestimated by {printed[0]} points on average, one of 5 % by "
        f"{printed[1]} points ({family} slower); SD of replicates: {100 * deviation:g} %"
    )


def test_what_is_never_called_worse_reads_too_high_by_nothing_known() -> None:
    """The overstatement is unknown with eight replicates, after which nothing is called worse."""
    assert overstated(Rule(), (8,), 1, 0.03, 0.03) is None
    assert "is overestimated by ? points" in overstated_words(Rule(), (8,), 1, (0.03,))


@pytest.mark.parametrize("change", [0.0, 0.03, 0.05])
def test_each_bound_holds_over_all_looks(change: float) -> None:
    """At the look that decides, each bound misses the change in at most 5 of 100 runs."""
    draws = np.random.default_rng(14).normal(math.log1p(change), 0.03, (TRIALS, 22))
    found, level = simulate(draws, Rule()), Rule().same_level
    missed = np.zeros((2, TRIALS), dtype=bool)
    for look in Rule().looks:
        ranks, here = SignedRanks(draws[:, :look]), found.n == look
        missed[:, here] = [ranks.upper(level)[here] < math.log1p(change), ranks.lower(level)[here] > math.log1p(change)]
    assert missed.mean(axis=1).max() <= Rule().beta


CHANGES = {-0.2: "better", -0.03: "better", 0.0: "same", 0.005: "same", 0.03: "worse", 0.05: "worse", 1.0: "worse"}


@pytest.mark.parametrize(("change", "outcome"), CHANGES.items())
def test_a_clear_change_gets_its_verdict(change: float, outcome: str) -> None:
    """A change within the margin is the same; a clear change beyond it is worse or better."""
    decision = only(series(*around(change, 14)), (8, 14))
    assert decision is not None
    assert decision.outcome == outcome
    assert math.expm1(decision.estimate) == pytest.approx(change, abs=1e-6)
    assert decision.low < decision.estimate < decision.high
    assert decision.n == (8 if outcome == "same" else 14)
    assert decision.reason == ""


@pytest.mark.parametrize("change", [0.03, -0.03, 0.2])
def test_the_first_look_says_same_or_nothing(change: float) -> None:
    """The first look leaves a clear slowdown or speedup undecided."""
    assert only(series(*around(change, 8)), (8,), final=False) is None


def test_a_speedup_that_is_not_sure_enough_is_the_same_in_the_end() -> None:
    """A speedup among a hundred contests is undecided after eight replicates, and the same at the end."""
    each = {str(index): series(*around(-0.1, 8)) for index in range(100)}
    assert decide(each, Rule(), (8,)) == {}
    assert {d.outcome for d in decide(each, Rule(), (8,), final=True).values()} == {"same"}


def test_what_is_halfway_is_inconclusive_and_says_so() -> None:
    """The reason gives the replicates needed for a wide spread, and the interval where enough were measured."""
    wide = only(series(*around(0.02, 22, spread=0.6)))
    assert wide is not None
    assert wide.outcome == "inconclusive"
    needed = re.fullmatch(r"slower in \d+ of 22; a verdict on 5 % needs about (\d+) replicates", wide.reason)
    assert needed is not None
    assert wide.needed == int(needed[1])
    ten = dict.fromkeys(map(str, range(10)), series(*around(0.02, 22, spread=0.6)))
    of_ten = decide(ten, Rule(), (8, 14, 22), final=True)["0"]
    assert of_ten.needed is not None
    assert 22 < wide.needed < of_ten.needed, "the more is compared, the more it takes"
    narrow = only(series(*[0.06, -0.02] * 10, 0.06, 0.06))
    assert narrow is not None
    assert (narrow.outcome, narrow.needed) == ("inconclusive", None)
    assert "the change is between 1 % and 5 %, or too close to a limit to decide" in narrow.reason
    few = only(series(*around(0.0, 5)), (5,))
    assert few is not None
    assert re.fullmatch(r"slower in \d of 5; a verdict needs 6 replicates", few.reason)
    assert few.needed == 6
    enough = only(series(*around(0.02, 6, spread=0.6)), (6,))
    assert enough is not None
    assert re.fullmatch(r"slower in \d of 6; a verdict on 5 % needs about \d+ replicates", enough.reason)


@pytest.mark.parametrize(("comparisons", "least"), [(1, 9), (2, 9), (10, 11)])
def test_a_slowdown_in_all_of_too_few_replicates_says_how_many_would_decide(comparisons: int, least: int) -> None:
    """Worse is possible after the first look at the earliest, and for many comparisons later."""
    each = {str(index): series(*around(0.2, 7)) for index in range(comparisons)}
    for decision in decide(each, Rule(), (7,), final=True).values():
        assert (decision.outcome, decision.needed) == ("inconclusive", least)
        assert decision.reason == f"slower in 7 of 7; a verdict needs {least} replicates"


def test_the_more_is_compared_the_more_it_takes_to_say_worse() -> None:
    """Holm over all contests: worse needs 8 replicates for one contest, 11 for ten and 14 for 81."""
    for comparisons, least in ((1, 8), (10, 11), (81, 14)):
        for n, outcome in ((least, "worse"), (least - 1, "inconclusive")):
            each = {str(index): series(*around(0.0, n)) for index in range(1, comparisons)}
            each["slow"] = series(*around(0.2, n))
            decision = decide(each, Rule(), (6, n), final=True)["slow"]
            assert (decision.outcome, decision.n) == (outcome, n)
            assert decision.p == pytest.approx(2.0**-n)
            assert decision.p_holm == pytest.approx(comparisons * 2.0**-n)


def test_looks_wait_until_worse_can_be_said_at_all() -> None:
    """The second look comes after 14 replicates, and later only for more than 81 contests."""
    assert Rule().scheduled(1) == Rule().scheduled(81) == (8, 14, 22)
    assert Rule().scheduled(82) == (8, 15, 22)
    assert Rule().least_for_same == 6


def test_each_later_look_spends_half_of_alpha() -> None:
    """The two later looks test for worse at 0.5 % each, and all three looks test for same at 1.67 %."""
    assert Rule().worse_level == pytest.approx(0.005)
    assert Rule().same_level == pytest.approx(0.05 / 3)


def test_decisions_stand_once_they_are_made() -> None:
    """A decision at an early look stands, whatever is measured later."""
    each = series(*around(0.0, 8), *around(0.5, 14))
    decision = only(each)
    assert decision is not None
    assert (decision.outcome, decision.n) == ("same", 8)


@given(st.lists(st.floats(-0.3, 0.3), min_size=14, max_size=22, unique_by=abs))
def test_swapped_labels_give_mirrored_numbers(differences: list[float]) -> None:
    """Swapping the sides turns worse into better with the same p-value, and negates the estimate."""
    one, other = only(series(*differences)), only(series(*(-d for d in differences)))
    assert one is not None
    assert other is not None
    if one.n == other.n:
        assert (one.estimate, one.low, one.high) == (-other.estimate, -other.high, -other.low)
    if one.outcome == "worse":
        assert (other.outcome, other.p, other.p_holm) == ("better", one.p, one.p_holm)


@pytest.mark.parametrize("change", [0.0, 0.2])
def test_flagged_replicates_allow_no_verdict(change: float) -> None:
    """A verdict allows 3 flagged replicates of 14; with 4 it is inconclusive."""
    tolerated, refused = (only(series(*around(change, 14), flagged=count), (14, 14)) for count in (3, 4))
    assert tolerated is not None
    assert tolerated.outcome == ("worse" if change else "same")
    assert refused is not None
    assert refused.outcome == "inconclusive"
    assert "4 of 14 replicates drifted or never became steady" in refused.reason


def test_samples_that_cannot_be_are_said_to_be_so() -> None:
    """Differences without any spread are inconclusive, infinite or NaN ones an error."""
    constant = only(series(*[0.0] * 8), (8,))
    assert constant is not None
    assert constant.outcome == "inconclusive"
    assert "the clock is at fault" in constant.reason
    for bad in (math.inf, math.nan):
        decision = only(series(0.1, bad, 0.2))
        assert decision is not None
        assert decision.outcome == "error"
        assert decision.reason.startswith("replicate 2 gave no finite ratio of times")


def test_what_failed_is_an_error_and_still_counts() -> None:
    """A failed contest is an error with its reason, and still counts for Holm."""
    each = {"broken": Series((), (), error="the process crashed"), "slow": series(*around(0.2, 8))}
    decisions = decide(each, Rule(), (8, 8), final=True)
    assert (decisions["broken"].outcome, decisions["broken"].reason) == ("error", "the process crashed")
    assert decisions["slow"].p_holm == pytest.approx(2 * 2.0**-8)
    assert decisions["slow"].outcome == "inconclusive"


def test_nothing_measured_is_inconclusive() -> None:
    """A contest without a replicate is inconclusive."""
    decision = only(series(), (1,))
    assert decision is not None
    assert (decision.outcome, decision.n, decision.reason) == ("inconclusive", 0, "nothing was measured")
