"""Statistics against values worked out elsewhere, and against what must hold of any sample."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnperf.stats import Interval, binomial_interval, quartiles


def test_quartiles_of_a_known_sample() -> None:
    """Of 1…5 in any order the quartiles are 2, 3 and 4; between two values they are interpolated."""
    assert quartiles([3.0, 1.0, 5.0, 2.0, 4.0]) == (2.0, 3.0, 4.0)
    assert quartiles([0.0, 1.0]) == (0.25, 0.5, 0.75)


@given(st.lists(st.floats(-1e9, 1e9), min_size=1))
def test_quartiles_stand_in_order_within_the_sample(samples: list[float]) -> None:
    """No quartile leaves the sample or passes the next."""
    q25, median, q75 = quartiles(samples)
    assert min(samples) <= q25 <= median <= q75 <= max(samples)


def test_binomial_interval_of_published_examples() -> None:
    """The score interval of 81 in 263 and of 0 in 20, as printed by Newcombe (1998), table I, method 3."""
    assert binomial_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert binomial_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_binomial_interval_holds_the_proportion_and_narrows_with_trials(seen: tuple[int, int]) -> None:
    """The proportion lies within; four times the trials give a narrower interval, less confidence too."""
    successes, trials = seen
    low, high = binomial_interval(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12
    assert successes / trials - 1e-12 <= high <= 1
    for narrower in (binomial_interval(4 * successes, 4 * trials), binomial_interval(successes, trials, 0.9)):
        assert narrower.high - narrower.low < high - low


@pytest.mark.parametrize(("other", "overlaps"), [((2, 3), True), ((2.1, 3), False), ((-1, 9), True), ((0, 0.9), False)])
def test_overlap_counts_the_ends(other: tuple[float, float], *, overlaps: bool) -> None:
    """Intervals that touch overlap, whichever is asked."""
    assert Interval(1, 2).overlaps(Interval(*other)) is overlaps
    assert Interval(*other).overlaps(Interval(1, 2)) is overlaps
