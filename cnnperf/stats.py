"""Statistics of samples: pure functions, each with its source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest


class Quartiles(NamedTuple):
    """The middle half of a sample and its median."""

    q25: float
    median: float
    q75: float


class Interval(NamedTuple):
    """The two ends of an interval, both within it."""

    low: float
    high: float

    def overlaps(self, other: Interval) -> bool:
        """Tell whether the two have a point in common."""
        return self.low <= other.high and other.low <= self.high


def quartiles(samples: Sequence[float]) -> Quartiles:
    """Return the quartiles of one or more samples, interpolated linearly.

    Source: Hyndman and Fan, Sample quantiles in statistical packages (1996), definition 7.
    """
    return Quartiles(*np.quantile(samples, (0.25, 0.5, 0.75)).tolist())


def binomial_interval(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """Return the interval of a proportion that was seen as so many successes in so many trials.

    Source: Wilson (1927), without continuity correction, as advised by Brown, Cai and DasGupta, Interval estimation for
    a binomial proportion (2001).
    """
    low, high = binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    return Interval(float(low), float(high))
