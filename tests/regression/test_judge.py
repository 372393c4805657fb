"""The verdict on one metric, given the p-values of all comparisons."""

from __future__ import annotations

import pytest

from cnnperf.record import single
from cnnperf.regression.judge import Compared, Pending
from cnnperf.regression.rule import Rule
from cnnperf.regression.verdict import Verdict
from cnnperf.sides import Both
from cnnperf.stats import Welch

OPEN = Verdict(
    cell="a", metric="train.accuracy", outcome="inconclusive", unit="fraction", baseline=0.9, candidate=0.9, n=4
)


@pytest.mark.parametrize(
    ("loss", "scatter", "worse", "better", "outcome", "remark"),
    [
        (0.03, 0.001, 0.001, 1.0, "worse", ""),
        (-0.03, 0.001, 1.0, 0.001, "better", ""),
        (0.0, 0.001, 1.0, 1.0, "same", ""),
        (0.03, 0.001, 0.02, 1.0, "inconclusive", "a loss of 1 point is likely but not proven"),
        (0.03, 0.1, 0.5, 1.0, "inconclusive", "a loss of 5 points is not excluded"),
    ],
)
def test_the_outcome_and_its_remark(
    loss: float, scatter: float, worse: float, better: float, outcome: str, remark: str
) -> None:
    """Adjusted p-values decide for worse and better, the loss's bounds for same; a remark says what is not excluded."""
    around = (-scatter, 0.0, 0.0, scatter)
    test = Welch([0.1 + each for each in around], [0.1 + loss + each for each in around], (1e-4, 1e-4))
    verdict = Pending(OPEN, test, "higher").settled(Rule(), worse, better)
    assert verdict.outcome == outcome
    assert verdict.remark.startswith(remark)
    assert bool(verdict.remark) == bool(remark)
    low, high = -test.upper(0.05), -test.lower(0.05)
    assert (verdict.low, verdict.high) == pytest.approx((low, high))


@pytest.mark.parametrize(("better", "gain"), [("higher", 3.0), ("lower", -3.0)])
def test_a_gain_is_a_difference_in_the_better_direction(better: str, gain: float) -> None:
    """The candidate gains what it is higher by, or lower by, in the unit of the metric."""
    measured = (single("train.x", "count", 1, better),)
    compared = Compared(
        cell="a",
        metric="train.x",
        sides=Both(measured, measured),
        seeds=Both((0,), (0,)),
        is_of_training=True,
        is_trained=True,
        is_training_judged=True,
        parity=None,
        unequal_training=None,
        unlike_machines=None,
    )
    assert compared.gain(Both(2.0, 5.0)) == gain
