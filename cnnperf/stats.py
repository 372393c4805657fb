"""Statistics of samples: pure functions, each with its source."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, binomtest, chi2, median_abs_deviation, norm, rankdata, t

Floats = NDArray[np.float64]

INTERVAL_LEVEL = 0.025
"""Error probability at each end of a 95 % interval."""
BLOCKS = 16
"""Number of blocks into which a series is divided to estimate the dependence of its samples."""
LEAST_FOR_MODES = 6
"""Minimum number of samples to detect two modes."""


class Quartiles(NamedTuple):
    """The quartiles of a sample."""

    q25: float
    median: float
    q75: float


class Interval(NamedTuple):
    """A closed interval."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Return whether the two intervals overlap."""
        return self.low <= other.high and other.low <= self.high


def quartiles(samples: Sequence[float]) -> Quartiles:
    """Return the quartiles of one or more samples, interpolated linearly.

    Source: Hyndman and Fan, Sample quantiles in statistical packages (1996), definition 7.
    """
    return Quartiles(*np.quantile(samples, (0.25, 0.5, 0.75)).tolist())


def binomial_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return the confidence interval of a proportion from its successes and trials.

    Source: Wilson (1927), without continuity correction, as advised by Brown, Cai and DasGupta, Interval estimation for
    a binomial proportion (2001).
    """
    low, high = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Interval(float(low), float(high))


def mean_proportion_interval(proportions: Sequence[float], trials: int, confidence: float = 0.95) -> Interval:
    """Return the confidence interval of the mean of proportions that repeats found in one sample of trials.

    proportions: one per repeat. One repeat, or equal ones, have the binomial interval. Otherwise two independent errors
    add up: that of the trials, which the repeats share, so that more repeats do not reduce it (the binomial interval),
    and that of the mean over repeats (Student's t interval). The distances of both intervals' ends from the mean are
    added in squares; the ends are limited to [0, 1].
    Source: Student, The probable error of a mean (1908); Zou and Donner, Construction of confidence limits about effect
    measures: a general approach (2008).
    """
    mean, count = fmean(proportions), len(proportions)
    of_trials = binomial_interval(round(mean * trials), trials, confidence)
    if len(set(proportions)) == 1:
        return of_trials
    of_repeats = float(t.isf((1 - confidence) / 2, count - 1)) * stdev(proportions) / math.sqrt(count)
    return Interval(
        max(0.0, mean - math.hypot(mean - of_trials.low, of_repeats)),
        min(1.0, mean + math.hypot(of_trials.high - mean, of_repeats)),
    )


def binomial_bounds(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return exact one-sided lower and upper bounds of a proportion: each has at most the stated error probability.

    Source: Clopper and Pearson (1934).
    """
    low = binomtest(successes, trials, alternative="greater").proportion_ci(confidence, method="exact").low
    high = binomtest(successes, trials, alternative="less").proportion_ci(confidence, method="exact").high
    return Interval(float(low), float(high))


class SignedRanks:
    """The exact signed-rank test of the centre of independent, symmetrically distributed differences.

    Test, estimate and bounds use the n(n+1)/2 Walsh averages (d_i + d_j) / 2, i ≤ j. The number of averages above a
    value equals the rank sum of the differences above it, so test, estimate and bounds are consistent. A tie counts
    against rejection, which makes the test conservative. Differences lie along the last axis; results have the shape
    of the other axes.
    Source: Hollander, Wolfe and Chicken, Nonparametric Statistical Methods (2014), sections 3.1 to 3.3.
    """

    def __init__(self, differences: ArrayLike) -> None:
        values = np.asarray(differences, dtype=np.float64)
        first, second = np.triu_indices(values.shape[-1])
        self._averages = np.sort((values[..., first] + values[..., second]) / 2, axis=-1)
        self._tail = signed_rank_tail(values.shape[-1])

    @property
    def estimate(self) -> Floats:
        """The Hodges–Lehmann estimate of the centre."""
        return np.asarray(np.median(self._averages, axis=-1))

    def p_above(self, value: float) -> Floats:
        """Return the one-sided p-value of the hypothesis centre ≤ `value`; small if the centre lies above."""
        return np.asarray(self._tail[np.count_nonzero(self._averages > value, axis=-1)])

    def p_below(self, value: float) -> Floats:
        """Return the one-sided p-value of the hypothesis centre ≥ `value`; small if the centre lies below."""
        return np.asarray(self._tail[np.count_nonzero(self._averages < value, axis=-1)])

    def upper(self, level: float) -> Floats:
        """Return the highest centre that `p_below` does not reject at this level; infinite if n is too small for it."""
        rank = self._critical_rank(level)
        return np.full(self._averages.shape[:-1], np.inf) if rank is None else self._averages[..., rank - 1]

    def lower(self, level: float) -> Floats:
        """Return the lowest centre that `p_above` does not reject at this level; infinite if n is too small for it."""
        rank = self._critical_rank(level)
        return np.full(self._averages.shape[:-1], -np.inf) if rank is None else self._averages[..., -rank]

    def _critical_rank(self, level: float) -> int | None:
        """Return the least sum of ranks that is rejected at this level; None if none is."""
        rejected = np.flatnonzero(self._tail <= level)
        return int(rejected[0]) if len(rejected) else None


@cache
def signed_rank_tail(n: int) -> Floats:
    """Return P(W ≥ w) for w = 0 … n(n+1)/2; W sums the ranks 1 … n, each included with probability 1/2.

    scipy.stats.wilcoxon(method="exact") counts the same subsets, but for one sample per call.
    """
    subsets = np.ones(1)
    for rank in range(1, n + 1):
        subsets = np.pad(subsets, (0, rank)) + np.pad(subsets, (rank, 0))
    tail: Floats = subsets[::-1].cumsum()[::-1] / 2.0**n
    return tail


class Student:
    """Student's t-test of the mean of a sample.

    least: a lower limit for the standard deviation, for small samples from a source of known variation.
    Source: Student, The probable error of a mean (1908).
    """

    def __init__(self, sample: Sequence[float], least: float) -> None:
        values = np.asarray(sample, dtype=np.float64)
        self.estimate = float(values.mean())
        self._error = float(max(values.std(ddof=1), least) / np.sqrt(len(values)))
        self._freedom = len(values) - 1

    def p_above(self, value: float) -> float:
        """Return the one-sided p-value of the hypothesis mean ≤ `value`; small if the mean lies above."""
        return float(t.sf((self.estimate - value) / self._error, self._freedom))

    def p_below(self, value: float) -> float:
        """Return the one-sided p-value of the hypothesis mean ≥ `value`; small if the mean lies below."""
        return float(t.cdf((self.estimate - value) / self._error, self._freedom))


class Welch:
    """Welch's t-test of the difference of two means, second minus first.

    least: a lower limit for each side's standard deviation, for small samples from a source of known variation.
    Source: Welch, The generalization of "Student's" problem (1947); the degrees of freedom are Satterthwaite's.
    """

    def __init__(self, first: Sequence[float], second: Sequence[float], least: tuple[float, float]) -> None:
        sides = [np.asarray(side, dtype=np.float64) for side in (first, second)]
        self.estimate = float(sides[1].mean() - sides[0].mean())
        variances = [max(s.std(ddof=1), floor) ** 2 / len(s) for s, floor in zip(sides, least, strict=True)]
        self._error = float(np.sqrt(sum(variances)))
        squares = sum(variance**2 / (len(s) - 1) for variance, s in zip(variances, sides, strict=True))
        self._freedom = sum(variances) ** 2 / squares

    def p_above(self, value: float) -> float:
        """Return the one-sided p-value of the hypothesis difference ≤ `value`; small if the difference lies above."""
        return float(t.sf((self.estimate - value) / self._error, self._freedom))

    def p_below(self, value: float) -> float:
        """Return the one-sided p-value of the hypothesis difference ≥ `value`; small if the difference lies below."""
        return float(t.cdf((self.estimate - value) / self._error, self._freedom))

    def upper(self, level: float) -> float:
        """Return the highest difference that `p_below` does not reject at this level."""
        return float(self.estimate + t.isf(level, self._freedom) * self._error)

    def lower(self, level: float) -> float:
        """Return the lowest difference that `p_above` does not reject at this level."""
        return float(self.estimate - t.isf(level, self._freedom) * self._error)


def predicted_difference(
    first: Sequence[float], second: Sequence[float], repeats: int = 1, confidence: float = 0.99
) -> Interval:
    """Return the prediction interval for a further value like the first ones less one like the second ones.

    first, second: at least two values each, of independent normal distributions with unlike variances.
    repeats: each further value is the median of this many; its variance is π/2 of a mean's, and at most that of one.
    The degrees of freedom are Satterthwaite's. Source: Hahn and Meeker, Statistical Intervals (1991), section 4.8.
    """
    sides = [np.asarray(side, dtype=np.float64) for side in (first, second)]
    share = min(1.0, np.pi / (2 * repeats))
    terms = [side.var(ddof=1) * (share + 1 / len(side)) for side in sides]
    centre, error = float(sides[0].mean() - sides[1].mean()), float(np.sqrt(sum(terms)))
    if not error:
        return Interval(centre, centre)
    freedom = sum(terms) ** 2 / sum(term**2 / (len(side) - 1) for term, side in zip(terms, sides, strict=True))
    reach = float(t.ppf((1 + confidence) / 2, freedom)) * error
    return Interval(centre - reach, centre + reach)


def binomial_deviation(proportion: float, trials: int) -> float:
    """Return the standard deviation of a proportion in a number of trials; never 0, even if none or all succeed.

    Source: Agresti and Coull, Approximate is better than "exact" (1998); one success and one failure are added.
    """
    adjusted = (proportion * trials + 1) / (trials + 2)
    return float(np.sqrt(adjusted * (1 - adjusted) / trials))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for multiple tests: rejecting those ≤ alpha has a family-wise error rate ≤ alpha.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1)).clip(max=1.0)
    return [float(value) for value in adjusted]


def drifts(samples: Sequence[float]) -> bool:
    """Return whether the medians of a sample's two halves differ by more than four standard errors.

    The standard error of the median is √(π/2) σ / √n for normal samples. σ is estimated from the absolute deviations
    within each half: deviations from the overall median would include the drift and hide it.
    """
    half = len(samples) // 2
    halves = np.asarray(samples[: 2 * half], dtype=np.float64).reshape(2, half)
    medians = np.median(halves, axis=1, keepdims=True)
    deviation = median_abs_deviation(halves - medians, axis=None, scale="normal")
    error = np.sqrt(np.pi / 2) * deviation * np.sqrt(2 / half)
    return bool(abs(medians[0, 0] - medians[1, 0]) > 4 * error)


def replicates_needed(differences: Sequence[float], shift: float, alpha: float, power: float = 0.8) -> int:
    """Estimate the number of differences that the signed-rank test needs to detect a shift, given their variation.

    The result is at least the smallest number that permits rejection at this level.
    Source: the normal sample-size formula, over the test's asymptotic efficiency of 3/π (Hollander, Wolfe and Chicken).
    """
    return sample_size(float(np.std(np.asarray(differences, dtype=np.float64), ddof=1)), shift, alpha, power)


def sample_size(deviation: float, shift: float, alpha: float, power: float) -> int:
    """Estimate the number of differences of this deviation that the signed-rank test needs to detect a shift."""
    quantiles = norm.isf(alpha) + norm.ppf(power)
    return int(np.ceil(max(np.pi / 3 * (quantiles * deviation / shift) ** 2, np.log2(1 / alpha))))


def independent_calls(samples: ArrayLike) -> Floats:
    """Estimate the effective number of independent samples in a dependent series, at most its length.

    samples: … × n, a series along the last axis; results have the shape of the other axes. The series is divided into
    16 blocks (fewer below 32 samples). For independent samples, means of blocks of m have 1/m of the samples' variance;
    the ratio of the observed to this variance is the number of samples that equal one independent sample. Ratios up to
    the 90 % quantile of independent samples count as one. A machine state without samples is not detected.
    Source: Schmeiser, Batch size effects in the analysis of simulation output (1982): ten to thirty blocks.
    """
    values = np.asarray(samples, dtype=np.float64)
    count = values.shape[-1]
    number = min(BLOCKS, count // 2)
    if number < 2:
        return np.full(values.shape[:-1], float(count))
    size = count // number
    blocks = values[..., : number * size].reshape(*values.shape[:-1], number, size)
    expected = blocks.var(axis=(-2, -1)) / size
    seen = blocks.mean(axis=-1).var(axis=-1, ddof=1)
    factor = np.divide(seen, expected, out=np.ones_like(seen), where=expected > 0)
    by_chance = chi2.isf(0.1, number - 1) / (number - 1)
    return np.asarray(count / np.where(factor > by_chance, factor, 1.0))


def supports_quantile(samples: ArrayLike, q: float, confidence: float = 0.99) -> NDArray[np.bool_]:
    """Return whether the second largest sample of a series is an upper bound of a quantile at this confidence.

    samples: … × n, in measured order. Independent samples must number at least 11 for the median, 64 for the 0.9 and
    662 for the 0.99 quantile. Dependent samples must number more, by the worst factor of `independent_calls` over
    their values, their ranks and the indicator of lying above the quantile.
    Source: David and Nagaraja, Order Statistics (2003), section 7.1; for dependent series, Heidelberger and Lewis,
    Quantile estimation in dependent sequences (1984).
    """
    values = np.asarray(samples, dtype=np.float64)
    above = values > np.quantile(values, q, axis=-1, keepdims=True)
    worth = np.min([independent_calls(of) for of in (values, rankdata(values, axis=-1), above)], axis=0)
    return np.asarray(binom.cdf(1, np.floor(worth), 1 - q) <= 1 - confidence)


def two_modes(samples: Sequence[float]) -> tuple[float, float] | None:
    """Return the means of the two modes of a sample, the lower first; None if there is one mode.

    Each group holds at least a quarter of the samples, so a single outlier is not a group. The test statistic is the
    share of the variance that the best division explains. The false-positive rate is about 2 % for a uniform
    distribution, lower for a peaked one, and higher if part of the samples is concentrated and the rest dispersed, for
    example by disturbances. Fewer than six samples never show two modes.
    Source: Engelman and Hartigan, Percentage points of a test for clusters (1969), tested against the uniform
    distribution as in Hartigan and Hartigan, The dip test of unimodality (1985). The critical value, 3/4 in the limit,
    is fitted to simulated ones.
    """
    count = len(samples)
    if count < LEAST_FOR_MODES:
        return None
    values = np.sort(samples)
    deviations = values - values[0]  # Relative to the first sample, so that equal samples are exactly zero.
    deviations -= deviations.mean()
    least = -(-count // 4)
    sizes = np.arange(least, count - least + 1)
    explained = deviations.cumsum()[sizes - 1] ** 2 * count / (sizes * (count - sizes))
    critical = 0.75 + 0.58 / count**0.5 - 0.47 / count**2
    if explained.max() <= critical * np.square(deviations).sum():
        return None
    size = sizes[explained.argmax()]
    return float(values[:size].mean()), float(values[size:].mean())


BISECTIONS = 60
"""Bisection steps that reduce an interval of length two to float precision."""


def paired_difference_interval(first: float, second: float, pairs: float, confidence: float = 0.95) -> Interval:
    """Return the confidence interval of the difference of two paired proportions, first minus second.

    first, second: number of pairs that succeeded in the first only and in the second only. The interval excludes 0
    exactly if McNemar's test without continuity correction rejects, and has a positive width even if both are 0.
    Source: Tango, Equivalence test and confidence interval for the difference in proportions for the paired-sample
    design (1998): the score interval.
    """
    return Interval(
        _lower_paired_difference(first, second, pairs, confidence),
        -_lower_paired_difference(second, first, pairs, confidence),
    )


def _lower_paired_difference(first: float, second: float, pairs: float, confidence: float) -> float:
    """Return the difference at which the score statistic falls to its normal quantile, by bisection from below."""
    quantile = float(norm.isf((1 - confidence) / 2))
    low, high = -1.0, (first - second) / pairs
    for _ in range(BISECTIONS):
        difference = (low + high) / 2
        # Maximum-likelihood share of pairs that succeed in the second only, given this difference.
        linear = -first - second + (2 * pairs - first + second) * difference
        constant = -second * difference * (1 - difference)
        share = (math.sqrt(max(linear**2 - 8 * pairs * constant, 0.0)) - linear) / (4 * pairs)
        deviation = math.sqrt(max(pairs * (2 * share + difference * (1 - difference)), 0.0))
        if first - second - pairs * difference > quantile * deviation:
            low = difference
        else:
            high = difference
    return low
