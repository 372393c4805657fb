"""Readings and bars, and the properties of every claim."""

from __future__ import annotations

import math
import sys

import pytest
from processes import completed
from stand_ins import made_up

from cnnperf import registry
from cnnperf.claims import Bar, CheckedFigure
from cnnperf.stats import SignedRanks


@pytest.mark.parametrize(
    ("figure", "interval", "verdict"),
    [
        (1.1 - 1e-9, None, "held"),
        (1.2, None, "failed"),
        (0.5, None, "failed"),
        (1.0, (-0.05, 0.1), "held"),
        (1.0, (-0.05, 0.11), "undecided"),
        (1.0, (-0.2, 0.2), "undecided"),
        (1.2, (0.11, 0.3), "failed"),
        (0.8, (-0.3, -0.11), "failed"),
    ],
)
def test_a_reading_holds_with_its_whole_interval(
    figure: float, interval: tuple[float, float] | None, verdict: str
) -> None:
    """An interval within the bar is held, one beyond it failed, and one across its end undecided."""
    assert made_up(figure=figure, interval=interval).verdict == verdict


def test_a_difference_is_a_share_or_in_the_unit() -> None:
    """A relative difference from 0 is refused; a reading without a bar is only reported."""
    assert made_up(figure=1.5).difference == 0.5
    assert made_up(figure=1.5, reading=0.0, relative=False).difference == 1.5
    with pytest.raises(ValueError, match="a reading of 0"):
        made_up(reading=0.0)
    assert made_up(figure=9.0, bar=None).verdict == "reported"


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, "held"), (1.02, "held"), (1.1, "failed"), (0.8, "failed")])
def test_turns_are_compared_pair_by_pair(factor: float, verdict: str) -> None:
    """A drift that affects both sides alike does not change the verdict."""
    readings = [1.0 + 0.1 * number for number in range(12)]
    figures = [factor * value for value in readings]
    found = CheckedFigure.in_turns("q", "s", figures, readings, source="s", bar=Bar.within(0.03, "why"))
    assert found.verdict == verdict
    assert found.raw["figure"] == tuple(figures)


def test_the_difference_in_turns_lies_in_its_interval() -> None:
    """Difference and interval both come from the pairs, so that the difference lies in the interval."""
    readings = [1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    figures = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    for ours, theirs in ((figures, readings), ([1.01 * v for v in readings], readings)):
        found = CheckedFigure.in_turns("q", "s", ours, theirs, source="s", bar=Bar.within(0.03, "why"))
        assert found.interval is not None
        assert found.interval[0] <= found.difference <= found.interval[1]
    apart = [0.9, 1.0, 1.3, 1.0, 1.1, 1.2, 0.7, 0.8, 0.9, 1.4]
    found = CheckedFigure.in_turns(
        "q", "s", [1.1 * v for v in apart], apart[::-1], source="s", bar=Bar.within(0.03, "why")
    )
    pairs = SignedRanks([math.log(1.1 * ours / theirs) for ours, theirs in zip(apart, apart[::-1], strict=True)])
    assert found.difference == pytest.approx(math.expm1(pairs.estimate))


def test_every_claim_is_a_sentence_with_a_limit() -> None:
    """Each claim ends with a period and has a time limit, except one, which takes the time that is left."""
    modules = [registry.module("claims", name) for name in registry.names("claims")]
    for module in modules:
        assert module.CLAIM.endswith(".")
    limits = [module.LIMIT_S for module in modules]
    assert limits.count(None) == 1
    assert all(limit > 0 for limit in limits if limit is not None)


def test_claims_are_listed_without_torch() -> None:
    """Importing all claims, as the command does, does not import torch."""
    code = (
        "import sys\nfrom cnnperf import registry\nimport cnnperf.running.selftest\n"
        "for name in registry.names('claims'): registry.find('claims', name)\n"
        "print('torch' in sys.modules)"
    )
    assert completed(sys.executable, "-c", code).stdout == "False\n"
