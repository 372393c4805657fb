"""Statistics, tested against values computed elsewhere and against properties of any sample."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm, ttest_1samp, ttest_ind, wilcoxon

from cnnperf.stats import (
    Interval,
    SignedRanks,
    Student,
    Welch,
    binomial_bounds,
    binomial_deviation,
    binomial_interval,
    drifts,
    holm,
    independent_calls,
    mean_proportion_interval,
    paired_difference_interval,
    predicted_difference,
    quartiles,
    replicates_needed,
    signed_rank_tail,
    supports_quantile,
    two_modes,
)


def test_quartiles_of_a_known_sample() -> None:
    """The quartiles of 1…5 in any order are 2, 3 and 4; between two values they are interpolated."""
    assert quartiles([3.0, 1.0, 5.0, 2.0, 4.0]) == (2.0, 3.0, 4.0)
    assert quartiles([0.0, 1.0]) == (0.25, 0.5, 0.75)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1))
def test_quartiles_stand_in_order_within_the_sample(samples: list[float]) -> None:
    """The quartiles are in ascending order and lie within the sample."""
    q25, median, q75 = quartiles(samples)
    assert min(samples) <= q25 <= median <= q75 <= max(samples)


def test_binomial_interval_of_published_examples() -> None:
    """The score intervals of 81 in 263 and of 0 in 20 are those of Newcombe (1998), table I, method 3."""
    assert binomial_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert binomial_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_binomial_interval_holds_the_proportion_and_narrows_with_trials(seen: tuple[int, int]) -> None:
    """The interval contains the proportion, and it narrows with four times the trials or with less confidence."""
    successes, trials = seen
    low, high = binomial_interval(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1
    for narrower in (binomial_interval(4 * successes, 4 * trials), binomial_interval(successes, trials, 0.9)):
        assert narrower.high - narrower.low < high - low


def test_the_interval_of_one_repeat_and_of_equal_ones_is_binomial() -> None:
    """For one repeat, or for equal repeats, the interval is the binomial one of a single test."""
    assert mean_proportion_interval([0.5], 1000) == binomial_interval(500, 1000)
    assert mean_proportion_interval([0.5] * 4, 1000) == binomial_interval(500, 1000)


@given(st.lists(st.integers(0, 500), min_size=2, max_size=8, unique=True))
def test_the_interval_of_repeats_holds_both_of_its_parts(right: list[int]) -> None:
    """The interval contains the binomial interval of one test and the t interval over repeats, clipped to [0, 1]."""
    proportions = [each / 500 for each in right]
    found = mean_proportion_interval(proportions, 500)
    of_trials = binomial_interval(round(500 * float(np.mean(proportions))), 500)
    of_repeats = ttest_1samp(proportions, 0).confidence_interval()
    assert 0 <= found.low <= max(0.0, min(of_trials.low, of_repeats.low)) + 1e-9
    assert 1 >= found.high >= min(1.0, max(of_trials.high, of_repeats.high)) - 1e-9


SKILL = 0.15
"""Standard deviation of the trainings' skill, that of the images' difficulty being 1."""


@pytest.mark.parametrize("repeats", [2, 5])
def test_the_interval_of_repeats_covers_as_it_says(repeats: int) -> None:
    """In simulated trainings, the interval covers the true mean in at least 95 % of draws; a binomial one does not."""
    random, images, draws = np.random.default_rng(1), 500, 400
    grid = norm.ppf((np.arange(400) + 0.5) / 400)
    truth = norm.cdf(0.5 + grid[:, None] + SKILL * grid).mean()
    covered = {"mean": 0, "binomial": 0}
    for _ in range(draws):
        chance = norm.cdf(0.5 + random.normal(size=images) + SKILL * random.normal(size=(repeats, 1)))
        seen = (random.random((repeats, images)) < chance).mean(axis=1)
        mean = mean_proportion_interval(seen.tolist(), images)
        binomial = binomial_interval(round(images * seen.mean()), images)
        covered["mean"] += mean.low <= truth <= mean.high
        covered["binomial"] += binomial.low <= truth <= binomial.high
    assert covered["mean"] >= 0.95 * draws > covered["binomial"]


def test_binomial_bounds_of_published_examples() -> None:
    """The exact intervals of 81 in 263 and of 0 in 20 are those of Newcombe (1998), method 5, with 97.5 % a side."""
    assert binomial_bounds(81, 263, 0.975) == pytest.approx((0.2527, 0.3676), abs=5e-5)
    assert binomial_bounds(0, 20, 0.975) == pytest.approx((0.0, 0.1684), abs=5e-5)


@given(st.integers(1, 200))
def test_binomial_bounds_of_none_and_all(trials: int) -> None:
    """For n trials without success the upper bound is 1 - 0.05^(1/n); the lower bound for n successes mirrors it."""
    assert binomial_bounds(0, trials) == pytest.approx((0.0, 1 - 0.05 ** (1 / trials)))
    assert binomial_bounds(trials, trials) == pytest.approx((0.05 ** (1 / trials), 1.0))


@pytest.mark.parametrize(("other", "overlaps"), [((2, 3), True), ((2.1, 3), False), ((-1, 9), True), ((0, 0.9), False)])
def test_overlap_counts_the_ends(other: tuple[float, float], *, overlaps: bool) -> None:
    """Intervals that touch overlap, in either order."""
    assert Interval(1, 2).overlaps(Interval(*other)) is overlaps
    assert Interval(*other).overlaps(Interval(1, 2)) is overlaps


@pytest.mark.parametrize("deviations", [(1.0, 1.0), (0.2, 1.0), (1.0, 0.05)])
@pytest.mark.parametrize("repeats", [1, 3])
def test_a_further_difference_lies_in_its_prediction_interval(deviations: tuple[float, float], repeats: int) -> None:
    """97.5 to 99.9 % of 2,000 differences of further values lie in the interval of 99 %, also for medians of three."""
    random, held = np.random.default_rng(3), 0
    for _ in range(2000):
        first, second = (random.normal(0, deviation, 6).tolist() for deviation in deviations)
        further = [float(np.median(random.normal(0, deviation, repeats))) for deviation in deviations]
        low, high = predicted_difference(first, second, repeats)
        held += low <= further[0] - further[1] <= high
    assert 0.975 * 2000 <= held <= 0.999 * 2000


def test_values_without_spread_predict_their_difference() -> None:
    """The interval of equal values is their difference."""
    assert predicted_difference([2.0, 2.0], [0.5, 0.5]) == Interval(1.5, 1.5)


DIFFERENCES = st.lists(st.floats(-1, 1), min_size=1, max_size=22)


def test_the_tail_of_the_signed_rank_statistic_by_hand() -> None:
    """The tail for n = 3 matches the sums of the eight subsets of {1, 2, 3}, counted by hand."""
    assert signed_rank_tail(3) * 8 == pytest.approx([8, 7, 6, 5, 3, 2, 1])


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=22, unique_by=abs).filter(lambda values: 0 not in values))
def test_p_values_are_those_of_scipy_where_nothing_is_tied(differences: list[float]) -> None:
    """Without ties and zeros, both one-sided p-values are those of scipy's exact Wilcoxon test."""
    ranks = SignedRanks(differences)
    above = wilcoxon(differences, alternative="greater", method="exact").pvalue
    below = wilcoxon(differences, alternative="less", method="exact").pvalue
    assert (ranks.p_above(0), ranks.p_below(0)) == pytest.approx((above, below))


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_ties_and_zeros_make_the_test_conservative(differences: list[int]) -> None:
    """With ties and zeros, the p-value is that of the least favourable way to break the ties."""
    (magnitudes, signs) = np.abs(differences), np.where(np.array(differences) > 0, 1, -1)
    against = np.lexsort((-signs, magnitudes))  # Among equals the positive ones come first and get the lower ranks.
    statistic = sum(rank for rank, index in enumerate(against, start=1) if signs[index] > 0)
    assert SignedRanks(differences).p_above(0) == signed_rank_tail(len(differences))[statistic]


@given(DIFFERENCES, st.sampled_from([0.5, 0.05, 0.05 / 3, 0.001]), st.floats(-1, 1))
def test_bounds_and_tests_never_contradict_each_other(differences: list[float], level: float, value: float) -> None:
    """A value lies beyond a bound exactly when the test at that level rejects it."""
    ranks = SignedRanks(differences)
    assert (ranks.upper(level) < value) == (ranks.p_below(value) <= level)
    assert (ranks.lower(level) > value) == (ranks.p_above(value) <= level)


@given(DIFFERENCES, st.floats(0, 1))
def test_the_mirrored_sample_gives_mirrored_numbers_exactly(differences: list[float], value: float) -> None:
    """Mirrored differences change only the signs of estimate and bounds and swap the p-values, to the last bit."""
    ranks, mirrored = SignedRanks(differences), SignedRanks([-d for d in differences])
    assert mirrored.estimate == -ranks.estimate
    assert (mirrored.lower(0.02), mirrored.upper(0.02)) == (-ranks.upper(0.02), -ranks.lower(0.02))
    assert mirrored.p_above(value) == ranks.p_below(-value)


def test_estimate_and_bounds_of_a_published_example() -> None:
    """Estimate, bounds and p-value match examples 3.1, 3.3 and 3.4 of Hollander, Wolfe and Chicken (nine patients)."""
    before = np.array([1.83, 0.50, 1.62, 2.48, 1.68, 1.88, 1.55, 3.06, 1.30])
    after = np.array([0.878, 0.647, 0.598, 2.05, 1.06, 1.29, 1.06, 3.14, 1.29])
    ranks = SignedRanks(after - before)
    assert ranks.estimate == pytest.approx(-0.46)
    assert (ranks.lower(0.02), ranks.upper(0.02)) == pytest.approx((-0.786, -0.010))  # 96 % in all
    assert ranks.p_below(0) == pytest.approx(0.0195, abs=5e-5)


def test_bounds_are_infinite_where_no_sample_could_be_rejected() -> None:
    """The smallest p-value of five differences is 1/32, so that the bounds at level 0.03 are infinite."""
    assert SignedRanks([0.1] * 5).upper(0.03) == math.inf
    assert SignedRanks([0.1] * 5).lower(0.03) == -math.inf
    assert SignedRanks([0.1] * 5).upper(0.04) == pytest.approx(0.1)


def test_many_samples_at_once_are_each_by_itself() -> None:
    """Each sample along the last axis gives the same numbers as it gives alone."""
    many = np.random.default_rng(1).normal(size=(4, 3, 8))
    ranks = SignedRanks(many)
    for place in np.ndindex(4, 3):
        one = SignedRanks(many[place])
        assert ranks.p_above(0.1)[place] == one.p_above(0.1)
        assert ranks.upper(0.05)[place] == one.upper(0.05)
        assert ranks.estimate[place] == one.estimate


def test_holm_by_hand() -> None:
    """Holm's adjusted p-values match those computed by hand, and none exceeds 1."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("pairs", [12, 60])
def test_a_drift_is_told_from_noise(pairs: int) -> None:
    """A step and a slope count as drift; noise, one outlier and a constant sample do not."""
    noise = np.random.default_rng(2).normal(0, 0.01, pairs)
    assert not drifts(noise)
    assert drifts(noise + np.repeat([0, 0.1], pairs // 2))
    assert drifts(noise + np.repeat([0, 9.0], pairs // 2))
    assert drifts(np.linspace(0, 1, 60))
    assert not drifts([*noise[:-1], 9.0])
    assert not drifts([0.5] * pairs)


def test_a_drift_of_four_standard_errors_is_seen_half_of_the_time() -> None:
    """A drift of four standard errors is detected half of the time, of two rarely, of six nearly always."""
    random = np.random.default_rng(4)
    error = math.sqrt(math.pi / 2) * math.sqrt(4 / 60)
    seen = {
        errors: np.mean([drifts(random.normal(size=60) + np.repeat([0, errors * error], 30)) for _ in range(300)])
        for errors in (2, 4, 6)
    }
    assert seen[2] < 0.1
    assert 0.35 < seen[4] < 0.65
    assert seen[6] > 0.9


def test_the_replicates_that_are_needed_are_enough() -> None:
    """With the computed number of replicates, about four fifths of simulated samples with that shift are rejected."""
    random = np.random.default_rng(3)
    n = replicates_needed(random.normal(0, 0.03, 1000), shift=0.02, alpha=0.005)
    power = np.mean(SignedRanks(random.normal(0.02, 0.03, (4000, n))).p_above(0) <= 0.005)
    assert 0.7 < power < 0.9
    assert replicates_needed(random.normal(0, 1e-6, 9), shift=0.02, alpha=0.005) == 8  # 1/256 is the first below


@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=9).filter(lambda sample: np.std(sample, ddof=1) > 1e-3),
    st.floats(-0.5, 1.5),
)
def test_student_agrees_with_scipy(sample: list[float], value: float) -> None:
    """If the given deviation is below the sample's own, p-values are those of scipy's test of one sample."""
    ours = Student(sample, 1e-3)
    theirs = ttest_1samp(sample, value, alternative="greater")
    assert ours.p_above(value) == pytest.approx(theirs.pvalue, abs=1e-9)
    assert ours.p_below(value) == pytest.approx(1 - theirs.pvalue, abs=1e-9)


def test_student_does_not_believe_that_a_sample_agrees_more_than_it_can() -> None:
    """Three equal values get the given deviation, and not the deviation 0 of the sample."""
    assert Student([0.5] * 3, 0.01).p_above(0.495) == pytest.approx(
        ttest_1samp([0.49, 0.5, 0.51], 0.495, alternative="greater").pvalue
    )


SAMPLE = st.lists(st.floats(-1, 1), min_size=2, max_size=6, unique=True)


@given(SAMPLE, SAMPLE, st.floats(-1, 1))
def test_welch_is_scipys_where_no_deviation_is_given(first: list[float], second: list[float], value: float) -> None:
    """If the given deviations are below the samples' own, p-values and bounds are those of scipy's Welch test."""
    ours = Welch(first, [x + 2 for x in second], (1e-3, 1e-3))
    if min(np.std(first, ddof=1), np.std(second, ddof=1)) <= 1e-3:
        return
    theirs = ttest_ind([x + 2 for x in second], [x + value for x in first], equal_var=False, alternative="greater")
    assert ours.p_above(value) == pytest.approx(theirs.pvalue, abs=1e-9)
    assert ours.p_below(value) == pytest.approx(1 - theirs.pvalue, abs=1e-9)
    assert ours.lower(0.05) == pytest.approx(theirs.confidence_interval(0.95).low + value, abs=1e-6)
    assert ours.upper(0.05) - ours.estimate == pytest.approx(ours.estimate - ours.lower(0.05))


def test_welch_does_not_believe_that_samples_agree_more_than_they_can() -> None:
    """Three equal values per side get the given deviation, and not the deviation 0 of the sample."""
    equal = Welch([0.5] * 3, [0.51] * 3, (0.01, 0.01))
    assert equal.p_above(0) == pytest.approx(ttest_ind([-0.01, 0, 0.01], [0, 0.01, 0.02]).pvalue / 2)


def test_the_deviation_of_a_proportion() -> None:
    """The deviation of a proportion is √(pq/n) in the middle, and not 0 at the ends."""
    assert binomial_deviation(0.5, 10_000) == pytest.approx(0.005, rel=1e-3)
    assert binomial_deviation(1.0, 100) == pytest.approx(binomial_deviation(0.0, 100))
    assert binomial_deviation(1.0, 100) > 0.005


def test_paired_difference_interval_of_a_published_example() -> None:
    """The interval for 1 and 7 discordant of 21 pairs is Tango's, as in Fagerland, Lydersen and Laake (2014)."""
    assert paired_difference_interval(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)


def test_paired_difference_interval_without_a_discordant_pair() -> None:
    """Without a discordant pair the interval is ±z² / (n + z²)."""
    z = 1.959964
    assert paired_difference_interval(0, 0, 2000) == pytest.approx((-(z**2) / (2000 + z**2), z**2 / (2000 + z**2)))


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0, 1))
def test_paired_difference_interval_agrees_with_mcnemar(seen: tuple[int, int], share: float) -> None:
    """The interval contains the difference, excludes 0 where McNemar's test rejects it, and mirrors with its sides."""
    discordant, pairs = seen
    first = round(discordant * share)
    second = discordant - first
    low, high = paired_difference_interval(first, second, pairs)
    assert -1 <= low <= (first - second) / pairs + 1e-12
    assert (first - second) / pairs - 1e-12 <= high <= 1
    if discordant:
        statistic = (first - second) ** 2 / discordant
        assert (low > 1e-12 or high < -1e-12) == (statistic > 1.959964**2)
    assert paired_difference_interval(second, first, pairs) == pytest.approx((-high, -low))


@pytest.mark.parametrize("pairs", [100, 500, 2000])
@pytest.mark.parametrize(("lost", "gained"), [(0.03, 0.01), (0.015, 0.012), (0.005, 0.0), (0.1, 0.08)])
def test_paired_difference_interval_covers_as_it_says(pairs: int, lost: float, gained: float) -> None:
    """In 20,000 draws the interval misses the difference in 5.5 % at most, and lies below it in 2.8 % at most.

    The latter is how often an engine whose drop is just beyond the limit would pass.
    """
    draws = np.random.default_rng(0).multinomial(pairs, [lost, gained, 1 - lost - gained], size=20_000)[:, :2]
    seen, counts = np.unique(draws, axis=0, return_counts=True)
    intervals = np.array([paired_difference_interval(int(b), int(c), pairs) for b, c in seen])
    difference = lost - gained
    above, below = (
        float(counts @ far) / 20_000 for far in (difference > intervals[:, 1], difference < intervals[:, 0])
    )
    assert above + below <= 0.055
    assert above <= 0.028


@pytest.mark.parametrize(("count", "q"), [(11, 0.5), (64, 0.9), (662, 0.99)])
def test_a_quantile_needs_its_samples(count: int, q: float) -> None:
    """The median needs 11 independent calls, p90 needs 64, and p99 needs 662."""
    assert supports_quantile([0.02] * count, q)
    assert not supports_quantile([0.02] * (count - 1), q)


def autoregressive(count: int, length: int, correlation: float) -> NDArray[np.float64]:
    """Return series of standard normal samples, each correlated with the one before it."""
    noise = np.random.default_rng(5).normal(size=(count, length))
    series = noise.copy()
    for i in range(1, length):
        series[:, i] = correlation * series[:, i - 1] + math.sqrt(1 - correlation**2) * noise[:, i]
    return series


def switching(count: int, length: int, slow: float, run: float) -> NDArray[np.float64]:
    """Return series of calls that take 1 s, or 2 s in slow spells of a given share and mean length."""
    random = np.random.default_rng(6)
    state = random.random(count) < slow
    series = np.empty((count, length))
    for i in range(length):
        series[:, i] = 1 + state + 0.05 * random.normal(size=count)
        chance = random.random(count)
        state = np.where(state, chance > 1 / run, chance < slow / (1 - slow) / run)
    return series


def test_dependent_calls_support_no_quantile_that_they_do_not_bound() -> None:
    """At most 1 % of correlated series support a p90 that their second-largest sample does not reach."""
    series = autoregressive(3000, 128, 0.9)
    exceeded = np.sort(series, axis=-1)[:, -2] < norm.ppf(0.9)
    assert supports_quantile([0.02] * 128, 0.9), "so many independent ones are enough"
    assert exceeded.mean() > 0.08
    assert (supports_quantile(series, 0.9) & exceeded).mean() <= 0.01


def test_spells_of_slow_calls_support_no_quantile_that_leaves_them_out() -> None:
    """If slow spells make up 15 % of the calls, a p90 that misses them is supported in at most 1 % of series."""
    series = switching(2000, 300, slow=0.15, run=20)
    seen = (series > 1.5).sum(axis=-1) >= 20
    missed = seen & (np.quantile(series, 0.9, axis=-1) < 1.5)
    assert supports_quantile([0.02] * 300, 0.9), "so many independent ones are enough"
    assert missed.mean() > 0.1
    assert (supports_quantile(series, 0.9) & missed).mean() <= 0.01


@pytest.mark.parametrize(("length", "q"), [(128, 0.9), (2000, 0.99)])
def test_independent_calls_support_a_quantile_nearly_always(length: int, q: float) -> None:
    """Independent series of twice the least length, and long correlated ones, nearly always support the quantile."""
    assert supports_quantile(autoregressive(1000, length, 0.0), q).mean() > 0.9
    assert supports_quantile(autoregressive(200, 2000, 0.8), 0.9).mean() > 0.9


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_dependent_samples_are_worth_as_many_as_their_mean_says(correlation: float) -> None:
    """A correlated series is worth its length times (1 - r) / (1 + r) independent samples."""
    worth = np.median(independent_calls(autoregressive(500, 4000, correlation))) / 4000
    assert worth == pytest.approx((1 - correlation) / (1 + correlation), rel=0.12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=80))
def test_no_series_is_worth_more_than_its_samples(samples: list[float]) -> None:
    """A series is worth more than 0 independent samples, and at most its own number."""
    assert 0 < independent_calls(samples) <= len(samples)


@pytest.mark.parametrize("count", [6, 7, 8, 12, 30, 100])
def test_one_mode_is_taken_for_two_in_two_of_a_hundred_at_most(count: int) -> None:
    """Two modes are found in 2 % of uniform samples, the worst case, and less often in normal or skewed ones."""
    random = np.random.default_rng(7)
    draws = {
        "uniform": random.uniform(size=(4000, count)),
        "normal": random.normal(size=(2000, count)),
        "laplace": random.laplace(size=(2000, count)),
        "skewed": random.lognormal(sigma=0.5, size=(2000, count)),
    }
    alarms = {name: np.mean([two_modes(each) is not None for each in drawn]) for name, drawn in draws.items()}
    assert alarms["uniform"] == pytest.approx(0.02, abs=0.0066)  # Three standard errors of 4,000 draws.
    assert max(alarms["normal"], alarms["laplace"], alarms["skewed"]) < 0.012


@pytest.mark.parametrize(("count", "apart", "seen"), [(6, 15, 0.9), (8, 12, 0.9), (30, 6, 0.9)])
def test_two_modes_are_seen(count: int, apart: float, seen: float) -> None:
    """Two modes that are far apart, with half of the samples in each, are found in over 90 % of samples."""
    random = np.random.default_rng(8)
    drawn = random.normal(size=(1000, count)) + apart * (np.arange(count) < count // 2)
    assert np.mean([two_modes(each) is not None for each in drawn]) > seen


def test_two_modes_by_hand() -> None:
    """The means of both modes are returned; a lone sample is no mode, and five samples are too few."""
    assert two_modes([2.0, 1.0, 2.05, 1.05, 0.95, 1.95]) == pytest.approx((1.0, 2.0))
    assert two_modes([2.0, 2.0, 2.1, 1.9, 2.0, 1.0]) is None
    assert two_modes([0.1] * 6) is None
    assert two_modes([1.0, 1.0, 2.0, 2.0, 2.0]) is None
